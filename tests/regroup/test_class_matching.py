"""Class names of two lists: exact first, looser where unambiguous; ImageNet's are known."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
import torchvision

from regroup.models.class_matching import in_imagenets_order, match_names
from regroup.models.imagenet import imagenet_synonyms, imagenet_wnids
from regroup_store.sources.imagenet_labels import wnids

WNIDS = imagenet_wnids()
CATEGORIES = tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])
# Earlier releases of torchvision, Keras and others have two names twice.
OLDER = tuple(
    {"crane bird": "crane", "maillot tank suit": "maillot"}.get(name, name) for name in CATEGORIES
)
NFD = unicodedata.normalize("NFD", "Höhle")


def places(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[int | None, ...]:
    return match_names(names, known).positions


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        (("c", "b", "a"), ("a", "b", "c"), (2, 1, 0)),
        (("b",), ("a", "b", "c"), (1,)),
        (("Cardigan", "cardigan"), ("cardigan", "Cardigan"), (1, 0)),
        (("golf_ball", "French-Horn"), ("French horn", "golf ball"), (1, 0)),
        ((NFD,), ("x", unicodedata.normalize("NFC", NFD)), (1,)),
        (("tench",), ("goldfish", "tench, Tinca tinca"), (1,)),
        (("Tinca tinca",), ("goldfish", "tench, Tinca tinca"), (1,)),
        (("n01440764", "n02979186"), ("cassette player", "tench"), (1, 0)),
        (("n01440764-tench",), ("x", "n01440764"), (1,)),
        (("St. Bernard", "yellow_ladys_slipper"), ("yellow lady's slipper", "St Bernard"), (1, 0)),
        (("10", "2"), ("2", "10"), (1, 0)),
        (("n09999999",), ("n09999999_zebra",), (0,)),
    ],
)
def test_names_find_their_place(
    names: tuple[str, ...], known: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    assert places(names, known) == expected


@pytest.mark.parametrize(
    ("names", "known", "unmatched", "doubtful"),
    [
        (("CARDIGAN", "x"), ("Cardigan", "cardigan", "x"), [0], {0: (0, 1)}),
        (("golf ball", "golf_ball"), ("golf ball",), [1], {1: (0,)}),
        (("golf-ball", "golf_ball"), ("golf ball",), [0, 1], {0: (0,), 1: (0,)}),
        (("a", "a"), ("a", "b"), [0, 1], {0: (0,), 1: (0,)}),
        (("Paris, Texas",), ("Paris, France",), [0], {}),
        (("n02012849",), ("n03126707",), [0], {}),  # both are called crane
        (("", "a"), ("a", "b"), [0], {}),
        (("15", "-1"), ("1.5", "1"), [0, 1], {}),
        (("c++",), ("c",), [0], {}),
    ],
)
def test_what_is_not_certain_has_no_place(
    names: tuple[str, ...],
    known: tuple[str, ...],
    unmatched: list[int],
    doubtful: dict[int, tuple[int, ...]],
) -> None:
    found = match_names(names, known)
    assert (found.unmatched, found.doubtful) == (unmatched, doubtful)


@pytest.mark.parametrize(
    "names",
    [
        CATEGORIES,
        OLDER,
        tuple(name.replace(" ", "_").lower() for name in OLDER),
        tuple(f"{wnid}-{name}" for wnid, name in zip(WNIDS, CATEGORIES, strict=True)),
        tuple(
            "crane2" if place == 517 else ", ".join(names)
            for place, names in enumerate(imagenet_synonyms())
        ),
    ],
    ids=["torchvision", "older", "lower", "wnids", "hugging-face"],
)
def test_a_thousand_names_in_imagenets_order_are_its_classes(names: tuple[str, ...]) -> None:
    assert in_imagenets_order(names)
    assert places(names, WNIDS) == places(WNIDS, names) == tuple(range(1000))
    shuffled = (*names[1:], names[0])
    assert not in_imagenets_order(shuffled)


def test_single_english_names_find_imagenets_classes() -> None:
    found = match_names(
        ("Cardigan", "cardigan", "crane bird", "sunglasses", "crane", "maillot", "Chain Saw"), WNIDS
    )
    assert found.positions == (264, 474, 134, 837, None, None, 491)
    assert found.doubtful == {4: (134, 517), 5: (638, 639)}
    once = [name for name, count in Counter(OLDER).items() if count == 1]
    assert [WNIDS[at or 0] for at in places(tuple(once), WNIDS)] == [
        wnid for wnid, name in zip(WNIDS, OLDER, strict=True) if name in once
    ]


def test_the_store_and_the_method_know_the_same_classes() -> None:
    assert wnids() == WNIDS
    assert len(imagenet_synonyms()) == len(WNIDS)
