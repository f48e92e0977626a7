"""cAdv with colourisers whose outcome is known by hand, and with a real classifier."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, make_attack, predictions, run_attack, verify
from regroup.attacks.colour.cadv import CAdv
from regroup.attacks.colour.cielab import lab_to_rgb, rgb_to_lab
from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, load_classifier
from regroup.models.colouriser import Colouriser
from regroup.models.weights import file_sha256, save_weights

SIDE = 16


def echo() -> Colouriser:
    """Every pixel takes the colour that is given there: 110 tanh(hint / 110), whatever the mask.

    Channels of the first block: a*, b*, lightness. The brighter, the surer it is of the colour.
    """
    network = Colouriser(width=3)
    state = network.state_dict()
    for tensor in state.values():
        tensor.zero_()
    for name in [name for name in state if name.endswith("running_var")]:
        state[name].fill_(1 - 1e-5)  # BatchNorm's epsilon
        state[name.replace("running_var", "weight")].fill_(1)
    # ReLUs are on the way: 1 is added to the colours, 1/2 to the lightness in -1/2 .. 1/2.
    for channel, source, bias in ((0, 1, 1.0), (1, 2, 1.0), (2, 0, 0.5)):
        state["model1.0.weight"][channel, source, 1, 1] = 1
        state["model1.0.bias"][channel] = bias
    for name in (
        "model1.2", "model2.0", "model2.2", "model3.0", "model3.2", "model3.4", "model3short8.0",
        "model8.1", "model8.3", "model1short10.0", "model10.1",
    ):  # fmt: skip
        for channel in range(3):
            state[f"{name}.weight"][channel, channel, 1, 1] = 1
    state["model_class.0.weight"][0, 2] = 20  # one bin grows with lightness
    for channel in range(2):
        state["model_out.0.weight"][channel, channel] = 1
        state["model_out.0.bias"][channel] = -1
    return network


def lively() -> Colouriser:
    """Random weights that give colours."""
    network = Colouriser(width=2)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.05, 0.5, generator=generator)
        elif tensor.ndim == 4:
            bound = tensor[0].numel() ** -0.5
            tensor.uniform_(-bound, bound, generator=generator)
    return network


@pytest.fixture(scope="module")
def echo_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("colours") / "echo.safetensors"
    save_weights(echo(), path, {})
    return str(path)


@pytest.fixture(scope="module")
def lively_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("colours") / "lively.safetensors"
    save_weights(lively(), path, {})
    return str(path)


class Reddish(nn.Module):
    """Class 1 where the mean red is above the mean green by more than `bound`."""

    def __init__(self, bound: float = 0.1) -> None:
        super().__init__()
        self.bound, self.seen = bound, list[Tensor]()

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels.detach().clone())
        excess = 40 * ((pixels[:, 0] - pixels[:, 1]).mean(dim=(1, 2)) - self.bound)
        return torch.stack((torch.zeros_like(excess), excess), dim=1)


class Strongest(nn.Module):
    """The class is the channel that is the strongest in the mean, red winning among greys."""

    def forward(self, pixels: Tensor) -> Tensor:
        return 40 * pixels.mean(dim=(2, 3)) + pixels.new_tensor([1.0, 0.0, 0.0])


def greenish(count: int, height: int = SIDE, width: int = SIDE, seed: int = 0) -> Tensor:
    """Textured and not far from grey: no colour of the attack leaves sRGB."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand((count, 3, height, width), generator=generator) * 0.1 + 0.45
    greener: Tensor = pixels + torch.tensor([-0.03, 0.03, 0.0]).view(1, 3, 1, 1)
    return greener


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(model: nn.Module, pixels: Tensor, rows: int | None = None, **given: Any) -> AttackResult:
    spec = CAdv(**{"learning_rate": 0.01, "steps": 60, **given})
    ids = names(len(pixels))
    return run_attack(spec, model, pixels, predictions(model, pixels), ids, rows=rows)


def margins(model: nn.Module, images: np.ndarray[Any, Any]) -> Tensor:
    """Lead of the largest softmax probability over the second, (N,)."""
    logits: Tensor = model(torch.from_numpy(images))
    largest = logits.softmax(dim=1).topk(2, dim=1).values
    return largest[:, 0] - largest[:, 1]


