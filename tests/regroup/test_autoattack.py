"""AutoAttack and Square: closed forms of a linear classifier, the library itself as oracle."""

import dataclasses
import importlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regroup.attacks import AttackResult, make_attack, predictions, run_attack
from regroup.attacks.autoattack import AutoAttack
from regroup.attacks.library_kernels import CountedNetwork
from regroup.attacks.random_streams import group_seed
from regroup.attacks.square import Square
from regroup.attacks.verification import verify
from regroup.errors import ConfigurationError

pytest.importorskip(
    "pyautoattack", reason="pyautoattack is not installed: pip install 'regroup-ray[attacks]'"
)

SHAPE = (3, 8, 8)
POISON = 0.9  # a pixel that no other sample has
FAST: dict[str, Any] = {"steps": 10, "squares": 30}


class Linear(nn.Module):
    """Logits W (x - 1/2) of `classes` classes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, 3 * 8 * 8, generator=generator))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weight.T


class Poisoned(Linear):
    """Where a gradient is asked for at a sample with the POISON: NaN, or an exception."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def forward(self, pixels: Tensor) -> Tensor:
        poisoned = (pixels[:, 0, 0, 0] > POISON - 0.1) & pixels.requires_grad
        if self.raises and poisoned.any():
            raise RuntimeError("the network\nbroke down")
        return torch.where(poisoned[:, None], torch.nan, super().forward(pixels))


def samples(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, *SHAPE), generator=generator) * 0.4 + 0.3


def names(count: int) -> list[str]:
    return [f"s{i}" for i in range(count)]


def attack(spec: Any, model: nn.Module, pixels: Tensor) -> AttackResult:
    return run_attack(spec, model, pixels, predictions(model, pixels), names(len(pixels)))


def radii(model: Linear, pixels: Tensor, norm: str) -> NDArray[np.float64]:
    """(N,), the radius at which each ball touches the nearest class: margin / dual norm."""
    weight, logits = model.weight.detach().double(), model(pixels).detach().double()
    dual = 1 if norm == "linf" else 2
    nearest = []
    for each in logits:
        true = int(each.argmax())
        sizes = torch.linalg.vector_norm(weight[true] - weight, ord=dual, dim=1)
        ratio = (each[true] - each) / sizes
        ratio[true] = torch.inf
        nearest.append(float(ratio.min()))
    return np.array(nearest)


