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
    assert levels["table2-pgd-4"] == levels["table3-pgd-4-targeted"] == 4
    assert (levels["table5-spsa-4"], levels["table5-spsa-8"]) == (4, 8)
    sweep = [level for name, level in levels.items() if name.startswith(SWEEP)]
    assert sorted(sweep) == sorted([*range(1, 41)] * 2)
    assert PRESETS["table4-pgd-confident"].confidence == 0.9


def test_every_preset_is_explained() -> None:
    text = PROTOCOLS.read_text()
    missing = [n for n in PRESETS if not n.startswith(SWEEP) and f"`{n}`" not in text]
    assert missing == []
    assert f"`{SWEEP}1`" in text


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean table2-deepfool\?"):
        preset_attack("table2-deepfol")
