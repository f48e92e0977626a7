"""Spatial: known answers by hand and by trying everything, Foolbox 3 as oracle."""

import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, make_attack, predictions, run_attack, verify
from regroup.attacks.transforms.spatial import FOOLBOX3, Spatial
from regroup.attacks.transforms.warps import Library, Transform, warp
from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, load_classifier

LIBRARIES: list[Library] = ["foolbox2", "foolbox3"]


class Pixel(nn.Module):
    """Class 1 where one pixel is bright, else class 0; counts what it sees."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column
        self.batches = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches += 1
        bright = pixels[:, :, self.row, self.column].mean(dim=1)
        return torch.stack((torch.full_like(bright, 0.9), bright), dim=1)


class Small(nn.Module):
    """A random convolutional network that is sensitive to positions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn((8, 3, 3, 3), generator=generator)
        self.head = torch.randn((8 * 100, 10), generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.conv2d(pixels - 0.5, self.kernel).relu().flatten(1) @ self.head


def dots(*places: tuple[int, int], size: int = 8) -> Tensor:
    """One image per position: black but for one white pixel."""
    images = torch.zeros((len(places), 3, size, size))
    for image, (row, column) in zip(images, places, strict=True):
        image[:, row, column] = 1
    return images


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(spec: AttackSpec, model: nn.Module, pixels: Tensor) -> AttackResult:
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def whole_pixels(library: Library, size: int = 8) -> Spatial:
    """Shifts by -3 .. 3 whole pixels, no rotation; Foolbox 3's are (n - 1) / n of that."""
    reach = 3.0 if library == "foolbox2" else 3 * size / (size - 1)
    return Spatial(
        library=library, max_translation=reach, num_translations=7, max_rotation=0, num_rotations=1
    )


# ---- the grid


def test_the_default_is_foolbox_2s_grid_in_its_order() -> None:
    grid = Spatial().grid()
    assert len(grid) == 1000 == Spatial().cost().forward
    # x is the slowest, the angle the fastest; ten points from -5 to 5 are 10/9 apart.
    assert grid[0] == Transform(-5.0, -5.0, -5.0)
    assert (grid[1].x, grid[1].y, grid[1].degrees) == pytest.approx((-5, -5, -5 + 10 / 9))
    assert (grid[10].x, grid[10].y, grid[10].degrees) == pytest.approx((-5, -5 + 10 / 9, -5))
    assert grid[999] == Transform(5.0, 5.0, 5.0)
    assert not any(move.x == 0 or move.y == 0 or move.degrees == 0 for move in grid)


def test_foolbox_3s_own_grid_turns_last() -> None:
    spec = make_attack("spatial", **FOOLBOX3)
    assert isinstance(spec, Spatial)
    grid = spec.grid()
    assert len(grid) == 125 == spec.cost().forward
    assert grid[:2] == [Transform(-3.0, -3.0, -30.0), Transform(-3.0, -1.5, -30.0)]
    assert grid[5] == Transform(-1.5, -3.0, -30.0)
    assert grid[25] == Transform(-3.0, -3.0, -15.0)
    assert grid[62] == Transform(0.0, 0.0, 0.0)


def test_its_parameters_are_those_of_the_library() -> None:
    from foolbox.attacks.spatial_attack import SpatialAttack

    theirs = SpatialAttack()
    assert FOOLBOX3["max_translation"] == theirs.max_trans
    assert FOOLBOX3["num_translations"] == theirs.num_trans
    assert FOOLBOX3["max_rotation"] == theirs.max_rot
    assert FOOLBOX3["num_rotations"] == theirs.num_rots
    assert Spatial().random_steps == theirs.random_steps


# ---- the attack


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_network_that_reads_one_pixel_is_fooled_by_that_shift_alone(library: Library) -> None:
    model, clean = Pixel(5, 2), dots((3, 3))
    result = attack(whole_pixels(library), model, clean)
    assert result.claimed.tolist() == [True]
    np.testing.assert_allclose(result.images, dots((5, 2)).numpy(), atol=1e-6)
    # Down 2 and left 1: foolbox2's (2, -1), numbers 5 and 2 of seven; foolbox3's (1, -2).
    tries = 5 * 7 + 2 + 1 if library == "foolbox2" else 4 * 7 + 1 + 1
    assert result.steps.tolist() == [tries]
    assert result.queries.tolist() == [tries + 1]
    assert result.backward_passes.tolist() == [0]
    assert np.isnan(result.epsilon).all()


def test_each_sample_stops_at_its_own_transform() -> None:
    places = [(row, column) for row in range(1, 8) for column in range(8)]
    places = [place for place in places if place != (4, 4)]
    model = Pixel(4, 4)
    result = attack(whole_pixels("foolbox2"), model, dots(*places))
    for i, (row, column) in enumerate(places):
        down, right = 4 - row, 4 - column
        if abs(right) <= 3:
            assert result.claimed[i]
            assert result.queries[i] == (down + 3) * 7 + (right + 3) + 1 + 1
        else:
            assert not result.claimed[i]
            assert result.queries[i] == 49 + 1


def test_the_network_sees_only_what_is_left() -> None:
    model = Pixel(1, 4)
    near = [(4, column) for column in range(2, 8)]  # within the first seven tries: three up
    far = (7, 0)  # brought there by none
    pixels = dots(*near, *near, *near, far)
    result = attack(whole_pixels("foolbox2"), model, pixels)
    assert result.claimed.tolist() == [True] * 18 + [False]
    # Beforehand, `predictions` and `run_attack` show 19 samples in two batches of 16 each. Column
    # 7 leaves after the first try, 6 after the second, ...: 19 and 16 rows at first, then 13, 10
    # and 7 (7 twice in one batch, the second time for nothing). Then one: 16 tries in a batch.
    tries = [1, 1, 1, 1, 2, 16, 16, 49 - 38]
    batches = [2, 1, 1, 1, 1, 1, 1, 1]
    assert sum(tries) == 49
    assert model.batches == 2 + 2 + sum(batches)


def test_nothing_found_gives_the_clean_image_after_every_transform() -> None:
    clean = dots((0, 0), (7, 7))
    result = attack(whole_pixels("foolbox2"), Pixel(4, 3), clean)
    assert result.claimed.tolist() == [False, False]
    np.testing.assert_array_equal(result.images, clean.numpy())
    assert result.queries.tolist() == [50, 50]


def test_one_sample_fills_its_batches_with_the_next_transforms() -> None:
    model = Pixel(4, 3)
    attack(whole_pixels("foolbox2"), model, dots((0, 0)))
    assert model.batches == 1 + 1 + 4  # predictions, the check beforehand, 49 in batches of 16


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_abort_early_the_smallest_perturbation_is_kept(library: Library) -> None:
    model, pixels = Small(), noise(20, 3, 12, 12)
    spec = Spatial(library=library, num_translations=4, num_rotations=3, abort_early=False)
    result = attack(spec, model, pixels)
    labels = predictions(model, pixels)
    for i, image in enumerate(pixels):
        moved = torch.cat([warp(library, image[None], move) for move in spec.grid()])
        wrong = moved[predictions(model, moved) != labels[i]]
        sizes = (wrong.double() - image).square().mean(dim=(1, 2, 3))
        assert result.claimed[i] == (len(wrong) > 0)
        assert result.mse[i] == pytest.approx(sizes.min().item(), rel=1e-5)
    assert (result.queries == 48 + 1).all()
    first = attack(dataclasses.replace(spec, abort_early=True), model, pixels)
    assert (first.queries <= result.queries).all()
    assert (first.mse > 1.01 * result.mse).any()


# ---- random


def test_random_transforms_are_each_samples_own_and_within_limits() -> None:
    spec = Spatial(search="random", max_translation=3, max_rotation=20, random_steps=500)
    drawn = np.array([dataclasses.astuple(move) for move in spec.draws("a")])
    assert drawn.shape == (500, 3)
    assert (np.abs(drawn).max(axis=0) <= [3, 3, 20]).all()
    assert (np.abs(drawn).max(axis=0) > [2.9, 2.9, 19]).all()
    assert (np.abs(drawn.mean(axis=0)) < [0.4, 0.4, 2.7]).all()
    assert spec.draws("a") == spec.draws("a") != spec.draws("b")
    assert spec.draws("a") != dataclasses.replace(spec, seed=1).draws("a")
    assert spec.cost().forward == 500


def test_each_search_is_described_without_the_others_parameters() -> None:
    grid, random = Spatial(), Spatial(search="random")
    assert grid.describe() == Spatial(random_steps=5).describe()
    assert random.describe() == Spatial(search="random", num_rotations=3).describe()
    assert grid.describe() != Spatial(num_rotations=3).describe() != random.describe()
    assert json.loads(json.dumps(grid.describe())) == grid.describe()


# ---- the same for any batch


@pytest.mark.parametrize(
    "parameters",
    [
        {"library": "foolbox2", "num_translations": 4, "num_rotations": 3},
        {"library": "foolbox3", "num_translations": 4, "num_rotations": 3},
        {"library": "foolbox2", "search": "random", "random_steps": 20},
        {"library": "foolbox3", "search": "random", "random_steps": 20},
        {"library": "foolbox3", "num_translations": 2, "num_rotations": 3, "abort_early": False},
    ],
    ids=lambda parameters: "-".join(str(value) for value in parameters.values()),
)
def test_the_same_examples_for_batches_of_1_7_and_64(parameters: dict[str, Any]) -> None:
    spec = make_attack("spatial", max_translation=0.2, max_rotation=1, **parameters)
    result = same_for_any_batch(spec, Small(), noise(64, 3, 12, 12))
    assert 5 < result.claimed.sum() < 60
    assert len(set(result.mse.tolist())) > 5


def same_for_any_batch(spec: AttackSpec, model: nn.Module, pixels: Tensor) -> AttackResult:
    labels, ids = predictions(model, pixels), names(len(pixels))
    whole = run_attack(spec, model, pixels, labels, ids)
    for size, until in ((7, len(pixels)), (1, 6)):
        for i in range(0, until, size):
            rows = slice(i, min(i + size, until))
            part = run_attack(spec, model, pixels[rows], labels[rows], ids[rows])
            for field in ("images", "claimed", "queries", "mse", "linf", "l2"):
                expected = getattr(whole, field)[rows]
                np.testing.assert_array_equal(getattr(part, field), expected, err_msg=field)
    return whole


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


def test_a_real_network_too(cifar: tuple[nn.Module, Tensor]) -> None:
    model, pixels = cifar
    spec = Spatial(num_translations=3, num_rotations=3)
    result = same_for_any_batch(spec, model, pixels)
    labels = predictions(model, pixels).numpy()
    judged = verify(spec, model, result.images, labels, np.full(len(labels), -1))
    np.testing.assert_array_equal(judged.success, result.claimed)


# ---- Foolbox 3 itself


def test_success_is_foolbox_3s_and_so_is_the_image(cifar: tuple[nn.Module, Tensor]) -> None:
    from foolbox.attacks.spatial_attack import SpatialAttack
    from foolbox.models.pytorch import PyTorchModel

    model, pixels = cifar
    limits: dict[str, Any] = {
        "max_translation": 2, "num_translations": 3, "max_rotation": 10, "num_rotations": 3
    }  # fmt: skip
    labels = predictions(model, pixels)
    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # meshgrid without its indexing
        images, _, success = SpatialAttack(**limits)(wrapped, pixels, labels)
    ours = attack(Spatial(library="foolbox3", **limits), model, pixels)
    assert 0 < ours.claimed.mean() < 1
    np.testing.assert_array_equal(ours.claimed, success.numpy())
    np.testing.assert_allclose(ours.images, images.numpy(), atol=1e-4)


def test_foolbox_3_ignores_an_epsilon_and_we_refuse_it() -> None:
    from foolbox.attacks.spatial_attack import SpatialAttack
    from foolbox.models.pytorch import PyTorchModel

    model, pixels = Small(), noise(4, 3, 12, 12)
    wrapped = PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = predictions(model, pixels)
        images, _, _ = SpatialAttack()(wrapped, pixels, labels, epsilons=0.001)
    assert (images - pixels).abs().max() > 0.5
    message = r"^spatial has no epsilon: it is limited by max_translation and max_rotation"
    with pytest.raises(ConfigurationError, match=message):
        make_attack("spatial", epsilon=0.001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library": "foolbox4"}, "unknown library of spatial 'foolbox4': choose from foolbox2, f"),
        ({"search": "best"}, "unknown search of spatial 'best'"),
        ({"norm": "l2"}, "unknown norm of spatial 'l2': choose from none"),
        ({"protocol": "budget"}, "unknown protocol of spatial 'budget'"),
        ({"max_translation": -1}, "max_translation is -1: give at least 0"),
        ({"max_rotation": 200}, "max_rotation is 200: it is in degrees, 0 to 180"),
        ({"num_rotations": 0}, "num_rotations is 0"),
        ({"num_translations": 0}, "num_translations is 0"),
        ({"random_steps": 0}, "random_steps is 0"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_attack("spatial", **change)
