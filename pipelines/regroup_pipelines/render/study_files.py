"""A study's results as files: JSON, tables (Markdown to read, CSV to compute with), figures."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from regroup_pipelines.render.attack_table import HEADS, attack_cells, attack_rows, attacks_of
from regroup_pipelines.render.inference_table import HEADS as HEADS_OF_TIMES
from regroup_pipelines.render.inference_table import (
    inference_cells,
    inference_latex,
    inference_note,
    inference_rows,
    inference_title,
)
from regroup_pipelines.render.latex import latex_table
from regroup_pipelines.render.paper_figures import figure_2, figure_3, figure_4, unswept
from regroup_pipelines.render.paper_tables import HEADS as HEADS_OF_PAPER
from regroup_pipelines.render.paper_tables import (
    PAPER_TABLES,
    QUOTED_HEADS,
    paper_cells,
    paper_note,
    paper_rows,
    paper_title,
    quoted_cells,
)
from regroup_pipelines.render.terminal import format_accuracy, plot_k, plot_taps
from regroup_pipelines.results.whole_subset import whole_lines
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regroup_pipelines.render.paper_tables import PaperTable
    from regroup_pipelines.schema.study import Report

Row = dict[str, Any]
NOT_RUN = "not run"
MEASURES = ("softmax", "regroup")


def write_report(results: Row, report: Report, output: Path) -> list[Path]:
    """Write results.json, and a folder of tables and figures for each tap policy and bank."""
    written = [_write(output / "results.json", json.dumps(results, indent=2) + "\n")]
    for evaluation in results["evaluations"]:
        folder = output / f"{evaluation['taps']}-{evaluation['bank']}"
        for table in report.tables:
            tell, rows = TABLES[table]
            written.append(_write(folder / f"{table}.md", tell(results, evaluation)))
            listed = list(rows(results, evaluation))
            written.append(_write(folder / f"{table}.csv", _csv(listed)))
            written.append(_write(folder / f"{table}.json", json.dumps(listed, indent=2) + "\n"))
            if table in LATEX:
                text = LATEX[table](results, evaluation)
                written.append(_write(folder / f"{table}.tex", text))
        for figure in report.figures:
            path = folder / f"{figure}.png"
            FIGURES[figure](results, evaluation, path)
            written += [path, path.with_suffix(".svg")]
    return written


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _cell(cell: Row | None) -> Row:
    """The columns of one accuracy in CSV; an empty `accuracy` is one that `state` explains."""
    if cell is None:
        return {"state": NOT_RUN, "correct": "", "total": "", "accuracy": "", "low": "", "high": ""}
    low, high = cell["interval95"] if cell["total"] else ("", "")
    return {
        "state": "measured" if cell["total"] else "no samples",
        "correct": cell["correct"],
        "total": cell["total"],
        "accuracy": cell["accuracy"] if cell["total"] else "",
        "low": low,
        "high": high,
    }


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def caption(results: Row, evaluation: Row) -> str:
    """What the numbers are of: network, taps, bank, k, and every attack with its protocol."""
    settings, rule = results["settings"], evaluation["rule"]
    bank, few = settings["banks"][evaluation["bank"]], evaluation["samples_a_class"]
    classes = "the dataset's" if settings["model"]["classes"] == "dataset" else "all"
    k = f"k = {evaluation['k']}"
    given = settings["scoring"]["k"] is not None
    chosen = f"{k}, given (the rule chooses {rule['k']})" if given else f"{k}, by the rule"
    drawn = (
        f"{few['most']}" if few["fewest"] == few["most"] else f"{few['fewest']} to {few['most']}"
    )
    lines = [
        f"Network {settings['model']['name']}, candidates: {classes} classes; taps: "
        f"{evaluation['taps']}; bank {evaluation['bank']}: {drawn} correctly classified images a "
        f"class of {bank['dataset']}, {bank['weighting']} weights, seed {bank['bank_seed']}.",
        f"{chosen}; {rule['count']} taps alone reach {100 * rule['threshold']:g} % of the "
        "correctly classified clean images" + ("." if rule["reached"] else ", none at the end."),
        "Brackets: 95 % Wilson intervals. S: the samples whose attack succeeded, #S of them.",
        *whole_lines(evaluation["accuracy"]),
    ]
    return "\n".join([*lines, "", *_image_lines(results)]) + "\n"


def _image_lines(results: Row) -> Iterator[str]:
    for images in results["images"]:
        title = images.get("title", "images as they are")
        why = f" **{NOT_RUN}**: {images['not_run']}" if "not_run" in images else ""
        drawn = f"subset {images['subset']} of " if "subset" in images else ""
        yield f"- {images['images']}: {drawn}{images['dataset']}, {title}.{why}"


def accuracy_markdown(results: Row, evaluation: Row) -> str:
    """Softmax and REGroup, over all (see the caption) and over #S, top-1 and top-5."""
    heads = ["images", "attempted", "failed rows", "#S", "top"]
    heads += ["softmax, all", "REGroup, all", "softmax, S", "REGroup, S"]
    rows = [_accuracy_cells(row, top) for row in evaluation["accuracy"] for top in (1, 5)]
    signs = results["settings"]["scoring"]["signs"]
    title = f"# Accuracy, {evaluation['taps']} taps, k = {evaluation['k']}, signs = {signs}"
    return "\n".join([title, "", markdown(heads, rows), caption(results, evaluation)])


