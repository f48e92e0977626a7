"""Noise, rotation and contrast: closed forms of linear classifiers, Foolbox 3 as oracle."""

import dataclasses
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betainc
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, make_attack, predictions, run_attack
from regroup.attacks.transforms.corruptions import Contrast, Noise, Rotation
from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, load_classifier

SHAPE = (3, 4, 4)
SIZE = math.prod(SHAPE)


class Linear(nn.Module):
    """Two classes; logit 1 minus logit 0 is w . x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, pixels: Tensor) -> Tensor:
        margin = self.margin(pixels)
        return torch.stack((torch.zeros_like(margin), margin), dim=1)

    def margin(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1) @ self.weight + self.bias


class Window(nn.Module):
    """Wrong (class 1) only where the first pixel lies in 0.65 .. 0.8."""

    def forward(self, pixels: Tensor) -> Tensor:
        margin = 0.075 - (pixels[:, 0, 0, 0] - 0.725).abs()
        return torch.stack((torch.zeros_like(margin), margin), dim=1)


class Corner(nn.Module):
    """Wrong (class 1) where the pixel at (0, 6) of 9 x 9 is bright."""

    def forward(self, pixels: Tensor) -> Tensor:
        bright = pixels[:, :, 0, 6].mean(dim=1)
        return torch.stack((torch.full_like(bright, 0.3), bright), dim=1)


def weights(seed: int = 0) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(spec: AttackSpec, model: nn.Module, pixels: Tensor) -> AttackResult:
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def foolbox_call(oracle: Any, model: nn.Module, pixels: Tensor, **call: Any) -> tuple[Any, Any]:
    """Images and success of an attack of Foolbox 3, called directly."""
    from foolbox.models.pytorch import PyTorchModel

    wrapped = PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, images, success = oracle(wrapped, pixels, predictions(model, pixels), **call)
    return images, success


# ---- noise


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.7)])
def test_a_draw_has_exactly_the_size_asked_for(norm: Any, epsilon: float) -> None:
    spec = Noise(norm=norm, epsilon=epsilon)
    for trial in range(20):
        drawn = spec.noise("a", trial, SHAPE).double()
        size = drawn.abs().max() if norm == "linf" else drawn.square().sum().sqrt()
        assert size.item() == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.5), ("l2", 3.0)])
def test_noise_stays_in_its_ball_and_in_the_bounds(norm: Any, epsilon: float) -> None:
    pixels = torch.rand((30, *SHAPE), generator=torch.Generator().manual_seed(3))
    result = attack(Noise(norm=norm, epsilon=epsilon, repeats=5), Linear(weights(), 0.5), pixels)
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon + 1e-6).all()
    assert (size > 0.5 * epsilon).all()
    assert result.images.min() == 0
    assert result.images.max() == 1
    assert (result.epsilon == epsilon).all()


def test_uniform_noise_of_foolbox_leaves_the_ball_before_it_is_clipped() -> None:
    """It divides by the largest value, where the largest absolute value is meant."""
    from foolbox.attacks.additive_noise import LinfAdditiveUniformNoiseAttack
    from foolbox.models.pytorch import PyTorchModel

    model, pixels = Linear(torch.ones(4), 1.0), torch.full((50, 1, 2, 2), 0.5)
    wrapped = PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    torch.manual_seed(0)
    call = (wrapped, pixels, predictions(model, pixels))
    raw, _, _ = LinfAdditiveUniformNoiseAttack()(*call, epsilons=0.1)
    assert (raw - pixels).abs().max() > 0.2
    ours = attack(Noise(epsilon=0.1, repeats=1), model, pixels)
    np.testing.assert_allclose(ours.linf, 0.1, atol=1e-6)


def chance(margin: float, epsilon: float, weight: Tensor) -> float:
    """Chance that a uniform direction of length epsilon crosses a hyperplane at this margin."""
    cosine = margin / (epsilon * float(weight.norm()))
    return 0.5 * float(1 - betainc(0.5, (SIZE - 1) / 2, cosine**2))


@pytest.mark.parametrize("repeats", [1, 5])
def test_gaussian_noise_succeeds_as_often_as_geometry_and_foolbox_say(repeats: int) -> None:
    from foolbox.attacks.additive_noise import L2RepeatedAdditiveGaussianNoiseAttack

    weight, count, epsilon = weights(), 1000, 0.5
    pixels = torch.full((count, *SHAPE), 0.5)  # noise never reaches the bounds
    margin = 0.15 * epsilon * float(weight.norm())
    model = Linear(weight, margin - 0.5 * float(weight.sum()))
    expected = 1 - (1 - chance(margin, epsilon, weight)) ** repeats
    assert 0.1 < expected < 0.9
    ours = attack(Noise(norm="l2", epsilon=epsilon, repeats=repeats), model, pixels)
    torch.manual_seed(0)
    oracle = L2RepeatedAdditiveGaussianNoiseAttack(repeats=repeats)
    _, theirs = foolbox_call(oracle, model, pixels, epsilons=epsilon)
    tolerance = 4 * math.sqrt(expected * (1 - expected) / count)  # four standard errors
    assert ours.claimed.mean() == pytest.approx(expected, abs=tolerance)
    assert theirs.float().mean().item() == pytest.approx(expected, abs=tolerance)


def test_uniform_noise_succeeds_as_often_as_foolboxs() -> None:
    from foolbox.attacks.additive_noise import LinfRepeatedAdditiveUniformNoiseAttack

    weight, count = weights(), 1000
    pixels = torch.full((count, *SHAPE), 0.5)
    # One standard deviation of w . noise: a chance of about 0.16.
    margin = 0.1 / math.sqrt(3) * float(weight.norm())
    model = Linear(weight, margin - 0.5 * float(weight.sum()))
    ours = attack(Noise(epsilon=0.1, repeats=3), model, pixels)
    torch.manual_seed(0)
    oracle = LinfRepeatedAdditiveUniformNoiseAttack(repeats=3)
    _, theirs = foolbox_call(oracle, model, pixels, epsilons=0.1)
    assert 0.3 < ours.claimed.mean() < 0.5
    assert ours.claimed.mean() == pytest.approx(theirs.float().mean().item(), abs=0.09)


def test_the_first_draw_that_fools_is_kept_and_the_last_where_none_does() -> None:
    weight, pixels = weights(), torch.full((40, *SHAPE), 0.5)
    model = Linear(weight, 0.15 * float(weight.norm()) - 0.5 * float(weight.sum()))
    spec = Noise(norm="l2", epsilon=1.0, repeats=6)
    result = attack(spec, model, pixels)
    assert 0 < result.claimed.sum() < 40
    assert len(set(result.queries.tolist())) > 4
    for i, name in enumerate(names(40)):
        tries = torch.stack([0.5 + spec.noise(name, trial, SHAPE) for trial in range(6)])
        fools = (model.margin(tries) <= 0).tolist()  # a tie goes to class 0
        kept = fools.index(True) if True in fools else 5
        assert result.claimed[i] == (True in fools)
        assert result.queries[i] == kept + 1 + 1
        np.testing.assert_array_equal(result.images[i], tries[kept].numpy())


def test_noise_of_each_sample_is_its_own() -> None:
    spec = Noise(epsilon=0.1)
    drawn = spec.noise("a", 0, SHAPE)
    assert torch.equal(drawn, spec.noise("a", 0, SHAPE))
    for other in (
        spec.noise("b", 0, SHAPE),
        spec.noise("a", 1, SHAPE),
        Noise(epsilon=0.1, seed=1).noise("a", 0, SHAPE),
    ):
        assert not torch.equal(drawn, other)


# ---- rotation


def test_rotation_tries_small_angles_first_and_not_the_clean_image() -> None:
    spec = Rotation(max_rotation=20, num_rotations=5)
    assert spec.angles() == [-10, 10, -20, 20]
    assert spec.cost().forward == 4
    assert Rotation().angles()[:3] == [-1, 1, -2]
    assert len(Rotation().angles()) == 60 == Rotation().cost().forward


def test_rotation_finds_the_angle_that_brings_a_dot_to_its_place() -> None:
    pixels = torch.zeros((1, 3, 9, 9))
    pixels[:, :, 0, 4] = 1  # four pixels above the centre
    result = attack(Rotation(max_rotation=40, num_rotations=9), Corner(), pixels)
    # Turned clockwise by 30 degrees, pixel (0, 6) looks 4 cos 30 + 2 sin 30 = 2 r + 1 above the
    # centre and 4 sin 30 - 2 cos 30 = 2 - r left of it, r the root of 3; the dot lies at 4 and 0.
    # At 20 degrees: 0.272, not bright enough.
    root = math.sqrt(3)
    bilinear = (1 - (2 * root - 3)) * (1 - (2 - root))
    assert result.claimed[0]
    assert result.images[0, 0, 0, 6] == pytest.approx(bilinear, abs=1e-6)
    # -10, 10, -20, 20, -30: a clockwise turn is negative.
    assert result.queries[0] == 5 + 1


@pytest.fixture(scope="module")
def cifar(shared_data: Path) -> tuple[nn.Module, Tensor]:
    """ResNet-20 and 16 test images that it classifies correctly."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 20)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    array = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    pixels = torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    keep = predictions(model, pixels) == torch.tensor(table["label"].to_pylist())
    return model, pixels[keep][:16]