def middle(values: NDArray[np.float64]) -> float:
    """A radius with as many balls on either side, and none within 1 %."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    assert ordered[half] > 1.02 * ordered[half - 1]
    return float((ordered[half] + ordered[half - 1]) / 2)


# ---- AutoAttack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_success_exactly_where_the_ball_reaches_another_class(norm: Any) -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, norm)
    epsilon = middle(needed)
    spec = AutoAttack(norm=norm, epsilon=epsilon, **FAST)
    result = attack(spec, model, pixels)
    np.testing.assert_array_equal(result.claimed, needed < epsilon)
    assert result.failures == {}
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon * (1 + 1e-4)).all()
    assert (size[result.claimed] > needed[result.claimed] * 0.999).all()
    assert (size[~result.claimed] == 0).all()  # nothing found: the clean image
    # The first kernel reaches the corner of the ball: the check, the count of classes, a look, 11
    # gradients, our look, and the last one. The others take all that `cost` promises.
    assert result.queries[result.claimed].tolist() == [1 + 1 + 1 + 11 + 1 + 1] * 8
    assert result.backward_passes[result.claimed].tolist() == [11] * 8
    assert result.queries[~result.claimed].tolist() == [1 + spec.cost().forward] * 8
    assert result.backward_passes[~result.claimed].tolist() == [spec.cost().backward] * 8


def test_images_stay_in_the_bounds_at_the_edge_of_pixel_space() -> None:
    pixels = samples(8).round()  # black and white
    result = attack(AutoAttack(epsilon=0.3, **FAST), Linear(), pixels)
    assert result.images.dtype == np.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert result.claimed.any()
    assert (result.linf <= 0.3 + 1e-6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_examples_are_those_of_the_librarys_own_standard_version(norm: Any) -> None:
    from pyautoattack import AutoAttack as Oracle

    model, pixels = Linear(), samples(6)
    epsilon = middle(radii(model, pixels, norm))
    spec = AutoAttack(norm=norm, epsilon=epsilon, steps=100, target_classes=2, squares=30)
    ours = attack(spec, model, pixels)
    seed = group_seed(spec, tuple(names(6)))
    oracle = Oracle(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=seed)
    oracle.square.n_queries = 30  # the defaults would take a minute
    oracle.apgd_targeted.n_target_classes = oracle.fab.n_target_classes = 2
    state = torch.get_rng_state()
    theirs, _ = oracle.run_standard_evaluation(pixels, predictions(model, pixels))
    torch.set_rng_state(state)
    assert ours.claimed.sum() == 3
    np.testing.assert_allclose(ours.images, theirs.detach().numpy(), atol=1e-6)


def test_the_defaults_are_those_of_the_librarys_standard_version() -> None:
    from pyautoattack import AutoAttack as Oracle

    oracle = Oracle(Linear(), eps=4 / 255, seed=7)
    oracle.fab.targeted = True  # as it does before it runs "fab-t"
    assert oracle.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    theirs = (oracle.apgd, oracle.apgd_targeted, oracle.fab, oracle.square)
    seen = CountedNetwork(network_of(Linear()), samples(1), "linf")
    kernels: list[Any] = [*AutoAttack()._kernels(seen, 7), *Square()._kernels(seen, 7)]
    for ours, their in zip(kernels, [*theirs, oracle.square], strict=True):
        ignored = {"model", "predict", "device", "logger"}
        kernel = ours.__self__
        assert type(kernel) is type(their)
        assert {k: v for k, v in vars(kernel).items() if k not in ignored} == {
            k: v for k, v in vars(their).items() if k not in ignored
        }


def network_of(model: nn.Module) -> Any:
    from regroup.attacks.attacked_network import AttackedNetwork

    return AttackedNetwork(model)


def test_fewer_classes_are_all_aimed_at_and_three_are_too_few() -> None:
    pixels = samples(4)
    model = Linear(classes=5)
    spec = AutoAttack(epsilon=1e-5, **FAST)
    result = attack(spec, model, pixels)
    four = AutoAttack(epsilon=1e-5, target_classes=4, **FAST)
    assert result.failures == {}
    assert result.queries.tolist() == [1 + four.cost().forward] * 4
    with pytest.raises(ConfigurationError, match=r"needs 4 classes .* the model has 3"):
        attack(spec, Linear(classes=3), pixels)


# ---- Square


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_never_breaks_what_the_ball_does_not_reach(norm: Any) -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, norm)
    epsilon = middle(needed)
    result = attack(Square(norm=norm, epsilon=epsilon, steps=40), model, pixels)
    assert not (result.claimed & (needed > epsilon)).any()
    size = result.linf if norm == "linf" else result.l2
    assert (size <= epsilon * (1 + 1e-4)).all()
    assert (result.backward_passes == 0).all()
    assert (result.queries <= 1 + Square(steps=40).cost().forward).all()


def test_square_finds_what_lies_well_inside_the_ball_and_stops_there() -> None:
    model, pixels = Linear(), samples(16)
    needed = radii(model, pixels, "linf")
    result = attack(Square(epsilon=20 * float(np.median(needed)), steps=400), model, pixels)
    assert result.claimed.all()
    # The clean image, the start, and the looks: four, of which run_attack's; then a pass a square.
    assert result.queries.min() == 6
    assert len(set(result.queries.tolist())) > 3
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_a_tie_of_every_class_is_no_error() -> None:
    class Tied(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return 0 * pixels.flatten(1)[:, :4]

    result = attack(Square(epsilon=0.1, steps=5), Tied(), samples(3))
    assert result.failures == {}
    assert not result.claimed.any()  # the first of equal classes is the prediction


# ---- both


def numpy_key() -> Any:
    """The state of numpy's global generator."""
    return np.random.get_state(legacy=False)["state"]["key"]


@pytest.mark.parametrize(
    "spec", [AutoAttack(epsilon=0.02, **FAST), Square(epsilon=0.02, steps=30)], ids=["aa", "square"]
)
def test_global_generators_do_not_matter_and_are_left_alone(spec: Any) -> None:
    class Curved(Linear):  # where the start decides on the end
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.sin(super().forward(pixels))

    model, pixels, images = Curved(), samples(5), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        torch_state, numpy_state = (
            torch.get_rng_state(),
            np.random.get_state(legacy=False)["state"]["key"],
        )
        result = attack(spec, model, pixels)
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_array_equal(
            np.random.get_state(legacy=False)["state"]["key"], numpy_state
        )
        assert result.claimed.any()
        images.append(result.images.tobytes())
    assert images[0] == images[1]
    assert attack(dataclasses.replace(spec, seed=1), model, pixels).images.tobytes() != images[0]


@pytest.mark.parametrize("name", ["autoattack", "square"])
def test_the_groups_are_said_and_are_part_of_the_description(name: str) -> None:
    spec = make_attack(name)
    assert spec.facts.group == 16
    assert spec.describe()["group"] == 16
    assert spec.epsilon == 4 / 255


def test_an_exception_stays_with_its_sample() -> None:
    pixels = samples(6)
    pixels[3, 0, 0, 0] = POISON
    model = Poisoned(raises=True)
    needed = radii(model, pixels, "linf")
    epsilon = 0.005
    result = attack(AutoAttack(epsilon=epsilon, **FAST), model, pixels)
    assert result.failures == {3: "RuntimeError: the network broke down"}
    assert not result.claimed[3]
    others = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(result.claimed[others], needed[others] < epsilon)


