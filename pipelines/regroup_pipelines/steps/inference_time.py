"""The step `inference time` of a study: seconds per prediction, measured once and stored."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from regroup_cluster.resources import WorkerResources
from regroup_cluster.workers.latency import ROUNDS, SINGLES, LatencyWork
from regroup_pipelines.log import log
from regroup_pipelines.results.timings import Timing, TimingNotRun
from regroup_pipelines.steps.session import NotYetError, refuse_failures
from regroup_store.errors import DamagedError
from regroup_store.kinds.studies import discard_timing, read_timing, timing_ref

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
class TimedPrediction:
    """What is timed: predictions by the bare network and by REGroup with the last k taps.

    Attributes:
        study: the study that the timing is stored under.
        network: classifier and tap policy.
        index: the dataset whose first `batch` images are predicted.
        bank: the bank.
        k: how many of the last taps vote.
        signs: which voters of a tap count.
        batch: images per prediction of the larger batch size.
    """

    study: str
    network: Network
    index: SampleIndex
    bank: StoredBank
    k: int
    signs: str
    batch: int

    def inputs(self, device: str) -> JsonObject:
        """Return what identifies a timing as plain JSON; the machine is recorded separately."""
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
        """Return the ref of the timing in the store."""
        return timing_ref(f"{self.network.policy}-{device}", self.inputs(device))

    def work(self, session: Session, device: str) -> LatencyWork:
        """Return the work that measures the timing."""
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


def time_inference(session: Session, timed: TimedPrediction) -> list[TimingRow]:
    """Return the timing on every device, measuring those that the store lacks.

    Raises:
        IncompleteError: measuring failed.
        NotYetError: a dry run, after every missing timing was entered into the ledger.
    """
    measured: list[TimingRow] = []
    planned: NotYetError | None = None
    for device in DEVICES:
        try:
            found = _timing(session, timed, device)
        except NotYetError as error:
            planned = error
        else:
            measured.append(found or TimingNotRun(device=device, reason=NO_GPU))
    if planned is not None:
        raise planned
    return measured


def _timing(session: Session, timed: TimedPrediction, device: str) -> Timing | None:
    """Return the stored timing, or measure it; None where no worker has such a device."""
    found = _kept(session, timed, device)
    if found is not None:
        session.record_found(_step(device), timed.ref(device), 1, time.perf_counter())
        return found
    return _measure(session, timed, device) if device == "cpu" or _gpu_at_hand(session) else None


def _step(device: str) -> str:
    return f"time inference, {device}"


def _kept(session: Session, timed: TimedPrediction, device: str) -> Timing | None:
    ref, inputs = timed.ref(device), timed.inputs(device)
    try:
        found = read_timing(session.store, timed.study, ref, inputs)
    except DamagedError as error:
        log(f"{error}: measured again")
        discard_timing(session.store, timed.study, ref)
        return None
    try:
        return None if found is None else Timing.model_validate({"device": device, **found})
    except ValidationError as error:
        log(f"the timing {ref} is damaged ({error.error_count()} members): measured again")
        discard_timing(session.store, timed.study, ref)
        return None


def _gpu_at_hand(session: Session) -> bool:
    """Return whether the workers have a GPU.

    A run that has not started Ray, since the store had everything else, looks at this machine.
    """
    import torch

    if session.options.gpus_per_worker is None and not session.joined:
        return torch.cuda.is_available() and session.on_gpus
    return session.on_gpus


def _measure(session: Session, timed: TimedPrediction, device: str) -> Timing | None:
    started, step, ref = time.perf_counter(), _step(device), timed.ref(device)
    share = (session.options.gpus_per_worker or 1) if device == "cuda" else 0
    resources = WorkerResources(workers=1, cpus=session.options.cpus_per_worker, gpus=share)
    images = min(timed.batch, timed.index.rows_count)
    report = session.run_tasks(
        step, timed.work(session, device), [0], images, resources=resources, ref=ref
    )
    session.record(step, ref, report, 0, started)
    refuse_failures(step, report)
    return _kept(session, timed, device)
