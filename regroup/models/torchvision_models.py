"""Any torchvision classifier by name, with a member of its weights enum or a local file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch

from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models.assemble import BuiltNetwork
from regroup.models.classifier import Normalisation
from regroup.models.imagenet import imagenet_names
from regroup.models.spec import RANDOM_WEIGHTS
from regroup.models.weights import Weights, build_seeded, fitted, is_file_name, read_weights

if TYPE_CHECKING:
    from torch import nn

    from regroup.models.spec import ModelSpec

# Their weights expect another normalisation than the preset's; torchvision converts inside.
_OPTIONS = {
    name: {"transform_input": True, "init_weights": False} for name in ("googlenet", "inception_v3")
}
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def build_torchvision(spec: ModelSpec) -> BuiltNetwork:
    """Build a torchvision classifier; preprocessing and normalisation are those of its weights."""
    import torchvision

    enum = torchvision.models.get_model_weights(spec.name)
    member = _member(spec, enum)
    usual = spec.num_classes or len(member.meta["categories"])
    options = _OPTIONS.get(spec.name, {})

    def make(classes: int) -> nn.Module:
        """Build the network with `classes` outputs."""
        network: nn.Module = torchvision.models.get_model(
            spec.name, weights=None, num_classes=classes, **options
        )
        return network

    network = build_seeded(lambda: make(usual), spec.seed)
    read = None if spec.weights == RANDOM_WEIGHTS else _read(spec, member)
    network, classes, weights = fitted(network, usual, make, spec, read)
    name, names = f"torchvision.{spec.name}", imagenet_names(classes)
    return BuiltNetwork(
        network, name, classes, weights.sha256, *_preset(member), names, weights.notes
    )


def _member(spec: ModelSpec, enum: Any) -> Any:
    """Return the enum's member; a local file or random weights take the default's preprocessing."""
    if spec.weights is not None and spec.weights in enum.__members__:
        return enum[spec.weights]
    if spec.weights is not None and (spec.weights == RANDOM_WEIGHTS or is_file_name(spec.weights)):
        return enum.DEFAULT
    wrong = "needs weights" if spec.weights is None else f"has no weights {spec.weights!r}"
    raise ConfigurationError(
        f"{spec.name} {wrong}: give one of {', '.join(enum.__members__)}, "
        f"a file (.safetensors, .pth, .pt), or {RANDOM_WEIGHTS!r}"
    )


def _preset(member: Any) -> tuple[Preprocessing, Normalisation]:
    preset = member.transforms()
    preprocessing = Preprocessing(
        crop=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
    )
    return preprocessing, Normalisation(tuple(preset.mean), tuple(preset.std))


def _read(spec: ModelSpec, member: Any) -> Weights:
    local = spec.weights is not None and is_file_name(spec.weights)
    weights = read_weights(spec.weights if local and spec.weights else _downloaded(spec, member))
    # DenseNet's published files carry the module names of an older torchvision.
    tensors = {_OLD_DENSENET_KEY.sub(r"\1\2", key): t for key, t in weights.tensors.items()}
    return replace(weights, tensors=tensors)


def _downloaded(spec: ModelSpec, member: Any) -> Path:
    """Return the weights file in torch's cache, downloaded and checked by the hash in its name."""
    name = Path(urlparse(member.url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    prefix = re.search(r"-([a-f0-9]{8,})\.", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            member.url, str(path), prefix.group(1) if prefix else None, progress=False
        )
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"weights {spec.weights} of {spec.name} could not be downloaded from {member.url} "
            f"({error}): download the file elsewhere and give its path as weights"
        ) from error
    return path