def test_a_sample_whose_logits_become_nan_has_failed() -> None:
    pixels = samples(6)
    pixels[3, 0, 0, 0] = POISON
    model = Poisoned(raises=False)
    result = attack(AutoAttack(epsilon=0.02, **FAST), model, pixels)
    assert result.failures == {3: "the network gave NaN or infinity"}
    assert result.claimed.tolist() == [True, True, True, False, True, True]


def test_a_model_without_gradients_is_refused_but_by_square() -> None:
    class NoGrad(Linear):
        def forward(self, pixels: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(pixels)

    with pytest.raises(ConfigurationError, match="no gradient"):
        attack(AutoAttack(epsilon=0.1), NoGrad(), samples(2))
    assert attack(Square(epsilon=0.1, steps=50), NoGrad(), samples(2)).claimed.any()


def test_nothing_is_printed_and_the_parameters_get_no_gradients(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Flat(Linear):  # without a slope: the library remarks on it
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.relu(super().forward(pixels) * 0 + self.weight.sum(1))

    model = Flat()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(AutoAttack(epsilon=0.1, **FAST), model, samples(2))
    assert capfd.readouterr() == ("", "")
    assert model.weight.grad is None
    assert model.weight.requires_grad


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("autopgd_base", "fab_pt", "square"):
        monkeypatch.setitem(sys.modules, f"pyautoattack.{module}", None)
    for spec in (AutoAttack(), Square()):
        with pytest.raises(ConfigurationError, match=r"cannot be imported .*pip install pyauto"):
            attack(spec, Linear(), samples(1))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("autoattack", {"epsilon": 4.0}, "did you mean 4/255"),
        ("autoattack", {"epsilon": None}, "needs an epsilon"),
        ("autoattack", {"steps": 0}, "steps is 0"),
        ("autoattack", {"target_classes": 0}, "target_classes is 0"),
        ("autoattack", {"squares": 0}, "squares is 0"),
        ("autoattack", {"protocol": "minimal"}, "choose from budget"),
        ("autoattack", {"targeted": True}, "untargeted alone"),
        ("square", {"epsilon": None}, "needs an epsilon"),
        ("square", {"steps": 0}, "steps is 0"),
        ("square", {"first_share": 1.5}, "at most the whole image"),
        ("square", {"norm": "none"}, "choose from linf, l2"),
    ],
)
def test_a_bad_parameter_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_attack(name, **change)


# ---- passes of a sample


@pytest.mark.parametrize("name", ["autoattack", "square"])
def test_every_image_that_the_network_sees_is_counted(name: str) -> None:
    class Spy(Linear):
        seen = 0

        def forward(self, pixels: Tensor) -> Tensor:
            self.seen += len(pixels)
            return super().forward(pixels)

    model, pixels = Spy(), samples(7)
    pixels[4] = pixels[2]  # equal images are two samples
    epsilon = middle(radii(model, pixels[:4], "linf")) * (1 if name == "autoattack" else 4)
    spec = make_attack(name, epsilon=epsilon, **(FAST if name == "autoattack" else {"steps": 60}))
    labels = predictions(model, pixels)
    model.seen = 0
    result = run_attack(spec, model, pixels, labels, names(7), rows=1)  # rows=1: no padding
    assert result.queries.sum() == model.seen
    assert len(set(result.queries.tolist())) > 1


# ---- a real network


def cifar_images(folder: Path, count: int) -> tuple[nn.Module, Tensor, Tensor]:
    import pyarrow.parquet as pq
    from PIL import Image

    from regroup.models import ModelSpec, load_classifier

    table = pq.read_table(folder / "cifar10" / "test-00000-of-00002.parquet").slice(0, 2 * count)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    stacked = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
    weights = folder / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    labels = torch.tensor(table["label"].to_pylist())
    keep = predictions(model, pixels) == labels
    return model, pixels[keep][:count], labels[keep][:count]


def test_cifar_images_fall_at_least_as_often_as_to_pgd(shared_data: Path) -> None:
    model, pixels, labels = cifar_images(shared_data, 8)
    for epsilon, steps in ((4 / 255, 20), (0.7 / 255, 10)):
        rates = []
        for spec in (
            make_attack("pgd", epsilon=epsilon, protocol="budget", steps=steps),
            AutoAttack(epsilon=epsilon, steps=steps, target_classes=1, squares=10),
        ):
            result = run_attack(spec, model, pixels, labels, names(8), rows=8)
            none = np.full(8, -1)
            checked = verify(spec, model, result.images, labels.numpy(), none, rows=8)
            np.testing.assert_array_equal(checked.success, result.claimed)
            assert (result.linf <= epsilon + 1e-6).all()
            rates.append(result.claimed.mean())
        assert rates[1] >= rates[0]
    assert 0 < rates[1] < 1  # the second radius tells them apart


def test_the_module_imports_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    for module in ("autoattack", "square"):
        importlib.reload(importlib.import_module(f"regroup.attacks.{module}"))
