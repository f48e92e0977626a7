"""Accumulators of real architectures against plain module hooks and float64 sums."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d

from regroup.accumulators import Extractor, reduce_signs
from regroup.errors import ConfigurationError, RegroupError
from regroup.taps import TapPolicy

ACTIVATION_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid),
)
SAMPLES = 2


@dataclass(frozen=True)
class Architecture:
    """A torchvision network, the image size to run it at, and how many taps it must have.

    The counts are derived from the papers' tables, for example resnet50: 1 + 16 blocks x 3 ReLU
    and the logits; 53 convolutions and one linear layer.
    """

    build: Callable[..., nn.Module]
    size: int
    preactivation: int
    linear: int
    activation_axis: int = 1  # of the activations' inputs
    options: tuple[tuple[str, object], ...] = ()


ARCHITECTURES = {
    "resnet50": Architecture(zoo.resnet50, 32, 1 + 16 * 3 + 1, 53 + 1),
    "vgg19": Architecture(zoo.vgg19, 32, 16 + 2 + 1, 16 + 3),
    "vgg19_bn": Architecture(zoo.vgg19_bn, 32, 16 + 2 + 1, 16 + 3),
    # 11 blocks, 10 of which expand, 9 with squeeze-excitation (two activations, two convolutions)
    "mobilenet_v3_small": Architecture(
        zoo.mobilenet_v3_small,
        32,
        1 + 10 + 11 + 2 * 9 + 1 + 1 + 1,
        1 + 10 + 11 + 2 * 9 + 11 + 1 + 2,
    ),
    # 16 blocks, 15 of which expand, all with squeeze-excitation
    "efficientnet_b0": Architecture(
        zoo.efficientnet_b0, 32, 1 + 15 + 16 + 2 * 16 + 1 + 1, 1 + 15 + 16 + 2 * 16 + 16 + 1 + 1
    ),
    "convnext_tiny": Architecture(zoo.convnext_tiny, 32, 18 + 1, 1 + 3 + 3 * 18 + 1, -1),
    # attention: qkv and projection; three patch mergings
    "swin_t": Architecture(zoo.swin_t, 56, 12 + 1, 1 + 4 * 12 + 3 + 1, -1),
    # attention: only its out-projection is tapped
    "vit_b_16": Architecture(zoo.vit_b_16, 32, 12 + 1, 1 + 3 * 12 + 1, -1, (("image_size", 32),)),
    "inception_v3": Architecture(
        zoo.inception_v3, 75, 94 + 1, 94 + 1, 1, (("init_weights", False),)
    ),
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def built(request: pytest.FixtureRequest) -> tuple[Architecture, nn.Module]:
    torch.manual_seed(0)
    architecture = ARCHITECTURES[request.param]
    model = architecture.build(weights=None, **dict(architecture.options)).eval()
    return architecture, model


Kept = list[tuple[Tensor, int]]


@contextmanager
def kept_responses(model: nn.Module, policy: str, activation_axis: int) -> Iterator[Kept]:
    """The oracle: raw responses with their channel axis, kept complete by plain module hooks."""
    kept: Kept = []

    def keep(tensor: Tensor, axis: int) -> None:
        kept.append((tensor.detach().clone(), axis % tensor.dim()))

    handles = []
    linear = F.linear

    def kept_linear(*args: Any, **kwargs: Any) -> Tensor:
        out = linear(*args, **kwargs)
        keep(out, -1)
        return out

    for module in model.modules():
        if policy == "preactivation" and isinstance(module, ACTIVATION_MODULES):
            handles.append(
                module.register_forward_pre_hook(lambda _m, x: keep(x[0], activation_axis))
            )
        elif policy == "preactivation" and isinstance(module, BasicConv2d):
            handles.append(module.bn.register_forward_hook(lambda _m, _x, out: keep(out, 1)))
        elif policy == "linear" and isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(lambda _m, _x, out: keep(out, 1)))
        elif policy == "linear" and isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_hook(lambda _m, _x, out: keep(out[0], -1)))
    if policy == "linear":
        # Swin calls F.linear without a module. Attention's inner calls use its own global name.
        F.linear = kept_linear
    try:
        yield kept
    finally:
        F.linear = linear
        for handle in handles:
            handle.remove()


def oracle(response: Tensor, axis: int) -> NDArray[np.float64]:
    phi = np.moveaxis(response.numpy().astype(np.float64), axis, -1)
    phi = phi.reshape(SAMPLES, -1, phi.shape[-1])
    return np.stack((np.maximum(0, phi).sum(1), np.maximum(0, -phi).sum(1)), axis=1)


@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_architecture_against_hooks(
    built: tuple[Architecture, nn.Module], policy: TapPolicy
) -> None:
    architecture, model = built
    pixels = torch.rand(SAMPLES, 3, architecture.size, architecture.size)
    extractor = Extractor(model, policy, pixels)
    with torch.no_grad():
        extraction = extractor(pixels)
    # Gradients on: attention's fused inference path would round differently.
    with kept_responses(model, policy, architecture.activation_axis) as kept:
        logits = model(pixels).detach()
    if policy == "linear" and architecture.build is zoo.vit_b_16:
        kept = [entry for entry in kept if not _is_attention_inner(entry[0])]
    if policy == "preactivation":
        kept = [*kept, (logits, 1)]
    assert len(extractor.taps) == len(kept) == getattr(architecture, policy)
    assert len({tap.name.lower() for tap in extractor.taps}) == len(kept)
    torch.testing.assert_close(extraction.logits, logits)
    for tap, found, (response, axis) in zip(
        extractor.taps, extraction.accumulators, kept, strict=True
    ):
        assert found.dtype == torch.float32
        assert (tap.channel_axis, tap.channels) == (axis, response.shape[axis])
        expected = oracle(response, axis)
        np.testing.assert_allclose(
            found.numpy(), expected, rtol=1e-5, atol=1e-6 * expected.max(), err_msg=tap.name
        )


def _is_attention_inner(response: Tensor) -> bool:
    """In- and out-projection inside `F.multi_head_attention_forward`: the batch is not first."""
    return (response.dim() == 2 and response.shape[0] != SAMPLES) or response.shape[-1] == 3 * 768


class CifarBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + x, inplace=True)


class CifarResNet(nn.Module):
    """A small CIFAR ResNet with functional, in-place activations."""

    def __init__(self, channels: int = 5, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(CifarBlock(channels), CifarBlock(channels))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(F.relu(self.conv1(x)))
        return torch.as_tensor(self.head(out.mean((2, 3))))


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(1)
    return CifarResNet().eval()


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def by_hand(model: CifarResNet, x: Tensor) -> list[Tensor]:
    """The five activation inputs and the logits, written out without in-place functions."""
    responses = [model.conv1(x)]
    out = responses[-1].clamp(min=0)
    for block in model.blocks:
        assert isinstance(block, CifarBlock)
        responses.append(block.bn1(block.conv1(out)))
        inner = responses[-1].clamp(min=0)
        responses.append(block.bn2(block.conv2(inner)) + out)
        out = responses[-1].clamp(min=0)
    return [*responses, model.head(out.mean((2, 3)))]


@torch.no_grad()
def test_in_place_functional_activations(resnet: CifarResNet, pixels: Tensor) -> None:
    extraction = Extractor(resnet, "preactivation", pixels)(pixels)
    expected = by_hand(resnet, pixels)
    torch.testing.assert_close(extraction.logits, expected[-1])
    torch.testing.assert_close(extraction.logits, resnet(pixels))
    assert len(extraction.accumulators) == len(expected) == 6
    for found, phi in zip(extraction.accumulators, expected, strict=True):
        flat = phi.flatten(2) if phi.dim() == 4 else phi[..., None]
        torch.testing.assert_close(found[:, 0], flat.clamp(min=0).sum(-1))
        torch.testing.assert_close(found[:, 1], -flat.clamp(max=0).sum(-1))


@torch.no_grad()
def test_last_taps_only(resnet: nn.Module, pixels: Tensor) -> None:
    everything = Extractor(resnet, "preactivation", pixels)
    last = Extractor(resnet, "preactivation", pixels, last=2)
    assert last.taps == everything.taps[-2:]
    expected = everything(pixels).accumulators[-2:]
    for found, wanted in zip(last(pixels).accumulators, expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("last", [0, -1, 7])
def test_last_out_of_range(resnet: nn.Module, pixels: Tensor, last: int) -> None:
    with pytest.raises(ConfigurationError, match=f"last = {last}.* 1 to 6"):
        Extractor(resnet, "preactivation", pixels, last=last)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_sample_does_not_depend_on_its_batch(
    resnet: nn.Module, pixels: Tensor, policy: TapPolicy
) -> None:
    extractor = Extractor(resnet, policy, pixels)
    batch = extractor(pixels)
    for row in range(len(pixels)):
        alone = extractor(pixels[row : row + 1])
        torch.testing.assert_close(alone.logits[0], batch.logits[row])
        for one, many in zip(alone.accumulators, batch.accumulators, strict=True):
            torch.testing.assert_close(one[0], many[row], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_empty_batch(resnet: nn.Module, pixels: Tensor) -> None:
    extraction = Extractor(resnet, "preactivation", pixels)(pixels[:0])
    assert extraction.logits.shape == (0, 4)
    assert extraction.accumulators[0].shape == (0, 2, 5)


def test_gradient_of_the_model_is_untouched(resnet: nn.Module, pixels: Tensor) -> None:
    extractor = Extractor(resnet, "preactivation", pixels)
    plain, watched = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    (expected,) = torch.autograd.grad(resnet(plain)[:, 1].sum(), plain)
    extraction = extractor(watched)
    assert not any(a.requires_grad for a in extraction.accumulators)
    (found,) = torch.autograd.grad(extraction.logits[:, 1].sum(), watched)
    assert torch.equal(found, expected)


class Watching(nn.Module):
    """Notes which responses of earlier layers are alive when each layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.alive: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        responses: list[weakref.ref[Tensor]] = []
        out = x.flatten(1)
        for layer in self.layers:
            out = layer(out)
            responses.append(weakref.ref(out))
            out = torch.relu(out)
            gc.collect()
            self.alive.append(sum(ref() is not None for ref in responses))
        return out


