"""The voting rules against their literal definitions, and against elections counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from regroup import reference, reference_voting, voting
from regroup.bank import SIGN_CHOICES
from regroup.errors import ConfigurationError
from regroup.kernels import copeland as majorities
from regroup.scoring import Scorer, TieBreak
from regroup.voting import ELECTIONS, Borda, Copeland, MedianRank, Plurality, Rule, RuleScorer
from tests.regroup.test_scoring import (
    Problem,
    cases,
    decided,
    literal_divergences,
    problems,
    random_problem,
    rows_of,
    scale_of,
    voters_of,
)

RULES = sorted(ELECTIONS)


def weights_of(rule: str, taps: int) -> list[int] | None:
    return list(range(1, taps + 1)) if rule == "weighted-borda" else None


def weights_at(weights: list[int] | None, s: int, taps: list[int]) -> list[int] | None:
    """Weights of the voters of `voters_of`."""
    signs = reference.VOTERS[SIGN_CHOICES[s]]
    return weights and [weights[tap] for tap in taps for _ in signs]


def literal(problem: Problem, rule: str, k: int, signs: str, tie_break: str) -> list[list[int]]:
    """The order of every sample's classes; weights as `weights_of` gives them."""
    bank, accumulators, labels = problem
    taps = len(bank.taps)
    each = [w for w in range(taps - k + 1, taps + 1) for _ in reference.VOTERS[signs]]
    orders = []
    for n in range(len(labels)):
        voters = reference.voting([a[n] for a in accumulators], list(bank.mixtures), k, signs)
        weights = each if rule == "weighted-borda" else None
        orders.append(reference_voting.class_order_by_rule(rule, voters, weights, tie_break))
    return orders


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_every_k_and_sign_choice_follows_exactly_from_the_divergences(
    rule: Rule, problem: Problem
) -> None:
    bank, accumulators, labels = problem
    weights = weights_of(rule, len(bank.taps))
    scorer = RuleScorer(bank, rule, weights, dtype=torch.float64)
    divergences = [found.numpy() for found in scorer.divergences(accumulators)]
    for n, s, taps, prediction, true_rank in cases(scorer.votes(accumulators, labels)):
        voters = voters_of(divergences, n, s, taps)
        order = reference_voting.class_order_by_rule(rule, voters, weights_at(weights, s, taps))
        assert (prediction, true_rank) == (order[0], order.index(labels[n]) + 1)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_ties_by_divergence_against_the_definition(rule: Rule, problem: Problem) -> None:
    """Wherever the reference's comparisons are not a hair apart, as in the test of Borda."""
    bank, accumulators, labels = problem
    divergences = literal_divergences(problem)
    gap = 4 * 1e-14 * len(accumulators) * max(map(scale_of, accumulators))
    weights = weights_of(rule, len(bank.taps))
    scorer = RuleScorer(bank, rule, weights, tie_break="divergence", dtype=torch.float64)
    for n, s, taps, prediction, true_rank in cases(scorer.votes(accumulators, labels)):
        voters = voters_of(divergences, n, s, taps)
        if decided(voters, rows_of(bank, s, taps), "divergence", gap):
            each = weights_at(weights, s, taps)
            order = reference_voting.class_order_by_rule(rule, voters, each, "divergence")
            assert (prediction, true_rank) == (order[0], order.index(labels[n]) + 1)


