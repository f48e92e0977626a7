"""Assemble a Classifier from a network and its defaults, with the spec's overrides applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models.classifier import Classifier, Normalisation, check_normalisation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from regroup.models.spec import ModelSpec


@dataclass(frozen=True)
class BuiltNetwork:
    """A network and its defaults, as its family of architectures built it.

    Attributes:
        network: in eval state.
        architecture: its name.
        num_classes: M.
        weights_sha256: 64 hex characters.
        preprocessing: the default.
        normalisation: the default.
        class_names: of the M classes, if known.
        notes: sentences about it for the log.
        name: of the classifier; "": that of the spec.
        own: what describes a user's network beyond its weights.
    """

    network: nn.Module
    architecture: str
    num_classes: int
    weights_sha256: str
    preprocessing: Preprocessing | None
    normalisation: Normalisation
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    own: Mapping[str, object] = field(default_factory=dict)


def assemble(spec: ModelSpec, built: BuiltNetwork) -> Classifier:
    """Wrap a network; `spec` overrides preprocessing and normalisation, and restricts classes.

    Raises:
        ConfigurationError: the normalisation cannot be one of pixels in [0, 1].
    """
    normalisation = Normalisation(
        spec.mean or built.normalisation.mean, spec.std or built.normalisation.std
    )
    check_normalisation(normalisation, spec.name)
    return Classifier(
        built.network,
        name=built.name or spec.name,
        architecture=built.architecture,
        preprocessing=preprocessing_of(spec, built.preprocessing),
        normalisation=normalisation,
        num_classes=built.num_classes,
        weights_sha256=built.weights_sha256,
        class_names=built.class_names,
        classes=spec.classes,
        compute=spec.compute,
        notes=built.notes,
        own=built.own,
    )


def preprocessing_of(spec: ModelSpec, default: Preprocessing | None) -> Preprocessing:
    """Return the default with the spec's overrides.

    Raises:
        ConfigurationError: neither gives a size.
    """
    crop = spec.crop or (default.crop if default else None)
    if crop is None:
        raise ConfigurationError(
            f"model {spec.name} does not say which image size it takes: give crop (and resize), "
            "or set `preprocessing` on the module that the factory returns"
        )
    default = default or Preprocessing(crop)
    return Preprocessing(
        crop,
        spec.resize or default.resize,
        spec.interpolation or default.interpolation,
        spec.decoder,
    )


def normalisation_of(metadata: Mapping[str, str], default: Normalisation) -> Normalisation:
    """Return normalize_mean, normalize_std ("r,g,b") of a file's metadata, else `default`."""
    return Normalisation(
        _triple(metadata, "normalize_mean") or default.mean,
        _triple(metadata, "normalize_std") or default.std,
    )


def _triple(metadata: Mapping[str, str], key: str) -> tuple[float, float, float] | None:
    if key not in metadata:
        return None
    try:
        red, green, blue = (float(value) for value in metadata[key].split(","))
    except ValueError as error:
        raise ConfigurationError(
            f"weights metadata {key} is {metadata[key]!r}: expected three numbers"
        ) from error
    return red, green, blue
