"""CIFAR ResNets of He et al. 2016 (section 4.2): 6n + 2 layers, parameter-free shortcuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from regroup.images.preprocessing import Preprocessing
from regroup.models.assemble import BuiltNetwork, normalisation_of
from regroup.models.classifier import IMAGENET_NORMALISATION
from regroup.models.weights import built_to_fit

if TYPE_CHECKING:
    from regroup.models.spec import ModelSpec

DEPTHS = {f"cifar-resnet{depth}": depth for depth in (20, 32, 44, 56)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; option A: every second pixel, zero channels added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        side = self.new_channels // 2
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self._shortcut(x))


class CifarResNet(nn.Module):
    """16, 32 and 64 channels in three stages of (depth - 2) / 6 blocks."""

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) to logits (N, M)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def build_cifar_resnet(spec: ModelSpec) -> BuiltNetwork:
    """Build a CIFAR ResNet with the spec's weights file; 32 px, normalisation from its metadata.

    A file without that metadata is assumed to be normalised as ImageNet, like the public weights.
    """
    network, classes, weights = built_to_fit(
        lambda classes: CifarResNet(DEPTHS[spec.name], classes), spec, 10, spec.weights
    )
    normalisation = normalisation_of(weights.metadata, IMAGENET_NORMALISATION)
    return BuiltNetwork(
        network, spec.name, classes, weights.sha256, Preprocessing(32), normalisation,
        notes=weights.notes,
    )  # fmt: skip
