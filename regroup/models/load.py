"""`load_classifier`: from a ModelSpec to a Classifier."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError
from regroup.models.assemble import BuiltNetwork, assemble
from regroup.models.cifar_resnet import DEPTHS, build_cifar_resnet
from regroup.models.custom import build_custom
from regroup.models.digits import DIGITS_CNN, build_digits_cnn
from regroup.models.efficientnet_lite import EFFICIENTNET_LITE0, build_efficientnet_lite
from regroup.models.probe import require_repeatable
from regroup.models.spec import TIMM_PREFIX
from regroup.models.timm_models import build_timm
from regroup.models.torchvision_models import build_torchvision, torchvision_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from regroup.models.classifier import Classifier
    from regroup.models.spec import ModelSpec

_OWN: dict[str, Callable[[ModelSpec], BuiltNetwork]] = {
    DIGITS_CNN: build_digits_cnn,
    EFFICIENTNET_LITE0: build_efficientnet_lite,
    **dict.fromkeys(DEPTHS, build_cifar_resnet),
}


def load_classifier(spec: ModelSpec) -> Classifier:
    """Build the network, load its weights, wrap it; on the CPU, in eval state, parameters frozen.

    Raises:
        ConfigurationError: an unknown name (the message has the nearest ones), weights that are
            missing or of another architecture, a package that is not installed, a failed download;
            a network that is not `spec.recorded`, or one of the user's own that gives other logits
            each time.
    """
    builder = _builder(spec.name)
    classifier = assemble(spec, builder(spec))
    if spec.recorded is not None:
        spec.recorded.require(classifier)
    elif builder is build_custom and not classifier.stochastic:
        require_repeatable(classifier)
    return classifier


def model_names() -> list[str]:
    """Return every name that `load_classifier` knows.

    "timm:NAME" and "package.module:factory" work too.
    """
    return [*_OWN, *torchvision_names()]


def _builder(name: str) -> Callable[[ModelSpec], BuiltNetwork]:
    if name.startswith(TIMM_PREFIX):
        return build_timm
    if ":" in name:
        return build_custom
    if name in _OWN:
        return _OWN[name]
    known = model_names()
    if name in known:
        return build_torchvision
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "give a torchvision classifier's name"
    raise ConfigurationError(
        f"unknown model {name!r}: {hint} (your own model: package.module:factory)"
    )
