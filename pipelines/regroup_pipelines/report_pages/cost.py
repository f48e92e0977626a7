"""The cost of a study: seconds and forward passes by step and phase, from the records of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup_cluster.dispatch.stopwatch import add_seconds
from regroup_pipelines.render.table import Cell, Table, number_cell, text_cell
from regroup_pipelines.report_pages.evaluation import note_damage
from regroup_pipelines.results.records import MeasuredImages
from regroup_pipelines.steps.run_record import FOLDER
from regroup_store.errors import DamagedError, LinkError
from regroup_store.format.fingerprint import unseal_if_sealed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.json_types import FlatRow, JsonObject
    from regroup_pipelines.report_pages.evaluation import ReportedStudy
    from regroup_store.format.store import Store


def read_runs(store: Store) -> list[JsonObject]:
    """Return the records of finished runs, oldest first; notes those that are damaged."""
    found = []
    for name in store.backend.children(FOLDER):
        key = f"{FOLDER}/{name}/run.json"
        try:
            record = unseal_if_sealed(store.backend.read(key), key)
        except FileNotFoundError:
            continue
        except (DamagedError, LinkError) as error:
            note_damage(str(error))
            continue
        if _is_readable(record):
            found.append(record)
        else:
            note_damage(f"{key} is damaged: it is not the record of a run")
    return sorted(found, key=lambda record: str(record.get("started")))


def _is_readable(record: JsonObject) -> bool:
    steps = record.get("steps")
    known = isinstance(record.get("command"), str) and isinstance(record.get("options", {}), dict)
    return known and isinstance(steps, list) and all(map(_is_step, steps))


def _is_step(step: object) -> bool:
    counts = ("samples", "forward_passes", "seconds", "peak_rss_bytes")
    return (
        isinstance(step, dict)
        and isinstance(step.get("ref"), str)
        and all(_is_count(step.get(name, 0)) for name in counts)
        and isinstance(step.get("phases", {}), dict)
        and all(map(_is_count, step.get("phases", {}).values()))
    )


def _is_count(value: object) -> bool:
    return type(value) in (int, float) and value >= 0  # type: ignore[operator]


def study_runs(study: ReportedStudy, runs: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the runs that made or found an element of the study."""
    refs = {step.ref for step in study.results.steps}
    return [run for run in runs if refs & {step.get("ref") for step in run["steps"]}]


@dataclass(frozen=True)
class Spent:
    """The cost of one element, summed over the recorded runs that computed blocks of it."""

    step: str
    ref: str
    samples: int
    forward_passes: int
    seconds: float
    phases: dict[str, float]
    peak_rss_bytes: int

    @property
    def kind(self) -> str:
        """First word of the step: extract, attack, score, bank, digest or index."""
        return self.step.split()[0]


def spent(study: ReportedStudy, runs: Iterable[JsonObject]) -> list[Spent]:
    """Return the cost of every element of the study, in the order of steps; zeros: no record."""
    steps = [step for run in runs for step in run["steps"] if step.get("blocks")]
    found = []
    for ref, name in {step.ref: step.step for step in study.results.steps}.items():
        mine = [step for step in steps if step["ref"] == ref]
        phases: dict[str, float] = {}
        for step in mine:
            add_seconds(phases, step.get("phases", {}))
        sums = {
            key: sum(step.get(key, 0) for step in mine) for key in ("samples", "forward_passes")
        }
        peak = max((step.get("peak_rss_bytes", 0) for step in mine), default=0)
        seconds = float(sum(step.get("seconds", 0) for step in mine))
        found.append(Spent(name, ref, **sums, seconds=seconds, phases=phases, peak_rss_bytes=peak))
    return found


