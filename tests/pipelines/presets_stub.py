"""Two named attacks in the place of `regroup.attacks.presets`, for the tests."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from regroup.attacks.pgd import PGD

PRESETS = {
    "pgd-2-minimal": PGD(epsilon=2 / 255, growth_limit=9),
    "pgd-2-budget": PGD(epsilon=2 / 255, protocol="budget", steps=7, seed=5),
}


def use_presets(patch: pytest.MonkeyPatch) -> None:
    module = ModuleType("regroup.attacks.presets")
    module.PRESETS = PRESETS  # type: ignore[attr-defined]
    patch.setitem(sys.modules, module.__name__, module)
