"""The two views of REGroup on a small network: the vote's bits, and gradients that are not its."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.attacks.network import AttackedNetwork
from regroup.bank import SIGN_CHOICES
from regroup.classifier import REGroupClassifier
from regroup.defenses.regroup import DefendedByREGroup, REGroup
from regroup.defenses.spec import Material
from regroup.divergence_rules import DivergenceScorer
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer
from regroup.voting import RuleScorer
from tests.regroup.test_classifier import CLASSES, bank_for, images, network

SURROGATES = DefendedByREGroup.surrogates


def defended(
    model: nn.Module, k: int = 2, scales: NDArray[np.float64] | None = None, **options: Any
) -> DefendedByREGroup:
    bank = bank_for(model)
    own = np.ones((len(bank.taps), 2)) if scales is None else scales
    return DefendedByREGroup(model, REGroup(k=k, **options), Material(images(2), bank, own))


@pytest.mark.parametrize("signs", SIGN_CHOICES)
@pytest.mark.parametrize("k", [1, 3])
def test_the_decision_is_the_classifiers_bit_for_bit(k: int, signs: str) -> None:
    model, pixels = network(), images(16)
    expected = REGroupClassifier(model, bank_for(model), k, signs, example=images(2))(pixels)
    found = defended(model, k, signs=signs)
    assert torch.equal(found(pixels), expected)
    for surrogate in SURROGATES:
        views = found.views(pixels.clone().requires_grad_(), surrogate)
        assert torch.equal(views.decision, expected)
        assert not views.decision.requires_grad
        assert views.scores.requires_grad


def test_accumulators_with_a_graph_have_the_bits_of_those_without() -> None:
    model, pixels = network(), images(7)
    plain = Extractor(model, "preactivation", pixels)(pixels).accumulators
    kept = Extractor(model, "preactivation", pixels, keep_graph=True)
    graphed = kept(pixels.clone().requires_grad_()).accumulators
    for one, other in zip(plain, graphed, strict=True):
        assert torch.equal(one, other)
        assert other.requires_grad
        assert not one.requires_grad


def test_sums_by_sign_follow_the_responses_of_their_sign() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)).eval()
    pixels = torch.tensor([1.0, -2.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    extractor = Extractor(model, "preactivation", pixels.detach(), keep_graph=True)
    first = extractor(pixels * 1.0).accumulators[0]  # (1, 2, 3): the responses are the pixels
    assert first.tolist() == [[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]
    weights = torch.tensor([[[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]])
    (gradient,) = torch.autograd.grad((first * weights).sum(), pixels)
    assert gradient.flatten().tolist() == [10.0, -50.0, 0.0]


@pytest.mark.parametrize("surrogate", ["standardised", "soft-borda", "straight-through"])
def test_a_step_up_the_gradient_raises_the_surrogates_score(surrogate: str) -> None:
    """Finite differences: of hard counts there would be nothing to see, so of the soft ones."""
    found, pixels = defended(network(), 3), images(4)
    smooth = {"straight-through": "soft-borda"}.get(surrogate, surrogate)

    def score(x: Tensor, form: str) -> Tensor:
        return found.views(x, form).scores[:, 1].double()

    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf, surrogate).sum(), leaf)
    direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    slope = (
        score(pixels + 1e-3 * direction, smooth) - score(pixels - 1e-3 * direction, smooth)
    ) / 2e-3
    torch.testing.assert_close(
        slope.detach(), gradient.flatten(1).norm(dim=1).double(), rtol=0.05, atol=1e-3
    )


def test_every_voter_is_divided_by_its_own_scale() -> None:
    model, pixels = network(), images(3)
    bank = bank_for(model)
    scales = np.arange(1.0, 1 + 2 * len(bank.taps)).reshape(-1, 2)
    divergences = defended(model, 2).divergences
    found = defended(model, 2, scales=scales)
    accumulators = Extractor(model, "preactivation", images(2), last=2)(pixels).accumulators
    divided = divergences(accumulators) / torch.tensor(scales[-2:].reshape(1, 4, 1))
    torch.testing.assert_close(
        found.views(pixels, "standardised").scores.double(), -divided.sum(1), check_dtype=False
    )


def test_an_attack_takes_success_from_the_vote_and_gradients_from_the_surrogate() -> None:
    found, pixels = defended(network()), images(5)
    attacked = AttackedNetwork(found, rows=5, surrogate="soft-borda")
    ascent = attacked.ascent(pixels, lambda scores: scores[:, 0] - scores[:, 1])
    views = found.views(pixels, "soft-borda")
    assert torch.equal(ascent.logits, found(pixels))
    torch.testing.assert_close(ascent.losses, views.scores[:, 0] - views.scores[:, 1])
    assert ascent.gradient.abs().amax() > 0


def test_a_library_sees_the_votes_values_with_the_surrogates_derivative() -> None:
    found, leaf = defended(network()), images(5).requires_grad_()
    attacked = AttackedNetwork(found, rows=5)
    logits = attacked.differentiable(leaf)
    assert torch.equal(logits.detach(), found(leaf.detach()))
    (given,) = torch.autograd.grad(logits[:, 2].sum(), leaf)
    other = leaf.detach().requires_grad_()
    (own,) = torch.autograd.grad(found.views(other, "standardised").scores[:, 2].sum(), other)
    torch.testing.assert_close(given, own)
    assert torch.equal(attacked.differentiable(leaf.detach()), found(leaf.detach()))


def test_scales_of_another_bank_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"scales of shape \(2, 2\) for a bank of 3 taps"):
        defended(network(), scales=np.ones((2, 2)))


@pytest.mark.parametrize("rule", ["plurality", "copeland", "median-rank", "crossmax"])
@pytest.mark.parametrize("k", [1, 3])
def test_another_rule_decides_as_its_votes_do(rule: str, k: int) -> None:
    model, pixels = network(), images(30)
    bank, scales = bank_for(model), np.ones((3, 2))
    accumulators = Extractor(model, "preactivation", images(2))(pixels).accumulators
    scorer = (
        DivergenceScorer(bank, "crossmax", scales) if rule == "crossmax" else RuleScorer(bank, rule)  # type: ignore[arg-type]
    )
    votes = scorer.votes([each.detach() for each in accumulators], np.zeros(30, np.int64))
    found = defended(model, k, rule=rule)(pixels).argmax(1)
    assert found.tolist() == votes.prediction[:, 0, k - 1].tolist()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"k": 0}, "k is 0"),
        ({"signs": "all"}, "unknown signs 'all'"),
        ({"rule": "bordas"}, "unknown voting rule 'bordas'"),
        ({"policy": "relu"}, "unknown tap policy 'relu'"),
    ],
)
def test_parameters_of_regroup_out_of_range(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        REGroup(**parameters)


def test_without_its_bank_it_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="regroup needs a bank, and has no bank"):
        REGroup().defend(network(), Material(images(2)))  # type: ignore[arg-type]


def test_the_networks_own_logits_are_a_surrogate_judged_by_the_vote() -> None:
    model, pixels = network(), images(5)
    views = defended(model).views(pixels.requires_grad_(), "network")
    torch.testing.assert_close(views.scores, model(pixels))
    assert torch.equal(views.decision, defended(model)(pixels.detach()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "weighted-borda", "weights": (1, 2)}, "2 weights for a bank of 3 taps"),
        ({"rule": "weighted-borda"}, "weighted-borda needs weights"),
        ({"rule": "borda", "k": 9}, "k = 9"),
    ],
)
def test_what_does_not_fit_the_bank_is_refused_before_any_image(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        defended(network(), options.pop("k", 2), **options)


def test_a_bank_of_other_classes_is_refused() -> None:
    model = network()
    bank = bank_for(model)
    wider = SimpleNamespace(num_classes=CLASSES + 2, network=model)
    material = Material(images(2), bank, np.ones((3, 2)))
    with pytest.raises(ConfigurationError, match="a bank of 5 classes for a model of 7"):
        REGroup().defend(wider, material)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make", [Scorer, lambda bank, **ways: RuleScorer(bank, "plurality", **ways)]
)
def test_counts_alone_do_not_settle_ties_by_divergence(make: Any) -> None:
    model = network()
    accumulators = [
        each.detach()
        for each in Extractor(model, "preactivation", images(2))(images(3)).accumulators
    ]
    with pytest.raises(ConfigurationError, match="do not settle ties by divergence"):
        make(bank_for(model), tie_break="divergence").class_scores(accumulators, 2, "both")
