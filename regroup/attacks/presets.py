"""The attacks behind the rows of the REGroup paper's tables, by name (docs/protocols.md).

A name ending in "-budget" is the same row under today's protocol; for an attack without a ball,
`regroup curve` reads the accuracy at any epsilon from the one run of the minimal protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup.attacks.registry import make_attack
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from regroup.attacks.spec import AttackSpec

LEVELS = 255  # The paper gives its L-infinity budgets in steps of an 8-bit image.
FIRST = 0.3  # Foolbox 2.3's epsilon, where targeted and confident attacks begin: steps of 1/30.
SWEEP = "figure2-pgd-"
SWEPT = range(1, 41)


def _pgd(name: str, level: int, first: float | None = None, **more: bool) -> dict[str, AttackSpec]:
    """Return PGD in both protocols, with the default step of each.

    Args:
        name: of the preset.
        level: the budget, in 255ths.
        first: where `minimal` begins; None: at the budget.
        more: other parameters.
    """
    epsilon = level / LEVELS
    return {
        name: make_attack("pgd", epsilon=first or epsilon, protocol="minimal", **more),
        f"{name}-budget": make_attack("pgd", epsilon=epsilon, protocol="budget", **more),
    }


def _confident(**more: bool) -> AttackSpec:
    """Return PGD without a limit, until the wrong class's probability is 0.9."""
    return make_attack("pgd", epsilon=FIRST, protocol="minimal", confidence=0.9, **more)


PRESETS: dict[str, AttackSpec] = {
    **_pgd("table1-pgd-16", 16),
    **_pgd("table2-pgd-4", 4),
    "table2-deepfool": make_attack("deepfool"),
    "table2-carlini-wagner": make_attack("carlini-wagner"),
    "table2-trust-region": make_attack("trust-region"),
    "table2-boundary": make_attack("boundary"),
    "table2-spatial": make_attack("spatial"),
    **_pgd("table3-pgd-4-targeted", 4, FIRST, targeted=True),
    "table3-carlini-wagner-targeted": make_attack("carlini-wagner", targeted=True),
    "table4-pgd-confident": _confident(),
    "table4-pgd-confident-targeted": _confident(targeted=True),
    "table5-spsa-4": make_attack("spsa", epsilon=4 / LEVELS),
    "table5-spsa-8": make_attack("spsa", epsilon=8 / LEVELS),
    "released-demo-pgd-2": make_attack("pgd", epsilon=2 / 256, protocol="minimal", keep="linf"),
    "v10c-cadv": make_attack("cadv"),
    "standard-autoattack-4": make_attack("autoattack", epsilon=4 / LEVELS),
    **{name: spec for n in SWEPT for name, spec in _pgd(f"{SWEEP}{n}", n).items()},
}


def preset_attack(name: str) -> AttackSpec:
    """Return the preset called `name`.

    Raises:
        ConfigurationError: an unknown name; the message has the nearest one.
    """
    from difflib import get_close_matches

    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]}?" if near else "see `regroup attack --list`"
        raise ConfigurationError(f"unknown preset {name!r}: {hint}")
    return PRESETS[name]
