"""Seeds for what users' networks draw, when they are built or where they are stochastic."""

from __future__ import annotations

import random
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch (on the CPU), NumPy and Python, and put them back after."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def seeded_where(stochastic: bool, seed: int) -> AbstractContextManager[None]:
    """Seed the generators where a network is stochastic, so that a block repeats its draws."""
    return seeded(seed) if stochastic else nullcontext()