def steps_table(costs: list[Spent]) -> Table:
    """Return one row per step, with its phases as columns."""
    phases = list(dict.fromkeys(name for cost in costs for name in cost.phases))
    heads = ["step", "samples", "forward passes", "seconds", "peak memory of a worker, MB"]
    rows = [
        [
            text_cell(cost.step),
            *(number_cell(value) for value in (cost.samples, cost.forward_passes)),
            _seconds(cost.seconds),
            number_cell(round(cost.peak_rss_bytes / 1e6)) if cost.peak_rss_bytes else Cell("-"),
            *(_seconds(cost.phases.get(name)) for name in phases),
        ]
        for cost in costs
    ]
    return Table(
        "cost-steps",
        "Every step",
        [*heads, *(f"{name}, s" for name in phases)],
        rows,
        [_download(cost, phases) for cost in costs],
        "Seconds are wall time; those of a phase are summed over the workers. Forward passes are "
        "counted in the workers. A step without numbers left no record in this store.",
    )


def _download(cost: Spent, phases: list[str]) -> FlatRow:
    return {
        "step": cost.step,
        "element": cost.ref,
        "samples": cost.samples,
        "forward_passes": cost.forward_passes,
        "seconds": cost.seconds,
        "peak_rss_bytes": cost.peak_rss_bytes,
        **{f"{name}_seconds": cost.phases.get(name, "") for name in phases},
    }


def _seconds(value: float | None) -> Cell:
    return number_cell(None if value is None else float(value), 3)


def kinds_table(costs: list[Spent]) -> Table:
    """Return samples, forward passes and seconds by kind of step."""
    rows = []
    for kind in dict.fromkeys(cost.kind for cost in costs):
        mine = [cost for cost in costs if cost.kind == kind]
        samples, passes = (sum(getattr(c, n) for c in mine) for n in ("samples", "forward_passes"))
        rows.append((kind, len(mine), samples, passes, sum(cost.seconds for cost in mine)))
    heads = ["kind of step", "steps", "samples", "forward passes", "seconds"]
    return Table(
        "cost-kinds",
        "By kind of step",
        heads,
        [[text_cell(r[0]), *map(number_cell, r[1:4]), _seconds(r[4])] for r in rows],
        [dict(zip(heads, row, strict=True)) for row in rows],
    )


@dataclass(frozen=True)
class Saving:
    """What stored features and adversarials saved, from recorded counts; None: no record.

    Attributes:
        evaluations: pairs of tap policy and bank.
        questions: pairs of k and sign choice answered per evaluation.
        samples: images scored, over all sets of images and evaluations.
        scored_seconds: wall time of scoring.
        scored_passes: forward passes of scoring.
        attack_passes: forward passes of the attacks, which are not repeated.
        rate: samples per second of the extractions.
    """

    evaluations: int
    questions: int
    samples: int
    scored_seconds: float | None
    scored_passes: int
    attack_passes: int | None
    rate: float | None

    @property
    def again_seconds(self) -> float | None:
        """Estimated seconds to run the network on these samples once more, at `rate`."""
        return self.samples / self.rate if self.rate else None


def saving(study: ReportedStudy, costs: list[Spent]) -> Saving:
    """Return what re-scoring saved."""
    scored, extracted, attacked = (
        [cost for cost in costs if cost.kind == kind and cost.samples]
        for kind in ("score", "extract", "attack")
    )
    seconds = sum(cost.seconds for cost in extracted)
    evaluated = study.results.evaluations
    rows = [row for each in evaluated for row in each.accuracy_against_k]
    evaluations = len(evaluated)
    return Saving(
        evaluations=evaluations,
        questions=len(rows) // max(evaluations, 1),
        samples=sum(
            row.attempted + row.failed
            for each in evaluated
            for row in each.accuracy
            if isinstance(row, MeasuredImages)
        ),
        scored_seconds=sum(cost.seconds for cost in scored) if scored else None,
        scored_passes=sum(cost.forward_passes for cost in scored),
        attack_passes=sum(cost.forward_passes for cost in attacked) if attacked else None,
        rate=sum(cost.samples for cost in extracted) / seconds if seconds else None,
    )
