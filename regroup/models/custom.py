"""The user's own classifier: "package.module:factory"."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.errors import ConfigurationError
from regroup.models.assemble import BuiltNetwork, preprocessing_of
from regroup.models.class_names import network_class_names
from regroup.models.classifier import Normalisation
from regroup.models.weights import build_seeded, file_or_random, state_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup.models.spec import ModelSpec


def build_custom(spec: ModelSpec) -> BuiltNetwork:
    """Build the user's classifier by calling the factory.

    The returned module may have the attributes normalize_mean, normalize_std, preprocessing and
    class_names (one per output, to which a dataset's classes map; see `read_class_names`). With
    weights None, the factory has loaded them itself; the sha256 is then over the tensors.

    Raises:
        ConfigurationError: the factory cannot be found, fails, or does not return a classifier.
    """
    network = build_seeded(lambda: _call(spec), spec.seed).eval()
    sha256 = (
        state_sha256(network)
        if spec.weights is None
        else file_or_random(network, spec.weights, spec.name)[0]
    )
    normalisation = Normalisation(
        tuple(getattr(network, "normalize_mean", Normalisation.mean)),
        tuple(getattr(network, "normalize_std", Normalisation.std)),
    )
    preprocessing = preprocessing_of(spec, getattr(network, "preprocessing", None))
    classes = _outputs(spec, network, preprocessing.crop)
    names = network_class_names(network, classes, spec.name)
    return BuiltNetwork(network, spec.name, classes, sha256, preprocessing, normalisation, names)


def _find(spec: ModelSpec) -> Callable[[], object]:
    module, _, attribute = spec.name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"model {spec.name} cannot be imported: {error}") from error
    if not callable(factory):
        raise ConfigurationError(f"model {spec.name} is not callable: give a function or a class")
    found: Callable[[], object] = factory
    return found


def _call(spec: ModelSpec) -> nn.Module:
    factory = _find(spec)
    try:
        network = factory()
    except Exception as error:  # the user's code may raise anything
        raise ConfigurationError(
            f"model {spec.name} failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigurationError(
            f"model {spec.name} returned {type(network).__name__}, not a torch.nn.Module"
        )
    return network


@torch.no_grad()
def _outputs(spec: ModelSpec, network: nn.Module, side: int) -> int:
    """Return M, from one grey image.

    Raises:
        ConfigurationError: the output is not (1, M) logits.
    """
    try:
        logits = network(torch.zeros(1, 3, side, side))
    except Exception as error:
        raise ConfigurationError(
            f"model {spec.name} fails on one image of 3 x {side} x {side}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigurationError(f"model {spec.name} returns {found}: expected logits (N, classes)")
    if spec.num_classes not in (None, logits.shape[1]):
        raise ConfigurationError(
            f"model {spec.name} has {logits.shape[1]} classes, num_classes says {spec.num_classes}"
        )
    return int(logits.shape[1])
