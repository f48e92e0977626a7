"""Any timm classifier as "timm:NAME" (an optional extra)."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from regroup.errors import ConfigurationError
from regroup.images.preprocessing import INTERPOLATIONS, Interpolation, Preprocessing
from regroup.models.assemble import BuiltNetwork
from regroup.models.class_names import network_class_names
from regroup.models.classifier import Normalisation
from regroup.models.imagenet import imagenet_names
from regroup.models.weights import build_seeded, file_or_random, state_sha256

if TYPE_CHECKING:
    from torch import nn

    from regroup.models.spec import ModelSpec

TIMM_PREFIX = "timm:"


def build_timm(spec: ModelSpec) -> BuiltNetwork:
    """Build a timm classifier; preprocessing and normalisation are those of its data config.

    With weights None: timm's own for this name, from its cache or the hub; the sha256 is then over
    the tensors. The crop is a centre crop, even where timm would squash or pad the image.

    Raises:
        ConfigurationError: timm is not installed, an unknown name, or a failed download.
    """
    timm = _timm(spec)
    name = spec.name.removeprefix(TIMM_PREFIX)
    _check_name(timm, spec, name)
    network = build_seeded(lambda: _create(timm, spec, name), spec.seed)
    sha256 = (
        state_sha256(network)
        if spec.weights is None
        else file_or_random(network, spec.weights, spec.name)[0]
    )
    config = timm.data.resolve_model_data_config(network)
    classes = int(network.num_classes)  # type: ignore[arg-type]
    normalisation = Normalisation(tuple(config["mean"]), tuple(config["std"]))
    preprocessing = _preprocessing(spec, config)
    names = network_class_names(network, classes, spec.name) or imagenet_names(classes)
    return BuiltNetwork(network, spec.name, classes, sha256, preprocessing, normalisation, names)


def _timm(spec: ModelSpec) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"{spec.name} needs the package timm: pip install timm ({error})"
        ) from error
    return timm


def _check_name(timm: Any, spec: ModelSpec, name: str) -> None:
    if timm.is_model(name.partition(".")[0]):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f": did you mean {', '.join(TIMM_PREFIX + other for other in near)}?" if near else ""
    raise ConfigurationError(f"timm has no model {name!r} ({spec.name}){hint}")


def _create(timm: Any, spec: ModelSpec, name: str) -> nn.Module:
    options = {} if spec.num_classes is None else {"num_classes": spec.num_classes}
    try:
        network: nn.Module = timm.create_model(name, pretrained=spec.weights is None, **options)
    except Exception as error:  # timm, the hub and the network raise many types
        what = "with timm's own weights " if spec.weights is None else ""
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"{spec.name} cannot be made {what}({type(error).__name__}: {reason}): give a local "
            "weights file (.safetensors, .pth, .pt) or another name"
        ) from error
    return network


def _preprocessing(spec: ModelSpec, config: dict[str, Any]) -> Preprocessing:
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise ConfigurationError(
            f"{spec.name} takes images of {channels} x {height} x {width}: only square RGB images "
            "are supported"
        )
    known: dict[str, Interpolation] = {name: name for name in INTERPOLATIONS}
    interpolation = known.get(config["interpolation"], "bicubic")
    return Preprocessing(height, math.floor(height / config["crop_pct"]), interpolation)
