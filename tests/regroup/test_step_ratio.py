"""PGD's step ratio, a number before it is hashed, and which success of a search is kept."""

from typing import Any

import pytest

from regroup.attacks.pgd.attack import PGD
from tests.regroup.attack_subjects import Bent, attack, samples


def test_what_is_kept_is_described_only_where_it_matters() -> None:
    """Elements of before it was a parameter keep their fingerprints."""
    assert "keep" not in PGD(epsilon=0.1).describe()
    assert "keep" not in PGD(epsilon=0.1, protocol="budget", keep="linf").describe()
    assert PGD(epsilon=0.1, keep="linf").describe()["keep"] == "linf"


@pytest.mark.parametrize(
    ("parameters", "ratio"),
    [
        ({"epsilon": 0.1}, 0.1),
        ({"epsilon": 0.01, "targeted": True}, 1.0),
        ({"epsilon": 0.1, "norm": "l2"}, 1 / 30),
        ({"epsilon": 0.1, "protocol": "budget"}, 0.25),
        ({"epsilon": 2.0, "protocol": "budget", "norm": "l2"}, 0.25),
        ({"epsilon": 0.1, "protocol": "budget", "step_ratio": 0.5}, 0.5),
    ],
)
def test_a_step_ratio_is_a_number_before_it_is_described(
    parameters: dict[str, Any], ratio: float
) -> None:
    spec = PGD(**parameters)
    assert spec.step_ratio == spec.describe()["step_ratio"] == pytest.approx(ratio)
    again = PGD(**{**parameters, "step_ratio": spec.step_ratio})
    assert (again, again.describe()) == (spec, spec.describe())


def test_the_smallest_maximum_may_be_kept_instead_of_the_smallest_mean() -> None:
    """Of the successes of one search: the other choice never has less of its own measure."""
    model, pixels = Bent(), samples(8)
    mean, maximum = (
        attack(PGD(epsilon=0.05, step_ratio=0.2, bisections=6, keep=keep), model, pixels)
        for keep in ("mse", "linf")
    )
    assert (mean.claimed & maximum.claimed).all()
    assert (mean.queries == maximum.queries).all(), "one search, two choices"
    assert (mean.mse <= maximum.mse).all()
    assert (mean.linf >= maximum.linf).all()
    assert (mean.linf > maximum.linf).any(), "else the parameter decides nothing here"
