"""The step `inference time` of a study: what a prediction takes, measured once and kept."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regroup_cluster.resources import WorkerResources
from regroup_cluster.workers.latency import ROUNDS, SINGLES, LatencyWork, images_timed
from regroup_pipelines.results.timings import Timing, TimingNotRun
from regroup_pipelines.steps.session import NotYetError, log_failures, refuse_failures
from regroup_store.kinds.studies import read_timing, timing_ref

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.timings import TimingRow
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import StoredBank
    from regroup_store.kinds.indexes import SampleIndex

TABLE = "table-6"
DEVICES = ("cpu", "cuda")
NO_GPU = "no worker had a GPU"


@dataclass(frozen=True)
class Question:
    """What is timed: the bare network and REGroup by the last k taps of a bank.

    `index`: the dataset whose first `batch` images are predicted.
    """

    study: str
    network: Network
    index: SampleIndex
    bank: StoredBank
    k: int
    signs: str
    batch: int

    def inputs(self, device: str) -> JsonObject:
        """All that a timing is of, plain JSON; the machine is no part, it is told beside."""
        return {
            "what": "inference time",
            "model": self.network.description,
            "compute": asdict(self.network.spec.compute),
            "policy": self.network.policy,
            "bank": self.bank.fingerprint,
            "index": self.index.fingerprint,
            "k": self.k,
            "signs": self.signs,
            "batch": self.batch,
            "device": device,
            "rounds": ROUNDS,
            "singles": SINGLES,
        }

    def ref(self, device: str) -> str:
        """What the timing is kept under."""
        return timing_ref(f"{self.network.policy}-{device}", self.inputs(device))

    def work(self, session: Session, device: str) -> LatencyWork:
        """Return the work that measures it."""
        return LatencyWork(
            store_uri=session.store.uri,
            study=self.study,
            ref=self.ref(device),
            inputs=self.inputs(device),
            index_ref=self.index.ref,
            bank_ref=self.bank.ref,
            taps=self.bank.taps[-self.k :],
            signs=self.signs,
            model=self.network.spec,
            policy=self.network.policy,
            batch=self.batch,
            device=device,
        )


def time_inference(session: Session, question: Question) -> list[TimingRow]:
    """The timing on every device, measured where the store has none.

    Raises `IncompleteError` where measuring fails, and in a dry run `NotYetError`, all entered.
    """
    measured: list[TimingRow] = []
    planned: NotYetError | None = None
    for device in DEVICES:
        try:
            found = _timing(session, question, device)
        except NotYetError as error:
            planned = error
        else:
            measured.append(found or TimingNotRun(device=device, reason=NO_GPU))
    if planned is not None:
        raise planned
    return measured


def _timing(session: Session, question: Question, device: str) -> Timing | None:
    """What is kept, or else measured now; None where no worker has such a device."""
    found = _kept(session, question, device)
    if found is not None:
        session.note(_step(device), question.ref(device), 1, time.perf_counter())
        return found
    return _measure(session, question, device) if device == "cpu" or _gpu_at_hand(session) else None


def _step(device: str) -> str:
    return f"time inference, {device}"


def _kept(session: Session, question: Question, device: str) -> Timing | None:
    ref, inputs = question.ref(device), question.inputs(device)
    found = read_timing(session.store, question.study, ref, inputs)
    return None if found is None else Timing.model_validate({"device": device, **found})


def _gpu_at_hand(session: Session) -> bool:
    """Whether the workers have a GPU.

    A run that finds all else in the store starts no Ray to ask: then this machine is looked at.
    """
    import torch

    if session.options.gpus_per_worker is None and not session.joined:
        return torch.cuda.is_available() and session.on_gpus
    return session.on_gpus


def _measure(session: Session, question: Question, device: str) -> Timing | None:
    started, step, ref = time.perf_counter(), _step(device), question.ref(device)
    share = (session.options.gpus_per_worker or 1) if device == "cuda" else 0
    resources = WorkerResources(workers=1, cpus=session.options.cpus_per_worker, gpus=share)
    images = images_timed(min(question.batch, question.index.rows_count))
    report = session.run_tasks(
        step, question.work(session, device), [0], images, resources=resources, ref=ref
    )
    log_failures(step, report)
    session.record(step, ref, report, 0, started)
    refuse_failures(step, report)
    return _kept(session, question, device)
