"""Keep a library's kernel apart: from global state, and the failures of one sample from others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


class NotFiniteError(Exception):
    """The kernel or the network gave NaN or infinity for `rows` of the batch."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__("the kernel or the network gave NaN or infinity")
        self.rows = rows


@contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators (torch's, also of `device`, and NumPy's); restore them on exit."""
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
def frozen_parameters(network: nn.Module) -> Iterator[None]:
    """Disable gradients of the parameters: a library's backward would compute and keep them."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def isolate_failures(
    run: Callable[[list[int]], None], rows: list[int], together: bool
) -> dict[int, str]:
    """Call `run(rows)`; where it raises, run again without the rows that cause it.

    Rows that are known to give NaN (`NotFiniteError`) are left out at once, others are found by
    halving. Errors of configuration and of memory are not isolated but raised.

    Args:
        run: attacks the given rows.
        rows: the rows to attack.
        together: rows influence each other, so that those that remain run as one group again.

    Returns:
        The rows that fail -> the reason.
    """
    try:
        run(rows)
    except (ConfigurationError, MemoryError, torch.OutOfMemoryError):
        raise
    except NotFiniteError as error:
        failed, again = dict.fromkeys(error.rows, str(error)), True
    except Exception as error:
        if len(rows) == 1:
            return {rows[0]: _one_line(error)}
        half = len(rows) // 2
        failed = isolate_failures(run, rows[:half], False)
        failed |= isolate_failures(run, rows[half:], False)
        again = together and bool(failed)
    else:
        return {}
    rest = [row for row in rows if row not in failed]
    return failed | (isolate_failures(run, rest, together) if again and rest else {})


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
