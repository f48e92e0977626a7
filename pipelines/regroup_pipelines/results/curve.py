"""The accuracy curve over every epsilon, from one run of a minimising attack; no forward pass."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table

    from regroup.robustness_curve import RobustnessCurve
    from regroup_pipelines.configs.stored import CurveConfig, Size
    from regroup_store.format.element import BlockElement


def choose_size(adversarials: BlockElement, size: Size | None) -> Size:
    """How the perturbations of `adversarials` are measured.

    Raises:
        UsageError: the attack does not minimise, or minimises no size and none is given.
    """
    attack: Any = adversarials.inputs["attack"]
    if attack["protocol"] != "minimal":
        raise UsageError(
            f"the adversarials {adversarials.ref} were made under protocol {attack['protocol']}: "
            "only those of protocol minimal are the smallest that were found, and give a curve"
        )
    if size is None and attack["norm"] not in ("linf", "l2"):
        raise UsageError(
            f"the attack {attack['name']} keeps no norm small: say with --size how to measure"
        )
    chosen: Size = size or attack["norm"]
    return chosen


def _right(votes: BlockElement, signs: str, k: int) -> dict[str, bool]:
    """Whether REGroup is right on each readable sample, by id."""
    from regroup_store.kinds.votes import SIGN_CHOICES, TRUE_RANK

    found: dict[str, bool] = {}
    for block in range(votes.plan.blocks):
        table = votes.read_table(block, ["sample_id", "status"]).to_pydict()
        right = votes.read_array(TRUE_RANK, block)[:, SIGN_CHOICES.index(signs), k - 1] == 1
        rows = zip(table["sample_id"], table["status"], right.tolist(), strict=True)
        found.update((name, ok) for name, status, ok in rows if status == "ok")
    return found


@dataclass(frozen=True)
class _Attacked:
    """Of the readable attacked samples: ids, sizes (N,) float64, success (N,) bool."""

    names: list[str]
    sizes: NDArray[np.float64]
    success: NDArray[np.bool_]


def _attacked(adversarials: BlockElement, size: Size) -> _Attacked:
    from regroup_pipelines.results.blocks import tables

    names: list[str] = []
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    for _, table in tables(adversarials, ["sample_id", "status", "success", size]):
        ok = table["status"].to_numpy() == "ok"
        names += [
            name for name, kept in zip(table["sample_id"].to_pylist(), ok, strict=True) if kept
        ]
        success = np.array(table["success"].fill_null(False).to_pylist(), bool)
        parts.append((table[size].to_numpy().astype(np.float64)[ok], success[ok]))
    sizes, success = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Attacked(names, sizes, success)


def curve_of(
    adversarials: BlockElement,
    size: Size,
    clean: BlockElement,
    attacked: BlockElement,
    signs: str,
    k: int,
) -> RobustnessCurve:
    """The curve of `adversarials`; `clean`, `attacked`: the votes on the images before and after.

    Samples that either could not be read for are left out.
    """
    from regroup.robustness_curve import robustness_curve

    made = _attacked(adversarials, size)
    before, after = _right(clean, signs, k), _right(attacked, signs, k)
    rows = [row for row, name in enumerate(made.names) if name in before and name in after]
    kept = [made.names[row] for row in rows]
    return robustness_curve(
        made.sizes[rows],
        made.success[rows],
        np.array([before[name] for name in kept], bool),
        np.array([after[name] for name in kept], bool),
    )


def curve_rows(curve: RobustnessCurve) -> list[dict[str, Any]]:
    """A row an epsilon: how many are broken, and both accuracies with their intervals."""
    from regroup_pipelines.results.accuracy import Accuracy

    columns = (curve.epsilons, curve.broken, curve.softmax, curve.regroup)
    return [
        {
            "epsilon": epsilon,
            "broken": broken,
            "softmax": Accuracy(softmax, curve.total).describe(),
            "regroup": Accuracy(regroup, curve.total).describe(),
        }
        for epsilon, broken, softmax, regroup in zip(*(c.tolist() for c in columns), strict=True)
    ]


def _table(rows: list[dict[str, Any]], size: Size, config: CurveConfig, k: int) -> Table:
    from rich.table import Table

    from regroup_pipelines.render.terminal import format_accuracy

    heads = (f"epsilon, {size}", *(("in 255ths",) if size == "linf" else ()), "broken")
    table = Table(title=f"Top-1 against perturbation size, REGroup with k = {k}, {config.signs}")
    for head in (*heads, "softmax", "REGroup"):
        table.add_column(head, justify="right")
    last = len(rows) - 1
    for row in (rows[i] for i in sorted({round(p) for p in np.linspace(0, last, config.points)})):
        in_255ths = (f"{255 * row['epsilon']:.2f}",) if size == "linf" else ()
        cells = [format_accuracy(row[measure]) for measure in ("softmax", "regroup")]
        table.add_row(f"{row['epsilon']:.5g}", *in_255ths, str(row["broken"]), *cells)
    return table


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        heads = [f"{m}_{c}" for m in ("softmax", "regroup") for c in ("correct", "low", "high")]
        writer.writerow(["epsilon", "broken", "total", *heads])
        for row in rows:
            cells = [row["epsilon"], row["broken"], row["softmax"]["total"]]
            for measure in ("softmax", "regroup"):
                cells += [row[measure]["correct"], *row[measure]["interval95"]]
            writer.writerow(cells)


def main(config: CurveConfig) -> dict[str, Any]:
    """Score what is not scored yet, and print the curve."""
    from regroup_pipelines.render.terminal import print_line, show
    from regroup_pipelines.steps.clean_features import clean_index, features_of
    from regroup_pipelines.steps.scoring import check_k, rule_of_k, score, voting_taps
    from regroup_pipelines.steps.session import Job, log_gaps
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import read_bank

    if config.points < 2:
        raise UsageError(f"--points {config.points}: a curve has at least 2")
    with Job(config, create=False) as job:
        bank = read_bank(job.store, config.bank)
        taps = voting_taps(bank, config.voting_taps)
        made = BlockElement.open(job.store, "adversarials", config.adversarials)
        size = choose_size(made, config.size)
        log_gaps(f"curve {made.name}", made)
        whole = {"index": clean_index(job, made)}
        features = [
            features_of(job, bank, whole, f"the clean images that {made.ref} come from"),
            features_of(
                job, bank, {"adversarials": made.fingerprint}, f"the adversarials {made.ref}"
            ),
        ]
        clean, attacked = (score(job, each, bank, config) for each in features)
        k = check_k(config.k, taps) if config.k is not None else None
        k = k or rule_of_k(clean.summary() or {}, config.threshold).k
        rows = curve_rows(curve_of(made, size, clean, attacked, config.signs, k))
        if config.output:
            _write_csv(Path(config.output), rows)
        show(_table(rows, size, config, k), config.json)
        passes = sum(entry.forward_passes for entry in job.ledger)
        print_line(f"{passes} forward passes", config.json)
        return {
            "bank": bank.ref,
            "adversarials": made.ref,
            "attack": made.inputs["attack"],
            "size": size,
            "k": k,
            "signs": config.signs,
            "rows": rows,
            "forward_passes": passes,
            "steps": job.summary(),
        }


if __name__ == "__main__":
    from regroup_pipelines.cli import run_command

    run_command("curve")
