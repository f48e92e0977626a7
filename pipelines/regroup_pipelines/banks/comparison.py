"""Accuracy of the same stored features against banks of several recipes and their replicates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from regroup.bank import DELTA
from regroup_pipelines.banks.recipe import BankRecipe
from regroup_pipelines.banks.variants import BankOrigin
from regroup_pipelines.errors import UsageError
from regroup_pipelines.json_types import JsonObject
from regroup_pipelines.results.accuracy import k_rows
from regroup_pipelines.results.base import Accuracy, Record
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.rescoring import RescoringCost, rescore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup_pipelines.banks.rounds import CandidateLookup
    from regroup_pipelines.configs.stored import RescoreConfig
    from regroup_pipelines.results.records import KRow
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank

Summaries = dict[str, VoteSummary]
# Percentiles that bound the bootstrap's 95 % interval.
INTERVAL = (2.5, 97.5)


def recipes(config: RescoreConfig, bank: StoredBank) -> list[BankRecipe]:
    """Return every combination of the options; an option left out takes the bank's own value.

    Raises:
        UsageError: an option is out of range.
    """
    _check(config)
    own = BankRecipe.of_bank(bank)
    if own.replicate is not None:
        raise UsageError(
            f"--bank {bank.ref} is a bootstrap replicate: give the bank that it was drawn from"
        )
    return [
        BankRecipe(per_class=size, weighting=weighting, seed=seed, delta=delta)
        for size in dict.fromkeys(config.per_class or [own.per_class])
        for weighting in dict.fromkeys(config.weighting or [own.weighting])
        for seed in dict.fromkeys(config.bank_seeds or [own.seed])
        for delta in dict.fromkeys(config.deltas or [own.delta])
    ]


def requests_other_banks(config: RescoreConfig) -> bool:
    """Return whether any option requests other banks than the stored one."""
    asked = (config.per_class, config.weighting, config.bank_seeds, config.deltas)
    return any(asked) or config.bootstrap != 0


def _check(config: RescoreConfig) -> None:
    for size in config.per_class:
        if size < 1:
            raise UsageError(f"--per-class {size}: a bank needs at least 1 sample per class")
    for delta in config.deltas:
        if not 0 < delta <= 1:
            raise UsageError(f"--deltas {delta:g}: give a delta above 0 and at most 1")
    if config.deltas and config.delta != DELTA:
        raise UsageError(
            "--deltas and --delta: give --deltas alone, which sets both banks and samples"
        )
    if config.bootstrap < 0 or config.bootstrap == 1:
        raise UsageError(
            f"--bootstrap {config.bootstrap}: give 2 replicates or more, such as 20, or 0 for none"
        )


@dataclass(frozen=True, eq=False)
class Variant:
    """A bank of one recipe, scored.

    Attributes:
        recipe: how the bank was made.
        bank: its ref.
        summaries: summary of the votes against it, by features.
        replicates: the same for every bootstrap replicate of the bank.
    """

    recipe: BankRecipe
    bank: str
    summaries: Summaries
    replicates: list[Summaries]


def compare_banks(
    session: Session, bank: StoredBank, features: list[BlockElement], config: RescoreConfig
) -> tuple[list[Variant], RescoringCost]:
    """Build and score the bank of every recipe, and its replicates.

    All samples are looked up before the first bank is built.

    Returns:
        One variant per recipe, and what building and scoring them cost.

    Raises:
        UsageError: a bank takes images that were never extracted.
    """
    started, entry = time.perf_counter(), len(session.ledger)
    origin = BankOrigin.of(session, bank)
    found = [(recipe, origin.look_up(recipe)) for recipe in recipes(config, bank)]
    variants = [_variant(session, origin, each, features, config) for each in found]
    banks = len(variants) * (1 + config.bootstrap)
    cost = RescoringCost(
        seconds=time.perf_counter() - started,
        banks=banks,
        samples=banks * sum(element.plan.rows for element in features),
        forward_passes=sum(step.forward_passes for step in session.ledger[entry:]),
    )
    return variants, cost


def _variant(
    session: Session,
    origin: BankOrigin,
    found: tuple[BankRecipe, CandidateLookup],
    features: list[BlockElement],
    config: RescoreConfig,
) -> Variant:
    recipe, samples = found
    bank, summaries = _scored(session, origin, recipe, samples, features, config)
    replicates = [
        _scored(session, origin, each, samples, features, config)[1]
        for each in recipe.replicates(config.bootstrap)
    ]
    return Variant(recipe, bank, summaries, replicates)


def _scored(
    session: Session,
    origin: BankOrigin,
    recipe: BankRecipe,
    samples: CandidateLookup,
    features: list[BlockElement],
    config: RescoreConfig,
) -> tuple[str, Summaries]:
    """Build a recipe's bank and score against it; return its ref and the summaries of the votes."""
    from dataclasses import replace

    bank = origin.build(session, recipe, samples)
    options = replace(config, delta=recipe.delta) if config.deltas else config
    return bank.ref, rescore(session, bank, features, options)[0]


