"""Attacks as they are asked for: by name, preset, options and parameters of their own."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import pytest

from regroup.attacks import ATTACKS
from regroup.attacks.pgd.attack import PGD
from regroup.attacks.presets import PRESETS
from regroup.attacks.spec import AttackFacts, Norm, Protocol
from regroup.errors import ConfigurationError
from regroup_pipelines.configs.options import AttackOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.attack_options import attack_spec, parse_epsilon, typed
from regroup_pipelines.steps.attack_blocks import automatic_rows, whole_groups
from tests.cluster.attacks import FACTS, Coupled, Fake


@dataclass(frozen=True, kw_only=True)
class Distance(Fake):
    """Minimises L2 by default, or L-infinity; offered with all there is."""

    name: ClassVar[str] = "distance"
    facts: ClassVar[AttackFacts] = replace(
        FACTS, norms=("l2", "linf"), protocols=("minimal",), targeted=True, confidence=True
    )
    norm: Norm = "l2"
    protocol: Protocol = "minimal"
    epsilon: float | None = None
    searches: int = 5
    first_constant: float = 0.01
    abort_early: bool = True
    loss: str = "ce"
    angles: tuple[float, ...] = (1.0,)
    weights: str | None = None


@pytest.fixture(autouse=True)
def distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """`distance` is an attack; `lost` is one whose module is not there."""
    module = ModuleType("distance")
    module.Distance = Distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distance", module)
    monkeypatch.setitem(ATTACKS, "distance", ("distance", "Distance"))
    monkeypatch.setitem(ATTACKS, "lost", ("no_such_module", "Lost"))


def spec_of(*parameters: str, **options: Any) -> Any:
    return attack_spec(AttackOptions(**options), parameters)


def test_left_out_options_are_the_attacks_own() -> None:
    assert spec_of() == PGD(protocol="budget"), "as the command always began"
    assert spec_of(protocol="minimal") == PGD()
    assert spec_of(attack="distance") == Distance()


def test_options_and_parameters() -> None:
    given = spec_of(
        "searches=3", "first-constant=1/8", "abort_early=false", "loss=dlr", "angles=1,2.5",
        "weights=/some/file", attack="distance", norm="linf", epsilon="4 / 255", targeted=True,
        confidence=0.9, seed=7,
    )  # fmt: skip
    assert given == Distance(
        searches=3, first_constant=0.125, abort_early=False, loss="dlr", angles=(1.0, 2.5),
        weights="/some/file", norm="linf", epsilon=4 / 255, targeted=True, confidence=0.9, seed=7,
    )  # fmt: skip
    assert spec_of("weights=none", attack="distance").weights is None


def test_a_preset_whose_single_parameters_are_changed() -> None:
    name = "table3-pgd-4-targeted-budget"
    assert spec_of(preset=name) == PRESETS[name]
    changed = spec_of("step_ratio=0.5", preset=name, steps=3, seed=5)
    preset = PRESETS[name]
    assert isinstance(preset, PGD)
    assert changed == replace(preset, seed=5, steps=3, step_ratio=0.5)
    with pytest.raises(UsageError, match="did you mean table2-boundary"):
        spec_of(preset="table2-bondary")
    with pytest.raises(UsageError, match="leave --attack pgd out"):
        spec_of(preset="table2-pgd-4", attack="pgd")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4/255", 4 / 255), ("0.03", 0.03), ("2", 2.0), ("8 / 255", 8 / 255), ("1e-3", 1e-3),
        ("0.5/255", 1 / 510), (".5/255", 1 / 510), ("0.1/255", 1 / 2550), ("2/2.55e2", 2 / 255),
        ("\t1.5 /\t255", 1 / 170), ("+1./4", 0.25),
    ],
)  # fmt: skip
def test_an_epsilon(text: str, value: float) -> None:
    assert parse_epsilon(text) == value
    assert typed("x", "float", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "4/0", "4/0.0", "4/255/2", "1_0/255", "inf", "-inf", "4/nan", "1e999", "1e999999999", "",
        "/255", "4/", "4//255", "0x4/255", "4,5/255", "4/-255", "٤/255", "1" * 5000,
    ],
)  # fmt: skip
def test_no_epsilon(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number: give a fraction such as 4/255"):
        parse_epsilon(text)
    with pytest.raises(UsageError, match="the parameter x takes a number, not"):
        typed("x", "float", text)


def test_an_l2_distance_may_be_above_1() -> None:
    assert spec_of(attack="distance", epsilon="2.5").epsilon == 2.5


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"attack": "pdg"}, (), r"unknown attack 'pdg': did you mean pgd\?"),
    ({"attack": "lost"}, (), "the attack lost is not available: No module"),
    ({"attack": "deepfool", "norm": "linf"}, (), "norm of deepfool 'linf': choose from l2"),
    ({"attack": "distance", "protocol": "budget"}, (), "protocol of distance 'budget'"),
    ({"attack": "boundary", "targeted": True}, (), "boundary supports only untargeted attacks"),
    ({"attack": "deepfool", "confidence": 0.9}, (), "deepfool does not support a confidence"),
    ({"attack": "distance", "steps": 3}, (), "distance has no parameter 'steps'"),
    ({"epsilon": "four"}, (), "'four' is not a number.*4/255"),
    ({"epsilon": "4"}, (), r"4 is out of range: epsilon is in \[0,1\] pixel units: .*mean 4/255\?"),
    ({"epsilon": "8"}, (), r"did you mean 8/255\?"),
    ({"epsilon": "4%"}, (), r"'4%' is a percentage: .*did you mean 4/255\?"),
    ({"epsilon": "-4/255"}, (), "-4/255 is not positive"),
    ({"epsilon": "nan"}, (), "not a number"),
    ({"attack": "distance", "norm": "linf", "epsilon": "1.5"}, (), "out of range"),
    ({"attack": "distance", "epsilon": "-1"}, (), "not positive"),
    ({"attack": "distance"}, ("serches=1",), r"no parameter 'serches': did you mean searches\?"),
    ({"attack": "distance"}, ("searches=many",), "searches takes a whole number, not 'many'"),
    ({"attack": "distance"}, ("searches=1.5",), "searches takes a whole number"),
    ({"attack": "distance"}, ("abort_early=maybe",), "abort_early takes true or false"),
    ({"attack": "distance"}, ("first_constant=1/0",), "first_constant takes a number"),
    ({"attack": "distance"}, ("searches",), "--parameters searches: give each as key=value"),
    ({"attack": "distance"}, ("epsilon=1",), "its own option: give it as --epsilon"),
    ({}, ("growth_limit=1",), "give it as --growth-limit"),
]


@pytest.mark.parametrize(("options", "parameters", "sentence"), REFUSED)
def test_what_cannot_be_meant_is_one_sentence(
    options: dict[str, Any], parameters: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises((UsageError, ConfigurationError), match=sentence) as told:
        spec_of(*parameters, **options)
    assert "\n" not in str(told.value)
    assert getattr(told.value, "exit_status", None) == 2


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("float", "1e-3", 0.001),
        ("int | None", 3, 3),
        ("int | None", "none", None),
        ("bool", False, False),
        ("str", "a", "a"),
        ("tuple[int, int]", [1, 2], (1, 2)),
    ],
)
def test_values_of_a_study_keep_their_type(
    annotation: str, value: object, expected: object
) -> None:
    found = typed("x", annotation, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value"), [("int", True), ("int", 1.5), ("bool", 1), ("float", math.nan)]
)
def test_values_of_another_type(annotation: str, value: object) -> None:
    with pytest.raises(UsageError, match="the parameter x takes"):
        typed("x", annotation, value)


ROWS: list[tuple[Callable[[], Any], int, str, int]] = [
    # 3000 * 49 passes on a CPU at 32 px: 147 000.
    (lambda: Fake(passes=250), 32, "cpu", 256),  # 294 rows, capped
    (lambda: Fake(passes=500), 32, "cpu", 144),  # 147 rows: nine batches of the network
    (lambda: Fake(passes=5000), 32, "cpu", 16),  # a C&W: 14 rows, one batch
    (lambda: Fake(passes=5000), 224, "cpu", 16),
    (lambda: Fake(passes=5000), 224, "gpu", 64),
    (lambda: Fake(passes=41), 224, "gpu", 256),
    (lambda: Coupled(passes=5000), 224, "cpu", 16),
]


@pytest.mark.parametrize(("spec", "side", "device", "rows"), ROWS)
def test_blocks_last_minutes(spec: Callable[[], Any], side: int, device: str, rows: int) -> None:
    assert automatic_rows(spec(), side, device) == rows


def test_rows_are_rounded_up_to_whole_groups() -> None:
    assert [whole_groups(Coupled(), rows) for rows in (1, 4, 6)] == [4, 4, 8]
    assert [whole_groups(Fake(), rows) for rows in (1, 4, 6)] == [1, 4, 6]
