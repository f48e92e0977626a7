"""The second step of every attack: is the stored image adversarial? Kernels' claims do not count.

Foolbox's fixed-epsilon attacks check their last iterate, its minimising ones the clipped image, and
a failed C&W returns black images: success is what the classifier predicts for the stored bytes, as
float32 and again as the 8-bit image that a PNG of it would hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.network import AttackedNetwork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from regroup.attacks.spec import AttackSpec


@dataclass(frozen=True)
class Verification:
    """One row per stored image.

    Attributes:
        success: (N,) bool, the criterion is met by the float32 image.
        success_8bit: (N,) bool, and by the image rounded to multiples of 1/255.
        adversarial_class: (N,) int64, the predicted class of the float32 image; -1 without success.
    """

    success: NDArray[np.bool_]
    success_8bit: NDArray[np.bool_]
    adversarial_class: NDArray[np.int64]


def verify(
    spec: AttackSpec,
    model: nn.Module,
    images: NDArray[np.float32],
    labels: NDArray[np.integer],
    targets: NDArray[np.integer],
    rows: int | None = None,
) -> Verification:
    """Verify images, N > 0, as read back from the store.

    Two forward passes each, in the model's own precision. An image without any perturbation is no
    success: the clean one is classified correctly.

    Args:
        spec: the attack.
        model: pixels in [0, 1] to logits.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,).
        targets: (N,), -1 for no target.
        rows: see `AttackedNetwork`.
    """
    # A group's kernel saw batches of its size: elsewhere last bits, and decisions, may differ.
    network = AttackedNetwork(model, rows or spec.facts.group)
    pixels = torch.from_numpy(images).to(network.device)
    true, wanted = (torch.as_tensor(x).to(network.device, torch.int64) for x in (labels, targets))
    criterion = Criterion.of(spec)
    logits = network.logits(pixels)
    success = criterion.met(logits, true, wanted)
    rounded = criterion.met(network.logits(eight_bits(pixels)), true, wanted)
    classes = torch.where(success, logits.argmax(dim=1), -1)
    return Verification(*(x.cpu().numpy() for x in (success, rounded, classes)))


def eight_bits(pixels: Tensor) -> Tensor:
    """Round `pixels` in [0, 1] to the nearest multiples of 1/255, as an 8-bit image holds them."""
    return (pixels * 255).round() / 255