@pytest.mark.parametrize("policy", ["preactivation", "linear"])
def test_no_response_outlives_its_layer(policy: TapPolicy) -> None:
    model = Watching().eval()
    pixels = torch.rand(2, 1, 2, 3)
    gc.freeze()  # of all that the tests before left, each collection would take long
    try:
        with torch.no_grad():
            Extractor(model, policy, pixels)(pixels)
    finally:
        gc.unfreeze()
    assert model.alive == [0] * 8  # of discovery and of the extraction


def test_training_mode_is_refused_later_too(resnet: nn.Module, pixels: Tensor) -> None:
    extractor = Extractor(resnet, "preactivation", pixels)
    resnet.train()
    with pytest.raises(ConfigurationError, match=r"model\.eval\(\)"):
        extractor(pixels)


def test_inference_mode_and_bfloat16(resnet: nn.Module, pixels: Tensor) -> None:
    resnet, pixels = resnet.to(torch.bfloat16), pixels.to(torch.bfloat16)
    with torch.inference_mode():
        extraction = Extractor(resnet, "preactivation", pixels)(pixels)
    assert extraction.logits.dtype == torch.float32
    assert all(a.dtype == torch.float32 for a in extraction.accumulators)


def test_reduce_signs_by_hand() -> None:
    phi = torch.tensor([[[1.0, -2.0], [3.0, -4.0]], [[-5.0, 0.0], [-1.0, 7.0]]])
    last = reduce_signs(phi, 2, 2)
    assert last.tolist() == [[[4.0, 0.0], [0.0, 6.0]], [[0.0, 7.0], [6.0, 0.0]]]
    assert reduce_signs(phi, 2, 1).tolist() == [[[1.0, 3.0], [2.0, 4.0]], [[0, 7.0], [5.0, 1.0]]]
    # two rows of one sample on axis 0
    assert reduce_signs(phi, 1, 2).tolist() == [[[4.0, 7.0], [6.0, 6.0]]]
    assert not torch.signbit(last).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduce_signs_sums_in_float32(dtype: torch.dtype) -> None:
    # Summed in half precision, 1 + 1 + ... stops at 2048 (float16) or 256 (bfloat16).
    phi = torch.ones(1, 2, 100, 100, dtype=dtype)
    phi[:, 1] = -1
    assert reduce_signs(phi, 1, 1).tolist() == [[[10000.0, 0.0], [0.0, 10000.0]]]


