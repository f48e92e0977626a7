"""Finding taps: order, names, channel axes, and every refusal."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import Tensor, nn

from regroup.errors import ConfigurationError, RegroupError
from regroup.taps import Tap, TapPolicy, TapRecorder, discover_taps, plan_taps

PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Pooled(nn.Module):
    """`body` between pixels and the mean over every axis but the channels, given by `axis`."""

    def __init__(self, body: nn.Module, axis: int = 1) -> None:
        super().__init__()
        self.body = body
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x).movedim(self.axis, 1)
        return torch.as_tensor(out.flatten(2).mean(2) if out.dim() > 2 else out)


class Apply(nn.Module):
    """A 3 to 6 convolution and then `function`, a bare call."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x))


def names(model: nn.Module, policy: TapPolicy = "preactivation", **options: Any) -> list[str]:
    return [tap.name for tap in discover_taps(model.eval(), PIXELS, policy, **options)]


def test_modules_used_several_times_are_numbered() -> None:
    found = [t.name for t in discover_taps(zoo.resnet18().eval(), PIXELS, "preactivation")]
    assert found[:4] == ["relu", "layer1.0.relu", "layer1.0.relu.2", "layer1.1.relu"]
    assert found[-2:] == ["layer4.1.relu.2", "logits"]
    assert len(found) == 1 + 8 * 2 + 1


def test_linear_order_with_the_shortcut() -> None:
    found = [t.name for t in discover_taps(zoo.resnet18().eval(), PIXELS, "linear")]
    assert found[5:8] == ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    assert found[-1] == "fc"
    assert len(found) == 20 + 1


ACTIVATIONS: list[Any] = [
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh),
    *(F.hardtanh_, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.leaky_relu, F.leaky_relu_),
    *(F.elu, F.elu_, F.selu, torch.selu, F.celu, F.mish, F.softplus, F.softsign, F.logsigmoid),
    *(torch.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.tanh, Tensor.tanh, F.tanh),
    *(torch.special.expit, F.hardshrink, F.softshrink, F.tanhshrink, F.rrelu),
    *(lambda x: F.relu(x, inplace=True), lambda x: F.silu(x, inplace=True)),
    *(lambda x: F.threshold(x, 0.1, 0), lambda x: F.prelu(x, torch.tensor([0.2]))),
    *(lambda x: F.hardswish(input=x), lambda x: x * torch.sigmoid(x)),
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.Hardtanh(), nn.SiLU()),
    *(nn.GELU(), nn.PReLU(), nn.Mish(), nn.Hardswish(), nn.Softplus(), nn.Tanh(), nn.LogSigmoid()),
]


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_every_activation_is_one_tap(function: Any) -> None:
    model = Pooled(Apply(function)).eval()
    plan = plan_taps(model, PIXELS, "preactivation")
    assert [tap.channels for tap in plan.taps] == [6, 6]
    received: list[Tensor] = []
    with torch.no_grad(), TapRecorder(plan, 2, lambda _i, phi: received.append(phi.clone())):
        model(PIXELS)
    assert isinstance(model.body, Apply)
    torch.testing.assert_close(received, [model.body.conv(PIXELS).detach()])


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize(
    "function",
    [
        *(lambda x: F.softmax(x, 1), lambda x: F.log_softmax(x, 1), lambda x: F.glu(x, 1)),
        *(lambda x: F.max_pool2d(x, 2), F.dropout, torch.neg, F.normalize),
    ],
)
def test_what_is_no_activation(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="nothing to tap in Pooled"):
        discover_taps(Pooled(Apply(function)).eval(), PIXELS, "preactivation")


def test_activation_inside_a_custom_autograd_function() -> None:
    assert names(Pooled(Apply(Swish.apply))) == ["body.sigmoid", "logits"]


def test_names_follow_the_module_and_are_file_safe() -> None:
    model = nn.Sequential()
    model.add_module("a b/é", nn.Conv2d(3, 4, 1))
    model.add_module("logits", nn.ReLU())
    found = names(Pooled(model))
    assert names(Pooled(model), "linear") == ["body.a_b__"]
    assert found == ["body.logits", "logits"]
    assert names(Pooled(model), root_module=model) == ["logits.2", "logits"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in found)


