"""Any timm classifier as "timm:NAME" (an optional extra)."""

from __future__ import annotations

import difflib
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regroup.errors import ConfigurationError, plain_line
from regroup.images.preprocessing import INTERPOLATIONS, Interpolation, Preprocessing
from regroup.models.assemble import BuiltNetwork
from regroup.models.class_names import network_class_names
from regroup.models.classifier import Normalisation
from regroup.models.imagenet import IMAGENET_CLASSES, imagenet_names
from regroup.models.spec import TIMM_PREFIX
from regroup.models.weights import Weights, build_seeded, fitted, read_or_random, state_sha256

if TYPE_CHECKING:
    from torch import nn

    from regroup.models.spec import ModelSpec

_FOLDER = "local-dir:"
_HUBS = ("hf-hub:", "hf_hub:")


def build_timm(spec: ModelSpec) -> BuiltNetwork:
    """Build a timm classifier; preprocessing and normalisation are those of its data config.

    The name is one of timm's list, with a tag or without, "local-dir:PATH" of a folder with a
    config.json and weights, or "hf-hub:ORGANISATION/NAME" of the Hugging Face hub. With weights
    None: timm's own for this name, from its cache or the hub; the sha256 is then over the tensors.
    The crop is a centre crop, even where timm would squash or pad the image.

    Raises:
        ConfigurationError: timm is not installed, an unknown name, or a failed download.
    """
    timm = _timm(spec)
    name = spec.name.removeprefix(TIMM_PREFIX)
    _check_name(timm, spec, name)
    network = build_seeded(lambda: _create(timm, spec, name, spec.num_classes), spec.seed)
    classes = _outputs(spec, network)
    if spec.weights is None:
        weights = Weights(spec.name, {}, state_sha256(network))
    else:
        network, classes, weights = fitted(
            network,
            classes,
            lambda classes: _create(timm, spec, name, classes),
            spec,
            read_or_random(spec.weights),
        )
    config = timm.data.resolve_model_data_config(network)
    normalisation = Normalisation(tuple(config["mean"]), tuple(config["std"]))
    names = network_class_names(network, classes, spec.name) or _wnids(timm, network, classes)
    own = _placeless(network, spec.name)
    return BuiltNetwork(
        network, own, classes, weights.sha256, _preprocessing(spec, config), normalisation, names,
        weights.notes, name=own,
    )  # fmt: skip


def _wnids(timm: Any, network: nn.Module, classes: int) -> tuple[str, ...] | None:
    """Return the wnids of a network of one of ImageNet's larger sets, or of its 1000 classes."""
    infer = getattr(timm.data, "infer_imagenet_subset", None)
    subset = infer(network) if infer and classes > IMAGENET_CLASSES else None
    names = tuple(timm.data.ImageNetInfo(subset).label_names()) if subset else ()
    return names if len(set(names)) == classes else imagenet_names(classes)


def _placeless(network: nn.Module, name: str) -> str:
    """Return a model's name without a folder: results stay valid when its files are moved."""
    if not name.startswith(TIMM_PREFIX + _FOLDER):
        return name
    config: Any = network.pretrained_cfg
    return f"{TIMM_PREFIX}{config.get('architecture') or type(network).__name__}"


def _outputs(spec: ModelSpec, network: nn.Module) -> int:
    """Return the number of classes.

    Raises:
        ConfigurationError: the network has no classifier, or one without trained weights.
    """
    classes, config = int(network.num_classes), getattr(network, "pretrained_cfg", None) or {}  # type: ignore[arg-type]
    trained = int(config.get("num_classes", classes))
    if (not trained and spec.weights is None) or not classes:
        raise ConfigurationError(
            f"{spec.name} has no classifier, only features: choose a name with one, or give "
            "--num-classes and a weights file that has it"
        )
    if spec.weights is None and classes != trained:
        raise ConfigurationError(
            f"{spec.name} was trained on {trained} classes: --num-classes {classes} needs a "
            "weights file with a head of that size"
        )
    return classes


def _timm(spec: ModelSpec) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"{spec.name} needs the package timm: pip install timm ({error})"
        ) from error
    return timm


def _check_name(timm: Any, spec: ModelSpec, name: str) -> None:
    if name.startswith(_FOLDER):
        config = Path(name.removeprefix(_FOLDER)) / "config.json"
        if not config.is_file():
            raise ConfigurationError(
                f"{spec.name} is no folder of timm: there is no {config}, which names the "
                "architecture"
            )
        return
    if name.startswith(_HUBS) or timm.is_model(name.partition(".")[0]):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f": did you mean {', '.join(TIMM_PREFIX + other for other in near)}?" if near else ""
    raise ConfigurationError(f"timm has no model {name!r} ({spec.name}){hint}")


def _create(timm: Any, spec: ModelSpec, name: str, classes: int | None) -> nn.Module:
    options = {} if classes is None else {"num_classes": classes}
    try:
        with redirect_stdout(sys.stderr):
            network: nn.Module = timm.create_model(name, pretrained=spec.weights is None, **options)
    except Exception as error:  # timm, the hub and the network raise many types
        what = "with timm's own weights " if spec.weights is None else ""
        raise ConfigurationError(
            f"{spec.name} cannot be made {what}({type(error).__name__}: {plain_line(error)}): give "
            "a local weights file (.safetensors, .pth, .pt), a folder as timm:local-dir:PATH, or "
            "another name"
        ) from error
    return network.eval()


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