def _accuracy_cells(row: Row, top: int) -> list[str]:
    if "not_run" in row:
        return [row["images"], *[NOT_RUN] * 3, str(top), *[NOT_RUN] * 4]
    success = "-" if row["success"] is None else str(row["success"])
    cells = [row.get(f"{m}_top{top}_{over}") for over in ("all", "S") for m in MEASURES]
    counts = [str(row["attempted"]), str(row["failed"]), success, str(top)]
    return [row["images"], *counts, *map(format_accuracy, cells)]


def accuracy_rows(results: Row, evaluation: Row) -> Iterator[Row]:
    """The accuracy table, a row a number."""
    titles = _titles(results)
    for row in evaluation["accuracy"]:
        for over in ("all", "S"):
            if over == "S" and row["images"] not in results["settings"]["attacks"]:
                continue
            for measure in MEASURES:
                for top in (1, 5):
                    yield {
                        "images": row["images"],
                        "attack": titles[row["images"]],
                        "attempted": row.get("attempted", NOT_RUN),
                        "failed": row.get("failed", NOT_RUN),
                        "success": NOT_RUN if "not_run" in row else row["success"],
                        "measure": measure,
                        "top": top,
                        "over": over,
                        "k": evaluation["k"],
                        "signs": results["settings"]["scoring"]["signs"],
                        **_cell(row.get(f"{measure}_top{top}_{over}")),
                    }


def _titles(results: Row) -> dict[str, str]:
    return {images["images"]: images.get("title", "") for images in results["images"]}


def k_markdown(results: Row, evaluation: Row) -> str:
    """REGroup's top-1 against every k, every sign choice; attacked images over #S; no sweeps."""
    names = unswept(results)
    heads = ["k", *(f"{name}, {signs}" for name in names for signs in SIGN_CHOICES)]
    cells = {(row["k"], row["signs"]): row for row in evaluation["accuracy_against_k"]}
    ks = sorted({k for k, _ in cells})
    rows = [[str(k), *(_k_cell(cells[k, s], n) for n in names for s in SIGN_CHOICES)] for k in ks]
    title = f"# REGroup top-1 against k, {evaluation['taps']} taps (attacked images: over #S)"
    return "\n".join([title, "", markdown(heads, rows), caption(results, evaluation)])


def _k_cell(row: Row, name: str) -> str:
    return format_accuracy(row[name]) if name in row else NOT_RUN


def k_rows(results: Row, evaluation: Row) -> Iterator[Row]:
    """The table of k, a row a number."""
    attacks = results["settings"]["attacks"]
    for name, title in _titles(results).items():
        for row in evaluation["accuracy_against_k"]:
            head = {"images": name, "attack": title, "over": "S" if name in attacks else "all"}
            yield {**head, "signs": row["signs"], "k": row["k"], **_cell(row.get(name))}


def taps_markdown(results: Row, evaluation: Row) -> str:
    """Each tap alone on the correctly classified clean images, and which of them vote."""
    threshold = evaluation["rule"]["threshold"]
    reaches = f"reaches {100 * threshold:g} %"
    rows = [
        [
            row["tap"],
            str(row["position"]),
            *(format_accuracy(row[signs]) for signs in SIGN_CHOICES),
            "yes" if (row["both"]["accuracy"] or 0) >= threshold else "no",
            "yes" if row["votes"] else "no",
        ]
        for row in evaluation["tap_accuracy"]
    ]
    heads = ["tap", "position", *SIGN_CHOICES, reaches, f"votes at k = {evaluation['k']}"]
    title = (
        f"# Each tap alone, {evaluation['taps']} taps, top-1 on correctly classified clean images"
    )
    return "\n".join([title, "", markdown(heads, rows), caption(results, evaluation)])