class Attending(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 4)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2)
        tokens = tokens.permute(0, 2, 1) if self.batch_first else tokens.permute(2, 0, 1)
        out = self.attention(tokens, tokens, tokens)[0]
        return torch.as_tensor(self.head(out.mean(1 if self.batch_first else 0)))


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_tapped_at_its_out_projection(batch_first: bool) -> None:
    model = Attending(batch_first).eval()
    plan = plan_taps(model, PIXELS, "linear")
    taps = Tap("embed", 8, 1), Tap("attention.out_proj", 8, 2), Tap("head", 4, 1)
    assert plan.taps == taps
    received: list[Tensor] = []
    with torch.no_grad(), TapRecorder(plan, 2, lambda _i, phi: received.append(phi)):
        model(PIXELS)
    assert received[1].shape == (2, 9, 8)


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


# The six channels end up on the axis given; every other axis is also of size 6 where that hides it.
AXES = [
    (lambda x: F.relu(x), 1),
    (lambda x: F.relu(channels_last(x)), 3),
    (lambda x: F.relu(channels_last(x) * 2 + 1), 3),
    (lambda x: F.relu(torch.cat((channels_last(x), channels_last(x)), 1)), 3),
    (lambda x: F.relu(F.layer_norm(channels_last(x), (6,))), 3),
    (lambda x: F.relu(F.layer_norm(x, (6, 6, 6))), 1),
    (lambda x: F.relu(F.layer_norm(channels_last(x), (6,)).permute(0, 3, 1, 2)), 1),
    (lambda x: F.relu(x.movedim(1, -1)), 3),
    (lambda x: F.relu(x.transpose(1, 2)), 2),
    (lambda x: F.relu(channels_last(x).mT), 2),
    (lambda x: F.relu(x.flatten(2)), 1),
    (lambda x: F.relu(x.flatten(2).transpose(1, 2)), 2),
    (lambda x: F.relu(channels_last(x).reshape(x.shape[0], -1, 6)), 2),
    (lambda x: F.relu(channels_last(x).reshape(-1, 2, 3, 6, 6)), 4),
    (lambda x: F.relu(torch.unflatten(channels_last(x), 1, (2, 3))), 4),
    (lambda x: F.relu(x.mean(3)), 1),
    (lambda x: F.relu(channels_last(x).unsqueeze(1)), 4),
    (lambda x: F.relu(channels_last(x)[:, 1:, 1:]), 3),
    (lambda x: F.relu(channels_last(x).chunk(2, dim=1)[1]), 3),
    (lambda x: F.relu(F.group_norm(x, 2)), 1),
    # two axes make the channels and join again: lost, until the normalisation tells
    (lambda x: F.relu(F.group_norm(x.reshape(-1, 2, 3, 36).reshape(-1, 6, 36), 2)), 1),
    (lambda x: F.relu(F.linear(x, torch.ones(6, 6))), 3),
    (lambda x: F.relu(channels_last(x).transpose_(1, 3)), 1),
    (lambda x: F.relu(channels_last(x[:, :, :1]).squeeze_(1)), 2),
]


@pytest.mark.parametrize(("function", "axis"), AXES)
def test_channel_axis_follows_the_maker(function: Any, axis: int) -> None:
    model = Pooled(Apply(function), axis).eval()
    tap = discover_taps(model, torch.rand(1, 3, 6, 6), "preactivation")[0]
    assert (tap.channel_axis, tap.channels) == (axis, 6)


