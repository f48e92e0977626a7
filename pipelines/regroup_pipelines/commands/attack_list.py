"""List every attack and every preset (`regroup attack --list`). Needs no store and no Ray."""

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

ENDS = ("", "-budget")  # suffixes of a sweep's presets, one per protocol


@dataclass(frozen=True)
class ListedAttack:
    """An attack of the registry, as listed.

    Attributes:
        name: what `--attack` calls it.
        facts: None where its library is missing.
        cost: the most passes per sample at its default parameters; None: unknown.
        problem: why it cannot be used in this environment, or None.
    """

    name: str
    facts: AttackFacts | None = None
    cost: Cost | None = None
    problem: str | None = None

    def plain(self) -> JsonObject:
        """Return one flat JSON object."""
        facts = asdict(self.facts) if self.facts else {}
        cost = asdict(self.cost) if self.cost else {"forward": None, "backward": None}
        head = {"name": self.name, "problem": self.problem}
        return {**head, **facts, **cost} if self.facts else head

    def lines(self) -> list[str]:
        """Describe the attack in up to four lines of text."""
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
    """Return an attack with the facts and the cost that this environment can determine."""
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
    """Return a preset with its parameters and its cost as plain JSON."""
    # Not `describe`: it may need a file (weights, a class list) that this machine lacks.
    return {"name": name, "attack": spec.name, **asdict(spec), **asdict(spec.cost())}


def coupling(group: int | None) -> str:
    """Say whether an adversarial example depends on its sample alone or on a group of samples."""
    return "each sample alone" if group is None else f"fixed groups of {group}"


def _passes(cost: Cost | None) -> str:
    if cost is None:
        return "not known"
    return f"at most {cost.forward} forward, {cost.backward} backward passes"


def preset_line(name: str, spec: AttackSpec) -> str:
    """Describe a preset in one line of text."""
    epsilon = "" if spec.epsilon is None else f", epsilon {spec.epsilon:.5g}"
    targeted = ", targeted" if spec.targeted else ""
    return (
        f"{name:<28} {spec.name}, {spec.norm}, protocol {spec.protocol}"
        f"{epsilon}{targeted}; {_passes(spec.cost())}"
    )


def shown_presets() -> dict[str, AttackSpec]:
    """Return the presets to print; of a sweep only the first and the last budget."""
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