def test_rotation_succeeds_where_foolbox_3_does(cifar: tuple[nn.Module, Tensor]) -> None:
    from foolbox.attacks.spatial_attack import SpatialAttack

    model, pixels = cifar
    oracle = SpatialAttack(max_translation=0, num_translations=1, max_rotation=24, num_rotations=9)
    _, success = foolbox_call(oracle, model, pixels)
    ours = attack(Rotation(max_rotation=24, num_rotations=9), model, pixels)
    assert 0 < ours.claimed.mean() < 1
    np.testing.assert_array_equal(ours.claimed, success.numpy())


# ---- contrast


def test_contrast_finds_the_closed_form_of_a_linear_classifier() -> None:
    from foolbox.attacks.contrast_min import BinarySearchContrastReductionAttack
    from foolbox.distances import l2

    at_grey = 0.4  # the margin of plain grey: class 1
    model, pixels = Linear(weights(), at_grey - 0.5 * float(weights().sum())), samples(60)
    pixels = pixels[model.margin(pixels) < 0]
    margin = model.margin(pixels).double()
    assert len(pixels) > 10
    # A share t of grey crosses over where (1 - t) m + t g = 0.
    share = (margin / (margin - at_grey)).numpy()
    length = (0.5 - pixels.double()).flatten(1).norm(dim=1).numpy()
    result = attack(Contrast(), model, pixels)
    assert result.claimed.all()
    assert (result.l2 >= share * length - 1e-5).all()
    assert (result.l2 <= (share + 2.0**-14) * length + 1e-5).all()
    assert (result.queries == 15 + 1).all()
    images, success = foolbox_call(
        BinarySearchContrastReductionAttack(distance=l2), model, pixels, epsilons=None
    )
    assert success.all()
    np.testing.assert_allclose(result.images, images.numpy(), atol=1e-4)


