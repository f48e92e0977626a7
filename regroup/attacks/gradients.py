"""The network seen by an attack: predictions and loss gradients, the same for any batch size.

On a CPU the logits of an image differ in the last bits with the number of images beside it (seen
at 1 and 7 against 64), but neither with its position nor with the others' content. So the network
only ever sees batches of one fixed size, the last one padded with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CPU_ROWS, _DEVICE_ROWS = 16, 64


@dataclass(frozen=True)
class Target:
    """A network under attack, on the device of its parameters."""

    network: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the network lives; the CPU when it has no parameters."""
        parameter = next(self.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def _batches(self, pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Batches of one size: (how many rows count, padded pixels)."""
        rows = _CPU_ROWS if self.device.type == "cpu" else _DEVICE_ROWS
        for first in range(0, len(pixels), rows):
            batch = pixels[first : first + rows]
            padding = batch.new_zeros((rows - len(batch), *batch.shape[1:]))
            yield len(batch), torch.cat((batch, padding))

    def predictions(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) to classes (N,) int64."""
        with torch.no_grad():
            classes = [self.network(b).argmax(dim=1)[:n] for n, b in self._batches(pixels)]
        return torch.cat(classes) if classes else torch.empty(0, dtype=torch.int64)

    def ascent(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (N,) int64 at `pixels` and the sign (N, C, H, W) of the cross-entropy's gradient.

        One forward and one backward pass; `labels` (N,) int64 are the true classes.
        """
        classes, signs, first = [], [], 0
        for count, batch in self._batches(pixels):
            padded = functional.pad(labels[first : first + count], (0, len(batch) - count))
            logits, gradient = self._gradient(batch, padded)
            classes.append(logits.argmax(dim=1)[:count])
            signs.append(gradient.sign()[:count])
            first += count
        return torch.cat(classes), torch.cat(signs)

    def _gradient(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        leaf = pixels.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.network(leaf)
            if not logits.requires_grad:
                raise ConfigurationError(
                    "the network gives no gradient with respect to its input: "
                    "this attack needs one (is forward under torch.no_grad?)"
                )
            # A sum: the gradient of a sample must not depend on the size of its batch.
            loss = functional.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        return logits.detach(), gradient


def predictions(network: nn.Module, pixels: Tensor) -> Tensor:
    """Classes (N,) int64 of `pixels` (N, C, H, W) float32, as `run_attack` sees them.

    For choosing the correctly classified samples: an ordinary batch may differ in the last bit.
    """
    target = Target(network)
    return target.predictions(pixels.to(target.device)).cpu()
