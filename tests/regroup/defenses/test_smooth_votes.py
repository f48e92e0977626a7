"""REGroup's smooth stand-ins against the literal method, closed forms and their limit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regroup import reference
from regroup.bank import Bank
from regroup.defenses.smooth_votes import (
    SmoothDivergences,
    hard_borda,
    soft_borda,
    standardised,
    straight_through,
)

CHANNELS, CLASSES = (5, 3), 4


def bank() -> Bank:
    chance = np.random.default_rng(0)
    mixtures = tuple(chance.dirichlet(np.ones(width), (2, CLASSES)) for width in CHANNELS)
    return Bank(("first", "second"), mixtures, np.ones(CLASSES, np.int64))


def accumulators(n: int) -> list[Tensor]:
    chance = np.random.default_rng(1)
    found = [chance.gamma(1.0, size=(n, 2, width)) for width in CHANNELS]
    found[0][0, 0, 2] = 0.0  # a channel without any response
    return [torch.tensor(each, dtype=torch.float32) for each in found]


def test_divergences_are_the_papers() -> None:
    given_ = accumulators(3)
    found = SmoothDivergences(bank(), (0, 1))(given_)
    assert found.shape == (3, 4, CLASSES)
    for row in range(3):
        for voter, (tap, sign) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            expected = reference.divergences(
                given_[tap][row, sign].double().numpy(), bank().mixtures[tap][sign]
            )
            np.testing.assert_allclose(found[row, voter], expected, rtol=1e-4, atol=1e-5)


def test_one_sign_has_its_voters_alone() -> None:
    both = SmoothDivergences(bank(), (0, 1))(accumulators(3))
    negative = SmoothDivergences(bank(), (1,))(accumulators(3))
    torch.testing.assert_close(negative, both[:, 1::2])


def test_divergences_have_the_gradient_of_the_formula() -> None:
    # d KL(C || a / sum a) / d a_j = 1 / sum(a) - C_j / a_j.
    given_ = [each.requires_grad_() for each in accumulators(2)]
    SmoothDivergences(bank(), (0, 1))(given_)[1, 0, 3].backward()
    values, mixture = given_[0].detach()[1, 0].double(), bank().mixtures[0][0][3]
    expected = 1 / values.sum() - torch.tensor(mixture) / values
    assert given_[0].grad is not None
    torch.testing.assert_close(given_[0].grad[1, 0].double(), expected, rtol=1e-4, atol=1e-5)
    assert not given_[0].grad[0].any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), voters=st.integers(1, 6))
def test_without_ties_soft_counts_become_the_hard_ones(
    seed: int, classes: int, voters: int
) -> None:
    chance = np.random.default_rng(seed)
    # Whole numbers in random order: no two are nearer than 1.
    scores = chance.permuted(np.tile(np.arange(classes), (3, voters, 1)), axis=-1)
    counts = [
        np.sum([reference.borda(reference.ranks((-voter).tolist())) for voter in row], axis=0)
        for row in scores
    ]
    given_ = torch.tensor(scores, dtype=torch.float32)
    assert hard_borda(given_).tolist() == np.array(counts).tolist()
    torch.testing.assert_close(
        soft_borda(given_, 1e-2), torch.tensor(np.array(counts)).float(), rtol=0, atol=1e-5
    )


def test_two_classes_at_a_distance_of_tau() -> None:
    # sigmoid(1) = 0.7310586 for the first, the rest for the second.
    counts = soft_borda(torch.tensor([[[0.5, 0.0]]]), 0.5)
    torch.testing.assert_close(counts, torch.tensor([[0.7310586, 0.2689414]]))


def test_a_tie_of_a_voter_goes_to_the_lower_class() -> None:
    assert hard_borda(torch.tensor([[[1.0, 2.0, 2.0]]])).tolist() == [[0.0, 2.0, 1.0]]


def test_of_many_classes_those_in_front_are_compared_with_all() -> None:
    scores = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    found, plain = soft_borda(scores, 0.5), hard_borda(scores)
    pairs = torch.sigmoid((scores[..., :, None] - scores[..., None, :]) / 0.5)
    everyone = pairs.sum(-1).sum(1) - 3 * 0.5
    for row in range(2):
        front = set(standardised(scores)[row].topk(32).indices.tolist())
        for label in range(50):
            expected = everyone if label in front else plain
            torch.testing.assert_close(found[row, label], expected[row, label])


def test_straight_through_has_hard_values_and_soft_gradients() -> None:
    scores = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.arange(12.0).view(2, 6)
    through = straight_through(scores, 0.5)
    assert torch.equal(through.detach(), hard_borda(scores))
    (found,) = torch.autograd.grad((through * weights).sum(), scores)
    (expected,) = torch.autograd.grad((soft_borda(scores, 0.5) * weights).sum(), scores)
    torch.testing.assert_close(found, expected)
    assert found.abs().min() > 0


def test_a_small_tau_leaves_no_gradient() -> None:
    scores = torch.randn(20, 3, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (wide,) = torch.autograd.grad(soft_borda(scores, 0.25)[:, 0].sum(), scores)
    (narrow,) = torch.autograd.grad(soft_borda(scores, 1e-4)[:, 0].sum(), scores)
    assert (wide[:, :, 0] == 0).sum() == 0
    assert (narrow[:, :, 0] == 0).float().mean() > 0.5


@pytest.mark.parametrize("form", [standardised, soft_borda, straight_through])
def test_a_form_has_one_score_per_class(form: object) -> None:
    assert callable(form)
    assert form(torch.zeros(3, 4, 7)).shape == (3, 7)
