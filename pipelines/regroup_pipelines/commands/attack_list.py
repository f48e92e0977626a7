"""What `regroup attack --list` prints: every attack and every preset. No store, no Ray."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regroup.attacks import ATTACKS
from regroup.attacks.presets import SWEEP, SWEPT
from regroup.errors import ConfigurationError
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.terminal import print_line
from regroup_pipelines.schema.attack_options import attack_kind, presets

if TYPE_CHECKING:
    from regroup.attacks import AttackSpec
    from regroup_pipelines.configs.steps import AttackListConfig

ENDS = ("", "-budget")  # the protocols of a sweep


def listed() -> dict[str, list[dict[str, Any]]]:
    """Attacks and presets as plain JSON.

    `forward` and `backward`: the most passes a sample at these parameters; `problem`: why the
    attack cannot be used here, or None.
    """
    return {
        "attacks": [_attack(name) for name in ATTACKS],
        "presets": [_preset(name, spec) for name, spec in presets().items()],
    }


def _attack(name: str) -> dict[str, Any]:
    try:
        kind = attack_kind(name)
    except UsageError as error:
        return {"name": name, "problem": str(error)}
    row: dict[str, Any] = {"name": name, **asdict(kind.facts), "problem": None}
    try:
        # Norm and protocol have defaults in every attack, if not in the base class.
        return row | asdict(kind().cost())  # type: ignore[call-arg]
    except ConfigurationError as error:
        return row | {"forward": None, "backward": None, "problem": str(error)}


def _preset(name: str, spec: AttackSpec) -> dict[str, Any]:
    # Not `describe`: what determines examples may need a file that is not here.
    return {"name": name, "attack": spec.name, **asdict(spec), **asdict(spec.cost())}


def coupling(group: int | None) -> str:
    """What an example depends on."""
    return "each sample alone" if group is None else f"fixed groups of {group}"


def attack_lines(row: dict[str, Any]) -> list[str]:
    """An attack for people."""
    head = f"{row['name']:<15} "
    if "title" not in row:
        return [f"{head}{row['problem']}"]
    offered = "targeted too" if row["targeted"] else "untargeted"
    more = ", with a confidence" if row["confidence"] else ""
    problem = [f"{'':<16}{row['problem']}"] if row["problem"] else []
    return [
        f"{head}{row['title']} ({row['source']}); implementation: {row['implementation']}",
        f"{'':<16}{row['knowledge']}; norms: {', '.join(row['norms'])}; protocols: "
        f"{', '.join(row['protocols'])}; {offered}{more}",
        f"{'':<16}{coupling(row['group'])}; cost a sample: {_passes(row)}",
        *problem,
    ]


def _passes(row: dict[str, Any]) -> str:
    if row["forward"] is None:
        return "not known"
    return f"at most {row['forward']} forward, {row['backward']} backward passes"


def preset_lines(row: dict[str, Any]) -> list[str]:
    """A preset for people."""
    epsilon = "" if row["epsilon"] is None else f", epsilon {row['epsilon']:.5g}"
    targeted = ", targeted" if row["targeted"] else ""
    return [
        f"{row['name']:<28} {row['attack']}, {row['norm']}, protocol {row['protocol']}"
        f"{epsilon}{targeted}; {_passes(row)}"
    ]


def shown_presets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The presets for people: of a sweep the first and the last budget."""
    ends = tuple(f"{SWEEP}{level}{suffix}" for level in SWEPT[:: len(SWEPT) - 1] for suffix in ENDS)
    return [row for row in rows if not row["name"].startswith(SWEEP) or row["name"] in ends]


def main(config: AttackListConfig) -> dict[str, Any]:
    """Print the attacks and the presets."""
    found = listed()
    lines = [line for row in found["attacks"] for line in attack_lines(row)]
    lines += ["", "Presets (--preset NAME):"] if found["presets"] else []
    lines += [line for row in shown_presets(found["presets"]) for line in preset_lines(row)]
    for line in lines:
        print_line(line, config.json)
    return dict(found)
