"""Compute accuracy at every epsilon from the results of one minimising attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.table import csv_text
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.results.accuracy import chosen_k
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.results.curve import choose_size, curve_of, curve_points
from regroup_pipelines.steps.clean_features import clean_index, features_of
from regroup_pipelines.steps.scoring import check_k, score
from regroup_pipelines.steps.session import Session, warn_missing
from regroup_pipelines.steps.votes import voting_taps
from regroup_store.format.element import BlockElement
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from rich.table import Table

    from regroup_pipelines.configs.stored import CurveConfig, Size
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.curve import CurvePoint


def _table(rows: list[CurvePoint], size: Size, config: CurveConfig, k: int) -> Table:
    from rich.table import Table

    heads = (f"epsilon, {size}", *(("in 255ths",) if size == "linf" else ()), "broken")
    table = Table(title=f"Top-1 against perturbation size, REGroup with k = {k}, {config.signs}")
    for head in (*heads, "softmax", "REGroup"):
        table.add_column(head, justify="right")
    last = len(rows) - 1
    for row in (rows[i] for i in sorted({round(p) for p in np.linspace(0, last, config.points)})):
        in_255ths = (f"{255 * row.epsilon:.2f}",) if size == "linf" else ()
        cells = (str(row.softmax), str(row.regroup))
        table.add_row(f"{row.epsilon:.5g}", *in_255ths, str(row.broken), *cells)
    return table


def _write_csv(path: Path, rows: list[CurvePoint]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = [{"epsilon": row.epsilon, "broken": row.broken, **row.flat()} for row in rows]
    path.write_text(csv_text(flat), encoding="utf-8")


def main(config: CurveConfig) -> JsonObject:
    """Score the features that have no votes yet, and print the curve."""
    if config.points < 2:
        raise UsageError(f"--points {config.points}: a curve needs at least 2 points")
    with Session(config, create=False) as session:
        bank = read_bank(session.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        made = BlockElement.open(session.store, "adversarials", config.adversarials)
        size = choose_size(made, config.size)
        warn_missing(f"curve {made.name}", made)
        source, labels = {"index": clean_index(session, made)}, made.inputs.get("labels")
        what = f"the clean images that {made.ref} come from"
        features = [
            features_of(session, bank, source, what, labels),
            features_of(
                session, bank, {"adversarials": made.fingerprint}, f"the adversarials {made.ref}"
            ),
        ]
        clean, attacked = (score(session, each, bank, config) for each in features)
        given = check_k(config.k, taps) if config.k is not None else None
        _, k = chosen_k(VoteSummary.of(clean), config.threshold, given)
        rows = curve_points(curve_of(made, size, clean, attacked, config.signs, k))
        if config.output:
            _write_csv(Path(config.output), rows)
        show(_table(rows, size, config, k), config.json)
        passes = sum(entry.forward_passes for entry in session.ledger)
        print_line(f"{passes} forward passes", config.json)
        return {
            "bank": bank.ref,
            "adversarials": made.ref,
            "attack": made.inputs["attack"],
            "size": size,
            "k": k,
            "signs": config.signs,
            "rows": [row.plain() for row in rows],
            "forward_passes": passes,
            "steps": session.summary(),
        }
