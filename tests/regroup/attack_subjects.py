"""Small networks whose best attack is known, and how the tests of attacks run one."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, predictions, run_attack

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)
ARRAYS = [
    field.name
    for field in dataclasses.fields(AttackResult)
    if field.name not in ("seconds", "failures")
]


class Blocks(nn.Module):
    """Four classes: the logit of class j is `scale` times the sum of its block of 12 pixels.

    Seen from class y, class t begins where the blocks' sums are equal. The shortest way there moves
    both blocks alike: every value by half the difference of their means.
    """

    def __init__(self, scale: float = 100.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, pixels: Tensor) -> Tensor:
        return self.scale * pixels.reshape(len(pixels), 4, SIZE // 4).sum(dim=2)


def block_image(*means: float) -> Tensor:
    """(1, 3, 4, 4), with the blocks of `Blocks` at these means."""
    return torch.tensor(means).repeat_interleave(SIZE // 4).view(1, *SHAPE)


class Plane(nn.Module):
    """Two classes; logit 1 minus logit 0 is w . x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias

    def margin(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1) @ self.weight + self.bias

    def forward(self, pixels: Tensor) -> Tensor:
        margin = self.margin(pixels)
        return torch.stack((torch.zeros_like(margin), margin), dim=1)


class Bent(nn.Module):
    """Five classes, convolutions, random weights: no two samples' searches are alike."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
            )
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        return 8 * torch.as_tensor(self.layers(6 * pixels - 3))


class BadGradient(nn.Module):
    """A network whose gradient is `value` for images whose first pixel is above 0.95.

    The network sees 0 there, so that steps never move that pixel.
    """

    def __init__(self, network: nn.Module, value: float = math.nan) -> None:
        super().__init__()
        self.network, self.value = network, value

    def forward(self, pixels: Tensor) -> Tensor:
        bad = (pixels[:, :1, :1, :1] > 0.95).expand_as(pixels)
        if pixels.requires_grad:
            pixels = pixels.clone()
            hook = partial(torch.Tensor.masked_fill, mask=bad, value=self.value)
            pixels.register_hook(hook)  # type: ignore[no-untyped-call]
        first = torch.zeros(pixels.shape[1:], dtype=torch.bool)
        first[0, 0, 0] = True
        return torch.as_tensor(self.network(pixels.masked_fill(first, 0)))


def samples(count: int, seed: int = 1) -> Tensor:
    """(count, 3, 4, 4), values in 0.3 .. 0.7."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(
    spec: AttackSpec, model: nn.Module, pixels: Tensor, targets: Sequence[int] | None = None
) -> AttackResult:
    """Attack every sample away from its predicted class."""
    labels = predictions(model, pixels)
    given = None if targets is None else torch.tensor(targets)
    return run_attack(spec, model, pixels, labels, names(len(pixels)), given)


def attack_rows(
    spec: AttackSpec, model: nn.Module, pixels: Tensor, rows: list[int], size: int
) -> dict[str, np.ndarray]:
    """`rows` in that order, `size` at a time: every array of the result."""
    labels, all_names = predictions(model, pixels), names(len(pixels))
    parts = []
    for i in range(0, len(rows), size):
        batch = rows[i : i + size]
        ids = [all_names[row] for row in batch]
        torch.manual_seed(size)  # must not matter
        parts.append(run_attack(spec, model, pixels[batch], labels[batch], ids))
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}


def assert_any_batch_gives_the_same(spec: AttackSpec, model: nn.Module, pixels: Tensor) -> None:
    """Bitwise, for batches of 64, of 7 in reverse, and of 1."""
    rows = list(range(len(pixels)))
    whole = attack_rows(spec, model, pixels, rows, 64)
    backwards = attack_rows(spec, model, pixels, rows[::-1], 7)
    alone = attack_rows(spec, model, pixels, rows[:3], 1)
    for name, expected in whole.items():
        np.testing.assert_array_equal(backwards[name][::-1], expected, err_msg=name)
        np.testing.assert_array_equal(alone[name], expected[:3], err_msg=name)
