"""PGD on two real networks: the same examples for any batch, Foolbox as oracle."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.attacks import AttackResult, AttackSpec, predictions, run_attack, verify
from regroup.attacks.pgd.attack import PGD
from regroup.models import Classifier, ModelSpec, load_classifier, save_weights, train_digits_cnn


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with correctly classified samples of its own."""

    model: Classifier
    pixels: Tensor
    labels: Tensor

    @property
    def names(self) -> list[str]:
        return [f"image-{i:03d}" for i in range(len(self.pixels))]

    def first(self, count: int) -> "Subject":
        return Subject(self.model, self.pixels[:count], self.labels[:count])


def correct(model: Classifier, pixels: Tensor, labels: Tensor) -> Subject:
    keep = predictions(model, pixels) == labels
    return Subject(model, pixels[keep], labels[keep])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images.astype(np.float32) / 16)[:, None]
    pixels = nn.functional.interpolate(small, size=16, mode="bilinear").expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target)
    network = train_digits_cnn(pixels[:1500].numpy(), bunch.target[:1500], 0, epochs=3)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_weights(network, path, {})
    model = load_classifier(ModelSpec("digits-cnn", str(path)))
    return correct(model, pixels[1500:1700].contiguous(), labels[1500:1700])


@pytest.fixture(scope="module")
def cifar(shared_data: Path) -> Subject:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(shared_data / "cifar10" / "test-00000-of-00002.parquet").slice(0, 32)
    files = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    pixels = np.stack([np.asarray(file.convert("RGB"), np.float32) for file in files]) / 255
    weights = shared_data / "weights" / "cifar10-resnet20.safetensors"
    model = load_classifier(ModelSpec("cifar-resnet20", str(weights)))
    labels = torch.tensor(table["label"].to_pylist())
    return correct(model, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)


