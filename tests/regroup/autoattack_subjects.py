"""The subjects of the tests of AutoAttack and Square: linear classifiers with closed forms."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.attacks import AttackResult, predictions, run_attack

SHAPE = (3, 8, 8)
POISON = 0.9  # a pixel that no other sample has
FAST: dict[str, Any] = {"steps": 10, "squares": 30}


class Linear(nn.Module):
    """Logits W (x - 1/2) of `classes` classes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 3 * 8 * 8, generator=generator))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T


class Poisoned(Linear):
    """Gives NaN, or raises, where a gradient is requested at a sample with the POISON."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def forward(self, pixels: Tensor) -> Tensor:
        poisoned = (pixels[:, 0, 0, 0] > POISON - 0.1) & pixels.requires_grad
        if self.raises and poisoned.any():
            raise RuntimeError("the network\nbroke down")
        return torch.where(poisoned[:, None], torch.nan, super().forward(pixels))


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(spec: Any, model: nn.Module, pixels: Tensor) -> AttackResult:
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def radii(model: Linear, pixels: Tensor, norm: str) -> NDArray[np.float64]:
    """(N,), the radius at which each ball touches the nearest class: margin / dual norm."""
    weight, logits = model.weight.detach().double(), model(pixels).detach().double()
    dual = 1 if norm == "linf" else 2
    nearest = []
    for each in logits:
        true = int(each.argmax())
        sizes = torch.linalg.vector_norm(weight[true] - weight, ord=dual, dim=1)
        ratio = (each[true] - each) / sizes
        ratio[true] = torch.inf
        nearest.append(float(ratio.min()))
    return np.array(nearest)


def middle(values: NDArray[np.float64]) -> float:
    """A radius with as many balls on either side, and none within 1 %."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    assert ordered[half] > 1.02 * ordered[half - 1]
    return float((ordered[half] + ordered[half - 1]) / 2)


def network_of(model: nn.Module) -> Any:
    from regroup.attacks.network import AttackedNetwork

    return AttackedNetwork(model)