class BootstrapSpread(Record):
    """Spread of the accuracies, in [0, 1], of bootstrap replicates of a bank.

    Attributes:
        replicates: number of replicates.
        mean: mean accuracy.
        deviation: sample standard deviation (n - 1).
        interval95: 95 % interval by the percentile method (Efron 1979).
        accuracies: one per replicate.
    """

    replicates: int
    mean: float
    deviation: float
    interval95: tuple[float, float]
    accuracies: tuple[float, ...]


class VariantRow(Record):
    """REGroup's top-1 by one bank at one k and sign choice, by set of images.

    Attributes:
        recipe: the bank's inputs: per_class, weighting, seed, delta.
        bank: its ref.
        k: how many of the last taps vote.
        signs: which voters of a tap count.
        accuracy: by set of images.
        bootstrap: spread over the replicates, by set of images; empty without replicates.
    """

    recipe: JsonObject
    bank: str
    k: int
    signs: str
    accuracy: dict[str, Accuracy]
    bootstrap: dict[str, BootstrapSpread]


def variant_rows(
    variants: Sequence[Variant], ks: list[int], signs: tuple[str, ...]
) -> list[VariantRow]:
    """Return one row per recipe, k and sign choice, with the spread over the replicates."""
    return [
        VariantRow(
            recipe=variant.recipe.inputs(),
            bank=variant.bank,
            k=row.k,
            signs=row.signs,
            accuracy=row.accuracy,
            bootstrap=_spreads(row, others),
        )
        for variant in variants
        for row, *others in zip(
            k_rows(variant.summaries, ks, signs),
            *(k_rows(each, ks, signs) for each in variant.replicates),
            strict=True,
        )
    ]


def _spreads(row: KRow, others: list[KRow]) -> dict[str, BootstrapSpread]:
    """Return the spread of the replicates' accuracies by set of images."""
    return {
        name: spread([a for o in others if (a := o.accuracy[name].accuracy) is not None])
        for name, cell in row.accuracy.items()
        if others and cell.accuracy is not None
    }


def spread(accuracies: Sequence[float]) -> BootstrapSpread:
    """Summarise the accuracies, in [0, 1], of bootstrap replicates."""
    low, high = np.percentile(accuracies, INTERVAL)
    return BootstrapSpread(
        replicates=len(accuracies),
        mean=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies, ddof=1)),
        interval95=(float(low), float(high)),
        accuracies=tuple(accuracies),
    )


def variant_grid(rows: list[VariantRow], names: list[str], bootstrap: int) -> Table:
    """Return a table with one line per bank, k and sign choice and one column per set of images."""
    spreads = f"; brackets: 95 % of {bootstrap} resampled banks" if bootstrap else ""
    table = Table(title=f"REGroup top-1 by bank (attacked images: over #S), %{spreads}")
    for head in ("samples per class", "weights", "seed", "delta", "k", "signs", *names):
        table.add_column(head, justify="right", overflow="fold")
    for row in rows:
        r = row.recipe
        recipe = [str(r["per_class"]), r["weighting"], str(r["seed"]), f"{r['delta']:g}"]
        table.add_row(*recipe, str(row.k), row.signs, *(_cell(row, name) for name in names))
    return table


def _cell(row: VariantRow, name: str) -> str:
    accuracy = row.accuracy[name].accuracy
    if accuracy is None:
        return "-"
    if name not in row.bootstrap:
        return f"{100 * accuracy:.1f}"
    low, high = row.bootstrap[name].interval95
    return f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
