"""Table 6 of the paper: seconds that a prediction takes, softmax beside REGroup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.render.latex import latex_table
from regroup_pipelines.render.paper_tables import NOT_AT_HAND, NOT_RUN, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.schema.paper_values import PaperTime, PaperValues

Row = dict[str, Any]
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
MEASURES = {"softmax": "softmax", "regroup": "REGroup", "ratio": "REGroup over softmax"}
HEADS = ["device", "batch", "measure", "measured", "rounds", "paper"]


def inference_rows(results: Row, evaluation: Row) -> Iterator[Row]:
    """A row a number, in seconds an image but for the ratio; empty where `state` says why."""
    network, values = results["settings"]["model"]["name"], values_of(results)
    for timing in evaluation.get("inference_time", ()):
        for size, found in _sizes(timing, results["settings"]["model"]["batch"]):
            for measure in MEASURES:
                known = _paper(values, network, timing["device"], (size, measure))
                yield {
                    "table": "table-6",
                    "device": timing["device"],
                    "batch": size,
                    "batch_size": "" if found is None else found["batch"],
                    "measure": measure,
                    "k": evaluation["k"],
                    "signs": results["settings"]["scoring"]["signs"],
                    **_numbers(found and found[measure]),
                    "rounds": timing.get("rounds", ""),
                    "unit": "" if measure == "ratio" else "seconds an image",
                    "paper": "" if known is None else known.seconds,
                    "place": "" if known is None else known.place,
                    "machine": timing.get("words", ""),
                    "why": timing.get("not_run", ""),
                }


def _sizes(timing: Row, batch: int) -> Iterator[tuple[str, Row | None]]:
    """The names of the batch sizes with what was found: "1", and "n" unless that is 1 too."""
    found = timing.get("times", [])
    count = len(found) if found else 1 + (batch > 1)
    for place, size in enumerate(("1", "n")[:count]):
        yield size, found[place] if found else None


def _paper(
    values: PaperValues, network: str, device: str, cell: tuple[str, str]
) -> PaperTime | None:
    size, measure = cell
    return values.find_time(network, device, size, measure)


def _numbers(spread: Row | None) -> Row:
    if spread is None:
        return {"state": NOT_RUN, "median": "", "low": "", "high": ""}
    return {"state": "measured", **{name: spread[name] for name in ("median", "low", "high")}}


def inference_cells(results: Row, evaluation: Row) -> list[list[str]]:
    """The table for people, a line a number."""
    return [
        [
            DEVICES[row["device"]],
            _size(row),
            MEASURES[row["measure"]],
            measured_text(row),
            str(row["rounds"]) if row["state"] == "measured" else "-",
            "-" if row["measure"] == "ratio" else _told(row["paper"]),
        ]
        for row in inference_rows(results, evaluation)
    ]


def _size(row: Row) -> str:
    return "1" if row["batch"] == "1" else f"n = {row['batch_size']}" if row["batch_size"] else "n"


def _told(seconds: float | str) -> str:
    return NOT_AT_HAND if isinstance(seconds, str) else f"{1000 * seconds:.4g} ms"


def measured_text(row: Row) -> str:
    """`12.3 ms [12.1, 12.9]`, `1.21 [1.2, 1.24]`, or why there is no number."""
    if row["state"] != "measured":
        return str(row["state"])
    scale, unit = (1, "") if row["measure"] == "ratio" else (1000, " ms")
    middle, low, high = (f"{scale * row[name]:.4g}" for name in ("median", "low", "high"))
    return f"{middle}{unit} [{low}, {high}]"


def inference_title(results: Row, evaluation: Row) -> str:
    """The title: of which network, taps and k."""
    settings = results["settings"]
    return (
        f"Table 6: inference time an image; {settings['model']['name']}, {evaluation['taps']} "
        f"taps, k = {evaluation['k']}, signs = {settings['scoring']['signs']}"
    )


def inference_note(evaluation: Row) -> str:
    """How to read the numbers, and what they were measured on."""
    timings = evaluation.get("inference_time", [])
    machines = [f"{DEVICES[t['device']]}: {t['words']}." for t in timings if "words" in t]
    missing = [
        f"{DEVICES[t['device']]}: {NOT_RUN}, {t['not_run']}." for t in timings if "not_run" in t
    ]
    return " ".join(
        [
            "Softmax is the bare network, REGroup the network and the Borda vote of its last k "
            "taps, in turn on the same images of the scored dataset, already decoded. Medians "
            "over the rounds after one to warm up; brackets: lowest and highest. Wall-clock "
            "times of one machine, kept since they were measured: taken again they differ, "
            "unlike every other table.",
            *machines,
            *missing,
        ]
    )


def inference_latex(results: Row, evaluation: Row) -> str:
    """The table as LaTeX."""
    cells = inference_cells(results, evaluation)
    title, note = inference_title(results, evaluation), inference_note(evaluation)
    return latex_table(HEADS, cells, title, note.rstrip("."), "tab:table-6")
