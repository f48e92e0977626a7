"""Re-score stored features: no network, no forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regroup_pipelines.banks.comparison import (
    compare_banks,
    requests_other_banks,
    variant_grid,
    variant_rows,
)
from regroup_pipelines.render.grids import k_grid
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.results.accuracy import k_rows
from regroup_pipelines.results.base import Record
from regroup_pipelines.steps.rescoring import RescoringCost, find_features, rescore
from regroup_pipelines.steps.scoring import check_k
from regroup_pipelines.steps.session import Session
from regroup_pipelines.steps.votes import voting_taps
from regroup_store.kinds.banks import StoredBank, read_bank

if TYPE_CHECKING:
    from regroup_pipelines.configs.stored import RescoreConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.element import BlockElement


def main(config: RescoreConfig) -> JsonObject:
    """Score stored features against one or more banks; print accuracy against k and signs."""
    with Session(config, create=False) as session:
        bank = read_bank(session.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        ks = [check_k(k, taps) for k in config.k] or list(range(1, len(taps) + 1))
        features = find_features(session, bank, config.features)
        compute = _rows_of_variants if requests_other_banks(config) else _rows_of_bank
        rows, cost = compute(session, bank, features, config, ks)
        return {
            "bank": bank.ref,
            "rows": [row.plain() for row in rows],
            "cost": cost.plain(),
            "steps": session.summary(),
        }


RowsAndCost = tuple[Sequence[Record], RescoringCost]


def _rows_of_bank(
    session: Session,
    bank: StoredBank,
    features: list[BlockElement],
    config: RescoreConfig,
    ks: list[int],
) -> RowsAndCost:
    """Score against the given bank and print accuracy for every k and sign choice."""
    summaries, cost = rescore(session, bank, features, config)
    rows = k_rows(summaries, ks, config.signs)
    show(k_grid(rows, summaries), config.json)
    print_line(str(cost), config.json)
    return rows, cost


def _rows_of_variants(
    session: Session,
    bank: StoredBank,
    features: list[BlockElement],
    config: RescoreConfig,
    ks: list[int],
) -> RowsAndCost:
    """Score against banks of several recipes and print their accuracies side by side."""
    variants, cost = compare_banks(session, bank, features, config)
    rows = variant_rows(variants, ks, config.signs)
    show(variant_grid(rows, list(variants[0].summaries), config.bootstrap), config.json)
    print_line(str(cost), config.json)
    return rows, cost
