"""The network as an attack sees it: predictions and gradients, the same for any batch size.

On a CPU the logits of an image differ in the last bits with the number of images beside it (seen at
1 and 7 against 64), but neither with its position nor with the others' content. So the network only
ever sees batches of one fixed size, the last one padded with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from regroup.attacks.views import DefendedNetwork, Views
from regroup.errors import ConfigurationError
from regroup.models.classifier import Classifier
from regroup.models.outputs import logits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup.attacks.gradient_watch import GradientWatch

_CPU_ROWS, _DEVICE_ROWS = 16, 64


class Ascent(NamedTuple):
    """What one forward and one backward pass tell a step.

    Attributes:
        logits: (N, M), what decides.
        losses: (N,), of the surrogate where there is one.
        gradient: (N, C, H, W), of these losses.
    """

    logits: Tensor
    losses: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class AttackedNetwork:
    """A network under attack, on the device of its parameters.

    Of a `DefendedNetwork`, logits are those of the decision; losses and gradients are those of the
    surrogate.

    Attributes:
        network: pixels in [0, 1] to logits.
        rows: images in each batch that the network sees; None: 16 on a CPU, 64 elsewhere.
        watch: looks at every gradient; None: nobody does.
        samples: (n,) int64, the watched samples whose images come first in every call, whatever
            fills its batch up; None: all.
        part: the network is a part of an attack, whose outputs are taken as they are.
        surrogate: which of a defended network's surrogates is differentiated; None: its first.
    """

    network: nn.Module
    rows: int | None = None
    watch: GradientWatch | None = None
    samples: Tensor | None = None
    part: bool = False
    surrogate: str | None = None

    @property
    def device(self) -> torch.device:
        """The network's device; the CPU if it has no parameters."""
        parameter = next(self.network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def fixed_rows(self) -> int:
        """Images in each batch that the network sees."""
        return self.rows or (_CPU_ROWS if self.device.type == "cpu" else _DEVICE_ROWS)

    def in_groups(self, group: int | None) -> AttackedNetwork:
        """Return the network with batches of at most `group`: padding beyond it would cost time."""
        if group is None:
            return self
        return replace(self, rows=min(self.fixed_rows, group))

    def of(self, samples: Tensor) -> AttackedNetwork:
        """Return the network whose calls are about `samples`, positions (n,) among this one's."""
        if self.watch is None:
            return self
        return replace(self, samples=samples if self.samples is None else self.samples[samples])

    def batches(self, *tensors: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """Cut `tensors`, (N, ...) each, into batches of one size: (rows that count, padded parts).

        The last batch is padded with zeros. For kernels whose own reductions over an image must not
        depend on the batch either.
        """
        rows = self.fixed_rows
        for first in range(0, len(tensors[0]), rows):
            parts = [tensor[first : first + rows] for tensor in tensors]
            count = len(parts[0])
            yield count, [_padded(part, rows) for part in parts]

    def logits(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W), N > 0, to logits (N, M), without a gradient."""
        with torch.no_grad():
            return _joined([self._logits(b)[:n] for n, (b,) in self.batches(pixels)])

    def differentiable(self, pixels: Tensor) -> Tensor:
        """Compute `logits`, with a gradient if `pixels` has one; for library kernels.

        Raises:
            ConfigurationError: `pixels` has a gradient and the network has none.
        """
        gradient = pixels.requires_grad and torch.is_grad_enabled()
        # A view: its gradient is the network's alone, whatever else a loss is made of.
        entering = pixels.view_as(pixels) if gradient else pixels
        through = self._through if gradient else self._logits
        logits = _joined([through(b)[:n] for n, (b,) in self.batches(entering)])
        if gradient:
            _with_gradient(logits)
            entering.register_hook(partial(self._see, None))  # type: ignore[no-untyped-call]
        self._see(logits.detach(), None)
        return logits

    def _through(self, batch: Tensor) -> Tensor:
        """Return the logits that decide; their derivative is the surrogate's."""
        views = self._views(batch)
        if views.scores is views.decision:
            return views.scores
        return views.decision + (views.scores - views.scores.detach())

    def _views(self, batch: Tensor) -> Views:
        """Return both views; of a network without a defense they are one."""
        network, wanted = self.network, self.surrogate
        known = network.surrogates if isinstance(network, DefendedNetwork) else ()
        if wanted is not None and wanted not in known:
            raise ConfigurationError(
                f"there is no surrogate {wanted!r} to follow: "
                + (f"choose from {', '.join(known)}" if known else "the network has none")
            )
        if not isinstance(network, DefendedNetwork):
            logits = self._logits(batch)
            return Views(logits, logits, logits)
        if not known:
            raise _no_gradient()
        return network.views(batch, wanted or known[0])

    def _logits(self, batch: Tensor) -> Tensor:
        if self.part or isinstance(self.network, Classifier):
            logits: Tensor = self.network(batch)
            return logits
        # A copy: a network of anybody's may write into its input, here a leaf of the gradient.
        return logits_of(self.network(batch.clone()), len(batch))

    def _see(self, logits: Tensor | None, gradient: Tensor | None) -> None:
        """Show logits (n, M), then gradients (n, ...), to who watches."""
        given = gradient if logits is None else logits
        if self.watch is None or given is None:
            return
        rows = self._watched(len(given))
        if logits is not None:
            self.watch.finish(rows, logits[: len(rows)])
        if gradient is not None:
            self.watch.see(rows, gradient[: len(rows)])

    def _watched(self, count: int) -> Tensor:
        """Return the samples that the first of `count` images are of."""
        if self.samples is not None:
            return self.samples
        assert self.watch is not None
        everyone = len(self.watch.batch)
        if count != everyone:
            raise ValueError(
                f"{count} images of {everyone} samples: say which these are, by network.of(rows)"
            )
        return torch.arange(everyone, device=self.watch.finished.device)

    def predictions(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) to classes (N,) int64."""
        if not len(pixels):
            return torch.empty(0, dtype=torch.int64, device=self.device)
        return self.logits(pixels).argmax(dim=1)

    def gradient(
        self, pixels: Tensor, loss: Callable[..., Tensor], *each: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits (N, M) at `pixels`, and the gradient (N, C, H, W) of `loss`: see `ascent`.

        Raises:
            ConfigurationError: the network has no gradient.
        """
        found = self.ascent(pixels, loss, *each)
        return found.logits, found.gradient

    def ascent(self, pixels: Tensor, loss: Callable[..., Tensor], *each: Tensor) -> Ascent:
        """Differentiate `loss` at `pixels` by one forward and one backward pass.

        Rows do not influence each other.

        Args:
            pixels: (N, C, H, W).
            loss: called as `loss(scores, *each)`: (rows,), the loss of every row, from scores
                (rows, M) and the same rows of each of `each`.
            *each: (N, ...).

        Raises:
            ConfigurationError: the network has no gradient.
        """
        parts = [
            [found[:count] for found in self._ascent(batch, loss, others)]
            for count, (batch, *others) in self.batches(pixels, *each)
        ]
        ascent = Ascent(*(_joined(list(part)) for part in zip(*parts, strict=True)))
        self._see(ascent.logits, ascent.gradient)
        return ascent

    def _ascent(
        self, pixels: Tensor, loss: Callable[..., Tensor], each: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        leaf = pixels.detach().requires_grad_()
        with torch.enable_grad():
            views = self._views(leaf)
            losses = loss(_with_gradient(views.scores), *each)
            # A sum: the gradient of a sample must not depend on the size of its batch.
            total = losses.sum()
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        return views.decision.detach(), losses.detach(), _used(gradient)

    def gradients(
        self, pixels: Tensor, losses: Callable[..., Tensor], *each: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute `gradient` for K losses at once: scores (N, M), gradients (N, K, C, H, W).

        Scores are those that were differentiated: a surrogate's where there is one. One forward and
        K backward passes; K times the memory of `pixels`, so pass few rows at a time.

        Args:
            pixels: (N, C, H, W).
            losses: called as `losses(logits, *each)`: (rows, K), K > 0.
            *each: (N, ...).
        """
        logits, gradients = [], []
        for count, (batch, *others) in self.batches(pixels, *each):
            seen, gradient = self._gradients(batch, losses, others)
            logits.append(seen[:count])
            gradients.append(gradient[:count])
        found = _joined(logits), _joined(gradients)
        self._see(*found)
        return found

    def _gradients(
        self, pixels: Tensor, losses: Callable[..., Tensor], each: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        leaf = pixels.detach().requires_grad_()
        with torch.enable_grad():
            logits = _with_gradient(self._views(leaf).scores)
            totals = losses(logits, *each).sum(dim=0).unbind()
        # One backward pass after the other: torch's batched ones were no faster on a CPU, and not
        # every layer has them.
        last = len(totals) - 1
        gradients = [
            _used(torch.autograd.grad(total, leaf, retain_graph=k < last, allow_unused=True)[0])
            for k, total in enumerate(totals)
        ]
        return logits.detach(), torch.stack(gradients, dim=1)


def _with_gradient(logits: Tensor) -> Tensor:
    if not logits.requires_grad:
        raise _no_gradient()
    return logits


def _used(gradient: Tensor | None) -> Tensor:
    """Return a gradient that is None where the logits do not come from the pixels."""
    if gradient is None:
        raise _no_gradient()
    return gradient


def _no_gradient() -> ConfigurationError:
    return ConfigurationError(
        "the network gives no gradient with respect to its input: this attack needs one (is "
        "forward under torch.no_grad, or a layer quantised?)"
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _padded(part: Tensor, rows: int) -> Tensor:
    if len(part) == rows:
        return part
    return torch.cat((part, part.new_zeros((rows - len(part), *part.shape[1:]))))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each row: (N, M), (N,) int64 -> (N,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def predictions(network: nn.Module, pixels: Tensor) -> Tensor:
    """Return the classes (N,) int64 of `pixels` (N, C, H, W) float32, as `run_attack` sees them.

    For choosing the correctly classified samples: an ordinary batch may differ in the last bit.
    """
    attacked = AttackedNetwork(network)
    return attacked.predictions(pixels.to(attacked.device)).cpu()
