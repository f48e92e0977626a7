"""Features of samples that never were: what the dispatch, the store and the reductions work on
when no network is wanted. The same for a seed, whatever the blocks' order or the workers' number.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.dispatch import BlockReport
from cluster.phases import Phases
from pipelines.network import Network
from store.element import BlockElement
from store.features import COLUMNS, LOGITS, accumulators_path
from store.indexes import SampleIndex
from store.stores import open_store

TAPS = (("tap0", 16), ("tap1", 16), ("tap2", 16))
CLASSES = 10
FILE_ROWS = 10_000


def synthetic_network() -> Network:
    """A network that only has a description: nothing builds it."""
    from regroup.models import ModelSpec  # torch, which the workers have no need of

    return Network(
        spec=ModelSpec("synthetic"),
        description={"architecture": "synthetic"},
        policy="preactivation",
        taps=TAPS,
        num_classes=CLASSES,
        side=8,
    )


def write_dataset(folder: Path, rows: int) -> None:
    """A Parquet dataset of `rows` images that nobody can decode, their classes in turn."""
    folder.mkdir(parents=True)
    for start in range(0, rows, FILE_ROWS):
        numbers = np.arange(start, min(start + FILE_ROWS, rows))
        images = [b"%d" % number for number in numbers]
        table = pa.table({"image": images, "label": numbers % CLASSES})
        pq.write_table(table, folder / f"{start // FILE_ROWS:05d}.parquet")


@dataclass(frozen=True)
class SyntheticJob:
    """What a worker needs to make blocks of features up; picklable."""

    store_uri: str
    features_ref: str
    index_ref: str
    device: str

    def __call__(self) -> "SyntheticWorker":
        """Build the worker, inside the actor."""
        return SyntheticWorker(self)


class SyntheticWorker:
    """Writes lognormal accumulators, and logits that are right about nine times in ten."""

    def __init__(self, job: SyntheticJob) -> None:
        store = open_store(job.store_uri)
        self._element = BlockElement.open(store, "features", job.features_ref)
        self._index = SampleIndex.open(store, job.index_ref)

    def process(self, block: int) -> BlockReport:
        """Make up and commit `block`."""
        phases = Phases()
        with phases("read"):
            span = self._element.plan.span(block)
            rows = self._index.rows(span, ["sample_id", "label"])
        with phases("network"):
            arrays = _arrays(block, rows["label"].to_numpy())
            table = _table(rows, arrays[LOGITS])
        with phases("write"):
            committed = self._element.write_block(block, arrays, table, {})
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(table),
            failed=0,
            forward_passes=0,
            seconds=sum(phases.seconds.values()),
            phases=phases.seconds,
        )


def _arrays(block: int, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng([0, block])
    rows = np.arange(len(labels))
    arrays = {}
    for tap, channels in TAPS:
        values = random.lognormal(size=(len(labels), 2, channels))
        values[rows, :, labels] *= 20.0  # one channel tells the class
        arrays[accumulators_path(tap)] = values.astype(np.float32)
    logits = random.normal(size=(len(labels), CLASSES))
    logits[rows, labels] += 4.0
    arrays[LOGITS] = logits.astype(np.float32)
    return arrays


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
