"""The scoring task: votes of one block of stored features against a stored bank."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regroup.bank import Bank
from regroup.models import forward_samples
from regroup.scoring import Scorer, TieBreak, Votes
from regroup.voting import Rule, RuleScorer
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import COLUMNS, PREDICTION, TAP_PREDICTION, TAP_TRUE_RANK, TRUE_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE_COLUMNS = ["sample_id", "status", "error", "label", "prediction", "top5"]


@dataclass(frozen=True)
class ScoringJob:
    """Everything a task needs to score blocks of one features element; picklable.

    Attributes:
        adversarials_ref: the attacked images that the features came from, or None when clean.
        taps: the bank's taps that may vote, in execution order.
        rule: the voting rule; weights: of its taps, where it has some.
    """

    store_uri: str
    votes_ref: str
    features_ref: str
    adversarials_ref: str | None
    bank_ref: str
    taps: tuple[str, ...]
    delta: float
    tie_break: TieBreak
    device: str
    rule: Rule = "borda"
    weights: tuple[int, ...] | None = None

    def __call__(self, block: int) -> BlockReport:
        """Score `block`; the bank is read once a process."""
        return _worker(self).process(block)


@lru_cache(maxsize=1)
def _worker(job: ScoringJob) -> ScoringWorker:
    return ScoringWorker(job)


def load_bank(store_uri: str, bank_ref: str, taps: tuple[str, ...]) -> Bank:
    """Some taps of the bank that a store holds, verified against its checksums."""
    stored = read_bank(open_store(store_uri), bank_ref, taps=taps)
    return Bank(stored.taps, stored.mixtures, stored.counts)


def _scorer(job: ScoringJob, bank: Bank) -> Scorer:
    if job.rule == "borda":
        return Scorer(bank, delta=job.delta, tie_break=job.tie_break, device=job.device)
    return RuleScorer(
        bank, job.rule, job.weights,
        delta=job.delta, tie_break=job.tie_break, device=job.device,
    )  # fmt: skip


class ScoringWorker:
    """Scores one block at a time; makes no forward pass and needs no network."""

    def __init__(self, job: ScoringJob) -> None:
        store = open_store(job.store_uri)
        self._votes = BlockElement.open(store, "votes", job.votes_ref)
        self._features = BlockElement.open(store, "features", job.features_ref)
        self._adversarials = (
            BlockElement.open(store, "adversarials", job.adversarials_ref)
            if job.adversarials_ref
            else None
        )
        self._features.accept_gaps_of(self._votes.inputs)
        if self._adversarials:
            self._adversarials.accept_gaps_of(self._features.inputs)
        bank = load_bank(job.store_uri, job.bank_ref, job.taps)
        self._paths = [accumulators_path(tap) for tap in bank.taps]
        self._scorer = _scorer(job, bank)

    def process(self, block: int) -> BlockReport:
        """Score and commit `block` of the votes element."""
        started, forwarded, phases = time.perf_counter(), forward_samples(), Phases()
        with phases("read"):
            samples = self._features.read_table(block, _SAMPLE_COLUMNS).to_pydict()
            ok = np.array([status == "ok" for status in samples["status"]])
            wanted = self._features.prefetched([(path, block) for path in self._paths])
            read = (self._features.read_array(*each) for each in wanted)
            accumulators = [values if ok.all() else values[ok] for values in read]
        with phases("score"):
            labels = np.array(samples["label"], np.int64)
            votes = self._scorer.votes(accumulators, labels[ok])
        with phases("write"):
            table = self._table(block, samples)
            committed = self._votes.write_block(block, _block_arrays(votes, ok), table, {})
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(ok),
            failed=int((~ok).sum()),
            forward_passes=forward_samples() - forwarded,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _table(self, block: int, samples: dict[str, list[Any]]) -> pa.Table:
        columns = {name: samples[name] for name in _SAMPLE_COLUMNS if name != "top5"}
        columns["top5_correct"] = [
            None if top5 is None else label in top5
            for label, top5 in zip(samples["label"], samples["top5"], strict=True)
        ]
        columns["success"] = self._success(block, len(samples["label"]))
        return pa.table(columns, schema=COLUMNS)

    def _success(self, block: int, rows: int) -> list[bool | None]:
        if self._adversarials is None:
            return [None] * rows
        success: list[bool | None] = (
            self._adversarials.read_table(block, ["success"]).column("success").to_pylist()
        )
        return success


def _block_arrays(votes: Votes, ok: NDArray[np.bool_]) -> dict[str, NDArray[np.int32]]:
    """Spread the votes of the readable rows over all rows of the block; -1 elsewhere."""
    return {
        PREDICTION: _spread(votes.prediction, ok),
        TRUE_RANK: _spread(votes.true_rank, ok),
        TAP_PREDICTION: _spread(votes.tap_prediction, ok),
        TAP_TRUE_RANK: _spread(votes.tap_true_rank, ok),
    }


def _spread(values: NDArray[np.int32], ok: NDArray[np.bool_]) -> NDArray[np.int32]:
    full = np.full((len(ok), *values.shape[1:]), -1, np.int32)
    full[ok] = values
    return full
