"""Re-scoring from the store over running the network again: `python -m benchmarks.rescoring`.

A store with ResNet-50's accumulators (synthetic ones: they cost the same to read) and a bank of
1000 classes. Ours is the work of a worker on every block: read and verify, score for every k and
sign choice, write the votes. The baseline is the network's pass with `Extractor` over images of 224
px that are decoded in memory, float32, channels-last, on fewer samples; reading and decoding, which
a real job needs in addition, are not counted. No Ray on either side; freed memory is kept as in a
worker (`regroup.kernels.allocator`). Both run with one thread, as in `regroup`, which extracts and
scores with one worker per core, and both with one thread per core. Ratio: the baseline's time per
sample over ours, at least 30 with all taps and 150 with the last five.

CPU only: reading and scoring run there.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from benchmarks.banks import random_bank
from benchmarks.machine import torch_threads
from benchmarks.networks import classifier, noise
from benchmarks.paired import (
    THIS_PROCESS,
    Comparison,
    Contender,
    Item,
    Setting,
    Skipped,
    Taken,
    command,
)
from benchmarks.pipeline import write_index
from benchmarks.scoring import resnet50_taps
from benchmarks.synthetic import SyntheticWork, synthetic_network, write_dataset
from regroup.accumulators import Extractor
from regroup.kernels.allocator import keep_freed_memory
from regroup.models.compute import Compute
from regroup.taps import TapPolicy
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.workers.scoring import ScoringWork
from regroup_pipelines.steps.extraction import index_features_spec
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import BankSpec, create_bank
from regroup_store.kinds.votes import votes_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from regroup_store.format.store import Store
    from regroup_store.kinds.banks import BankWriter

ALL_TAPS, FEW_TAPS, K = 30.0, 150.0, 5
SCORING = {"rule": "borda", "tie_break": "class", "delta": 1e-20}


@dataclass(frozen=True)
class Size:
    """Sizes of a run.

    Attributes:
        side: width and height of the images, in px.
        passed: samples of the network.
        classes: classes of the bank.
        blocks: blocks of the store.
        block_rows: samples per block.
        taps: number of last taps that are stored; None: all.
    """

    side: int
    passed: int
    classes: int
    blocks: int
    block_rows: int
    taps: int | None = None


SIZES = {
    "tiny": Size(32, 2, 10, 2, 8, 6),
    "small": Size(224, 8, 1000, 1, 1024),
    "full": Size(224, 32, 1000, 4, 1024),
}


def items(setting: Setting) -> Iterator[Item]:
    """Yield the comparisons of both policies."""
    if setting.device != "cpu":
        yield Skipped("rescoring", "it measures only the CPU: omit --device")
        return
    keep_freed_memory()
    for policy in get_args(TapPolicy):
        with tempfile.TemporaryDirectory() as folder:
            stored = StoredFeatures(Path(folder), SIZES[setting.sizes], policy)
            with torch_threads(1):
                yield comparison(stored, SIZES[setting.sizes], policy, ", one thread")
            yield comparison(stored, SIZES[setting.sizes], policy)


def comparison(
    stored: StoredFeatures, size: Size, policy: TapPolicy, threads: str = ""
) -> Comparison:
    """Compare all taps and the last five with the network.

    Args:
        stored: the features.
        size: sizes of the run.
        policy: tap policy.
        threads: suffix of the rows' names.
    """
    notes: dict[str, object] = {"samples": stored.samples, "block_rows": size.block_rows}
    contenders = tuple(
        Contender(
            f"re-score, {what}, {policy}{threads}",
            partial(stored.rescore, taps),
            target,
            "gain",
            stored.samples,
            notes | {"taps": len(taps)},
        )
        for what, taps, target in (
            ("all taps", stored.taps, ALL_TAPS),
            (f"k = {K}", stored.taps[-K:], FEW_TAPS),
        )
    )
    again = network(size, policy)
    return Comparison("the network again", again, contenders, size.passed)


def network(size: Size, policy: TapPolicy) -> Callable[[], object]:
    """Return the extraction that re-scoring saves."""
    model = classifier("resnet50", "cpu", size.side, compute=Compute(channels_last=True))
    pixels = noise(size.passed, size.side, "cpu")
    extractor = Extractor(model, policy, pixels)

    @torch.inference_mode()
    def run() -> object:
        """Run the forward passes with their accumulators."""
        return extractor(pixels)

    return run


class StoredFeatures:
    """A store below `folder` with features and a bank.

    Attributes:
        samples: samples of the features.
        taps: names of the taps, in execution order.
    """

    def __init__(self, folder: Path, size: Size, policy: TapPolicy) -> None:
        self.samples = size.blocks * size.block_rows
        found = resnet50_taps(policy)[-(size.taps or 0) :]
        self.taps = tuple(name for name, _ in found)
        self._store = open_store(str(folder / "store"), create=True)
        self._features = self._fill(folder, size, policy, found)
        self._bank = _write_bank(self._store, found, size.classes)
        self._runs = 0

    def _fill(
        self, folder: Path, size: Size, policy: TapPolicy, taps: tuple[tuple[str, int], ...]
    ) -> BlockElement:
        write_dataset(folder / "images", self.samples, size.classes)
        index = write_index(self._store, f"parquet:{folder}/images/*.parquet", self.samples)
        described = replace(synthetic_network(), policy=policy, taps=taps, num_classes=size.classes)
        spec = index_features_spec(described, index, size.block_rows)
        element = BlockElement.create(self._store, spec, {})
        work = SyntheticWork(self._store.uri, element.ref, index.ref, taps, size.classes, 4.0)
        worker = work.open()
        for block in range(size.blocks):
            measured(worker, block)
        element.finalise({"samples": self.samples})
        return element

    def rescore(self, taps: tuple[str, ...]) -> Taken:
        """Read, score and write all blocks; reading the bank is not counted."""
        worker = self._work(taps).open()
        started, used = time.perf_counter(), time.process_time()
        for block in range(self._features.plan.blocks):
            report = measured(worker, block)
            assert report.committed, report
        seconds, used = time.perf_counter() - started, time.process_time() - used
        return Taken(seconds, THIS_PROCESS, used)

    def _work(self, taps: tuple[str, ...]) -> ScoringWork:
        """Return the work that fills a new votes element."""
        self._runs += 1
        spec = votes_spec(
            name="votes",
            features_fingerprint=self._features.fingerprint,
            bank_fingerprint=self._bank.spec.fingerprint,
            scoring=SCORING | {"run": self._runs},
            taps=taps,
            rows=self.samples,
            block_rows=self._features.plan.block_rows,
            gaps=self._features.gap_inputs(),
        )
        votes = BlockElement.create(self._store, spec, {})
        return ScoringWork(
            store_uri=self._store.uri,
            votes_ref=votes.ref,
            features_ref=self._features.ref,
            adversarials_ref=None,
            bank_ref=self._bank.ref,
            taps=taps,
            delta=1e-20,
            tie_break="class",
            device="cpu",
        )


def _write_bank(store: Store, taps: tuple[tuple[str, int], ...], classes: int) -> BankWriter:
    bank = random_bank(taps, classes)
    names = tuple(str(number) for number in range(classes))
    spec = BankSpec("bank", {"benchmark": "rescoring"}, taps, names)
    writer = create_bank(store, spec)
    for tap, mixtures in zip(bank.taps, bank.mixtures, strict=True):
        writer.write_tap(tap, mixtures)
    writer.finish(bank.counts.tolist())
    return writer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    return command("rescoring", __doc__, items, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
