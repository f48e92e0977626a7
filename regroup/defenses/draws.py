"""The draws of a stochastic defense: a numbered family of deterministic networks.

Draw r of a purpose is the same for every row, batch, block and machine, so an expectation over
draws is a plain mean, every attack runs unchanged, and an example depends on nothing else. An
attacker's draws and those that judge are different families: who attacks the judging ones knows the
randomness.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import torch

Purpose = Literal["attack", "judge"]


def draw_generator(seed: int, purpose: Purpose, draw: int, layer: str = "") -> torch.Generator:
    """Return the generator, on the CPU, of one layer's randomness in one draw."""
    key = json.dumps([seed, purpose, draw, layer]).encode()
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)
