"""Networks as people have them, found as tests.regroup.own_networks:NAME; images are of 8 px."""

import argparse
import io
import sys
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from regroup.images.preprocessing import Preprocessing


class Net(nn.Module):
    """Three classes of a convolution, a ReLU and a linear layer."""

    preprocessing: Any = Preprocessing(8)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


# ---- made in other ways


def quantised() -> nn.Module:
    quantise: Any = torch.ao.quantization.quantize_dynamic
    return cast("nn.Module", quantise(Net(), {nn.Linear}, dtype=torch.qint8))


def sparse_buffers() -> nn.Module:
    net = Net()
    net.register_buffer("mask", torch.eye(4).to_sparse())
    net.register_buffer("rows", torch.eye(4).to_sparse_csr())
    net.register_buffer("stamp", torch.ones(1, 1, 2, 2).to_sparse())
    return net


def sparse_weight() -> nn.Module:
    net = Net()
    net.head.weight = nn.Parameter(net.head.weight.detach().to_sparse_csr(), requires_grad=False)
    return net


def compiled() -> nn.Module:
    net: Any = torch.compile(Net())
    net.normalize_mean = 0.5
    return cast("nn.Module", net)


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile()
    return net


def data_parallel() -> nn.Module:
    net: Any = nn.DataParallel(Net())
    net.preprocessing = Preprocessing(8)
    net.normalize_mean = [0.5] * 3
    return cast("nn.Module", net)


def half() -> nn.Module:
    return Net().half()


def double() -> nn.Module:
    return Net().double()


def brain_float() -> nn.Module:
    return Net().bfloat16()


class CastsItself(Net):
    """Half precision inside, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16()).float()  # type: ignore[no-any-return]


def tied() -> nn.Module:
    net = Net()
    net.again = net.head
    net.register_parameter("and_again", cast("nn.Parameter", net.head.weight))
    return net


def parametrised() -> nn.Module:
    net = Net()
    parametrizations.weight_norm(net.conv)
    parametrizations.spectral_norm(net.head)
    return net


@torch.inference_mode()
def under_inference_mode() -> nn.Module:
    return Net()


def in_training() -> nn.Module:
    return Net().train()


def hooked() -> nn.Module:
    net = Net()
    net.conv.register_forward_hook(lambda _m, _i, output: output * 2)
    net.register_forward_pre_hook(lambda _m, inputs: (inputs[0] + 1,))
    return net


class Prints(Net):
    def forward(self, x: Tensor) -> Any:
        print("here is forward")
        return super().forward(x)


class Optional(Net):
    """With an argument that training gives."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return super().forward(x) if y is None else None


class InPlace(Net):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2).sub_(1))


def chosen(num_classes: int = 3) -> nn.Module:
    net = Net()
    net.head = nn.Linear(4, num_classes)
    return net


instance = Net()


def sets_torch_up() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    net = Net()
    print("made")
    argparse.ArgumentParser().parse_args()
    net = net.to_empty(device="cpu")
    for tensor in net.parameters():
        nn.init.constant_(tensor, 0.1)
    return net


# ---- what it says about itself


def saying(**attributes: Any) -> nn.Module:
    net = Net()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net


def mean_in_tensors() -> nn.Module:
    return saying(
        normalize_mean=torch.full((3,), 0.5), normalize_std=torch.full((1, 3, 1, 1), 0.25)
    )


def mean_in_arrays() -> nn.Module:
    return saying(
        normalize_mean=np.full(3, 0.5, np.float32), normalize_std=np.full((3, 1, 1), 0.25)
    )


def mean_in_lists() -> nn.Module:
    return saying(normalize_mean=[0.5, 0.5, 0.5], normalize_std=[[0.25], [0.25], [0.25]])


def mean_in_one_number() -> nn.Module:
    return saying(normalize_mean=0.5, normalize_std=(0.25,))


def mean_in_buffers() -> nn.Module:
    net = Net()
    net.register_buffer("normalize_mean", torch.full((1, 3, 1, 1), 0.5))
    net.register_buffer("normalize_std", torch.tensor(0.25))
    return net


def nothing_said() -> nn.Module:
    return saying(normalize_mean=None, normalize_std=None, class_names=None)


class OwnStages(Net):
    """Stages of its own have the names of our attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize_mean = nn.Identity()

    def preprocessing(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.preprocessing(self.normalize_mean(x)))


class StageCalledPreprocessing(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(192, 3))
        self.preprocessing = nn.Identity()


def preprocessing_number() -> nn.Module:
    return saying(preprocessing=8)


def preprocessing_function() -> nn.Module:
    return saying(preprocessing=nn.Sequential)


def std_zero() -> nn.Module:
    return saying(normalize_std=torch.tensor([1.0, 0.0, 1.0]))


def std_nan() -> nn.Module:
    return saying(normalize_std=float("nan"))


def mean_of_255() -> nn.Module:
    return saying(normalize_mean=(123.7, 116.3, 103.5), normalize_std=(58.4, 57.1, 57.4))


def std_of_255() -> nn.Module:
    return saying(normalize_std=(58.4, 57.1, 57.4))


def two_means() -> nn.Module:
    return saying(normalize_mean=(0.5, 0.5))


def mean_in_words() -> nn.Module:
    return saying(normalize_mean="imagenet")


# ---- refused


def lazy() -> nn.Module:
    net = Net()
    net.head = nn.LazyLinear(3)
    return net


def on_meta() -> nn.Module:
    return Net().to("meta")


def with_transform() -> Any:
    return Net(), lambda image: image


def needs_arguments(width: int, depth: int) -> nn.Module:
    raise AssertionError(f"{width} {depth}")


def exits() -> nn.Module:
    sys.exit("no GPU")


def colourful() -> nn.Module:
    raise ValueError("\x1b[31mred\x1b[0m\nand \x1b]0;title\x07more\x07")


def recursive() -> nn.Module:
    return recursive()


class OneAtATime(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).view(1, 3)


class FixedBatch(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).view(8, -1)


class FixedSize(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.view(-1, 3, 32, 32))


class BatchStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Decides(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).argmax(1)


class OneOutput(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[:, :1]


class TwoAnswers(Net):
    def forward(self, x: Tensor) -> Any:
        return {"fine": super().forward(x), "coarse": super().forward(x)}


def nested() -> nn.Module:
    net = Net()
    net.register_buffer("ragged", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
    return net


def unpickles() -> nn.Module:
    file = io.BytesIO()
    torch.save({"net": Net()}, file)
    file.seek(0)
    return torch.load(file)["net"]  # type: ignore[no-any-return]


def exported() -> nn.Module:
    class Exported(Net):
        def train(self, mode: bool = True) -> "Exported":
            raise NotImplementedError(f"Calling {'train' if mode else 'eval'}() is not supported")

    return Exported()


# ---- outputs


class Softmax(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(1)


class LogSoftmax(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).log_softmax(1)


class Pair(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Tupled(Net):
    def forward(self, x: Tensor) -> Any:
        return [None, {"deep": x}, super().forward(x)]


class Features(Net):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits, torch.relu(self.conv(x)).mean((2, 3))
