"""Rules over divergences: hand-computed votes, the literal method as oracle, scales."""

import numpy as np
import pytest
import torch
from torch import Tensor

from regroup import reference
from regroup.bank import SIGN_CHOICES, Bank
from regroup.divergence_rules import DIVERGENCE_RULES, DivergenceScorer, crossmax, plain_sum
from regroup.errors import ConfigurationError
from regroup.scales import ScaleSums

TAPS, CLASSES, CHANNELS = 3, 4, 5
SCALES = np.array([[1.0, 2.0], [0.5, 4.0], [3.0, 1.5]])


def test_scales_are_mean_deviations_over_classes() -> None:
    # Deviations of the population: of (0, 2) 1, of (0, 4) 2, of (3, 3) 0; their mean over images.
    sums = ScaleSums(2)
    sums.add(torch.tensor([[[0.0, 2.0], [3.0, 3.0]]]))
    sums.add(torch.tensor([[[0.0, 4.0], [3.0, 3.0]]]))
    assert sums.scales().tolist() == [1.5, 1.0]


def test_crossmax_takes_the_third_largest_after_both_subtractions() -> None:
    # Voters by classes. By voter (minus 5, 4, 3, 2): (0 -3 -5) (-4 0 -1) (0 -2 -1) (-2 -1 0);
    # by class its largest is 0, 0, 0; sorted: (0 0 -2 -4) (0 -1 -2 -3) (0 -1 -1 -5).
    scores = torch.tensor([[5.0, 2, 0], [0, 4, 3], [3, 1, 2], [0, 1, 2]])
    assert crossmax(scores[None]).tolist() == [[-2.0, -2.0, -1.0]]
    assert plain_sum(scores[None]).tolist() == [[8.0, 8.0, 7.0]]


def test_crossmax_of_fewer_than_three_voters_takes_the_smallest() -> None:
    scores = torch.tensor([[5.0, 2, 0], [0, 4, 3]])
    # By voter (0 -3 -5) (-4 0 -1); class 2's largest is -1: (-4, 0): its smallest -4.
    assert crossmax(scores[None]).tolist() == [[-4.0, -3.0, -4.0]]


def bank() -> Bank:
    chance = np.random.default_rng(0)
    mixtures = tuple(chance.dirichlet(np.ones(CHANNELS), (2, CLASSES)) for _ in range(TAPS))
    return Bank(("a", "b", "c"), mixtures, np.ones(CLASSES, np.int64))


def accumulators(n: int) -> list[Tensor]:
    chance = np.random.default_rng(1)
    return [
        torch.tensor(chance.gamma(1.0, size=(n, 2, CHANNELS)), dtype=torch.float32)
        for _ in range(TAPS)
    ]


def literal_scores(rows: list[Tensor], taps: list[int], signs: tuple[int, ...]) -> Tensor:
    """(n, V, M) of -D / sigma, by the slow literal divergences."""
    return torch.tensor(
        [
            [
                [
                    -each / SCALES[tap, sign]
                    for each in reference.divergences(
                        rows[tap][i, sign].double().numpy(), bank().mixtures[tap][sign]
                    )
                ]
                for tap in taps
                for sign in signs
            ]
            for i in range(len(rows[0]))
        ]
    )


@pytest.mark.parametrize("rule", DIVERGENCE_RULES)
def test_votes_are_those_of_literal_divergences(rule: str) -> None:
    rows, labels = accumulators(40), np.arange(40) % CLASSES
    scorer = DivergenceScorer(bank(), rule, SCALES)  # type: ignore[arg-type]
    votes = scorer.votes(rows, labels)
    count = crossmax if rule == "crossmax" else plain_sum
    for choice, signs in enumerate([(0, 1), (0,), (1,)]):
        for k in range(1, TAPS + 1):
            scores = literal_scores(rows, list(range(TAPS - k, TAPS)), signs)
            # Ties by the plain sum: the pair is compared as Python compares tuples.
            keys = [
                [(round(a, 6), b) for a, b in zip(*both, strict=True)]
                for both in zip(count(scores).tolist(), plain_sum(scores).tolist(), strict=True)
            ]
            order = [sorted(range(CLASSES), key=row.__getitem__, reverse=True) for row in keys]
            assert votes.prediction[:, choice, k - 1].tolist() == [each[0] for each in order]
            ranks = [each.index(int(label)) + 1 for each, label in zip(order, labels, strict=True)]
            assert votes.true_rank[:, choice, k - 1].tolist() == ranks


@pytest.mark.parametrize("signs", SIGN_CHOICES)
@pytest.mark.parametrize("rule", DIVERGENCE_RULES)
def test_class_scores_are_led_by_the_prediction(rule: str, signs: str) -> None:
    rows = accumulators(60)
    scorer = DivergenceScorer(bank(), rule, SCALES)  # type: ignore[arg-type]
    votes = scorer.votes(rows, np.zeros(60, np.int64))
    for k in range(1, TAPS + 1):
        found = scorer.class_scores(rows, k, signs).argmax(1)
        assert found.tolist() == votes.prediction[:, SIGN_CHOICES.index(signs), k - 1].tolist()


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        (np.ones((2, 2)), "for a bank of 3 taps"),
        (np.zeros((3, 2)), "must be positive"),
        (np.full((3, 2), np.nan), "must be positive"),
    ],
)
def test_scales_that_are_not_this_banks(scales: np.ndarray, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DivergenceScorer(bank(), "crossmax", scales)
