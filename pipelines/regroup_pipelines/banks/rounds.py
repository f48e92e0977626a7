"""Choose the samples of a bank in rounds, extracting no more images than needed.

The first round extracts some images of each class, later rounds more of the classes that still lack
correctly classified samples. Images that were extracted before, for another bank or with the
complete split, are not extracted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regroup.bank_samples import BankSampler
from regroup.candidates import CandidateSampler, first_depth, next_depths
from regroup_pipelines.log import log
from regroup_pipelines.results.blocks import tables
from regroup_pipelines.steps.extraction import extract_index, index_features_spec
from regroup_pipelines.steps.labels import label_map
from regroup_pipelines.steps.votes import source_of
from regroup_store.format.element import BlockElement
from regroup_store.format.lineage import features_of_index
from regroup_store.format.row_tables import PART_ROWS
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from regroup.bank_samples import BankSamples
    from regroup.candidates import Candidates
    from regroup_pipelines.configs.options import BankOptions
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session

_COLUMNS = ["sample_id", "label", "prediction", "confidence"]
SHOWN_CLASSES = 10


@dataclass(frozen=True, eq=False)
class BankDraw:
    """The samples of a bank, and where their features are.

    Attributes:
        features: the features elements that hold its candidates.
        samples: its samples, ascending by row; row r of features i has the number starts[i] + r.
        starts: number of the first row of each features element, (len(features),) int64.
        counts: samples per class, (M,) int64.
        tried: images of each class that were considered, (M,) int64.
    """

    features: list[BlockElement]
    samples: BankSamples
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    tried: NDArray[np.int64]

    def inputs(self) -> JsonObject:
        """Return the features' part of the bank's inputs: their fingerprints and gaps.

        They are sorted, since an interruption may change the order in which they are extracted.
        """
        if len(self.features) == 1:
            return {"features": self.features[0].fingerprint, **self.features[0].gap_inputs()}
        gaps = {f.fingerprint: f.gap_inputs()["input_gaps"] for f in self.features if f.gaps}
        named = sorted(f.fingerprint for f in self.features)
        return {"features": named, **({"input_gaps": gaps} if gaps else {})}


def draw_bank(
    session: Session, network: Network, index: SampleIndex, options: BankOptions, batch: int
) -> BankDraw:
    """Choose the samples of a bank, extracting what that takes.

    They are the first `per_class` correctly classified samples of each class in seeded order, the
    same as if the complete index had been extracted.

    Raises:
        ConfigurationError: a class has no correctly classified sample; an option is out of range.
    """
    depth = first_depth(options.per_class, options.expected_accuracy)
    depths = np.full(network.num_classes, depth, np.int64)
    known, labels = _extracted(session, network, index, batch), label_map(index, network)
    while True:
        candidates = candidates_of(index, labels, depths, options.bank_seed)
        found = CandidateLookup(known, candidates, options.per_class, options.bank_seed)
        if found.unknown:
            known.append(
                _extract(session, network, index, candidates, found.unknown, options, batch)
            )
            continue
        deeper = next_depths(depths, candidates.images, found.correct, options.per_class)
        if (deeper <= depths).all():
            return found.draw(class_names(network, index))
        depths = deeper


def _extracted(
    session: Session, network: Network, index: SampleIndex, batch: int
) -> list[BlockElement]:
    """Open the stored features of images of `index`; their missing blocks are tried again."""
    like = index_features_spec(network, index, session.options.block_rows).inputs
    found = []
    for ref in features_of_index(session.store, index.fingerprint, like):
        element = BlockElement.open(session.store, "features", ref)
        if element.gaps:
            images = SampleIndex.open(session.store, source_of(element)["index"])
            element = extract_index(session, network, images, batch)
        found.append(element)
    return found


def candidates_of(
    index: SampleIndex, labels: Sequence[int] | None, depths: NDArray[np.int64], seed: int
) -> Candidates:
    """Return the first images of each class in seeded order.

    Args:
        index: the training images.
        labels: the model's class of every label, as from `label_map`.
        depths: how many images of each class, (M,) int64.
        seed: seed of the order.
    """
    sampler = CandidateSampler(depths, seed)
    for start in range(0, index.rows_count, PART_ROWS):
        table = index.rows(slice(start, start + PART_ROWS), ["sample_id", "label"])
        numbers = table["label"].to_numpy()
        mapped = numbers if labels is None else np.asarray(labels)[numbers]
        sampler.update(start, table["sample_id"].to_pylist(), mapped)
    return sampler.finish()


def _extract(
    session: Session,
    network: Network,
    index: SampleIndex,
    candidates: Candidates,
    unknown: list[int],
    options: BankOptions,
    batch: int,
) -> BlockElement:
    """Extract the candidates that no stored features hold, given by their numbers."""
    rows = candidates.rows[unknown].tolist()
    classes = len(np.unique(candidates.labels[unknown]))
    log(
        f"bank of {options.per_class} per class: trying {len(rows)} of {index.rows_count} images, "
        f"of {classes} classes"
    )
    selection = {"candidates": {"seed": options.bank_seed}}
    tried = index.derive(session.store, f"{index.name}-candidates", rows, selection)
    return extract_index(session, network, tried, batch)


class CandidateLookup:
    """The candidates of a bank looked up in stored features: which are known, which correct.

    Attributes:
        unknown: numbers of the candidates that no features hold.
        correct: correctly classified candidates of each class, (M,) int64.
    """

    def __init__(
        self, features: list[BlockElement], candidates: Candidates, per_class: int, seed: int
    ) -> None:
        import pyarrow as pa

        self._candidates = candidates
        self._ids = pa.array(candidates.sample_ids, pa.string())
        self._seen = np.zeros(len(candidates.rows), bool)
        self._features: list[BlockElement] = []
        self._starts: list[int] = []
        self.correct = np.zeros(len(candidates.images), np.int64)
        self._sampler = BankSampler(len(self.correct), per_class, seed)
        for element in features:
            self._read(element)
        self.unknown: list[int] = np.flatnonzero(~self._seen).tolist()

    @property
    def unknown_labels(self) -> NDArray[np.int64]:
        """The class of each candidate that no features hold, (len(unknown),) int64."""
        return self._candidates.labels[self.unknown]

    def draw(self, class_names: Sequence[str], replicate: int | None = None) -> BankDraw:
        """Draw the bank's samples, or a bootstrap replicate of them.

        Raises:
            ConfigurationError: a class has no correctly classified sample.
        """
        samples, classes = self._sampler.finish(class_names, replicate), len(self.correct)
        return BankDraw(
            self._features,
            samples,
            np.array(self._starts, np.int64),
            np.bincount(samples.labels, minlength=classes),
            np.bincount(self._candidates.labels, minlength=classes),
        )

    def _read(self, element: BlockElement) -> None:
        """Add the rows of a features element that are candidates and were not added before."""
        before = self._seen.sum()
        start = sum(f.plan.rows for f in self._features)
        for first_row, table in tables(element, _COLUMNS) if not self._seen.all() else ():
            self._take(start + first_row, table)
        if self._seen.sum() > before:
            self._features.append(element)
            self._starts.append(start)

    def _take(self, first_row: int, table: pa.Table) -> None:
        import pyarrow.compute as pc

        found = pc.index_in(table["sample_id"], value_set=self._ids).fill_null(-1).to_numpy()
        rows = np.flatnonzero((found >= 0) & ~self._seen[found])
        self._seen[found[rows]] = True
        ids, labels, predictions, confidences = (table[name].take(rows) for name in _COLUMNS)
        label, prediction = labels.to_numpy(), predictions.to_numpy()
        right = (label == prediction) & (prediction >= 0)
        self.correct += np.bincount(label[right], minlength=len(self.correct))
        self._sampler.update(
            first_row + rows, ids.to_pylist(), label, prediction, confidences.to_numpy()
        )


def class_names(network: Network, index: SampleIndex) -> tuple[str, ...]:
    """Return the names of the M classes in the order of the model's outputs."""
    if label_map(index, network) is None or network.class_names is None:
        return index.class_names
    return network.class_names


def log_short_classes(draw: BankDraw, names: Sequence[str], per_class: int) -> None:
    """Log which classes ran out of images and how many samples they have, fewest first."""
    short = sorted(np.flatnonzero(draw.counts < per_class).tolist(), key=lambda y: draw.counts[y])
    if not short:
        return
    listed = [f"{names[y]} {draw.counts[y]} (of {draw.tried[y]} images)" for y in short]
    more = f" and {len(short) - SHOWN_CLASSES} more" if len(short) > SHOWN_CLASSES else ""
    log(
        f"bank: {len(short)} of {len(names)} classes RAN OUT of images before they had "
        f"{per_class} correctly classified ones: {', '.join(listed[:SHOWN_CLASSES])}{more}"
    )
