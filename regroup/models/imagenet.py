"""ImageNet's classes, by wnid and in English, in the order in which networks number them."""

from __future__ import annotations

from functools import cache
from importlib import resources

IMAGENET_CLASSES = 1000


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1000 wnids of ILSVRC 2012 in class-index order."""
    file = resources.files("regroup").joinpath("imagenet_wnids.txt")
    return tuple(file.read_text("ascii").split())


@cache
def imagenet_synonyms() -> tuple[tuple[str, ...], ...]:
    """Return the English names of each class, the usual one first: WordNet's, and torchvision's."""
    lines = (
        resources.files("regroup").joinpath("imagenet_names.txt").read_text("ascii").splitlines()
    )
    return tuple(tuple(line.split(", ")) for line in lines)


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """Return the wnids if a network trained on ImageNet kept its 1000 outputs, else None."""
    return imagenet_wnids() if num_classes == IMAGENET_CLASSES else None
