"""The networks that benchmarks run, with random weights, which do not change the time.

They are defined here so that a GPU machine needs only torch and NumPy. ResNet-50 and VGG-19 have
the modules of torchvision's, with the same names (a test loads the weights of those and compares
the logits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.images.preprocessing import Preprocessing
from regroup.models import Classifier
from regroup.models.classifier import IMAGENET_NORMALISATION
from regroup.models.compute import Compute

if TYPE_CHECKING:
    from collections.abc import Iterator

VGG19 = (
    64,
    64,
    0,
    128,
    128,
    0,
    256,
    256,
    256,
    256,
    0,
    512,
    512,
    512,
    512,
    0,
    512,
    512,
    512,
    512,
    0,
)
RESNET50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXPANSION = 4


class Bottleneck(nn.Module):
    """A residual block of ResNet-50, with the stride in the 3 x 3 convolution."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(entering, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, leaving, 1, bias=False), nn.BatchNorm2d(leaving)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or entering != leaving:
            shortcut = nn.Conv2d(entering, leaving, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block, (N, 4 * width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(y)
        return activated


class ResNet50(nn.Module):
    """ResNet-50 for images (N, 3, H, W)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        entering = 64
        for number, (width, blocks, stride) in enumerate(RESNET50, 1):
            self.add_module(f"layer{number}", _stage(entering, width, blocks, stride))
            entering = EXPANSION * width
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(entering, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, M)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 1 + len(RESNET50)):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(entering: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(entering, width, stride)
    rest = [Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class VGG(nn.Module):
    """VGG-19 for images (N, 3, H, W), with two hidden layers of `hidden` units, or without them."""

    def __init__(self, classes: int, hidden: int | None) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions())
        side = 7 if hidden else 1
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(*_head(512 * side * side, hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, M)."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def _convolutions() -> Iterator[nn.Module]:
    entering = 3
    for width in VGG19:
        if not width:
            yield nn.MaxPool2d(2)
            continue
        yield nn.Conv2d(entering, width, 3, padding=1)
        yield nn.ReLU(inplace=True)
        entering = width


def _head(entering: int, hidden: int | None, classes: int) -> Iterator[nn.Module]:
    for _ in range(2 if hidden else 0):
        assert hidden
        yield nn.Linear(entering, hidden)
        yield nn.ReLU(inplace=True)
        yield nn.Dropout()
        entering = hidden
    yield nn.Linear(entering, classes)


def build(name: str, classes: int = 1000) -> nn.Module:
    """Build `resnet50`, `vgg19`, or `vgg19-32`, which has no hidden layers and is for 32 px.

    Seeded, in evaluation mode, and initialised so that responses neither vanish nor overflow.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = (
            ResNet50(classes)
            if name == "resnet50"
            else VGG(classes, None if name == "vgg19-32" else 4096)
        )
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, 0.5)
    return network.eval().requires_grad_(False)


def classifier(
    name: str, device: str, side: int, *, classes: int = 1000, compute: Compute | None = None
) -> Classifier:
    """Build a network with its normalisation, as workers run it, on `device`."""
    return Classifier(
        build(name, classes),
        name=name,
        architecture=f"benchmarks:{name}",
        preprocessing=Preprocessing(side),
        normalisation=IMAGENET_NORMALISATION,
        num_classes=classes,
        weights_sha256="",
        compute=compute or Compute(),
    ).to(device)


def noise(rows: int, side: int, device: str) -> Tensor:
    """Return pixels (rows, 3, side, side) in [0, 1]; images differ in grain and brightness."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(rows, 3, side, side, generator=generator)
    coarse = torch.rand(rows, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    share = torch.linspace(0.1, 0.9, max(rows, 1)).view(-1, 1, 1, 1)[:rows]
    return (share * fine + (1 - share) * smooth).to(device)
