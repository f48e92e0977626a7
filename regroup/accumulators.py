"""Accumulators: summed positive and negated negative responses per channel, in one forward pass.

Paper (arXiv 2006.10679), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from regroup.errors import ConfigurationError, RegroupError
from regroup.kernels.sign_sums import differentiable_sign_sums
from regroup.models.classifier import Classifier
from regroup.models.outputs import logits_of
from regroup.taps import TapRecorder, check_evaluation_mode, plan_taps, respond

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regroup.taps import Tap, TapPolicy


@dataclass(frozen=True)
class Extraction:
    """The outcome of one forward pass.

    Attributes:
        logits: (N, M) float32, of the candidates.
        accumulators: one per tap in execution order, each (N, 2, C) float32; sign axis 0 positive,
            1 negative.
    """

    logits: Tensor
    accumulators: tuple[Tensor, ...]


def reduce_signs(phi: Tensor, sample_count: int, channel_axis: int) -> Tensor:
    """Return accumulators (N, 2, C) float32 of responses `phi` (N * rows, ..., C, ...).

    P = sum(max(0, phi)), N = sum(max(0, -phi)) over every axis but sample and channel (Algorithm
    1), summed in float32 at least. N is summed by itself: P - sum(phi) would cancel. Where `phi`
    requires a gradient the sums have one too, and the same bits.
    """
    sums = differentiable_sign_sums(phi, channel_axis)
    rows = phi.shape[0] // max(sample_count, 1)  # an empty batch gives empty accumulators
    return sums if rows <= 1 else sums.view(sample_count, rows, *sums.shape[1:]).sum(1)


class Extractor:
    """Accumulators and logits of a classifier by one forward pass per batch.

    Responses are reduced while the network runs, so none outlives its layer unless it is part of a
    graph. Whether gradients are recorded is left to the caller: wrap calls in `torch.no_grad()` or
    `torch.inference_mode()` unless you differentiate.

    Args:
        model: the classifier, in evaluation mode.
        policy: the tap policy.
        example: (N, 3, H, W), from which the taps are found.
        last: reduce only the last `last` taps, which `taps` then holds; None: all.
        root_module: the module that tap names are relative to; by default `model`.
        keep_graph: accumulators have gradients, as logits always do; otherwise they are detached.

    Raises:
        ConfigurationError: as `regroup.taps.plan_taps`, or `last` is out of range.
        RegroupError: the network keeps several rows per sample on axis 0, but not side by side.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: TapPolicy,
        example: Tensor,
        *,
        last: int | None = None,
        root_module: nn.Module | None = None,
        keep_graph: bool = False,
    ) -> None:
        self._model, self._keep_graph = model, keep_graph
        self._plan = plan_taps(model, example, policy, root_module=root_module)
        taps = self._plan.taps
        if last is not None and not 1 <= last <= len(taps):
            raise ConfigurationError(f"last = {last}: the model has taps 1 to {len(taps)}")
        self._first = 0 if last is None else len(taps) - last
        self.taps: tuple[Tap, ...] = taps[self._first :]
        if any(call.rows > 1 for call in self._plan.calls):
            self._check_rows(example)

    def __call__(self, pixels: Tensor) -> Extraction:
        """Run the network once on `pixels` (N, 3, H, W).

        Raises:
            ConfigurationError: the model is in training mode.
            RegroupError: the forward pass differs from the one in which the taps were found (see
                `regroup.taps.TapRecorder`).
        """
        check_evaluation_mode(self._model)
        sample_count = pixels.shape[0]
        accumulators: list[Tensor] = []

        def receive(index: int, response: Tensor) -> None:
            """Reduce the response of tap `index` if it is one of the last."""
            if index >= self._first:
                axis = self.taps[index - self._first].channel_axis
                accumulators.append(reduce_signs(response, sample_count, axis))

        with TapRecorder(self._plan, sample_count, receive, keep_graph=self._keep_graph):
            output = respond(self._model, pixels)
        logits = logits_of(output, sample_count)
        if self._plan.logits is not None:
            last = logits if self._keep_graph else logits.detach()
            receive(len(self._plan.taps) - 1, last)
        if isinstance(self._model, Classifier):
            logits = self._model.candidates(logits)
        return Extraction(logits.to(torch.float32), tuple(accumulators))

    @torch.no_grad()
    def _check_rows(self, example: Tensor) -> None:
        """Refuse a network that interleaves samples on axis 0: no shape distinguishes it.

        A noise image has to give the same accumulators alone and beside a black one.
        """
        noise = torch.rand(example.shape[1:], generator=torch.Generator().manual_seed(0))
        pair = torch.stack((noise, torch.zeros_like(noise))).to(example)
        alone, beside = self(pair[:1]).accumulators, self(pair).accumulators
        for tap, one, two in zip(self.taps, alone, beside, strict=True):
            if bool((one[0] - two[0]).abs().max() > 0.02 * one.abs().max()):
                raise RegroupError(
                    f"the rows of a sample are not side by side on axis 0 of tap {tap.name}, so "
                    "its samples cannot be separated: keep the batch on axis 0"
                )
