"""The paper's V50K through the store, without a network: `python -m benchmarks.v50k [--json FILE]`.

A bank of 50 000 samples and 50 000 validation samples with ResNet-50's taps and classes, for one
tap policy after the other. The workers write synthetic accumulators (`benchmarks.synthetic`) in
place of a network's; these are verified, read, reduced to a bank, scored for every k and signs, and
scored again for the last five taps. Every step is the project's own, on Ray.

Each step is compared with a lower bound measured in the same run: NumPy writing (fsynced, as the
store does) and reading the same bytes with as many threads as the step has processes; bare float32
products and argsorts on all cores. Reads are cold on both sides: files are dropped from the page
cache first. Generating samples does not count as writing, nor reading as scoring, nor the start of
workers as reading or as building a bank, because this would hide their cost. Exit status 1 if a
bound or the memory limit is missed. Needs 25 GB of disk in --folder, and about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.lower_bounds import bare_scoring, forget, raw_read, raw_write
from benchmarks.machine import forget_peak
from benchmarks.read_only import ReadWork
from benchmarks.synthetic import fill_features, write_dataset
from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.commands.verify import failure_sentence, find_all
from regroup_pipelines.configs.options import (
    BankOptions,
    ClusterOptions,
    ModelOptions,
    TapPolicyName,
    VotingOptions,
)
from regroup_pipelines.results.accuracy import accuracies
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import Session, refuse_failures
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from regroup_pipelines.results.base import Accuracy
    from regroup_pipelines.steps.network import Network
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.indexes import SampleIndex

MB = 1e6
LIMIT_BYTES = 6e9
# Required shares of the lower bound's speed: disk and reduction; products and argsorts (1 / 1.5).
DISK, COMPUTE = 0.50, 0.67
RESCORED_TAPS = 5
FLOOR_ROWS = 512


@dataclass(frozen=True)
class Step:
    """One step and its lower bound.

    Attributes:
        name: the step.
        seconds: wall time, including Ray and the generation of samples.
        counted: the part of `seconds` that is compared with the lower bound.
        floor: the lower bound: seconds for the same bytes or samples without this project.
        required: the required share of the lower bound's speed; None: no requirement.
        data_bytes: bytes of the processed accumulators and logits, as float32.
        stored_bytes: bytes that the step wrote to the store.
        outside: the part of `seconds` that a worker spent outside blocks: Ray, and waiting.
        driver_bytes: peak memory of the driver.
        workers_bytes: peak memory of all workers together.
    """

    name: str
    seconds: float
    counted: float
    floor: float
    required: float | None
    data_bytes: int
    stored_bytes: int
    outside: float
    driver_bytes: int
    workers_bytes: int

    @property
    def share(self) -> float:
        """The step's speed over that of its lower bound."""
        return self.floor / self.counted

    @property
    def met(self) -> bool:
        """Whether the required share and the memory limit are met."""
        fits = self.driver_bytes + self.workers_bytes <= LIMIT_BYTES
        return fits and self.share >= (self.required or 0)


class Rehearsal:
    """All steps with one tap policy in one store; finished steps are appended to `steps`."""

    def __init__(
        self, session: Session, network: Network, folder: Path, samples: int, workers: int
    ):
        self.steps: list[Step] = []
        self._job, self._network, self._folder = session, network, folder
        self._samples, self._workers = samples, workers
        sample_bytes = 4 * (2 * sum(size for _, size in network.taps) + network.num_classes)
        self._bytes = samples * sample_bytes
        self._file_bytes = min(self._bytes, session.options.block_rows * sample_bytes)

    def run(self) -> Accuracy:
        """Run all steps; return REGroup's accuracy, which shows that the votes are meaningful."""
        show_head(self._network, self._samples)
        write, read, read_alone = self._raw()
        bank_index, val_index = (self._index(split) for split in ("bank", "val"))
        features = self._write("write bank features", bank_index, 20.0, write)
        val = self._write("write val features", val_index, 4.0, write)
        self._verify(features, read_alone)
        self._read(features, read)
        bank = self._bank(bank_index)
        self._score("score, every k", val, bank, len(self._network.taps))
        votes = self._score(f"re-score, k = {RESCORED_TAPS}", val, bank, RESCORED_TAPS)
        return accuracies(VoteSummary.of(votes).all, RESCORED_TAPS, "both").regroup_top1

    def _raw(self) -> tuple[float, float, float]:
        """Time writing, reading, and reading in one thread."""
        place = self._folder / "raw"
        write = raw_write(place, self._bytes, self._file_bytes, self._workers)
        read = raw_read(place, self._bytes, self._workers)
        read_alone = raw_read(place, self._bytes, 1)
        shutil.rmtree(place)
        return write, read, read_alone

    def _index(self, split: str) -> SampleIndex:
        place = self._folder / "images" / split
        write_dataset(place, self._samples, self._network.num_classes)
        return index_dataset(self._job, f"parquet:{place}/*.parquet", split)

    def _write(self, name: str, index: SampleIndex, certainty: float, floor: float) -> BlockElement:
        with self._measured(name, floor, DISK, leave_out="network"):
            return fill_features(self._job, index, self._network, certainty)

    def _verify(self, features: BlockElement, floor: float) -> None:
        with self._measured("verify, 1 process", floor, DISK):
            if failure := failure_sentence(find_all(self._job.store, (features.ref,))):
                raise RuntimeError(failure)

    def _read(self, features: BlockElement, floor: float) -> None:
        with self._measured("read", floor, DISK, only=("read",)):
            started, work = time.perf_counter(), ReadWork(self._job.store.uri, features.ref)
            blocks = range(features.plan.blocks)
            report = self._job.run_tasks("read", work, blocks, features.plan.rows)
            self._job.record("read", features.ref, report, 0, started)
            refuse_failures("read", report)

    def _bank(self, index: SampleIndex) -> str:
        with self._measured("build bank", self.steps[-1].counted, DISK, only=("reduce", "write")):
            return build_bank(self._job, self._network, index, BankOptions(), 64)

    def _score(self, name: str, val: BlockElement, bank: str, k: int) -> BlockElement:
        taps = self._network.taps[-k:]
        channels, classes = [size for _, size in taps], self._network.num_classes
        floor = bare_scoring(channels, classes, self._samples, min(FLOOR_ROWS, self._samples))
        options = VotingOptions(voting_taps=tuple(tap for tap, _ in taps))
        required = COMPUTE if k > RESCORED_TAPS else None
        part = 8 * sum(channels) * self._samples
        with self._measured(name, floor, required, only=("score",), data_bytes=part):
            return score(self._job, val, read_bank(self._job.store, bank), options)

    @contextmanager
    def _measured(
        self,
        name: str,
        floor: float,
        required: float | None,
        *,
        leave_out: str | None = None,
        only: tuple[str, ...] = (),
        data_bytes: int | None = None,
    ) -> Iterator[None]:
        """Record what runs inside as a step, with cold reads.

        The seconds of the phases `only` count, or all except those of the phase `leave_out`.
        """
        forget(self._folder)
        forget_peak()
        before, entries = self._job.store.backend.size(""), len(self._job.ledger)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        entry = self._job.ledger[-1] if len(self._job.ledger) > entries else None
        phases = {k: v / self._workers for k, v in entry.phases.items()} if entry else {}
        step = Step(
            name=name,
            seconds=seconds,
            counted=sum(phases[name] for name in only)
            if only
            else seconds - phases.get(leave_out or "", 0.0),
            floor=floor,
            required=required,
            data_bytes=data_bytes or self._bytes,
            stored_bytes=self._job.store.backend.size("") - before,
            outside=seconds - sum(phases.values()) if entry else 0.0,
            driver_bytes=peak_rss_bytes(),
            workers_bytes=self._workers * entry.peak_rss_bytes if entry else 0,
        )
        self.steps.append(step)
        show(step)