def test_reduce_signs_does_not_cancel() -> None:
    # P - sum(phi) would be 0 in float32: 1e-4 is lost beside 1e6.
    phi = torch.tensor([[[1e6, -1e-4]]])
    assert reduce_signs(phi, 1, 1)[0, 1, 0].item() == pytest.approx(1e-4)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    rows=st.integers(1, 3),
    data=st.data(),
)
def test_reduce_signs_against_loops(shape: list[int], rows: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    seed = data.draw(st.integers(0, 2**31))
    samples = shape[0]
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(samples * rows, *shape[1:], generator=generator)
    expected = np.zeros((samples, 2, shape[axis]))
    for place, value in np.ndenumerate(phi.numpy().astype(np.float64)):
        sign = 0 if value > 0 else 1
        expected[place[0] // rows, sign, place[axis]] += abs(value)
    np.testing.assert_allclose(reduce_signs(phi, samples, axis).numpy(), expected, rtol=1e-5)


class Views(nn.Module):
    """Puts two views of every image on axis 0: interleaved or side by side."""

    def __init__(self, side_by_side: bool) -> None:
        super().__init__()
        self.side_by_side = side_by_side
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        join = torch.stack if self.side_by_side else torch.cat
        views = join((x, x.flip(-1)), 1 if self.side_by_side else 0).reshape(-1, *x.shape[1:])
        out = torch.relu(self.conv(views)).mean((2, 3))
        if self.side_by_side:
            return out.reshape(-1, 2, 4).mean(1)
        return out.reshape(2, -1, 4).mean(0)


@torch.no_grad()
def test_rows_side_by_side_are_summed(pixels: Tensor) -> None:
    model = Views(side_by_side=True).eval()
    found = Extractor(model, "preactivation", pixels)(pixels).accumulators[0]
    phi = model.conv(pixels), model.conv(pixels.flip(-1))
    expected = sum(part.clamp(min=0).sum((2, 3)) for part in phi)
    torch.testing.assert_close(found[:, 0], expected)


def test_interleaved_rows_are_refused(pixels: Tensor) -> None:
    with pytest.raises(RegroupError, match=r"not side by side on axis 0 of tap relu"):
        Extractor(Views(side_by_side=False).eval(), "preactivation", pixels)
