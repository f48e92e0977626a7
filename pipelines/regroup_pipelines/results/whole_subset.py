"""Robust accuracy over a whole subset (`correct = false`), from stored votes: no forward pass.

An attack is made on the samples that the network gets right (DESIGN §7). Over the whole subset
these count by their adversarial outcome, the others by their clean one; beside that, the clean
outcome of the same samples.
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
    """Counts over the samples of a subset that have an outcome, the same in both.

    Attributes:
        samples: samples of the subset.
        attacked: those of `robust` that count by their adversarial outcome.
        robust: by the attacked image where there is one, else by the clean one.
        clean: the same samples by their clean images.
    """

    samples: int
    attacked: int
    robust: GroupCounts
    clean: GroupCounts

    def in_row(self, row: MeasuredImages, subset: str) -> MeasuredImages:
        """The attack's row of the accuracy table, over the whole subset where it said "all"."""
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
    """Join the votes of an attack's samples with those of the clean ones, by sample id.

    `images`: the whole subset; `clean`: votes of at least its samples, `attacked`: of those of
    them that were attacked, by the same bank and scoring. A sample without an outcome that counts
    (its image could not be read, or its part of the attack was given up) is in neither count.
    Memory: about 100 bytes a sample of the subset, and a block.
    """
    subset = images.rows(columns=["sample_id"])["sample_id"].combine_chunks()
    readable = _ids(clean, within=subset)
    tried, left = _ids(attacked, status="any"), _ids(attacked, status="failed")
    by_attack = _sum([(attacked, readable, None)])
    robust = _sum([(attacked, readable, None), (clean, subset, tried)])
    return WholeCounts(len(subset), by_attack.n, robust, _sum([(clean, subset, left)]))


def _ids(votes: BlockElement, within: pa.Array | None = None, status: str = "ok") -> pa.Array:
    """Ids of the rows with a status, or of any, that are among `within` where it is given."""
    parts = []
    for block in range(votes.plan.blocks):
        table = votes.read_table(block, ["sample_id", "status"])
        if status != "any":
            table = table.filter(pc.equal(table["status"], status))
        parts += table["sample_id"].chunks
    ids = pa.chunked_array(parts, pa.string()).combine_chunks()
    return ids if within is None else ids.filter(pc.is_in(ids, value_set=within))


def _sum(parts: Iterable[tuple[BlockElement, pa.Array, pa.Array | None]]) -> GroupCounts:
    """Counts over votes of the samples that are in the first array and not in the second."""
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


def whole_lines(rows: Iterable[MeasuredImages | ImagesNotRun]) -> Iterator[str]:
    """What "over all" means for the attacks on whole subsets among rows of the accuracy table."""
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
            f"{attacked} that it gets right when clean by their attacked image, the other "
            f"{counted - attacked} by their clean image."
            + (f" {lost} more have no outcome and count nowhere." if lost else "")
        )
