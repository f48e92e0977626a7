"""Table 6 of the paper: seconds per prediction by softmax and by REGroup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.paper_tables import NOT_AVAILABLE, values_of
from regroup_pipelines.render.study_tables import key_of
from regroup_pipelines.render.table import Cell, Table, text_cell
from regroup_pipelines.results.base import NOT_RUN
from regroup_pipelines.results.timings import Timing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.json_types import FlatRow
    from regroup_pipelines.results.records import EvaluationResults, StudyResults
    from regroup_pipelines.results.timings import BatchTimes, Spread, TimingRow
    from regroup_pipelines.schema.paper_values import PaperTime

_DEVICE_NAMES = {"cpu": "CPU", "cuda": "GPU"}
MEASURES = {"softmax": "softmax", "regroup": "REGroup", "ratio": "REGroup over softmax"}
_HEADS = ["device", "batch", "measure", "measured", "rounds", "paper"]
_NOTE = (
    "Softmax is the bare network, REGroup the network and the Borda vote of its last k taps, "
    "alternating on the same images of the scored dataset, already decoded. Medians over the "
    "rounds after one to warm up; brackets: lowest and highest. Wall-clock times of one machine, "
    "stored when measured: unlike every other table, they differ when measured again."
)


def inference_table(results: StudyResults, evaluation: EvaluationResults) -> Table:
    """Return how long a prediction takes, one row per device, batch size and measure."""
    settings = results.settings
    values, network = values_of(results), settings.model.name
    rows, download = [], []
    for timing in evaluation.inference_time or ():
        for size, times in _sizes(timing, settings.model.batch):
            for measure in MEASURES:
                known = values.find_time(network, timing.device, size, measure)
                rows.append(_cells(timing, size, times, measure, known))
                head: FlatRow = {
                    "table": "table-6", **_batch(timing, size, times), "measure": measure,
                    "k": evaluation.k, "signs": results.signs,
                }  # fmt: skip
                found = _numbers(timing, _spread(times, measure), measure, known)
                download.append({**head, **found})
    return Table(
        f"{key_of(evaluation)}-table-6",
        f"Table 6: inference time per image; {network}, {evaluation.taps} taps, "
        f"k = {evaluation.k}, signs = {results.signs}",
        _HEADS,
        rows,
        download,
        _note(evaluation),
        "tab:table-6",
    )


def _sizes(timing: TimingRow, batch: int) -> Iterator[tuple[str, BatchTimes | None]]:
    """Yield the name of every batch size with its times: "1", and "n" unless n is 1."""
    if isinstance(timing, Timing):
        yield from zip(("1", "n"), timing.times, strict=False)
    else:
        yield from ((size, None) for size in ("1", "n")[: 1 + (batch > 1)])


def _spread(times: BatchTimes | None, measure: str) -> Spread | None:
    found: Spread | None = None if times is None else getattr(times, measure)
    return found


def _cells(
    timing: TimingRow, size: str, times: BatchTimes | None, measure: str, known: PaperTime | None
) -> list[Cell]:
    rounds = timing.rounds if isinstance(timing, Timing) else None
    named = "1" if size == "1" else f"n = {times.batch}" if times else "n"
    return [
        text_cell(_DEVICE_NAMES[timing.device]),
        text_cell(named),
        text_cell(MEASURES[measure]),
        _measured(_spread(times, measure), measure),
        Cell("-") if rounds is None else Cell(str(rounds), rounds),
        Cell("-") if measure == "ratio" else _published(known),
    ]


def _published(known: PaperTime | None) -> Cell:
    if known is None:
        return Cell(NOT_AVAILABLE)
    return Cell(f"{1000 * known.seconds:.4g} ms", known.seconds)


def _measured(spread: Spread | None, measure: str) -> Cell:
    """Return `12.3 ms [12.1, 12.9]`, `1.21 [1.2, 1.24]` or "not run"."""
    if spread is None:
        return Cell(NOT_RUN)
    scale, unit = (1, "") if measure == "ratio" else (1000, " ms")
    median, low, high = (f"{scale * x:.4g}" for x in (spread.median, spread.low, spread.high))
    return Cell(f"{median}{unit} [{low}, {high}]", spread.median)


def _batch(timing: TimingRow, size: str, times: BatchTimes | None) -> FlatRow:
    batch = "" if times is None else times.batch
    return {"device": timing.device, "batch": size, "batch_size": batch}


def _numbers(
    timing: TimingRow, spread: Spread | None, measure: str, known: PaperTime | None
) -> FlatRow:
    """Return the CSV columns of one measure; `state` and `why` explain an empty `median`."""
    ran = timing if isinstance(timing, Timing) else None
    return {
        "state": NOT_RUN if spread is None else "measured",
        "median": "" if spread is None else spread.median,
        "low": "" if spread is None else spread.low,
        "high": "" if spread is None else spread.high,
        "rounds": ran.rounds if ran else "",
        "unit": "" if measure == "ratio" else "seconds per image",
        "paper": "" if known is None else known.seconds,
        "place": "" if known is None else known.place,
        "machine": ran.words if ran else "",
        "why": "" if isinstance(timing, Timing) else timing.reason,
    }


def _note(evaluation: EvaluationResults) -> str:
    """Say how to read the numbers, and on which machine they were measured."""
    timings = evaluation.inference_time or ()
    machines = [f"{_DEVICE_NAMES[t.device]}: {t.words}." for t in timings if isinstance(t, Timing)]
    missing = [
        f"{_DEVICE_NAMES[t.device]}: {NOT_RUN}, {t.reason}."
        for t in timings
        if not isinstance(t, Timing)
    ]
    return " ".join([_NOTE, *machines, *missing])
