"""The curve against counting sample by sample, and against hand-made cases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regroup.robustness_curve import robustness_curve

SAMPLE = st.tuples(
    st.sampled_from([0.5, 1.0, 1.5, 2.0, 8.0]), st.booleans(), st.booleans(), st.booleans()
)


def test_by_hand() -> None:
    curve = robustness_curve(
        np.array([2.0, 1.0, 3.0, 9.0]),
        np.array([True, True, True, False]),
        regroup_clean=np.array([True, True, False, True]),
        regroup_attacked=np.array([True, False, True, False]),
    )
    assert curve.epsilons.tolist() == [0, 1, 2, 3]
    assert curve.broken.tolist() == [0, 1, 2, 3]
    assert curve.softmax.tolist() == [4, 3, 2, 1]
    # Clean: 3 of 4. The second is lost at 1, nothing changes at 2, the third is won at 3; the
    # fourth attack failed, so that its image never counts.
    assert curve.regroup.tolist() == [3, 2, 2, 3]


@given(samples=st.lists(SAMPLE, max_size=12), epsilon=st.sampled_from([0.0, 0.7, 1.0, 2.0, 9.0]))
def test_every_point_is_what_counting_gives(
    samples: list[tuple[float, bool, bool, bool]], epsilon: float
) -> None:
    sizes, success, clean, attacked = (
        np.array([s[i] for s in samples], float if i == 0 else bool) for i in range(4)
    )
    curve = robustness_curve(sizes, success, clean, attacked, np.array([epsilon]))
    hit = [s[1] and s[0] <= epsilon for s in samples]
    assert curve.broken.tolist() == [sum(hit)]
    assert curve.softmax.tolist() == [len(samples) - sum(hit)]
    right = [s[3] if h else s[2] for s, h in zip(samples, hit, strict=True)]
    assert curve.regroup.tolist() == [sum(right)]


def test_no_success_is_one_point() -> None:
    none = np.zeros(2, bool)
    curve = robustness_curve(np.array([1.0, 2.0]), none, ~none, none)
    assert (curve.epsilons.tolist(), curve.softmax.tolist()) == ([0.0], [2])
