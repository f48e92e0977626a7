"""The samples of a bank, found in rounds: only as many images are extracted as it takes.

A first round tries some images of each class, further ones more of the classes that lack correctly
classified samples. Whatever was extracted before, for another bank or of the whole split, is not
extracted again.
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
from regroup_pipelines.steps.network import label_map
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
    """What a bank is made of.

    Attributes:
        features: the features elements that hold its candidates.
        samples: its samples, ascending by row; row r of features i is row starts[i] + r here.
        starts: (len(features),) int64.
        counts: how many each class has, (M,) int64.
        tried: how many images of each class were looked at, (M,) int64.
    """

    features: list[BlockElement]
    samples: BankSamples
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    tried: NDArray[np.int64]

    def inputs(self) -> JsonObject:
        """The features' fingerprints, and their gaps, as the bank's inputs have them.

        In an order of their own: that of extraction is another one after an interruption.
        """
        if len(self.features) == 1:
            return {"features": self.features[0].fingerprint, **self.features[0].gap_inputs()}
        gaps = {f.fingerprint: f.gap_inputs()["input_gaps"] for f in self.features if f.gaps}
        named = sorted(f.fingerprint for f in self.features)
        return {"features": named, **({"input_gaps": gaps} if gaps else {})}


def draw_bank(
    session: Session, network: Network, index: SampleIndex, options: BankOptions, batch: int
) -> BankDraw:
    """The samples of a bank, after extracting what is needed to know them.

    They are the first `per_class` correctly classified ones of each class in its seeded order, as
    if the whole index had been extracted.

    Raises:
        ConfigurationError: a class has no correctly classified sample; an option is out of range.
    """
    depth = first_depth(options.per_class, options.expected_accuracy)
    depths = np.full(network.num_classes, depth, np.int64)
    known, labels = _extracted(session, network, index, batch), label_map(index, network)
    while True:
        candidates = candidates_of(index, labels, depths, options.bank_seed)
        found = LookUp(known, candidates, options.per_class, options.bank_seed)
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
    """Features of images of `index` that the store holds; what they lack is tried again."""
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
    """The first `depths`, (M,) int64, images of each class; `labels`: as of `label_map`."""
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
    """Features of the candidates that no stored features hold, by their numbers."""
    rows = candidates.rows[unknown].tolist()
    classes = len(np.unique(candidates.labels[unknown]))
    log(
        f"bank of {options.per_class} a class: {len(rows)} of {index.rows_count} images, of "
        f"{classes} classes, are tried next"
    )
    selection = {"candidates": {"seed": options.bank_seed}}
    tried = index.derive(session.store, f"{index.name}-candidates", rows, selection)
    return extract_index(session, network, tried, batch)


class LookUp:
    """What stored features say of the candidates: which are known, which correct.

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
        """The classes of the candidates that no features hold, one each."""
        return self._candidates.labels[self.unknown]

    def draw(self, class_names: Sequence[str], replicate: int | None = None) -> BankDraw:
        """The bank's samples, or a bootstrap replicate; ConfigurationError for a class without."""
        samples, classes = self._sampler.finish(class_names, replicate), len(self.correct)
        return BankDraw(
            self._features,
            samples,
            np.array(self._starts, np.int64),
            np.bincount(samples.labels, minlength=classes),
            np.bincount(self._candidates.labels, minlength=classes),
        )

    def _read(self, element: BlockElement) -> None:
        """Take in the rows of one features element that are candidates not met before."""
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
    """The names of the M classes in the order of the model's outputs."""
    if label_map(index, network) is None or network.class_names is None:
        return index.class_names
    return network.class_names


def log_short_classes(draw: BankDraw, names: Sequence[str], per_class: int) -> None:
    """Say which classes ran out of images, and with how many samples, the fewest first."""
    short = sorted(np.flatnonzero(draw.counts < per_class).tolist(), key=lambda y: draw.counts[y])
    if not short:
        return
    listed = [f"{names[y]} {draw.counts[y]} (of {draw.tried[y]} images)" for y in short]
    more = f" and {len(short) - SHOWN_CLASSES} more" if len(short) > SHOWN_CLASSES else ""
    log(
        f"bank: {len(short)} of {len(names)} classes RAN OUT of images before they had "
        f"{per_class} correctly classified ones: {', '.join(listed[:SHOWN_CLASSES])}{more}"
    )
