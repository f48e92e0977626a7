"""The trust region attack against a literal reference, step by step."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.attacks import predictions, run_attack
from regroup.attacks.gradient.trust_region import TrustRegion

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)
Norm = Literal["linf", "l2"]
Array = NDArray[np.float64]


class Waves(nn.Module):
    """Logits W x + b + sin(F x), whose slopes hold for a short way alone; W, F: float64."""

    def __init__(self, weight: Tensor, bias: Tensor, waves: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.waves = weight, bias, waves

    def forward(self, pixels: Tensor) -> Tensor:
        flat = pixels.flatten(1).double()
        return flat @ self.weight.T + self.bias + torch.sin(flat @ self.waves.T)


def waves() -> Waves:
    generator = torch.Generator().manual_seed(2)
    weight, long = torch.randn((2, 5, SIZE), generator=generator).unbind()
    bias = torch.tensor([20.0, 0, 0, 0, 0]) - 0.5 * weight.sum(dim=1)
    return Waves(weight.double(), bias.double(), 2 * long.double())


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.2 + 0.4


@dataclasses.dataclass
class Reference:
    """One sample, in NumPy and float64, on `Waves`: iterates and radii."""

    spec: TrustRegion
    model: Waves

    def __post_init__(self) -> None:
        tensors = self.model.weight, self.model.bias, self.model.waves
        self.weight, self.bias, self.waves = (each.numpy() for each in tensors)

    def logits(self, x: Array) -> Array:
        logits: Array = self.weight @ x + self.bias + np.sin(self.waves @ x)
        return logits

    def slope(self, x: Array, y: int, j: int) -> tuple[float, Array, float]:
        """Value of f = z_j - z_y, its gradient and the gradient's dual norm."""
        rows = self.weight + np.cos(self.waves @ x)[:, None] * self.waves
        gradient = rows[j] - rows[y]
        dual = abs(gradient).sum() if self.spec.norm == "linf" else np.sqrt((gradient**2).sum())
        z = self.logits(x)
        return float(z[j] - z[y]), gradient, float(dual)

    def run(self, clean: Array) -> tuple[list[Array], list[float]]:
        spec, x, radius = self.spec, clean.copy(), self.spec.radius
        y = int(self.logits(x).argmax())
        classes = [j for j in (-self.logits(x)).argsort() if j != y][: spec.candidates]
        iterates, radii = [x], [radius]
        while self.logits(x).argmax() == y and len(radii) <= spec.steps:
            distances = {j: -self.slope(x, y, j)[0] / self.slope(x, y, j)[2] for j in classes}
            j = (max if spec.choice == "worst" else min)(distances, key=lambda j: distances[j])
            if spec.choice != "nearest":
                classes = [j]
            f, gradient, dual = self.slope(x, y, j)
            unit = np.sign(gradient), math.sqrt(SIZE) * gradient / dual
            step = unit[0] if spec.norm == "linf" else unit[1]
            after = np.clip(x + radius * step, 0, 1)
            ratio = (self.slope(after, y, j)[0] - f) / (gradient @ (after - x))
            if ratio > spec.sigma_high:
                radius = min(radius * spec.eta, spec.max_radius)
            elif ratio < spec.sigma_low:
                radius = max(radius / spec.eta, spec.min_radius)
            x = after
            iterates.append(x)
            radii.append(radius)
        return iterates, radii


@pytest.mark.parametrize("choice", ["nearest", "fixed", "worst"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_iterates_are_those_of_the_reference(norm: Norm, choice: Any) -> None:
    class Spy(Waves):
        def forward(self, pixels: Tensor) -> Tensor:
            seen.append(pixels[0].detach().flatten().double().numpy())
            return super().forward(pixels)

    base, seen = waves(), list[Array]()
    model, pixels = Spy(base.weight, base.bias, base.waves), samples(10)
    pixels[0, 0, 0] = 0.0005  # some pixels are stopped by 0
    spec = TrustRegion(norm=norm, choice=choice, candidates=3, radius=0.02, max_radius=0.05,
                       min_radius=0.001, eta=2.0, steps=5)  # fmt: skip
    grown, shrunk, labels = 0, 0, predictions(base, pixels)
    for i in range(len(pixels)):
        seen.clear()
        result = run_attack(spec, model, pixels[i : i + 1], labels[i : i + 1], ["a"])
        reference = Reference(spec, base)
        iterates, radii = reference.run(pixels[i].flatten().double().numpy())
        grown += (np.diff(radii) > 0).sum()
        shrunk += (np.diff(radii) < 0).sum()
        assert result.claimed[0] == (reference.logits(iterates[-1]).argmax() != labels[i])
        assert result.steps[0] == len(iterates) - 1
        np.testing.assert_allclose(seen[2:], iterates, atol=1e-5)  # two look at the clean image
    assert min(grown, shrunk) >= 3
