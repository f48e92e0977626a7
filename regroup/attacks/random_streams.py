"""A random stream for each sample: it depends on the seed, the attack, the sample and the try."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from regroup.attacks.pgd import PGD
    from regroup.attacks.spec import AttackSpec


def stream(spec: AttackSpec, sample_id: str, attempt: int) -> np.random.Generator:
    """The generator of one try at one sample, whatever batch, block or machine it runs in."""
    key = json.dumps([spec.seed, spec.stream, sample_id, attempt]).encode()
    words = np.frombuffer(hashlib.sha256(key).digest()[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=words))


def group_seed(spec: AttackSpec, sample_ids: tuple[str, ...]) -> int:
    """Below 2**63: for a kernel that draws for all samples of a group from one generator."""
    key = json.dumps([spec.seed, spec.stream, "group", sample_ids]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1


def start_noise(
    spec: PGD, sample_id: str, attempt: int, epsilon: float, shape: tuple[int, ...]
) -> Tensor:
    """Uniform in the ball of radius `epsilon` of the attack's norm: `shape` float32.

    All zeros when the attack has no random start.
    """
    if not spec.random_start:
        return torch.zeros(shape)
    inside = _in_l2_ball if spec.norm == "l2" else _in_linf_ball
    return torch.from_numpy(inside(stream(spec, sample_id, attempt), epsilon, shape))


def _in_linf_ball(
    generator: np.random.Generator, epsilon: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = generator.random(shape, dtype=np.float32)
    return (2 * unit - 1) * np.float32(epsilon)


def _in_l2_ball(
    generator: np.random.Generator, epsilon: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """A normal vector's direction; the share of the ball within a radius is its d-th power."""
    normal = generator.standard_normal(shape)
    radius = epsilon * generator.random() ** (1 / math.prod(shape))
    # Not np.linalg.norm: the bits of a BLAS dot product may differ with the number of threads.
    scaled = normal * (radius / np.sqrt(np.square(normal).sum()))
    return np.asarray(scaled, dtype=np.float32)
