"""Synthetic features: benchmarks of dispatch, store and reductions without a network.

They depend on the seed, and neither on the order of the blocks nor on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_pipelines.steps.extraction import index_features_spec
from regroup_pipelines.steps.network import Network
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.features import COLUMNS, LOGITS, accumulators_path
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from regroup_cluster.dispatch.stopwatch import BlockClock
    from regroup_pipelines.steps.session import Session

TAPS = (("tap0", 16), ("tap1", 16), ("tap2", 16))
CLASSES = 10
FILE_ROWS = 10_000


def synthetic_network() -> Network:
    """Return a network that consists of a description only and cannot be built."""
    from regroup.models import ModelSpec  # imports torch, which the workers do not need

    return Network(
        spec=ModelSpec("synthetic"),
        description={"architecture": "synthetic"},
        policy="preactivation",
        taps=TAPS,
        num_classes=CLASSES,
        side=8,
    )


def write_dataset(folder: Path, rows: int, classes: int = CLASSES) -> None:
    """Write a Parquet dataset of `rows` undecodable images with cyclic class labels.

    The images differ between folders of different names.
    """
    folder.mkdir(parents=True)
    for start in range(0, rows, FILE_ROWS):
        numbers = np.arange(start, min(start + FILE_ROWS, rows))
        images = [f"{folder.name} {number}".encode() for number in numbers]
        table = pa.table({"image": images, "label": numbers % classes})
        pq.write_table(table, folder / f"{start // FILE_ROWS:05d}.parquet")


def create_features(session: Session, index: SampleIndex, network: Network) -> BlockElement:
    """Create the features of the index without any block, named as `extract` would."""
    spec = index_features_spec(network, index, session.options.block_rows)
    return BlockElement.create(session.store, spec, {})


def fill_features(
    session: Session, index: SampleIndex, network: Network, certainty: float = 4.0
) -> BlockElement:
    """Have the workers fill the features of the index; `certainty` as in `SyntheticWork`."""
    element = create_features(session, index, network)
    work = SyntheticWork(
        session.store.uri,
        element.ref,
        index.ref,
        network.taps,
        network.num_classes,
        certainty,
    )
    session.fill_on_actors(f"extract {element.name}", element, work)
    element.finalise({"samples": element.plan.rows})  # A bank is drawn only from complete features.
    return element


@dataclass(frozen=True)
class SyntheticWork(BlockWork):
    """What a worker needs to generate blocks of features; picklable.

    Attributes:
        store_uri: URI of the store.
        features_ref: the features element to fill.
        index_ref: the index of its samples.
        taps: (name, channels) of every tap.
        classes: number of classes.
        certainty: by how much the logit of the true class exceeds the others, whose standard
            deviation is 1.
    """

    store_uri: str
    features_ref: str
    index_ref: str
    taps: tuple[tuple[str, int], ...]
    classes: int
    certainty: float

    def open(self) -> SyntheticWorker:
        """Draw the values that all blocks share."""
        return SyntheticWorker(self)


class SyntheticWorker:
    """Writes lognormal accumulators that depend on the class; a tenth of the channels is dead.

    They are drawn once, for the rows of one block; each block permutes them and multiplies them by
    a factor per class. Generating a block therefore costs little compared with writing it, and
    blocks compress like those of real features (docs/format.md).
    """

    def __init__(self, work: SyntheticWork) -> None:
        store = open_store(work.store_uri)
        self._work = work
        self._element = BlockElement.open(store, "features", work.features_ref)
        self._index = SampleIndex.open(store, work.index_ref)
        random = np.random.default_rng(0)
        self._pools = {tap: _draw(random, self._rows, channels) for tap, channels in work.taps}
        self._classes = {
            tap: random.lognormal(sigma=1.0, size=(work.classes, 1, channels)).astype(np.float32)
            for tap, channels in work.taps
        }

    @property
    def _rows(self) -> int:
        return self._element.plan.size(0)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Generate and commit `block`."""
        with clock.phase("read"):
            span = self._element.plan.span(block)
            rows = self._index.rows(span, ["sample_id", "label"])
        with clock.phase("network"):
            arrays = self._arrays(block, rows["label"].to_numpy())
            table = _table(rows, arrays[LOGITS])
        with clock.phase("write"):
            committed = self._element.write_block(block, arrays, table, {})
        return BlockOutcome(committed, len(table))

    def _arrays(self, block: int, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        random = np.random.default_rng([0, block])
        rows = random.permutation(self._rows)[: len(labels)]
        arrays = {
            accumulators_path(tap): pool[rows] * self._classes[tap][labels]
            for tap, pool in self._pools.items()
        }
        logits = random.normal(size=(len(labels), self._work.classes))
        logits[np.arange(len(labels)), labels] += self._work.certainty
        return {**arrays, LOGITS: logits.astype(np.float32)}


def _draw(random: np.random.Generator, rows: int, channels: int) -> NDArray[np.float32]:
    """Draw accumulators (rows, 2, channels): channels of different size, a tenth of them dead."""
    sizes = random.lognormal(size=(2, channels))
    sizes[random.random(sizes.shape) < 0.1] = 0.0
    return (random.lognormal(sigma=0.5, size=(rows, 2, channels)) * sizes).astype(np.float32)


def _table(rows: pa.Table, logits: NDArray[np.float32]) -> pa.Table:
    order = np.argsort(-logits, axis=1)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    numbers = np.arange(len(logits))
    columns = {
        "sample_id": rows["sample_id"],
        "status": ["ok"] * len(logits),
        "error": [None] * len(logits),
        "label": rows["label"],
        "prediction": order[:, 0],
        "confidence": softmax[numbers, order[:, 0]],
        "true_confidence": softmax[numbers, rows["label"].to_numpy()],
        "top5": order[:, :5].tolist(),
    }
    return pa.table(columns, schema=COLUMNS)
