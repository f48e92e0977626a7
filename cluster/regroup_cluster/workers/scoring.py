"""Scoring: the votes of one block of stored features against a stored bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regroup.bank import Bank
from regroup.scoring import Scorer, TieBreak, Votes
from regroup.voting import Rule, RuleScorer
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank
from regroup_store.kinds.features import accumulators_path
from regroup_store.kinds.votes import COLUMNS, PREDICTION, TAP_PREDICTION, TAP_TRUE_RANK, TRUE_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup_cluster.dispatch.stopwatch import BlockClock

_SAMPLE_COLUMNS = ["sample_id", "status", "error", "label", "prediction", "top5"]


@dataclass(frozen=True)
class ScoringWork(BlockWork):
    """Scores the blocks of one features element; needs no network and makes no forward pass.

    Attributes:
        store_uri: the store that holds all elements.
        votes_ref: the votes element to fill.
        features_ref: the features to score.
        adversarials_ref: the adversarials from which the features were extracted; None: clean ones.
        bank_ref: the bank.
        taps: the bank's taps that may vote, in execution order.
        delta: added to every accumulator before normalisation, see `regroup.bank.pmf`.
        tie_break: between classes of equal Borda sums, see `regroup.scoring.Scorer`.
        device: torch device of the scorer.
        rule: the voting rule.
        weights: one per tap, for a rule that weighs taps.
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

    def open(self) -> ScoringWorker:
        """Open the elements and read the bank."""
        return ScoringWorker(self)


def load_bank(store_uri: str, bank_ref: str, taps: tuple[str, ...]) -> Bank:
    """Read some taps of a stored bank, verified against its checksums."""
    stored = read_bank(open_store(store_uri), bank_ref, taps=taps)
    return Bank(stored.taps, stored.mixtures, stored.counts)


def _scorer(work: ScoringWork, bank: Bank) -> Scorer:
    if work.rule == "borda":
        return Scorer(bank, delta=work.delta, tie_break=work.tie_break, device=work.device)
    return RuleScorer(
        bank, work.rule, work.weights,
        delta=work.delta, tie_break=work.tie_break, device=work.device,
    )  # fmt: skip


class ScoringWorker:
    """Scores one block at a time."""

    def __init__(self, work: ScoringWork) -> None:
        store = open_store(work.store_uri)
        self._votes = BlockElement.open(store, "votes", work.votes_ref)
        self._features = BlockElement.open(store, "features", work.features_ref)
        self._adversarials = (
            BlockElement.open(store, "adversarials", work.adversarials_ref)
            if work.adversarials_ref
            else None
        )
        self._features.accept_gaps_of(self._votes.inputs)
        if self._adversarials:
            self._adversarials.accept_gaps_of(self._features.inputs)
        bank = load_bank(work.store_uri, work.bank_ref, work.taps)
        self._paths = [accumulators_path(tap) for tap in bank.taps]
        self._scorer = _scorer(work, bank)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Score `block` and commit its votes."""
        with clock.phase("read"):
            samples = self._features.read_table(block, _SAMPLE_COLUMNS).to_pydict()
            ok = np.array([status == "ok" for status in samples["status"]])
            wanted = self._features.prefetched([(path, block) for path in self._paths])
            read = (self._features.read_array(*each) for each in wanted)
            accumulators = [values if ok.all() else values[ok] for values in read]
        with clock.phase("score"):
            labels = np.array(samples["label"], np.int64)
            votes = self._scorer.votes(accumulators, labels[ok])
        with clock.phase("write"):
            table = self._table(block, samples)
            committed = self._votes.write_block(block, _block_arrays(votes, ok), table, {})
        return BlockOutcome(committed, len(ok), int((~ok).sum()))

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
