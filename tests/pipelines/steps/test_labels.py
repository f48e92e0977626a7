"""Labels go by name, by number or by position; what is not certain is refused in one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regroup.models import ModelSpec
from regroup.models.imagenet import imagenet_wnids
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.labels import labels_of, named_by
from regroup_pipelines.steps.network import Network

WNIDS = imagenet_wnids()
NUMBERS = tuple(str(number) for number in range(11))
AS_TEXT = tuple(sorted(NUMBERS))  # 0, 1, 10, 2, ...


def network(outputs: int, names: tuple[str, ...] | None = None) -> Network:
    return Network(ModelSpec("m:f"), {}, "preactivation", (), outputs, 8, names)


def abc(names: str) -> tuple[str, ...]:
    return tuple(names)


@pytest.mark.parametrize(
    ("names", "of", "expected"),
    [
        (abc("abc"), network(3, abc("abc")), ("name", None)),
        (abc("cba"), network(3, abc("abc")), ("name", (2, 1, 0))),
        (abc("cb"), network(3, abc("abc")), ("name", (2, 1))),
        (("Golf_Ball", "tench"), network(1000, WNIDS), ("name", (574, 0))),
        (("b", "a"), network(2, ("A", "B")), ("name", (1, 0))),
        (AS_TEXT, network(11, NUMBERS), ("name", tuple(int(name) for name in AS_TEXT))),
        (("3", "5"), network(10, NUMBERS[:10]), ("name", (3, 5))),
        (NUMBERS, network(11), ("number", None)),
        (("10", "2", "7"), network(11), ("number", (10, 2, 7))),
        (AS_TEXT, network(1000, WNIDS), ("number", tuple(int(name) for name in AS_TEXT))),
        (("LABEL_0", "LABEL_1"), network(2, ("cat", "dog")), ("number", None)),
        (abc("cba"), network(3), ("position", None)),
        (("cat", "dog"), network(3), ("position", None)),
        (("one", "two"), network(2, ("0", "1")), ("position", None)),
        (("1", "2", "3"), network(3), ("position", None)),
        (WNIDS, network(1000), ("position", None)),
    ],
)
def test_labels_become_classes(
    names: tuple[str, ...], of: Network, expected: tuple[str, tuple[int, ...] | None]
) -> None:
    found = labels_of(names, "val", of)
    assert ((found.by, found.classes), found.forced) == (expected, False)
    assert (found.line is None) == (names == of.class_names)


@pytest.mark.parametrize(
    ("names", "of", "words"),
    [
        (abc("xyz"), network(3, abc("abc")), ["'x', 'y', 'z'", "3 classes", "'a', 'b', 'c'"]),
        (abc("abx"), network(3, abc("abc")), ["the class 'x'", "others of which are 'c'"]),
        (abc("abcd"), network(3, abc("abc")), ["the class 'd'"]),
        (abc("abcd"), network(3), ["4 classes", "has 3"]),
        (("crane", "tench"), network(1000, WNIDS), ["'crane'", "class 134", "class 517"]),
        (("a", "A"), network(2, ("a", "b")), ["'A'", "'a' (class 0)", "another class"]),
        (("a", "a"), network(2, ("a", "b")), ["'a'", "another class"]),
        (("", "a"), network(2, ("a", "b")), ["''"]),
        (AS_TEXT, network(11), ["'0', '1', '10'", "leading zeros", "torchvision"]),
        (("c1", "c10", "c2"), network(3), ["'c1', 'c10'", "torchvision"]),
        (("1", "10", "2", "3", "4", "5", "6", "7", "8", "9"), network(10), ["'1', '10'"]),
        (WNIDS[:2], network(3), ["2 wnids", "which of its 3"]),
    ],
)
def test_what_is_not_certain_is_refused(
    names: tuple[str, ...], of: Network, words: list[str]
) -> None:
    with pytest.raises(UsageError) as told:
        labels_of(names, "val", of)
    assert [word for word in [*words, "val"] if word not in str(told.value)] == []
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("names", "of", "forced"),
    [
        (abc("abc"), network(3, abc("abc")), False),
        (abc("cba"), network(3, abc("abc")), True),
        (abc("xyz"), network(3, abc("abc")), True),
        (abc("xyz"), network(3), False),
        (AS_TEXT, network(11), True),
        (("cat", "dog"), network(3), False),
        (WNIDS[:2], network(3), True),
    ],
)
def test_position_is_taken_where_it_is_asked_for(
    names: tuple[str, ...], of: Network, forced: bool
) -> None:
    found = labels_of(names, "val", replace(of, labels="position"))
    assert (found.by, found.classes, found.forced) == ("position", None, forced)
    with pytest.raises(UsageError, match="4 classes"):
        labels_of(abc("abcd"), "val", replace(network(3), labels="position"))


def test_a_network_without_names_takes_those_of_its_banks_dataset() -> None:
    named = named_by(network(3), abc("abc"), "the bank B")
    assert labels_of(abc("cba"), "val", named).classes == (2, 1, 0)
    with pytest.raises(UsageError, match="the bank B"):
        labels_of(abc("xyz"), "val", named)
    own = network(3, abc("xyz"))
    assert named_by(own, abc("abc"), "the bank B") == own
    assert named_by(network(2), abc("abc"), "the bank B").class_names is None
    assert named_by(network(3), ("0", "1", "2"), "the bank B").class_names is None


def test_a_part_of_the_classes_of_a_network_without_names_is_said_to_be_one() -> None:
    assert "2 of 3 classes" in (labels_of(("cat", "dog"), "val", network(3)).line or "")
    assert "of 3" not in (labels_of(abc("xyz"), "val", network(3)).line or "")
