"""PGD's step ratio, a number before it is hashed, and which success of a search is kept."""

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regroup.attacks import predictions
from regroup.attacks.pgd.attack import PGD
from tests.regroup.attack_subjects import Bent, attack, samples

EPSILON, TRAINED = 0.2, 1297


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


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 3, 8, 8) in [0, 1] and labels, in a random order."""
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1) / 16
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return pixels[order], torch.tensor(data.target)[order]


def worst_of(network: nn.Module, pixels: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
    """Seven steps of a quarter of the ball, written out: what the network is trained on."""
    moved = (pixels + (2 * torch.rand(pixels.shape, generator=random) - 1) * EPSILON).clamp(0, 1)
    for _ in range(7):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(moved), labels), moved)
        moved = moved.detach() + EPSILON / 4 * gradient.sign()
        moved = moved.clamp(pixels - EPSILON, pixels + EPSILON).clamp(0, 1)
    return moved


def adversarially_trained(pixels: Tensor, labels: Tensor) -> nn.Module:
    """Madry et al.'s training of a network of two convolutions, eight epochs."""
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(8):
        for rows in torch.split(torch.randperm(len(pixels), generator=random), 64):
            moved = worst_of(network, pixels[rows], labels[rows], random)
            optimiser.zero_grad()
            cross_entropy(network(moved), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval().requires_grad_(False)


def test_a_quarter_fools_an_adversarially_trained_network_more_often_than_a_thirtieth() -> None:
    """On one machine 132 of 200 held-out digits instead of 108."""
    pixels, labels = digits()
    network = adversarially_trained(pixels[:TRAINED], labels[:TRAINED])
    held, true = pixels[TRAINED:], labels[TRAINED:]
    right = held[predictions(network, held) == true][:200]
    assert len(right) == 200
    fooled = {
        ratio: attack(PGD(protocol="budget", epsilon=EPSILON, step_ratio=ratio), network, right)
        .claimed.sum()
        for ratio in (None, 1 / 30)
    }  # fmt: skip
    assert 0.2 * len(right) < fooled[1 / 30] < 0.8 * len(right), "robust, and not wholly"
    assert fooled[None] >= fooled[1 / 30] + 0.05 * len(right)
