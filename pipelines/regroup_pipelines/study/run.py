"""Run a study: do what the store does not hold yet of it, and write its tables and figures."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import IncompleteError

if TYPE_CHECKING:
    from regroup_pipelines.configs.studies import RunConfig
    from regroup_pipelines.schema.loading import LoadedStudy
    from regroup_pipelines.steps.session import Job
    from regroup_pipelines.study.results import Results
    from regroup_pipelines.study.steps import StudySteps


COST = ("forward_passes", "seconds", "steps")


class StudyIncompleteError(IncompleteError):
    """Some attacks could not be run (exit status 1); `summary` holds what was measured."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


def main(config: RunConfig) -> dict[str, Any]:
    """Run the study, or plan it."""
    from regroup_pipelines.schema.loading import find_study, load_study

    loaded = load_study(find_study(config.study), config.set, config.data)
    options = replace(
        config,
        store=config.store or loaded.study.store,
        output=config.output or f"{loaded.study.name}-results",
        block_rows=config.block_rows or loaded.study.block_rows,
    )
    return _plan(options, loaded) if config.dry_run else _run(options, loaded)


def _check(steps: StudySteps, loaded: LoadedStudy) -> None:
    """Refuse, with the place in the file, what cannot be opened."""
    from regroup_pipelines.schema.attacks import MistakeError

    try:
        steps.check()
    except MistakeError as error:
        raise loaded.mistake(error.path, str(error)) from error


def _plan(options: RunConfig, loaded: LoadedStudy) -> dict[str, Any]:
    from regroup_pipelines.study.dry_run import DryJob
    from regroup_pipelines.study.plan import Planner, describe_plan, print_plan
    from regroup_pipelines.study.steps import StudySteps

    job = DryJob(options)
    with job:
        steps = StudySteps(job, loaded.study)
        _check(steps, loaded)
        lines = list(Planner(job, steps).lines())
    title = f"What {options.study} would do in the store {options.store}"
    print_plan(title, lines, options.json)
    return {"study": loaded.study.name, "store": options.store, **describe_plan(lines)}


def _run(options: RunConfig, loaded: LoadedStudy) -> dict[str, Any]:
    from regroup_pipelines.steps.session import Job
    from regroup_pipelines.study.steps import StudySteps

    started = time.perf_counter()
    with Job(options, allow_missing=options.allow_missing) as job:
        steps = StudySteps(job, loaded.study)
        _check(steps, loaded)
        results, described = run_study(job, steps, started)
        _report(described, options, loaded, any(entry.blocks for entry in job.ledger))
    refuse_failures(results, described)
    return described


def refuse_failures(results: Results, described: dict[str, Any]) -> None:
    """Raise `StudyIncompleteError` where a part of the study could not be made."""
    if results.failures:
        names = ", ".join(results.failures)
        first = next(iter(results.failures.values()))
        raise StudyIncompleteError(f"not run: {names}; the first: {first}", described)


def run_study(job: Job, steps: StudySteps, started: float) -> tuple[Results, dict[str, Any]]:
    """Do what is missing of a study, and leave its results, returned as JSON too, in the store.

    `started`: when the job was, by `time.perf_counter`.
    """
    from regroup_pipelines.study.results import Results

    results = Results(steps, _make(steps))
    described = {**results.describe(), **_cost(job, started)}
    _keep(described, job)
    return results, described


def _make(steps: StudySteps) -> dict[str, str]:
    """Make every element; an attack that fails leaves the others to go on: why, by its name.

    So does a timing that fails.
    """
    from regroup_pipelines.steps.session import log

    failures: dict[str, str] = {}
    for step in steps.steps():
        if step.part in failures:
            continue
        try:
            step.make()
        except IncompleteError as error:
            if step.part is None:
                raise
            failures[step.part] = str(error)
            log(f"{step.label}: {error}\n{step.part}: the study goes on without it")
    return failures


def _cost(job: Job, started: float) -> dict[str, Any]:
    passes = sum(entry.forward_passes for entry in job.ledger)
    cost = (passes, time.perf_counter() - started, job.summary())
    return dict(zip(COST, cost, strict=True))


def _keep(results: dict[str, Any], job: Job) -> None:
    """Leave the results in the store, unless they are there: what they cost was told then."""
    from regroup_store.kinds.studies import read_study, studies, write_study

    name, results = results["study"], json.loads(json.dumps(results))
    kept = read_study(job.store, name) if name in studies(job.store) else {}
    if any(kept.get(key, "") != value for key, value in results.items() if key not in COST):
        write_study(job.store, name, results)


def _report(results: dict[str, Any], options: RunConfig, loaded: LoadedStudy, worked: bool) -> None:
    from regroup_pipelines.render.study_files import write_report
    from regroup_pipelines.render.terminal import accuracy_table, print_line, show

    output = Path(options.output)
    written = write_report(results, loaded.study.report, output)
    for evaluation in results["evaluations"]:
        print_line(f"\nTaps: {evaluation['taps']}, bank: {evaluation['bank']}", options.json)
        show(accuracy_table(evaluation["accuracy"]), options.json)
    for images in results["images"]:
        if "title" in images:
            print_line(f"{images['images']}: {images['title']}", options.json)
    if not worked:
        print_line("Everything was in the store already: nothing was computed again.", options.json)
    print_line(
        f"Results: {output}/results.json and {len(written) - 1} files beside it", options.json
    )


if __name__ == "__main__":
    from regroup_pipelines.cli import run_command

    run_command("run")