def taps_rows(results: Row, evaluation: Row) -> Iterator[Row]:  # noqa: ARG001 - as its neighbours
    """The table of taps, a row a number."""
    threshold = evaluation["rule"]["threshold"]
    for row in evaluation["tap_accuracy"]:
        for signs in SIGN_CHOICES:
            yield {
                "position": row["position"],
                "tap": row["tap"],
                "signs": signs,
                "votes": row["votes"],
                "threshold": threshold,
                **_cell(row[signs]),
            }


def _figure_k(results: Row, evaluation: Row, path: Path) -> None:
    titles = _titles(results)
    panels = {name: f"{name}\n{titles[name]}" for name in unswept(results)}
    rule = evaluation["rule"]
    line = f"the {100 * rule['threshold']:g} % rule" if rule["k"] == evaluation["k"] else "k"
    plot_k(evaluation["accuracy_against_k"], panels, evaluation["k"], path, line)


def _figure_taps(results: Row, evaluation: Row, path: Path) -> None:
    title = f"{results['settings']['model']['name']}, {evaluation['taps']} taps"
    threshold = evaluation["rule"]["threshold"]
    plot_taps(evaluation["tap_accuracy"], evaluation["k"], threshold, title, path)


def attacks_markdown(results: Row, evaluation: Row) -> str:
    """What each attack achieved and took, beside REGroup's accuracy."""
    accuracies = {row["images"]: row for row in evaluation["accuracy"]}
    rows = [attack_cells(row, accuracies[row["images"]]) for row in attacks_of(results)]
    title = f"# Attacks, {evaluation['taps']} taps, k = {evaluation['k']}"
    note = (
        "Queries (forward passes), backward passes and seconds are means over the attempted "
        "samples; distances are medians over S, in pixel units of [0, 1]."
    )
    return "\n".join([title, "", markdown(HEADS, rows), note, "", caption(results, evaluation)])


def _paper_markdown(table: PaperTable, results: Row, evaluation: Row) -> str:
    lines = [
        f"# {paper_title(table, results, evaluation)}",
        "",
        markdown(HEADS_OF_PAPER, paper_cells(table, results, evaluation)),
        paper_note(table, results, evaluation),
        "",
    ]
    quoted = quoted_cells(results) if table.name == "table-1" else []
    if quoted:
        lines += ["Published figures of other defenses, quoted, not measured here:", ""]
        lines += [markdown(QUOTED_HEADS, quoted)]
    elif table.name == "table-1":
        lines += ["Published figures of other defenses: not at hand.", ""]
    return "\n".join([*lines, caption(results, evaluation)])


def whole_note(table: PaperTable, results: Row, evaluation: Row) -> str:
    """How to read the numbers, and which images those over whole subsets count."""
    whole = whole_lines(evaluation["accuracy"]) if table.over == "all" else ()
    return " ".join([paper_note(table, results, evaluation), *whole])


def paper_latex(table: PaperTable, results: Row, evaluation: Row) -> str:
    """A table of the paper as LaTeX, and after table 1 the quoted figures as another."""
    title = paper_title(table, results, evaluation)
    note = whole_note(table, results, evaluation)
    cells = paper_cells(table, results, evaluation)
    text = latex_table(HEADS_OF_PAPER, cells, title, note, f"tab:{table.name}")
    quoted = quoted_cells(results) if table.name == "table-1" else []
    if not quoted:
        return text
    note = "Quoted, not measured here."
    other = latex_table(QUOTED_HEADS, quoted, "Other defenses", note, "tab:quoted")
    return text + other


def inference_markdown(results: Row, evaluation: Row) -> str:
    """How long a prediction takes."""
    table = markdown(HEADS_OF_TIMES, inference_cells(results, evaluation))
    lines = [f"# {inference_title(results, evaluation)}", "", table, inference_note(evaluation), ""]
    return "\n".join([*lines, caption(results, evaluation)])


TABLES: dict[str, tuple[Callable[[Row, Row], str], Callable[[Row, Row], Iterator[Row]]]] = {
    "accuracy": (accuracy_markdown, accuracy_rows),
    "k": (k_markdown, k_rows),
    "taps": (taps_markdown, taps_rows),
    "attacks": (attacks_markdown, attack_rows),
    **{
        name: (partial(_paper_markdown, table), partial(paper_rows, table))
        for name, table in PAPER_TABLES.items()
    },
    "table-6": (inference_markdown, inference_rows),
}
LATEX: dict[str, Callable[[Row, Row], str]] = {
    **{name: partial(paper_latex, table) for name, table in PAPER_TABLES.items()},
    "table-6": inference_latex,
}
FIGURES: dict[str, Callable[[Row, Row, Path], None]] = {
    "k": _figure_k,
    "taps": _figure_taps,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-4": figure_4,
}