def test_contrast_hands_back_the_clean_image_where_foolbox_hands_back_grey() -> None:
    from foolbox.attacks.contrast_min import BinarySearchContrastReductionAttack
    from foolbox.distances import l2

    model, pixels = Linear(torch.zeros(SIZE), 1.0), samples(3)
    result = attack(Contrast(), model, pixels)
    assert not result.claimed.any()
    np.testing.assert_array_equal(result.images, pixels.numpy())
    images, success = foolbox_call(
        BinarySearchContrastReductionAttack(distance=l2), model, pixels, epsilons=None
    )
    assert not success.any()
    assert (images == 0.5).all()


def test_contrast_keeps_a_blend_that_fools_though_grey_does_not() -> None:
    pixels = torch.full((1, *SHAPE), 0.9)  # the window is left at 0.65: a share of 0.625
    result = attack(Contrast(), Window(), pixels)
    assert result.claimed.all()
    # Shares tried: 1 (0.5, right), 1/2 (0.7, wrong), 1/4 (0.8, on the edge), 3/8 ...: 0.25 at best.
    np.testing.assert_allclose(result.images, 0.8, atol=0.4 * 2**-13)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 5.0])
def test_contrast_of_a_budget_goes_the_distance_or_to_plain_grey(epsilon: float) -> None:
    from foolbox.attacks.contrast import L2ContrastReductionAttack

    model, pixels = Linear(weights(), 0.3), samples(20)
    result = attack(Contrast(protocol="budget", epsilon=epsilon), model, pixels)
    length = (0.5 - pixels).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(result.l2, np.minimum(epsilon, length), rtol=1e-5)
    if epsilon == 5.0:
        np.testing.assert_array_equal(result.images, 0.5)
    images, success = foolbox_call(L2ContrastReductionAttack(), model, pixels, epsilons=epsilon)
    np.testing.assert_allclose(result.images, images.numpy(), atol=1e-6)
    np.testing.assert_array_equal(result.claimed, success.numpy())
    assert (result.queries == 1 + 1).all()
    assert (result.epsilon == epsilon).all()