@pytest.mark.parametrize("tie_break", ["class", "divergence"])
@pytest.mark.parametrize("rule", RULES)
def test_many_classes_in_pieces(
    rule: Rule, tie_break: TieBreak, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five classes, so that plurality ties often; a sample or two at a time."""
    problem = random_problem(7, 5, [6, 8, 3], seed=3)
    bank, accumulators, labels = problem
    monkeypatch.setattr(voting, "_PIECE", 200)
    weights = weights_of(rule, 3)
    found = RuleScorer(bank, rule, weights, tie_break=tie_break).votes(accumulators, labels)
    orders = literal(problem, rule, 2, "both", tie_break)
    assert found.prediction[:, 0, 1].tolist() == [order[0] for order in orders]
    ranks = [order.index(y) + 1 for order, y in zip(orders, labels, strict=True)]
    assert found.true_rank[:, 0, 1].tolist() == ranks
    monkeypatch.undo()
    whole = RuleScorer(bank, rule, weights, tie_break=tie_break).votes(accumulators, labels)
    for name in ("prediction", "true_rank", "tap_prediction", "tap_true_rank"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(found, name))


def test_equal_weights_are_borda() -> None:
    bank, accumulators, labels = random_problem(9, 12, [6, 8, 3])
    found = RuleScorer(bank, "weighted-borda", [4, 4, 4]).votes(accumulators, labels)
    expected = Scorer(bank).votes(accumulators, labels)
    for name in ("prediction", "true_rank", "tap_prediction", "tap_true_rank"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def by_pairs(voters: torch.Tensor) -> list[list[int]]:
    """Copeland's points, doubled, of ballots (V, N, M), and one for itself; by the definition."""
    before = (voters[:, :, :, None] < voters[:, :, None, :]).sum(0)
    duels = (before - before.transpose(1, 2)).sign()
    return (1 + duels).sum(-1).tolist()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("taps", [1, 3, 130])
def test_pairs_are_counted_alike_with_and_without_numba_beyond_a_byte(
    taps: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(majorities, "copeland_kernel", lambda: None)
    elif majorities.copeland_kernel() is None:
        pytest.skip("Numba is not installed")
    random = np.random.default_rng(0)
    # The positive voters of most taps agree, so that margins pass 127.
    agreed = random.permutation(9)
    ballots = np.array([[[agreed] * 2, [random.permutation(9) for _ in "ab"]] for _ in range(taps)])
    ballots[::40] = random.permuted(ballots[::40], axis=-1)
    voters = torch.from_numpy(1 + ballots)
    election = Copeland([])
    for tap in range(taps):
        election.add(tap, voters[tap])
        some = voters[: tap + 1]
        found = election.scores().tolist()
        groups = (some.flatten(0, 1), some[:, 0], some[:, 1])
        assert found == [by_pairs(group) for group in groups]


@pytest.mark.parametrize("taps", [1, 2, 7])
def test_medians_are_those_of_all_ranks_sorted(taps: int) -> None:
    random = np.random.default_rng(1)
    voters = np.array(
        [[[random.permutation(40) for _ in "abc"] for _ in "pn"] for _ in range(taps)]
    )
    election = MedianRank([])
    for tap in range(taps):
        given = torch.from_numpy(1 + voters[tap])
        before = given.clone()
        election.add(tap, given)
        assert torch.equal(given, before)
        some = 1 + voters[: tap + 1]
        groups = (some.reshape(-1, 3, 40), some[:, 0], some[:, 1])
        expected = [(-2 * np.median(group, axis=0)).tolist() for group in groups]
        assert election.scores().tolist() == expected


def ranks(*ballots: list[int]) -> torch.Tensor:
    """(2, 1, M): a ballot of the positive and one of the negative voter."""
    return torch.tensor(ballots)[:, None]


# Three voters a before b before c, two b before c before a, of taps with a ballot a sign.
BALLOTS = [([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [3, 1, 2]), ([3, 1, 2], [3, 1, 2])]


@pytest.mark.parametrize(
    ("election", "both", "positive"),
    [
        (Plurality([1, 1, 1]), [3, 3, 0], [2, 1, 0]),
        (Borda([1, 1, 1]), [6, 9, 3], [4, 4, 1]),
        (Borda([0, 0, 2]), [0, 8, 4], [0, 4, 2]),
        # a ties b and ties c (3 to 3); b beats c (6 to 0). Each ties itself: 1 point.
        (Copeland([]), [3, 4, 2], [5, 3, 1]),
        # a: 1 1 1 3 3 3; b: 2 2 2 1 1 1; c: 3 3 3 2 2 2. Positive alone: 1 1 3, 2 2 1, 3 3 2.
        (MedianRank([]), [-4, -3, -5], [-2, -4, -6]),
    ],
)
def test_an_election_by_hand(
    election: voting.Election, both: list[int], positive: list[int]
) -> None:
    for tap, ballots in enumerate(BALLOTS):
        election.add(tap, ranks(*ballots))
    found = election.scores()
    assert found[0, 0].tolist() == both
    assert found[1, 0].tolist() == positive


def test_condorcets_winner_comes_first_where_borda_puts_another() -> None:
    """Three of five prefer a to all others; b is nobody's third."""
    ballots = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [3, 1, 2], [3, 1, 2]]
    borda, copeland = Borda([1] * 5), Copeland([])
    for tap, ballot in enumerate(ballots):
        for election in (borda, copeland):
            election.add(tap, ranks(ballot, ballot))
    assert borda.scores()[0, 0].argmax() == 1
    assert copeland.scores()[0, 0].argmax() == 0


@pytest.mark.parametrize(
    ("rule", "weights", "message"),
    [
        ("borda", None, "Scorer computes Borda"),
        ("schulze", None, "choose from plurality, copeland, median-rank, weighted-borda"),
        ("weighted-borda", None, "needs weights, one per tap"),
        ("copeland", [1, 1], "takes no weights"),
        ("weighted-borda", [1], "one for each of the bank's 2 taps"),
        ("weighted-borda", [1, -1], "at least 0"),
        ("weighted-borda", [0, 0], "not all 0"),
    ],
)
def test_invalid_rules_and_weights_are_refused(
    rule: Rule, weights: list[int] | None, message: str
) -> None:
    bank, _, _ = random_problem(1, 3, [4, 4])
    with pytest.raises(ConfigurationError, match=message):
        RuleScorer(bank, rule, weights)


def test_no_samples() -> None:
    bank, accumulators, labels = random_problem(2, 3, [4, 4])
    found = RuleScorer(bank, "copeland").votes([a[:0] for a in accumulators], labels[:0])
    assert found.prediction.shape == (0, 3, 2)
