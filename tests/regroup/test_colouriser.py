"""The colouriser: the published layout, the forward pass written out, and its weights files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from regroup.errors import ConfigurationError
from regroup.models.colouriser import (
    PUBLISHED_SHA256,
    Colouriser,
    colouriser_sha256,
    load_colouriser,
)
from regroup.models.weights import save_weights

CPU = torch.device("cpu")
# The published state dict: where each convolution's weight lies, and its shape.
CONVOLUTIONS = {
    "model1.0": (64, 4, 3, 3),
    "model1.2": (64, 64, 3, 3),
    "model2.0": (128, 64, 3, 3),
    "model2.2": (128, 128, 3, 3),
    "model3.0": (256, 128, 3, 3),
    "model3.2": (256, 256, 3, 3),
    "model3.4": (256, 256, 3, 3),
    "model4.0": (512, 256, 3, 3),
    **{f"model4.{i}": (512, 512, 3, 3) for i in (2, 4)},
    **{f"model{block}.{i}": (512, 512, 3, 3) for block in (5, 6, 7) for i in (0, 2, 4)},
    "model8up.0": (512, 256, 4, 4),  # transposed: inputs first
    "model3short8.0": (256, 256, 3, 3),
    "model8.1": (256, 256, 3, 3),
    "model8.3": (256, 256, 3, 3),
    "model9up.0": (256, 128, 4, 4),
    "model2short9.0": (128, 128, 3, 3),
    "model9.1": (128, 128, 3, 3),
    "model10up.0": (128, 128, 4, 4),
    "model1short10.0": (128, 64, 3, 3),
    "model10.1": (128, 128, 3, 3),
    "model_class.0": (529, 256, 1, 1),
    "model_out.0": (2, 128, 1, 1),
}
NORMS = {
    "model1.4": 64, "model2.4": 128, "model3.6": 256, "model4.6": 512, "model5.6": 512,
    "model6.6": 512, "model7.6": 512, "model8.5": 256, "model9.3": 128,
}  # fmt: skip


def small(seed: int = 0) -> Colouriser:
    """A narrow network whose statistics are not those of a fresh BatchNorm."""
    network = Colouriser(width=2)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.05, 0.5, generator=generator)
        elif tensor.ndim == 4:
            bound = tensor[0].numel() ** -0.5
            tensor.uniform_(-bound, bound, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.5, 0.5, generator=generator)
            tensor += name.endswith("weight")  # of a BatchNorm: about 1
    return network


def inputs(height: int, width: int, count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lightness = torch.rand((count, 1, height, width), generator=generator) * 100
    mask = (torch.rand((count, 1, height, width), generator=generator) < 0.1).float()
    hints = (torch.rand((count, 2, height, width), generator=generator) * 100 - 50) * mask
    return lightness, hints, mask


def test_the_state_dict_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Colouriser()
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in CONVOLUTIONS.items():
        outputs = shape[1] if "up" in name else shape[0]
        expected |= {f"{name}.weight": shape, f"{name}.bias": (outputs,)}
    for name, channels in NORMS.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.{part}"] = (channels,)
        expected[f"{name}.num_batches_tracked"] = ()
    assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == expected


def test_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        network = Colouriser()
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    without_head = sum(n for name, n in counts.items() if not name.startswith("model_class"))
    # Open Model Zoo's "colorization-siggraph": 34.0511 million, without the unused class head.
    assert round(without_head / 1e6, 4) == 34.0511
    # siggraph17-df00044c.pth has 136787426 bytes: these tensors and less than 64 KiB around them.
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    assert 0 < 136_787_426 - size < 64 * 1024


def reference(network: Colouriser, lightness: Tensor, hints: Tensor, mask: Tensor) -> list[Tensor]:
    """Zhang et al. 2017, figure 2, layer by layer, from the state dict: colours, colour logits."""
    state = network.state_dict()

    def conv(x: Tensor, name: str, dilation: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.conv2d(
            x, weight, bias, padding=dilation * (weight.shape[2] // 2), dilation=dilation
        )

    def up(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        return functional.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            state[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        normal: Tensor = (x - mean) / (var + 1e-5).sqrt() * scale + shift
        return normal

    x = torch.cat(((lightness - 50) / 100, hints / 110, mask), dim=1)
    kept = {}
    for block, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3), (6, 3), (7, 3)):
        for i in range(count):
            x = conv(x, f"model{block}.{2 * i}", 2 if block in (5, 6) else 1).relu()
        x = kept[block] = norm(x, f"model{block}.{2 * count}")
        if block < 4:
            x = x[:, :, ::2, ::2]
    x = (up(x, "model8up") + conv(kept[3], "model3short8.0")).relu()
    x = norm(conv(conv(x, "model8.1").relu(), "model8.3").relu(), "model8.5")
    classes = conv(x, "model_class.0")
    x = (up(x, "model9up") + conv(kept[2], "model2short9.0")).relu()
    x = norm(conv(x, "model9.1").relu(), "model9.3")
    x = (up(x, "model10up") + conv(kept[1], "model1short10.0")).relu()
    x = functional.leaky_relu(conv(x, "model10.1"), 0.2)
    return [conv(x, "model_out.0").tanh() * 110, classes]


def test_the_forward_pass_layer_by_layer() -> None:
    network, seen = small(), inputs(16, 24)
    colours, classes = reference(network, *seen)
    assert colours.std() > 1  # not a constant
    torch.testing.assert_close(network(*seen), colours, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(network.colour_logits(*seen), classes, atol=1e-4, rtol=1e-4)


def test_sides_that_are_no_multiple_of_eight_are_padded() -> None:
    network = small()
    lightness, hints, mask = inputs(13, 20)
    right, below = (0, 4, 0, 0), (0, 0, 0, 3)
    light = functional.pad(functional.pad(lightness, right, "replicate"), below, "replicate")
    known = [functional.pad(functional.pad(x, right), below) for x in (hints, mask)]
    colours, classes = reference(network, light, *known)
    found = network(lightness, hints, mask)
    assert found.shape == (2, 2, 13, 20)
    torch.testing.assert_close(found, colours[:, :, :13, :20], atol=1e-3, rtol=1e-4)
    logits = network.colour_logits(lightness, hints, mask)
    torch.testing.assert_close(logits, classes[:, :, :4, :5], atol=1e-4, rtol=1e-4)


def test_a_centred_mask() -> None:
    lightness, hints, mask = inputs(8, 8)
    network = small()
    network.mask_centre = 0.5
    colours, _ = reference(network, lightness, hints, mask - 0.5)
    torch.testing.assert_close(network(lightness, hints, mask), colours, atol=1e-3, rtol=1e-4)


def test_hints_and_mask_have_gradients_and_weights_have_none() -> None:
    network = small()
    lightness, hints, mask = inputs(8, 8)
    total = network(lightness, hints.requires_grad_(), mask.requires_grad_()).sum()
    for gradient in torch.autograd.grad(total, (hints, mask)):
        assert bool(gradient.any())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_files_are_read_once(tmp_path: Path, suffix: str) -> None:
    network, path = small(), tmp_path / f"colours.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_weights(network, path, {})
    loaded = load_colouriser(str(path), CPU)
    assert torch.equal(loaded(*inputs(8, 8)), network(*inputs(8, 8)))
    assert load_colouriser(str(path), CPU) is loaded
    assert load_colouriser(str(path), CPU, mask_centre=0.5) is not loaded


def test_another_file_of_the_same_name_is_not_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "colours.safetensors"
    save_weights(small(0), path, {})
    before, digest = load_colouriser(str(path), CPU), colouriser_sha256(str(path))
    save_weights(small(1), path, {})
    assert colouriser_sha256(str(path)) != digest
    after = load_colouriser(str(path), CPU)
    assert not torch.equal(after(*inputs(8, 8)), before(*inputs(8, 8)))


def test_the_sha256_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "colours.safetensors"
    save_weights(small(), path, {})
    digest = colouriser_sha256(str(path))
    assert len(digest) == 64
    assert colouriser_sha256(str(path), digest) == digest
    with pytest.raises(ConfigurationError, match=f"has sha256 {digest} instead of df00044c"):
        colouriser_sha256(str(path), PUBLISHED_SHA256)


def test_what_is_no_colouriser_is_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pth")
    with pytest.raises(ConfigurationError, match=r"no\.pth does not exist: fetch siggraph17-df0"):
        colouriser_sha256(missing)
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_colouriser(missing, CPU)
    path = tmp_path / "other.safetensors"
    save_weights(nn.Linear(2, 2), path, {})
    with pytest.raises(ConfigurationError, match="does not fit the colouriser siggraph17: missing"):
        load_colouriser(str(path), CPU)
