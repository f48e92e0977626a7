"""Classifiers by name: pixels in [0, 1] in, logits out.

`ModelSpec` names a classifier, `load_classifier` builds it. Each family of architectures has its
own module: torchvision, timm, the user's own (`custom`), EfficientNet-Lite, CIFAR ResNets and the
digits CNN of the demo.
"""

from regroup.forward_passes import forward_samples
from regroup.models.classifier import Classifier, Normalisation
from regroup.models.compute import Compute
from regroup.models.digits import DIGITS_METADATA, train_digits_cnn
from regroup.models.load import load_classifier, model_names
from regroup.models.spec import ModelSpec
from regroup.models.weights import save_weights

__all__ = [
    "DIGITS_METADATA",
    "Classifier",
    "Compute",
    "ModelSpec",
    "Normalisation",
    "forward_samples",
    "load_classifier",
    "model_names",
    "save_weights",
    "train_digits_cnn",
]
