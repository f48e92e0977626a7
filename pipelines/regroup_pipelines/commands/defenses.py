"""List every defense (`regroup defenses --list`). Needs no store and no Ray."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from regroup.defenses.registry import DEFENSES, defense_class
from regroup_pipelines.render.terminal import print_line

if TYPE_CHECKING:
    from regroup.defenses.spec import Defense
    from regroup_pipelines.configs.steps import DefensesConfig
    from regroup_pipelines.json_types import JsonObject


def defense_lines(kind: type[Defense]) -> list[str]:
    """Describe a defense in three lines of text."""
    facts, indent = kind.facts, " " * 16
    drawn = "judged over draws" if facts.stochastic else "decides without draws"
    trained = "; without its training an ablation" if facts.trained else ""
    return [
        f"{kind.name:<15} {facts.title} ({facts.source})",
        f"{indent}gradient: {facts.gradient}; needs {facts.needs}; {drawn}{trained}",
        f"{indent}options: {', '.join(_options(kind))}",
    ]


def _options(kind: type[Defense]) -> list[str]:
    """Return the parameters; the seed only where something is drawn."""
    names = [field.name for field in fields(kind)]
    return names if kind.facts.stochastic else [name for name in names if name != "seed"]


def main(config: DefensesConfig) -> JsonObject:
    """Print the defenses."""
    kinds = [defense_class(name) for name in DEFENSES]
    for line in (line for kind in kinds for line in defense_lines(kind)):
        print_line(line, config.json)
    return {
        "defenses": [
            {"name": kind.name, **asdict(kind.facts), "options": _options(kind)} for kind in kinds
        ]
    }
