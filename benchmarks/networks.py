"""The networks that benchmarks time: torchvision's, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.bank import Bank
from regroup.taps import discover_taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from regroup.taps import TapPolicy

CLASSES = 1000


@dataclass(frozen=True)
class Format:
    """How a network computes: memory format, autocast precision, TF32."""

    name: str
    memory: torch.memory_format
    dtype: torch.dtype | None = None
    tf32: bool = False


CPU_FORMATS = (
    Format("channels-last", torch.channels_last),
    Format("contiguous", torch.contiguous_format),
)
GPU_FORMATS = (
    Format("fp32, channels-last", torch.channels_last),
    Format("TF32, channels-last", torch.channels_last, tf32=True),
    Format("bf16, channels-last", torch.channels_last, torch.bfloat16),
    Format("fp32, contiguous", torch.contiguous_format),
)


def formats(device: str) -> tuple[Format, ...]:
    """Those that are timed on a device."""
    return CPU_FORMATS if device == "cpu" else GPU_FORMATS


def network(
    name: str, device: str, memory: torch.memory_format, classes: int = CLASSES
) -> nn.Module:
    """A torchvision classifier in evaluation mode; raises ImportError without torchvision."""
    from torchvision import models

    torch.manual_seed(0)
    made: nn.Module = getattr(models, name)(weights=None, num_classes=classes)
    placed = made.eval().requires_grad_(False).to(device)
    return placed.to(memory_format=memory)


def pixels(batch: int, side: int, device: str, memory: torch.memory_format) -> Tensor:
    """Noise in [0, 1], (batch, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    made = torch.rand((batch, 3, side, side), generator=generator)
    return made.to(device).contiguous(memory_format=memory)


def taps_of(name: str, policy: TapPolicy) -> list[tuple[str, int]]:
    """(name, channels) of the taps of a torchvision classifier, in execution order."""
    memory = torch.contiguous_format
    model = network(name, "cpu", memory)
    return [
        (t.name, t.channels) for t in discover_taps(model, pixels(1, 64, "cpu", memory), policy)
    ]


def random_bank(taps: Sequence[tuple[str, int]], classes: int = CLASSES) -> Bank:
    """A bank whose mixtures are noise."""
    random = np.random.default_rng(0)
    mixtures = [random.random((2, classes, channels)) for _, channels in taps]
    normalised = tuple(each / each.sum(axis=2, keepdims=True) for each in mixtures)
    return Bank(tuple(name for name, _ in taps), normalised, np.ones(classes, np.int64))
