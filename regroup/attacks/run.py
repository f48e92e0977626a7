"""`run_attack`: check the input, attack, and measure the outcome."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from regroup.attacks.batch import AttackBatch
from regroup.attacks.criterion import Criterion
from regroup.attacks.gradient_watch import GradientWatch
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.result import AttackResult, distances
from regroup.attacks.targets import check_targets, draw_target
from regroup.attacks.views import DefendedNetwork
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from regroup.attacks.spec import AttackSpec


def run_attack(
    spec: AttackSpec,
    model: nn.Module,
    pixels: Tensor | NDArray[np.float32],
    labels: Tensor | NDArray[np.integer],
    sample_ids: Sequence[str],
    targets: Tensor | NDArray[np.integer] | None = None,
    rows: int | None = None,
) -> AttackResult:
    """Attack correctly classified samples; the examples depend on no batch size and no order.

    For attacks whose `facts.group` is a number, one call is one group.

    Args:
        spec: the attack.
        model: pixels in [0, 1] to logits, in eval state.
        pixels: (N, C, H, W) float32 in [0, 1], on any device.
        labels: (N,).
        sample_ids: (N,), keys of the random streams.
        targets: (N,), for a targeted attack; None: drawn by (seed, sample id).
        rows: see `AttackedNetwork`.

    Raises:
        ValueError: pixels out of range, or misclassified samples, which the caller has to leave out
            (`predictions` finds them).
        ConfigurationError: a target that is the label, targets for an untargeted attack, or a model
            without gradients where they are needed.
    """
    started, network = time.perf_counter(), AttackedNetwork(model, rows or spec.facts.group)
    clean = torch.as_tensor(pixels).to(network.device)
    true = torch.as_tensor(labels).to(network.device, torch.int64)
    _check(clean, true, sample_ids)
    if spec.confidence is not None and isinstance(model, DefendedNetwork):
        raise ConfigurationError(
            f"{spec.name} with a confidence needs probabilities, and the scores of a defense are "
            "none: leave the confidence out"
        )
    if targets is not None and not spec.targeted:
        raise ConfigurationError(f"{spec.name} is untargeted here: give no targets, or targeted")
    if len(clean) == 0:
        batch = AttackBatch(clean, true, true, ())
        nothing = KernelOutcome.unsuccessful(batch)
        return _result(nothing, GradientWatch(Criterion.of(spec).met, batch), 0.0)
    logits = network.logits(clean)
    _check_correct(logits.argmax(dim=1) == true, sample_ids)
    aims = _targets(spec, targets, true, sample_ids, logits.shape[1])
    batch = AttackBatch(clean, true, aims, tuple(sample_ids))
    watch = GradientWatch(Criterion.of(spec).met, batch)
    outcome = spec.attack(replace(network, watch=watch), batch)
    return _result(outcome, watch, time.perf_counter() - started)


def _check(clean: Tensor, labels: Tensor, sample_ids: Sequence[str]) -> None:
    if clean.ndim != 4 or clean.dtype != torch.float32:
        raise ValueError(
            f"pixels must be (N, C, H, W) float32, not {tuple(clean.shape)} {clean.dtype}"
        )
    if not len(clean) == len(labels) == len(sample_ids):
        raise ValueError(
            f"{len(clean)} images, {len(labels)} labels and {len(sample_ids)} sample ids: "
            "give one of each for every sample"
        )
    if not bool(((clean >= 0) & (clean <= 1)).all()):
        raise ValueError("pixels must lie in [0, 1]; normalisation belongs to the model")


def _check_correct(correct: Tensor, sample_ids: Sequence[str]) -> None:
    wrong = [name for name, right in zip(sample_ids, correct.tolist(), strict=True) if not right]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"only correctly classified samples are attacked; misclassified: {shown}")


def _targets(
    spec: AttackSpec,
    given: Tensor | NDArray[np.integer] | None,
    labels: Tensor,
    sample_ids: Sequence[str],
    num_classes: int,
) -> Tensor:
    """Return (N,) int64: given or drawn, each a class other than the label; -1 if untargeted."""
    if not spec.targeted:
        return torch.full_like(labels, -1)
    true = labels.tolist()
    if given is None:
        pairs = zip(sample_ids, true, strict=True)
        drawn = [draw_target(spec.seed, name, label, num_classes) for name, label in pairs]
        return labels.new_tensor(drawn)
    aims = torch.as_tensor(given).to(labels)
    check_targets(aims.tolist(), true, sample_ids, num_classes)
    return aims


def _result(outcome: KernelOutcome, watch: GradientWatch, seconds: float) -> AttackResult:
    batch = watch.batch
    flags = torch.zeros_like(batch.labels) if outcome.flags is None else outcome.flags
    member = torch.full_like(batch.labels, -1) if outcome.member is None else outcome.member
    images = outcome.images.detach().cpu().numpy()
    measured = distances(images, batch.clean.cpu().numpy())
    queries, backward = (x.cpu().numpy() for x in (outcome.queries + 1, outcome.backward))
    passes = (queries + backward).astype(np.float64)
    return AttackResult(
        images=images,
        claimed=outcome.found.cpu().numpy(),
        target=batch.targets.cpu().numpy(),
        epsilon=outcome.epsilon.cpu().numpy(),
        l2=measured.l2,
        linf=measured.linf,
        mse=measured.mse,
        steps=outcome.steps.cpu().numpy(),
        queries=queries,
        backward_passes=backward,
        gradients=watch.gradients.cpu().numpy(),
        zero_gradients=watch.zero.cpu().numpy(),
        not_finite_gradients=watch.not_finite.cpu().numpy(),
        flags=flags.cpu().numpy(),
        member=member.cpu().numpy(),
        seconds=seconds * passes / max(passes.sum(), 1.0),
        failures=dict(outcome.failures),
    )
