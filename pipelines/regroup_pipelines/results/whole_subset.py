"""Robust accuracy over a whole subset (`correct = false`) from stored votes, no forward pass.

Attacks run on correctly classified samples only (docs/protocols.md). Over the whole subset these
samples count by their attacked image and all others by their clean image. The accuracy on the clean
images of the same samples is given for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from regroup_pipelines.results.accuracy import accuracies
from regroup_pipelines.results.counts import GroupCounts, vote_rows
from regroup_pipelines.results.records import ImagesNotRun, MeasuredImages, WholeSubset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.indexes import SampleIndex


@dataclass(frozen=True)
class WholeCounts:
    """Counts over those samples of a subset that have an outcome.

    Attributes:
        samples: samples in the subset, with or without an outcome.
        attacked: samples that count by their attacked image in `robust`.
        robust: counts by the attacked image where there is one, else by the clean image.
        clean: counts of the same samples by their clean images.
    """

    samples: int
    attacked: int
    robust: GroupCounts
    clean: GroupCounts

    def in_row(self, row: MeasuredImages, subset: str) -> MeasuredImages:
        """Return the attack's accuracy row with "over all" counting the whole subset."""
        whole = WholeSubset(
            subset=subset,
            samples=self.samples,
            counted=self.clean.n,
            attacked=self.attacked,
            clean=accuracies(self.clean, row.k, row.signs),
        )
        over_all = accuracies(self.robust, row.k, row.signs)
        return row.model_copy(update={"over_all": over_all, "whole": whole})


def whole_subset(images: SampleIndex, clean: BlockElement, attacked: BlockElement) -> WholeCounts:
    """Join the votes on attacked images with those on clean images by sample id.

    A sample without an outcome (its image is unreadable, or its block of the attack failed) is
    counted nowhere. Memory: about 100 bytes per sample of the subset, and one block.

    Args:
        images: index of the whole subset.
        clean: votes on clean images of at least its samples.
        attacked: votes on the images of the attack, by the same bank and scoring.
    """
    subset = images.rows(columns=["sample_id"])["sample_id"].combine_chunks()
    readable = _ids(clean, within=subset)
    tried, left = _ids(attacked, status="any"), _ids(attacked, status="failed")
    by_attack = _sum([(attacked, readable, None)])
    robust = _sum([(attacked, readable, None), (clean, subset, tried)])
    return WholeCounts(len(subset), by_attack.n, robust, _sum([(clean, subset, left)]))


def _ids(votes: BlockElement, within: pa.Array | None = None, status: str = "ok") -> pa.Array:
    """Return the ids of the rows with `status` ("any": of all rows), restricted to `within`."""
    parts = []
    for block in range(votes.plan.blocks):
        table = votes.read_table(block, ["sample_id", "status"])
        if status != "any":
            table = table.filter(pc.equal(table["status"], status))
        parts += table["sample_id"].chunks
    ids = pa.chunked_array(parts, pa.string()).combine_chunks()
    return ids if within is None else ids.filter(pc.is_in(ids, value_set=within))


def _sum(parts: Iterable[tuple[BlockElement, pa.Array, pa.Array | None]]) -> GroupCounts:
    """Add up the counts of several votes.

    Args:
        parts: votes, ids of the samples to count, and ids among them to leave out.
    """
    return reduce(add, (counts for part in parts for counts in _counted(*part)))


def _counted(votes: BlockElement, keep: pa.Array, drop: pa.Array | None) -> Iterator[GroupCounts]:
    for rows in vote_rows(votes):
        mask = rows.ok & _among(rows.sample_id, keep)
        if drop is not None:
            mask &= ~_among(rows.sample_id, drop)
        yield rows.counts(mask)


def _among(ids: NDArray[np.str_], known: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(pa.array(ids, pa.string()), value_set=known).to_numpy(
        zero_copy_only=False
    )
    return found


def whole_subset_notes(rows: Iterable[MeasuredImages | ImagesNotRun]) -> Iterator[str]:
    """Explain, for the accuracy table, what "over all" counts for attacks on whole subsets."""
    groups: dict[tuple[str, int, int, int], list[str]] = {}
    for row in rows:
        if isinstance(row, MeasuredImages) and row.whole is not None:
            whole = row.whole
            key = (whole.subset, whole.samples, whole.counted, whole.attacked)
            groups.setdefault(key, []).append(row.images)
    for (subset, samples, counted, attacked), names in groups.items():
        lost = samples - counted
        yield (
            f'{", ".join(names)}: "over all" counts {counted} images of the subset {subset}, '
            "whether the network classifies them correctly or not: "
            f"the {attacked} correctly classified ones by their attacked image, the other "
            f"{counted - attacked} by their clean image."
            + (f" {lost} more have no outcome and are not counted." if lost else "")
        )
