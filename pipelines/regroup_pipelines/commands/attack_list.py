"""What `regroup attack --list` prints: every attack and every preset. No store, no Ray."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regroup.attacks import ATTACKS
from regroup.attacks.presets import SWEEP, SWEPT
from regroup.errors import ConfigurationError
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.terminal import print_line
from regroup_pipelines.schema.attack_options import attack_kind, presets

if TYPE_CHECKING:
    from regroup.attacks import AttackSpec
    from regroup.attacks.spec import AttackFacts, Cost
    from regroup_pipelines.configs.steps import AttackListConfig
    from regroup_pipelines.json_types import JsonObject

ENDS = ("", "-budget")  # the protocols of a sweep


@dataclass(frozen=True)
class ListedAttack:
    """An attack that can be named.

    Attributes:
        facts: None where its library is missing.
        cost: the most passes per sample at its default parameters; None: not known.
        problem: why it cannot be used here, or None.
    """

    name: str
    facts: AttackFacts | None = None
    cost: Cost | None = None
    problem: str | None = None

    def plain(self) -> JsonObject:
        """One flat JSON object."""
        facts = asdict(self.facts) if self.facts else {}
        cost = asdict(self.cost) if self.cost else {"forward": None, "backward": None}
        head = {"name": self.name, "problem": self.problem}
        return {**head, **facts, **cost} if self.facts else head

    def lines(self) -> list[str]:
        """The attack in two lines, or three."""
        head, indent = f"{self.name:<15} ", " " * 16
        if self.facts is None:
            return [f"{head}{self.problem}"]
        facts = self.facts
        offered = "targeted too" if facts.targeted else "untargeted"
        more = ", with a confidence" if facts.confidence else ""
        problem = [f"{indent}{self.problem}"] if self.problem else []
        return [
            f"{head}{facts.title} ({facts.source}); implementation: {facts.implementation}",
            f"{indent}{facts.knowledge}; norms: {', '.join(facts.norms)}; protocols: "
            f"{', '.join(facts.protocols)}; {offered}{more}",
            f"{indent}{coupling(facts.group)}; cost per sample: {_passes(self.cost)}",
            *problem,
        ]


def listed_attack(name: str) -> ListedAttack:
    """An attack with its facts and its cost, as far as they are known here."""
    try:
        kind = attack_kind(name)
    except UsageError as error:
        return ListedAttack(name, problem=str(error))
    try:
        # Norm and protocol have defaults in every attack, if not in the base class.
        return ListedAttack(name, kind.facts, kind().cost())  # type: ignore[call-arg]
    except ConfigurationError as error:
        return ListedAttack(name, kind.facts, problem=str(error))


def preset_object(name: str, spec: AttackSpec) -> JsonObject:
    """A preset as plain JSON."""
    # Not `describe`: what determines examples may need a file that is not here.
    return {"name": name, "attack": spec.name, **asdict(spec), **asdict(spec.cost())}


def coupling(group: int | None) -> str:
    """What an example depends on."""
    return "each sample alone" if group is None else f"fixed groups of {group}"


def _passes(cost: Cost | None) -> str:
    if cost is None:
        return "not known"
    return f"at most {cost.forward} forward, {cost.backward} backward passes"


def preset_line(name: str, spec: AttackSpec) -> str:
    """A preset in one line."""
    epsilon = "" if spec.epsilon is None else f", epsilon {spec.epsilon:.5g}"
    targeted = ", targeted" if spec.targeted else ""
    return (
        f"{name:<28} {spec.name}, {spec.norm}, protocol {spec.protocol}"
        f"{epsilon}{targeted}; {_passes(spec.cost())}"
    )


def shown_presets() -> dict[str, AttackSpec]:
    """The presets that are printed: of a sweep the first and the last budget."""
    ends = tuple(f"{SWEEP}{level}{suffix}" for level in SWEPT[:: len(SWEPT) - 1] for suffix in ENDS)
    every = presets().items()
    return {name: spec for name, spec in every if not name.startswith(SWEEP) or name in ends}


def main(config: AttackListConfig) -> JsonObject:
    """Print the attacks and the presets."""
    attacks = [listed_attack(name) for name in ATTACKS]
    lines = [line for attack in attacks for line in attack.lines()]
    lines += ["", "Presets (--preset NAME):"]
    lines += [preset_line(name, spec) for name, spec in shown_presets().items()]
    for line in lines:
        print_line(line, config.json)
    return {
        "attacks": [attack.plain() for attack in attacks],
        "presets": [preset_object(name, spec) for name, spec in presets().items()],
    }