def show_head(network: Network, samples: int) -> None:
    """Print what is measured, and the header of the table."""
    channels = sum(size for _, size in network.taps)
    print(
        f"{samples} bank and {samples} validation samples, {network.policy}: "
        f"{len(network.taps)} taps, {channels} channels, {network.num_classes} classes"
    )
    print(
        f"{'step':20} {'seconds':>8} {'counted':>8} {'MB/s':>6} {'floor':>8} {'share':>6} "
        f"{'needed':>6} {'outside':>8} {'driver':>7} {'workers':>7} {'stored':>7}\n"
        f"{'':20} {'':>8} {'':>8} {'':>6} {'seconds':>8} {'':>6} "
        f"{'':>6} {'blocks s':>8} {'MB':>7} {'MB':>7} {'MB':>7}",
        flush=True,
    )


def show(step: Step) -> None:
    """Print a line of the table."""
    needed = "" if step.required is None else f"{step.required:.2f}"
    print(
        f"{step.name:20} {step.seconds:8.1f} {step.counted:8.1f} "
        f"{step.data_bytes / MB / step.counted:6.0f} {step.floor:8.1f} {step.share:6.2f} "
        f"{needed:>6} {step.outside:8.1f} {step.driver_bytes / MB:7.0f} "
        f"{step.workers_bytes / MB:7.0f} {step.stored_bytes / MB:7.0f}  "
        f"{'met' if step.met else 'NOT MET'}",
        flush=True,
    )


def rehearse(
    policy: TapPolicyName, model: str, samples: int, block_rows: int, workers: int, folder: Path
) -> dict[str, Any]:
    """Run all steps with one tap policy, with its files below `folder`, removed at the end."""
    network = open_network(ModelOptions(model=model, weights="random", taps=policy))
    options = ClusterOptions(store=str(folder / "store"), block_rows=block_rows, workers=workers)
    with Session(options) as session:
        rehearsal = Rehearsal(session, network, folder, samples, workers)
        accuracy = rehearsal.run()
    shutil.rmtree(folder)
    return {
        "policy": policy,
        "model": model,
        "samples": samples,
        "block_rows": block_rows,
        "workers": workers,
        "taps": network.taps,
        "classes": network.num_classes,
        "accuracy": accuracy.accuracy,
        "steps": [asdict(s) | {"share": s.share, "met": s.met} for s in rehearsal.steps],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rehearsal and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.v50k", description=__doc__)
    policies = get_args(TapPolicyName)
    parser.add_argument("--policy", choices=policies, action="append", help="default: both")
    parser.add_argument(
        "--model", default="resnet50", help="model whose taps are used (default resnet50)"
    )
    parser.add_argument(
        "--samples", type=int, default=50_000, help="samples of the bank, and of the validation set"
    )
    parser.add_argument("--block-rows", type=int, default=1024, help="samples per block")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: one per core")
    parser.add_argument(
        "--folder", type=Path, help="folder of the stores (default: a temporary one)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for policy in options.policy or policies:
            size = (options.model, options.samples, options.block_rows, options.workers)
            runs.append(rehearse(policy, *size, Path(folder) / policy))
            if options.json:
                options.json.write_text(json.dumps(runs, indent=2) + "\n")
    return 0 if all(step["met"] for run in runs for step in run["steps"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
