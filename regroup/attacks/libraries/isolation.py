"""What a library may touch outside its arguments, kept as it was: generators, gradients."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators (torch's, of `device` too, and numpy's) begin at `seed`, inside."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        # A library that seeds CUDA seeds the current device, which is not always `device`.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    states = [generator.get_state() for generator in generators]
    numpy_state = np.random.get_state()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        np.random.set_state(numpy_state)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradients of parameters inside: a library's backward would compute and keep them."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
