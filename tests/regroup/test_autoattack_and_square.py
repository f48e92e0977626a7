"""Behaviour shared by AutoAttack and Square: refusals, failures, counts, a real network."""

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
from torch import Tensor, nn

from regroup.attacks import make_attack, predictions, run_attack
from regroup.attacks.autoattack import AutoAttack
from regroup.attacks.score.square import Square
from regroup.attacks.verification import verify
from regroup.errors import ConfigurationError
from tests.regroup.autoattack_subjects import (
    FAST,
    POISON,
    Linear,
    Poisoned,
    attack,
    middle,
    names,
    radii,
    samples,
)

pytest.importorskip(
    "pyautoattack", reason="pyautoattack is not installed: pip install 'regroup-ray[attacks]'"
)


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
        ("autoattack", {"targeted": True}, "only untargeted"),
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
    for module in ("autoattack", "score.square"):
        importlib.reload(importlib.import_module(f"regroup.attacks.{module}"))
