"""The names of a network's outputs in the forms that people give them."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from regroup.errors import ConfigurationError
from regroup.models.class_names import network_class_names, numbers_of, read_class_names
from regroup.models.imagenet import imagenet_wnids

ABC = ("a", "b", "c")


class Letters(enum.Enum):
    B = 1
    A = 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b", "c"], ABC),
        ({2: "c", 0: "a", 1: "b"}, ABC),
        ({"2": "c", "0": "a", "1": "b"}, ABC),
        ({"c": 2, "a": 0, "b": 1}, ABC),
        ({"a": np.int64(0), "b": torch.tensor(1), "c": 2}, ABC),
        ({"10": 1, "2": 0}, ("2", "10")),
        (np.array(["a", "b", "c"]), ABC),
        (np.array([b"a", b"b", b"c"]), ABC),
        ("a, b,c", ABC),
        ("a\nb\nc\n", ABC),
        (lambda: ["a", "b", "c"], ABC),
        ((name for name in "abc"), ABC),
        (Letters, ("A", "B")),
        (torch.tensor([4, 2]), ("4", "2")),
        ({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]},
         ("n01440764, tench", "n01443537, goldfish")),
        ([{"id": 0, "name": "a"}, {"id": 1, "name": "b"}], ("a", "b")),
        ([], ()),
    ],
)  # fmt: skip
def test_names_are_read_in_every_form(given: object, expected: tuple[str, ...]) -> None:
    assert read_class_names(given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a", "b"}, "no order"),
        (7, "type int"),
        (nn.ModuleList(), "type ModuleList"),
        (b"ab", "type bytes"),
        ([None, "a"], "holds a NoneType"),
        ({0: "a", 2: "b"}, "not 0 to 1"),
        ({"a": 1, "b": 2}, "not 0 to 1"),
        ({0: "a", "0": "b"}, "not 0 to 1"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (np.array("a"), "type ndarray"),
    ],
)
def test_what_names_no_outputs_is_refused_in_one_sentence(given: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as told:
        read_class_names(given)
    assert "\n" not in str(told.value)


def network(**attributes: Any) -> nn.Module:
    found = nn.Identity()
    for name, value in attributes.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"config": SimpleNamespace(id2label={1: "b", 0: "a"})}, ("a", "b")),
        ({"config": SimpleNamespace(id2label=None, label2id={"b": 1, "a": 0})}, ("a", "b")),
        ({"config": SimpleNamespace(id2label={0: "LABEL_0", 1: "LABEL_1"})}, None),
        ({"pretrained_cfg": {"label_names": ["a", "b"]}}, ("a", "b")),
        ({"class_to_idx": {"b": 0, "a": 1}}, ("b", "a")),
        ({"classes": 7}, None),
        ({"classes": ["a", "b", "c"]}, None),
        ({"classes": nn.Linear(1, 2)}, None),
        ({"names": ["conv1", "conv2"]}, None),
        ({"class_names": None, "classes": ["a", "b"]}, ("a", "b")),
        ({"class_names": []}, None),
    ],
)
def test_names_are_found_where_libraries_keep_them(
    attributes: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    assert network_class_names(network(**attributes), 2, "m:f") == expected


class Failing(nn.Identity):
    @property
    def class_names(self) -> list[str]:
        raise OSError("no\nfile")

    @property
    def classes(self) -> list[str]:
        raise RuntimeError


def test_attributes_that_fail_are_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"m:f: .* \(OSError: no file\)"):
        network_class_names(Failing(), 2, "m:f")
    assert network_class_names(network(class_names=None, names=7), 2, "m:f") is None


def test_imagenets_names_with_repetitions_are_its_wnids() -> None:
    names = [
        {"crane bird": "crane"}.get(name, name)
        for name in torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    ]
    found = network_class_names(network(class_names=names), 1000, "m:f")
    assert found == imagenet_wnids()
    with pytest.raises(ConfigurationError, match="'crane' is repeated"):
        network_class_names(network(class_names=[*names[1:], names[0]]), 1000, "m:f")


def test_names_that_are_numbers() -> None:
    assert numbers_of(("0", "10", "2")) == (0, 10, 2)
    assert numbers_of(("LABEL_1", "class 02", "class3")) == (1, 2, 3)
    assert numbers_of(("0", "x")) is None
    assert numbers_of(("n01440764",)) is None
