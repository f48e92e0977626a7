"""The user's own classifier: "package.module:factory"."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regroup.errors import ConfigurationError
from regroup.models.assemble import BuiltNetwork, preprocessing_of
from regroup.models.class_names import network_class_names
from regroup.models.outputs import logits_of, several_outputs
from regroup.models.own.attributes import (
    normalisation_of_module,
    own_stages,
    preprocessing_of_module,
)
from regroup.models.own.description import describe_own
from regroup.models.own.factory import made_network, refused_failures
from regroup.models.own.plain_module import as_float32, plain_module
from regroup.models.seeding import seeded
from regroup.models.weights import file_or_random, state_sha256

if TYPE_CHECKING:
    from torch import nn

    from regroup.models.spec import ModelSpec

_BATCH_TOLERANCE = 0.02  # of the largest logit: rounding differs with the batch, to 1e-5 or so


def build_custom(spec: ModelSpec) -> BuiltNetwork:
    """Build the user's classifier by calling the factory.

    The returned module may have the attributes normalize_mean, normalize_std, preprocessing and
    class_names (one per output, to which a dataset's classes map; see `read_class_names`). With
    weights None, the factory has loaded them itself; the sha256 is then over the tensors.

    Raises:
        ConfigurationError: the factory cannot be found, fails, or does not return a classifier.
    """
    network = _built(spec, spec.seed)
    if spec.weights is None:
        sha256, notes = state_sha256(network), own_stages(network)
    else:
        sha256, weights = file_or_random(network, spec.weights, spec.name)
        notes = [*weights.notes, *own_stages(network)]
    own = describe_own(spec, network, partial(_built, spec))
    normalisation = normalisation_of_module(network, spec.name)
    preprocessing = preprocessing_of(spec, preprocessing_of_module(network, spec.name))
    logits, remarks = _probed(spec, network, preprocessing.crop)
    classes = int(logits.shape[1])
    names = network_class_names(network, classes, spec.name)
    notes = [*notes, *remarks]
    return BuiltNetwork(
        network,
        spec.name,
        classes,
        sha256,
        preprocessing,
        normalisation,
        names,
        tuple(notes),
        own=own,
    )


def _built(spec: ModelSpec, seed: int) -> nn.Module:
    with seeded(seed):
        return plain_module(made_network(spec), spec.name)


@torch.no_grad()
def _probed(spec: ModelSpec, network: nn.Module, side: int) -> tuple[Tensor, list[str]]:
    """Return the logits of one noise image, (1, M), and what is to be said about them.

    Raises:
        ConfigurationError: the output is not (1, M) logits, or differs beside another image.
    """
    noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    remarks = []
    try:
        output = _output(spec, network, noise)
    except ConfigurationError:
        if not (others := as_float32(network)):
            raise
        output = _output(spec, network, noise)
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
        remarks.append(f"its {kinds} parameters are computed in float32 (--dtype chooses)")
    logits = _checked(spec, output)
    _check_batches(spec, network, noise, logits)
    return logits, [*remarks, *_remarks(output, logits)]


def _output(spec: ModelSpec, network: nn.Module, pixels: Tensor) -> object:
    count, side = len(pixels), pixels.shape[-1]
    with refused_failures(
        f"model {spec.name} fails on {'one image' if count == 1 else f'{count} images at once'} of "
        f"3 x {side} x {side}",
        "; if it takes another size, give --crop and --resize" if count == 1 else "",
    ):
        return network(pixels.clone())


def _checked(spec: ModelSpec, output: object) -> Tensor:
    if isinstance(output, Tensor) and (output.dim() != 2 or output.shape[1] < 2):
        raise ConfigurationError(
            f"model {spec.name} returns {tuple(output.shape)}: expected logits (N, classes), one "
            "for each of two or more classes"
        )
    try:
        logits = logits_of(output, 1)
    except ConfigurationError as error:
        raise ConfigurationError(f"model {spec.name}: {error}") from None
    if logits.shape[1] < 2 or not logits.is_floating_point():
        raise ConfigurationError(
            f"model {spec.name} returns {tuple(logits.shape)} of {logits.dtype}: expected floating "
            "logits (N, classes)"
        )
    if spec.num_classes not in (None, logits.shape[1]):
        raise ConfigurationError(
            f"model {spec.name} has {logits.shape[1]} classes, num_classes says {spec.num_classes}"
        )
    return logits


def _check_batches(spec: ModelSpec, network: nn.Module, noise: Tensor, alone: Tensor) -> None:
    """Refuse a network whose logits for an image depend on the images beside it.

    One whose passes over the same image differ is not judged here.
    """
    if not torch.equal(logits_of(_output(spec, network, noise), 1), alone):
        return
    output = _output(spec, network, torch.cat((noise, torch.zeros_like(noise))))
    try:
        beside = logits_of(output, 2)[:1]
    except ConfigurationError as error:
        raise ConfigurationError(f"model {spec.name}: {error}") from None
    largest = float(alone.abs().max())
    if beside.shape != alone.shape or not bool(
        ((beside - alone).abs() <= _BATCH_TOLERANCE * largest).all() | ~alone.isfinite().all()
    ):
        raise ConfigurationError(
            f"model {spec.name} gives an image other logits beside another image than alone: keep "
            "samples apart on axis 0 (BatchNorm needs its running statistics, "
            "track_running_stats=True)"
        )


def _remarks(output: object, logits: Tensor) -> list[str]:
    found = [remark] if (remark := several_outputs(output, 1)) else []
    sums = logits.double().sum(1), logits.double().exp().sum(1)
    if (bool((logits >= 0).all()) and abs(float(sums[0]) - 1) < 1e-3) or (
        abs(float(sums[1]) - 1) < 1e-3
    ):
        found.append(
            "returns probabilities rather than logits, at which the logits tap and gradient "
            "attacks lose what they look at: return what is before the softmax"
        )
    return found
