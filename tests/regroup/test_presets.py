"""The presets against what the paper's tables state, and against the page that explains them."""

import json
from pathlib import Path

import pytest

from regroup.attacks.presets import PRESETS, SWEEP, preset_attack
from regroup.errors import ConfigurationError

PROTOCOLS = Path(__file__).parents[2] / "docs" / "protocols.md"


# cAdv is described with the sha256 of its colouriser's weights, which are not here.
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "v10c-cadv"])
def test_a_preset_is_plain_json_with_its_protocol(name: str) -> None:
    described = PRESETS[name].describe()
    assert json.loads(json.dumps(described)) == described
    expected = (
        "budget" if name.endswith("-budget") or "spsa" in name or "auto" in name else "minimal"
    )
    assert described["protocol"] == expected


def test_the_papers_budgets() -> None:
    """REGroup, arXiv 2006.10679: PGD 16 and 4, SPSA 4 and 8, PGD 1 to 40, all of 255."""
    levels = {
        name: round(255 * spec.epsilon, 6)
        for name, spec in PRESETS.items()
        if spec.epsilon is not None
    }
    assert levels["table1-pgd-16"] == levels["table1-pgd-16-budget"] == 16
    assert levels["table2-pgd-4"] == levels["table3-pgd-4-targeted-budget"] == 4
    assert (levels["table5-spsa-4"], levels["table5-spsa-8"]) == (4, 8)
    sweep = [level for name, level in levels.items() if name.startswith(SWEEP)]
    assert sorted(sweep) == sorted([*range(1, 41)] * 2)
    assert PRESETS["table4-pgd-confident"].confidence == 0.9


@pytest.mark.parametrize(
    ("name", "epsilon", "ratio"),
    [
        ("table2-pgd-4", 4 / 255, 0.6375),
        ("table1-pgd-16", 16 / 255, 0.159375),
        ("released-demo-pgd-2", 2 / 256, 1.28),
        ("figure2-pgd-40", 40 / 255, 0.06375),
        ("table3-pgd-4-targeted", 0.3, 1 / 30),
        ("table4-pgd-confident", 0.3, 1 / 30),
        ("table4-pgd-confident-targeted", 0.3, 1 / 30),
    ],
)
def test_the_papers_step_is_a_hundredth_of_the_pixel_range(
    name: str, epsilon: float, ratio: float
) -> None:
    """Table 7: steps of 0.01. Foolbox 2.3 keeps their ratio to the epsilon that it was given."""
    described = PRESETS[name].describe()
    assert described["epsilon"] == pytest.approx(epsilon)
    assert described["step_ratio"] == pytest.approx(ratio)
    assert ratio * epsilon == pytest.approx(0.01)


def test_full_steps_in_a_ball_are_madrys() -> None:
    """Madry et al. 2018 on CIFAR-10: steps of 2/255 in a ball of 8/255."""
    budgets = [spec for name, spec in PRESETS.items() if name.endswith("-budget")]
    assert {spec.describe()["step_ratio"] for spec in budgets} == {0.25}


def test_the_released_demo_keeps_the_smallest_maximum() -> None:
    pgd = {name: spec for name, spec in PRESETS.items() if spec.name == "pgd"}
    kept = {name for name, spec in pgd.items() if "keep" in spec.describe()}
    assert kept == {"released-demo-pgd-2"}


def test_every_preset_is_explained() -> None:
    text = PROTOCOLS.read_text()
    missing = [n for n in PRESETS if not n.startswith(SWEEP) and f"`{n}`" not in text]
    assert missing == []
    assert f"`{SWEEP}1`" in text


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean table2-deepfool\?"):
        preset_attack("table2-deepfol")
