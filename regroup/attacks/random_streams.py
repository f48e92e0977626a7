"""A random stream per sample: it depends on the seed, the attack, the sample and the attempt."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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