@pytest.fixture(params=["digits", "cifar"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.getfixturevalue(request.param)
    return found


ARRAYS = [
    field.name
    for field in dataclasses.fields(AttackResult)
    if field.name not in ("seconds", "failures")
]


def in_batches(
    spec: AttackSpec, subject: Subject, rows: list[int], size: int
) -> dict[str, np.ndarray]:
    """Attack `rows` in that order, `size` at a time: every array of the result."""
    parts = []
    for i in range(0, len(rows), size):
        batch = rows[i : i + size]
        ids = [subject.names[row] for row in batch]
        torch.manual_seed(size)  # must not matter
        parts.append(
            run_attack(spec, subject.model, subject.pixels[batch], subject.labels[batch], ids)
        )
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}


@pytest.mark.parametrize(
    "parameters",
    [
        {"protocol": "minimal"},
        {"protocol": "budget"},
        {"protocol": "minimal", "norm": "l2", "targeted": True, "step_ratio": 0.3},
        {"protocol": "budget", "norm": "l2", "confidence": 0.6},
    ],
    ids=["minimal", "budget", "minimal-l2-targeted", "budget-l2-confident"],
)
def test_the_same_examples_for_any_batch_size_and_order(
    subject: Subject, parameters: dict[str, Any]
) -> None:
    radius, steps = (0.5, 4) if "norm" in parameters else (2 / 255, 6)
    spec = PGD(epsilon=radius, steps=steps, bisections=1, **parameters)
    subject = subject.first(8)
    rows = list(range(len(subject.names)))
    whole = in_batches(spec, subject, rows, 64)
    seven = in_batches(spec, subject, rows, 7)
    backwards = in_batches(spec, subject, rows[::-1], 5)
    alone = in_batches(spec, subject, rows[:2], 1)
    for name, expected in whole.items():
        np.testing.assert_array_equal(seven[name], expected, err_msg=name)
        np.testing.assert_array_equal(backwards[name][::-1], expected, err_msg=name)
        np.testing.assert_array_equal(alone[name], expected[:2], err_msg=name)


def test_budget_succeeds_as_often_as_foolbox(digits: Subject) -> None:
    from foolbox.attacks import LinfPGD
    from foolbox.models.pytorch import PyTorchModel

    oracle = LinfPGD(rel_stepsize=1 / 30, steps=40, random_start=True)
    wrapped = PyTorchModel(digits.model, bounds=(0, 1), device="cpu")
    rates = []
    digits = digits.first(100)
    for epsilon in (16 / 255, 32 / 255):
        spec = PGD(epsilon=epsilon, step_ratio=1 / 30, protocol="budget")
        ours = run_attack(spec, digits.model, digits.pixels, digits.labels, digits.names)
        torch.manual_seed(0)
        _, _, theirs = oracle(wrapped, digits.pixels, digits.labels, epsilons=epsilon)
        rates.append(ours.claimed.mean())
        assert abs(ours.claimed.mean() - theirs.float().mean().item()) <= 0.05
    assert rates[0] < 0.9  # the comparison is not between two saturated rates


@pytest.mark.parametrize(
    ("norm", "targeted", "epsilon"),
    [("l2", False, 0.08), ("l2", True, 0.2), ("linf", True, 1 / 255)],
)
def test_budget_succeeds_as_often_and_as_far_as_foolbox_on_cifar(
    cifar: Subject, norm: Any, targeted: bool, epsilon: float
) -> None:
    from foolbox.attacks import L2PGD, LinfPGD
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

    oracle = {"l2": L2PGD, "linf": LinfPGD}[norm](rel_stepsize=0.1, steps=12, random_start=True)
    targets = (cifar.labels + 1) % 10
    aim = TargetedMisclassification(targets) if targeted else Misclassification(cifar.labels)
    torch.manual_seed(0)
    wrapped = PyTorchModel(cifar.model, bounds=(0, 1), device="cpu")
    _, theirs, success = oracle(wrapped, cifar.pixels, aim, epsilons=epsilon)
    spec = PGD(
        norm=norm, targeted=targeted, protocol="budget", epsilon=epsilon, steps=12, step_ratio=0.1
    )
    ours = run_attack(
        spec, cifar.model, cifar.pixels, cifar.labels, cifar.names, targets if targeted else None
    )
    assert 0.15 <= success.float().mean() <= 0.85  # the comparison is not of saturated rates
    # Random starts differ: of these images at most two may.
    assert abs(int(ours.claimed.sum()) - int(success.sum())) <= 2
    far = (theirs - cifar.pixels).flatten(1)
    size = far.norm(dim=1) if norm == "l2" else far.abs().amax(dim=1)
    np.testing.assert_allclose(ours.l2 if norm == "l2" else ours.linf, size.numpy(), rtol=0.02)


def test_stored_images_fool_the_network_as_the_result_says(subject: Subject) -> None:
    subject = subject.first(16)
    spec = PGD(epsilon=4 / 255, steps=10, bisections=3)
    result = run_attack(spec, subject.model, subject.pixels, subject.labels, subject.names)
    assert result.claimed.all()
    classes = predictions(subject.model, torch.from_numpy(result.images))
    assert (classes != subject.labels).all()
    judged = verify(spec, subject.model, result.images, subject.labels.numpy(), result.target)
    assert judged.success.all()
    np.testing.assert_array_equal(classes.numpy(), judged.adversarial_class)


def test_minimal_needs_far_less_than_the_budget_on_cifar(cifar: Subject) -> None:
    subject = cifar.first(16)
    spec = PGD(epsilon=4 / 255, protocol="budget")
    budget = run_attack(spec, subject.model, subject.pixels, subject.labels, subject.names)
    assert budget.claimed.mean() >= 0.9  # an undefended network has almost no chance at 4/255
    spec = dataclasses.replace(spec, protocol="minimal", steps=10, bisections=5)
    minimal = run_attack(spec, subject.model, subject.pixels, subject.labels, subject.names)
    assert np.median(minimal.linf) < 0.5 * 4 / 255
    assert minimal.mse.mean() < 0.5 * budget.mse.mean()


def test_a_forward_pass_is_counted_for_each_query_and_padding(digits: Subject) -> None:
    subject = digits.first(16)  # the CPU's batch: no padding
    before = subject.model.samples_forwarded
    spec = PGD(epsilon=4 / 255, steps=5, protocol="budget")
    result = run_attack(spec, subject.model, subject.pixels, subject.labels, subject.names)
    assert subject.model.samples_forwarded - before == result.queries.sum()
