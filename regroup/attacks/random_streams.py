"""A random stream per sample: it depends on the seed, the attack, the sample and the attempt."""

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

    from regroup.attacks.spec import AttackSpec


def stream(spec: AttackSpec, sample_id: str, attempt: int) -> np.random.Generator:
    """Return the generator of one attempt at one sample, in any batch, block or machine."""
    key = json.dumps([spec.seed, spec.stream, sample_id, attempt]).encode()
    words = np.frombuffer(hashlib.sha256(key).digest()[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=words))


def group_seed(spec: AttackSpec, sample_ids: tuple[str, ...]) -> int:
    """Return a seed below 2**63 for a kernel that draws for a complete group from one generator."""
    key = json.dumps([spec.seed, spec.stream, "group", sample_ids]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1


def start_in_ball(
    spec: AttackSpec, sample_id: str, attempt: int, epsilon: float, shape: tuple[int, ...]
) -> Tensor:
    """Return noise uniform in the ball of the attack's norm, radius `epsilon`: `shape` float32."""
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
    """Scale a normal vector; the share of the ball within a radius is its d-th power."""
    normal = generator.standard_normal(shape)
    radius = epsilon * generator.random() ** (1 / math.prod(shape))
    # Not np.linalg.norm: the bits of a BLAS dot product may differ with the number of threads.
    scaled = normal * (radius / np.sqrt(np.square(normal).sum()))
    return np.asarray(scaled, dtype=np.float32)