class FromConstants(nn.Module):
    """Swin v2's way: a bias from a small network that sees a buffer, not the image."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.rand(5, 2))
        self.bias = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 6))
        self.conv = nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        bias = 16 * torch.sigmoid(self.bias(self.table).mean(0)).view(1, 6, 1, 1)
        return F.relu(self.conv(x) + bias).mean((2, 3))


def test_what_the_pixels_cannot_change_is_no_tap() -> None:
    assert names(FromConstants()) == ["relu", "logits"]
    assert names(FromConstants(), "linear") == ["conv"]
    plan = plan_taps(FromConstants().eval(), PIXELS, "preactivation")
    received: list[int] = []
    with TapRecorder(plan, 2, lambda index, _phi: received.append(index)):
        FromConstants()(PIXELS)
    assert received == [0]


def test_training_mode() -> None:
    model = zoo.resnet18().eval()
    model.layer1[0].bn1.train()
    with pytest.raises(ConfigurationError, match=r"'layer1\.0\.bn1'.*model\.eval\(\)"):
        discover_taps(model, PIXELS, "linear")


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("inside", [False, True])
def test_scripted_module(inside: bool) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))
    model = Pooled(scripted) if inside else scripted
    with pytest.raises(ConfigurationError, match="scripted or compiled"):
        discover_taps(model.eval(), PIXELS, "preactivation")


def test_compiled_module() -> None:
    model = torch.compile(Pooled(nn.Conv2d(3, 4, 1)), backend="eager")
    assert isinstance(model, nn.Module)
    with pytest.raises(ConfigurationError, match="scripted or compiled"):
        discover_taps(model.eval(), PIXELS, "preactivation")


def test_nothing_to_tap() -> None:
    with pytest.raises(ConfigurationError, match=r"no function known as .*activation.*'linear'"):
        discover_taps(Pooled(nn.Conv2d(3, 4, 1)).eval(), PIXELS, "preactivation")
    with pytest.raises(ConfigurationError, match=r"convolution or linear.*'preactivation'"):
        discover_taps(Pooled(nn.ReLU()).eval(), PIXELS, "linear")


def test_unknown_policy() -> None:
    with pytest.raises(ConfigurationError, match=r"'relu'.*preactivation.*linear"):
        discover_taps(zoo.resnet18().eval(), PIXELS, "relu")  # type: ignore[arg-type]


class Branching(nn.Module):
    """Does something else for dark images."""

    def __init__(self, dark: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.dark = dark

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.conv(x))
        return (out if x.sum() > 0 else torch.as_tensor(self.dark(out))).mean((2, 3))


@pytest.mark.parametrize(
    ("bright", "dark", "reason"),
    [
        (lambda x: x.relu(), lambda x: x, "ended after 1 of 2 calls"),
        (lambda x: x, lambda x: x.relu(), "continued with relu after 1 calls"),
        (lambda x: x.relu(), lambda x: x.tanh(), "call 2 is tanh, not relu"),
        (lambda x: x.relu(), lambda x: x[:, 1:].relu(), r"tap relu\.2 has shape \(2, 3, 8, 8\)"),
    ],
)
def test_control_flow_that_depends_on_the_image(bright: Any, dark: Any, reason: str) -> None:
    model = Branching(bright).eval()
    plan = plan_taps(model, -PIXELS, "preactivation")
    model.dark = dark
    with pytest.raises(RegroupError, match=reason), TapRecorder(plan, 2, lambda _i, _phi: None):
        model(-PIXELS)


class TokensFirst(nn.Module):
    """(L, N, E) as old transformers carry it: the samples are not on axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x.flatten(2).permute(2, 0, 1))).mean(0)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_samples_on_another_axis(samples: int) -> None:
    # 64 tokens: a multiple of 2 and of 8, so that the shape alone would not tell.
    model = TokensFirst().eval()
    pixels = torch.rand(samples, 3, 8, 8)
    plan = plan_taps(model, pixels, "preactivation")
    with (
        pytest.raises(RegroupError, match="axis 0 of tap relu does not hold the samples"),
        TapRecorder(plan, samples, lambda _i, _phi: None),
    ):
        model(pixels)


def test_an_error_of_the_model_is_not_hidden() -> None:
    plan = plan_taps(zoo.resnet18().eval(), PIXELS, "linear")
    with pytest.raises(RuntimeError, match="channels"), TapRecorder(plan, 2, lambda _i, _p: None):
        zoo.resnet18().eval()(PIXELS[:, :2])


def test_hooks_are_removed() -> None:
    model = zoo.resnet18().eval()
    discover_taps(model, PIXELS, "linear")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
