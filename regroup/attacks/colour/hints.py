"""The colours that cAdv gives to the colouriser at first (Bhattad et al. 2020, section 3.1).

The image is segmented by colour; the segments whose colour the colouriser is surest of (lowest mean
entropy of its colour distribution) are held to their true colours by hints at random pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_ROUNDS = 100


def colour_segments(
    colours: NDArray[np.float64], count: int, random: np.random.Generator
) -> NDArray[np.intp]:
    """Cluster `colours` (P, D) by k-means: the cluster of each, (P,), below `count`.

    Begins with k-means++ (Arthur and Vassilvitskii 2007) and ends when no cluster changes, or after
    100 rounds. Fewer than `count` clusters are used if there are fewer different colours.
    """
    centres = _first_centres(colours, count, random)
    nearest = _nearest(colours, centres)
    for _ in range(_MAX_ROUNDS):
        for cluster in range(len(centres)):
            members = colours[nearest == cluster]
            if len(members):  # an empty one keeps its centre
                centres[cluster] = members.mean(axis=0)
        before, nearest = nearest, _nearest(colours, centres)
        if np.array_equal(before, nearest):
            break
    return nearest


def _first_centres(
    colours: NDArray[np.float64], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw pixels with a probability in proportion to the squared distance to those drawn."""
    chosen = [int(random.integers(len(colours)))]
    distance = _squared(colours, colours[chosen[0]])
    while len(chosen) < count and distance.any():
        chosen.append(int(random.choice(len(colours), p=distance / distance.sum())))
        distance = np.minimum(distance, _squared(colours, colours[chosen[-1]]))
    return colours[chosen]


def _squared(colours: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.square(colours - centre).sum(axis=1)
    return squares


def _nearest(colours: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    distances = np.stack([_squared(colours, centre) for centre in centres])
    nearest: NDArray[np.intp] = distances.argmin(axis=0)
    return nearest


def most_certain_segments(
    segment: NDArray[np.intp], entropy: NDArray[np.float64], keep: int
) -> NDArray[np.intp]:
    """Return the `keep` segments of lowest mean entropy, lowest first; fewer if there are fewer.

    Ties go to the smaller index.

    Args:
        segment: (P,), of each pixel.
        entropy: (P,), of each pixel.
        keep: how many segments.
    """
    pixels = np.bincount(segment)
    present = np.flatnonzero(pixels)
    mean = np.bincount(segment, entropy)[present] / pixels[present]
    return present[np.argsort(mean, kind="stable")[:keep]]


def hint_pixels(
    segment: NDArray[np.intp],
    kept: NDArray[np.intp],
    hints: int,
    random: np.random.Generator,
) -> NDArray[np.intp]:
    """Return `hints` distinct pixels of the segments `kept`, uniform over these; all if fewer."""
    pixels = np.flatnonzero(np.isin(segment, kept))
    return random.choice(pixels, min(hints, len(pixels)), replace=False)