# ---- the spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"clusters": 0}, "clusters is 0"),
        ({"kept": 9}, "kept is 9: there are 8 clusters"),
        ({"hints": 0}, "hints is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0: it must be positive"),
        ({"margin": 1.0}, r"margin is 1: it is a difference of probabilities"),
        ({"settled": 0.0}, "settled is 0: it must be positive"),
        ({"epsilon": 0.1}, "cadv has no epsilon"),
        ({"norm": "linf"}, "unknown norm of cadv 'linf': choose from none"),
        ({"protocol": "budget"}, "unknown protocol of cadv 'budget'"),
        ({"colouriser_sha256": "df00044c"}, "'df00044c' is not a sha256: give 64 characters"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CAdv(**change)


def test_the_paper_s_parameters_are_the_defaults() -> None:
    spec = make_attack("cadv")
    assert isinstance(spec, CAdv)
    assert (spec.learning_rate, spec.steps, spec.margin) == (1e-4, 500, 0.05)
    assert (spec.clusters, spec.kept, spec.hints) == (8, 4, 50)


def test_missing_weights_are_explained() -> None:
    pixels, nobody = greenish(1), "0" * 64
    sentence = r"fetch siggraph17-df00044c\.pth .* the parameter 'colouriser'$"
    with pytest.raises(ConfigurationError, match=sentence):
        CAdv().describe()
    with pytest.raises(ConfigurationError, match=sentence):
        attack(Reddish(), pixels)
    with pytest.raises(ConfigurationError, match=sentence):
        attack(Reddish(), pixels, colouriser_sha256=nobody)
    with pytest.raises(ConfigurationError, match=r"weights file nowhere\.pth does not exist"):
        attack(Reddish(), pixels, colouriser="nowhere.pth")


def test_the_fingerprint_has_the_weights_and_not_their_place(
    echo_file: str, lively_file: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(Path(echo_file).read_bytes())
    described = CAdv(colouriser=echo_file).describe()
    digest = file_sha256(moved)
    assert described["colouriser_sha256"] == digest
    assert "safetensors" not in json.dumps(described)
    assert CAdv(colouriser=str(moved)).describe() == described
    assert CAdv(colouriser=lively_file).describe() != described
    # A report needs no file where the study names the weights.
    assert CAdv(colouriser_sha256=digest).describe() == described
    other = file_sha256(Path(lively_file))
    with pytest.raises(ConfigurationError, match=f"has sha256 {digest} instead of {other}"):
        CAdv(colouriser=echo_file, colouriser_sha256=other).describe()
    with pytest.raises(ConfigurationError, match=f"has sha256 {digest} instead of {other}"):
        attack(Reddish(), greenish(1), colouriser=echo_file, colouriser_sha256=other)


def test_images_that_are_not_rgb_and_models_without_gradients_are_refused(echo_file: str) -> None:
    class NoGrad(Reddish):
        def forward(self, pixels: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(pixels)

    with pytest.raises(ConfigurationError, match="no gradient"):
        attack(NoGrad(), greenish(2), colouriser=echo_file)
    two = greenish(2)[:, :2]
    with pytest.raises(ConfigurationError, match="RGB images: these have 2 channels"):
        attack(Reddish(), two, colouriser=echo_file)


# ---- the attack


def test_only_colours_change_and_success_has_the_margin(echo_file: str) -> None:
    model, pixels = Reddish(), greenish(5)
    result = attack(model, pixels, colouriser=echo_file)
    images = torch.from_numpy(result.images)
    assert result.claimed.all()
    assert (predictions(model, images) == 1).all()
    before, after = rgb_to_lab(pixels), rgb_to_lab(images)
    assert images.amin() > 0  # no colour was clipped
    assert images.amax() < 1
    torch.testing.assert_close(after[:, :1], before[:, :1], atol=0.01, rtol=0)
    assert bool(((after[:, 1:] - before[:, 1:]).abs().mean(dim=(1, 2, 3)) > 3).all())
    # It stops at once: a step of 1.1 in a* and b* adds less than 0.5 to the logit, whose slope to
    # the margin is at most a half.
    assert bool((margins(model, result.images) > 0.05).all())
    assert bool((margins(model, result.images) < 0.3).all())
    assert np.isnan(result.epsilon).all()
    judged = verify(CAdv(), model, result.images, np.zeros(5, int), np.full(5, -1))
    assert judged.success.all()


def test_settled_goes_on_until_the_margin_does_not_change(echo_file: str) -> None:
    model, pixels = Reddish(), greenish(2)
    wide = attack(model, pixels, colouriser=echo_file, margin=0.9)
    assert margins(model, wide.images).min() > 0.9
    result = attack(model, pixels, colouriser=echo_file, settled=1e-3)
    assert result.claimed.all()
    assert (result.steps > wide.steps).all()
    # The margin is tanh(x / 2) of a logit x that grows by about 0.3 a step.
    assert bool((margins(model, result.images) > 0.98).all())
    assert (result.steps < 60).all()
    cut = attack(model, pixels, colouriser=echo_file, settled=1e-9, steps=30)
    assert cut.claimed.all()
    assert (cut.steps == 30).all()


def test_towards_each_target(echo_file: str) -> None:
    pixels = greenish(2) + torch.tensor([0.06, 0.0, 0.0]).view(1, 3, 1, 1)
    model = Strongest()
    labels = predictions(model, pixels)
    assert (labels == 0).all()
    spec = CAdv(colouriser=echo_file, learning_rate=0.01, steps=60, targeted=True)
    result = run_attack(spec, model, pixels, labels, names(2), targets=np.array([1, 2]))
    assert result.claimed.all()
    assert predictions(model, torch.from_numpy(result.images)).tolist() == [1, 2]
    assert bool((margins(model, result.images) > 0.05).all())


def test_a_wrong_class_that_is_not_the_target_is_no_success(echo_file: str) -> None:
    class Bands(Reddish):
        def forward(self, pixels: Tensor) -> Tensor:
            """Class 1 where red is above green by 0.05 to 0.15, class 2 beyond."""
            excess = (pixels[:, 0] - pixels[:, 1]).mean(dim=(1, 2))
            return 40 * torch.stack((0 * excess, excess - 0.05, 2 * excess - 0.2), dim=1)

    model, pixels = Bands(), greenish(2)
    labels, aims = predictions(model, pixels), np.array([2, 2])
    assert (labels == 0).all()
    given: dict[str, Any] = {"colouriser": echo_file, "learning_rate": 0.01, "steps": 60}
    near = run_attack(CAdv(**given), model, pixels, labels, names(2))
    assert predictions(model, torch.from_numpy(near.images)).tolist() == [1, 1]
    far = run_attack(CAdv(**given, targeted=True), model, pixels, labels, names(2), targets=aims)
    assert predictions(model, torch.from_numpy(far.images)).tolist() == [2, 2]
    assert (far.steps > near.steps).all()


def test_what_cannot_be_fooled_keeps_the_clean_image(echo_file: str) -> None:
    model, pixels = Reddish(bound=3), greenish(2)
    result = attack(model, pixels, colouriser=echo_file, steps=4)
    assert not result.claimed.any()
    np.testing.assert_array_equal(result.images, pixels.numpy())
    assert result.steps.tolist() == [4, 4]
    assert result.queries.tolist() == [1 + 4 + 1] * 2  # before, each step, after the last
    assert result.backward_passes.tolist() == [4, 4]
    assert not result.failures


@pytest.mark.parametrize("settled", [None, 1e-3])
def test_every_pass_is_counted(echo_file: str, settled: float | None) -> None:
    model, pixels = Reddish(), greenish(3)
    labels, backward = predictions(model, pixels), []

    def count(module: nn.Module, inputs: Any, gradients: Any) -> None:
        backward.append(len(gradients[0]))

    model.register_full_backward_hook(count)
    model.seen.clear()
    spec = CAdv(colouriser=echo_file, learning_rate=0.01, steps=60, settled=settled)
    result = run_attack(spec, model, pixels, labels, names(3), rows=1)
    assert sum(len(seen) for seen in model.seen) == result.queries.sum()
    assert sum(backward) == result.backward_passes.sum()
    cost = spec.cost()
    assert (result.queries - 1 <= cost.forward).all()
    assert (result.backward_passes <= cost.backward).all()


def test_a_row_that_breaks_does_not_touch_the_others(echo_file: str) -> None:
    class Breaks(Reddish):
        def forward(self, pixels: Tensor) -> Tensor:
            """Not a number for bright images once they are no longer green."""
            bright = pixels[:, 1].mean(dim=(1, 2)) > 0.6
            red = (pixels[:, 0] - pixels[:, 1]).mean(dim=(1, 2)) > 0.05
            return super().forward(pixels) * torch.where(bright & red, torch.nan, 1.0)[:, None]

    pixels = greenish(3)
    pixels[1] += 0.3
    result = attack(Breaks(), pixels, colouriser=echo_file)
    assert result.failures == {1: "cadv: logits or gradients that are not finite"}
    assert result.claimed.tolist() == [True, False, True]
    assert result.steps[1] < result.steps[0]  # it ends where it breaks
    np.testing.assert_array_equal(result.images[1], pixels[1].numpy())
    alone = attack(Reddish(), pixels[:1], colouriser=echo_file)
    np.testing.assert_array_equal(result.images[0], alone.images[0])


def test_sides_that_are_no_multiple_of_eight(lively_file: str) -> None:
    result = attack(Reddish(), greenish(1, 13, 21), colouriser=lively_file, steps=3)
    assert result.images.shape == (1, 3, 13, 21)


# ---- what is given at first


def first_images(model: Reddish, pixels: Tensor, **given: Any) -> Tensor:
    labels = predictions(model, pixels)
    model.seen.clear()
    spec = CAdv(steps=1, **given)
    run_attack(spec, model, pixels, labels, names(len(pixels)), rows=1)
    return torch.cat(model.seen[len(pixels) : 2 * len(pixels)])


def test_hints_are_true_colours_in_the_segment_that_is_surest(echo_file: str) -> None:
    # Left: dark and reddish, right: bright and bluish; the colouriser is surer of bright pixels.
    lab = torch.zeros((2, 3, SIDE, SIDE))
    lab[:, :, :, : SIDE // 2] = torch.tensor([30.0, 20.0, 10.0]).view(1, 3, 1, 1)
    lab[:, :, :, SIDE // 2 :] = torch.tensor([70.0, -10.0, -20.0]).view(1, 3, 1, 1)
    pixels = lab_to_rgb(lab)
    given: dict[str, Any] = {"colouriser": echo_file, "clusters": 2, "hints": 7}
    shown = rgb_to_lab(first_images(Reddish(1), pixels, kept=1, **given))
    coloured = shown[:, 1:].abs().amax(dim=1) > 1
    assert coloured.flatten(1).sum(dim=1).tolist() == [7, 7]
    assert not bool(coloured[:, :, : SIDE // 2].any())
    assert not torch.equal(coloured[0], coloured[1])  # each sample has its own pixels
    expected = 110 * torch.tanh(torch.tensor([-10.0, -20.0]) / 110)
    colours = shown[:, 1:].movedim(1, -1)[coloured]
    torch.testing.assert_close(colours, expected.expand(14, 2), atol=0.02, rtol=0)
    torch.testing.assert_close(shown[:, :1], lab[:, :1], atol=0.02, rtol=0)
    both = rgb_to_lab(first_images(Reddish(1), pixels, kept=2, **given | {"hints": 60}))
    assert bool((both[:, 1:].abs().amax(dim=1) > 1)[:, :, : SIDE // 2].any())


# ---- the same examples whatever the batch


def in_batches(
    spec: CAdv, model: nn.Module, pixels: Tensor, rows: list[int], size: int
) -> dict[str, Any]:
    """Attack `rows` in that order, `size` at a time."""
    labels, parts = predictions(model, pixels), []
    for i in range(0, len(rows), size):
        batch = rows[i : i + size]
        torch.manual_seed(size)  # must not matter
        ids = [f"s{row}" for row in batch]
        parts.append(run_attack(spec, model, pixels[batch], labels[batch], ids))
    fields = [
        f.name for f in dataclasses.fields(AttackResult) if f.name not in {"seconds", "failures"}
    ]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}


@pytest.mark.parametrize("colouriser", ["echo_file", "lively_file"])
def test_the_same_examples_for_any_batch_size_and_order(
    request: pytest.FixtureRequest, shared_data: Path, colouriser: str
) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 12)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    raw = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    pixels = torch.from_numpy(raw).permute(0, 3, 1, 2).contiguous()
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    right = predictions(model, pixels) == torch.tensor(table["label"].to_pylist())
    pixels = pixels[right][:8]
    spec = CAdv(colouriser=request.getfixturevalue(colouriser), learning_rate=0.02, steps=6)
    rows = list(range(8))
    whole = in_batches(spec, model, pixels, rows, 64)
    seven = in_batches(spec, model, pixels, rows, 7)
    backwards = in_batches(spec, model, pixels, rows[::-1], 3)
    alone = in_batches(spec, model, pixels, rows[:2], 1)
    assert len(set(whole["steps"].tolist())) > 1  # samples end at different steps
    for name, expected in whole.items():
        np.testing.assert_array_equal(seven[name], expected, err_msg=name)
        np.testing.assert_array_equal(backwards[name][::-1], expected, err_msg=name)
        np.testing.assert_array_equal(alone[name], expected[:2], err_msg=name)