def test_a_plain_grey_image_has_no_contrast_to_lose() -> None:
    pixels = torch.full((1, *SHAPE), 0.5)
    for spec in (Contrast(), Contrast(protocol="budget", epsilon=0.1)):
        result = attack(spec, Linear(weights(), 0.3), pixels)
        assert not result.claimed[0]
        np.testing.assert_array_equal(result.images, pixels.numpy())


# ---- all of them


EACH: list[AttackSpec] = [
    Noise(epsilon=0.1, repeats=7),
    Noise(norm="l2", epsilon=0.8, repeats=7),
    Rotation(num_rotations=9),
    Contrast(),
    Contrast(protocol="budget", epsilon=0.5),
]


@pytest.mark.parametrize("spec", EACH, ids=str)
def test_the_same_examples_for_batches_of_1_7_and_64(spec: AttackSpec) -> None:
    generator = torch.Generator().manual_seed(4)
    head, bias = (torch.randn((rows, 10), generator=generator) for rows in (SIZE, 1))

    class Ten(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return (pixels.flatten(1) - 0.5) @ head + bias

    model, pixels = Ten(), samples(64)
    labels, ids = predictions(model, pixels), names(64)
    whole = run_attack(spec, model, pixels, labels, ids)
    assert 0 < whole.claimed.sum() < 64
    for size, until in ((7, 64), (1, 10)):
        for i in range(0, until, size):
            rows = slice(i, min(i + size, until))
            part = run_attack(spec, model, pixels[rows], labels[rows], ids[rows])
            for field in ("images", "claimed", "queries", "l2", "epsilon"):
                expected = getattr(whole, field)[rows]
                np.testing.assert_array_equal(getattr(part, field), expected, err_msg=field)


@pytest.mark.parametrize("spec", EACH, ids=str)
def test_describe_is_json_and_the_registry_makes_it(spec: AttackSpec) -> None:
    assert json.loads(json.dumps(spec.describe())) == spec.describe()
    assert make_attack(spec.name, **dataclasses.asdict(spec)) == spec


def test_parameters_of_the_search_do_not_change_a_budget_attack() -> None:
    one = Contrast(protocol="budget", epsilon=1.0)
    assert one.describe() == dataclasses.replace(one, bisections=3).describe()
    assert Contrast().describe() != Contrast(bisections=3).describe()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("noise", {"epsilon": None}, "noise needs an epsilon"),
        ("noise", {"epsilon": 4.0}, r"did you mean 4/255\?"),
        ("noise", {"repeats": 0}, "repeats is 0"),
        ("noise", {"protocol": "minimal"}, "unknown protocol of noise"),
        ("rotation", {"epsilon": 0.1}, "rotation has no epsilon: it is limited by max_rotation"),
        ("rotation", {"max_rotation": 0}, "max_rotation is 0: it must be positive"),
        ("rotation", {"max_rotation": -3}, "max_rotation is -3: it is in degrees"),
        ("rotation", {"num_rotations": 1}, "num_rotations is 1: give at least 2"),
        ("contrast", {"epsilon": 0.1}, "contrast has no epsilon"),
        ("contrast", {"protocol": "budget"}, "contrast needs an epsilon"),
        ("contrast", {"grey": 2}, "grey is 2: it is a pixel value, 0 to 1"),
        ("contrast", {"norm": "linf"}, "unknown norm of contrast 'linf': choose from l2"),
        ("contrast", {"bisections": -1}, "bisections is -1"),
    ],
)
def test_a_bad_parameter_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_attack(name, **change)
