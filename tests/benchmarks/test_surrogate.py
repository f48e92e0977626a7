"""The benchmark of surrogates at a tiny size; its ratios are not judged here."""

from benchmarks.paired import Comparison, Setting
from benchmarks.surrogate import TARGET, items
from regroup.defenses.regroup import DefendedByREGroup


def test_every_surrogate_is_compared_with_the_bare_network() -> None:
    (comparison,) = items(Setting("cpu", "tiny", 1))
    assert isinstance(comparison, Comparison)
    named = [f"k = 5, {surrogate}" for surrogate in DefendedByREGroup.surrogates]
    assert [way.what for way in comparison.ways[1:]] == named
    assert {way.target for way in comparison.ways[1:]} == {TARGET}
    for way in comparison.ways:
        way.run()
