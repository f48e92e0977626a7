"""Run a study, or print the plan of a run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.render.grids import accuracy_grid
from regroup_pipelines.render.study_files import write_report
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.schema.attacks import MistakeError
from regroup_pipelines.schema.loading import LoadedStudy, find_study, load_study
from regroup_pipelines.steps.session import Session
from regroup_pipelines.study.dry_run import DryRunSession
from regroup_pipelines.study.made_anew import reasons_anew
from regroup_pipelines.study.plan import Planner, describe_plan, print_plan
from regroup_pipelines.study.run import refuse_incomplete, run_study
from regroup_pipelines.study.steps import StudySteps

if TYPE_CHECKING:
    from regroup_pipelines.configs.studies import RunConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import StudyResults


def main(config: RunConfig) -> JsonObject:
    """Run the study, or with --dry-run print what a run would do."""
    loaded = load_study(find_study(config.study), config.set, config.data)
    options = replace(
        config,
        store=config.store or loaded.study.store,
        output=config.output or f"{loaded.study.name}-results",
        block_rows=config.block_rows or loaded.study.block_rows,
    )
    return _plan(options, loaded) if config.dry_run else _run(options, loaded)


def _check(steps: StudySteps, loaded: LoadedStudy) -> None:
    """Refuse a dataset or model that cannot be opened, naming the line of the study file."""
    try:
        steps.check()
    except MistakeError as error:
        raise loaded.mistake(error.path, str(error)) from error


def _plan(options: RunConfig, loaded: LoadedStudy) -> JsonObject:
    session = DryRunSession(options)
    with session:
        steps = StudySteps(session, loaded.study)
        _check(steps, loaded)
        lines = list(Planner(session, steps).lines())
        anew = reasons_anew(session.store)
    title = f"What {options.study} would do in the store {options.store}"
    print_plan(title, lines, options.json)
    for reason in anew:
        print_line(f"{reason}.", options.json)
    plan = {**describe_plan(lines), "made_anew": anew}
    return {"study": loaded.study.name, "store": options.store, **plan}


def _run(options: RunConfig, loaded: LoadedStudy) -> JsonObject:
    started = time.perf_counter()
    strict = options.strict or loaded.study.strict
    with Session(options, allow_missing=options.allow_missing, strict=strict) as session:
        steps = StudySteps(session, loaded.study)
        _check(steps, loaded)
        results, failures = run_study(session, steps, started)
        _report(results, options, loaded, any(entry.blocks for entry in session.ledger))
    refuse_incomplete(failures, results)
    return results.plain()


def _report(results: StudyResults, options: RunConfig, loaded: LoadedStudy, worked: bool) -> None:
    output = Path(options.output)
    written = write_report(results, loaded.study.report, output)
    for evaluation in results.evaluations:
        print_line(f"\nTaps: {evaluation.taps}, bank: {evaluation.bank}", options.json)
        show(accuracy_grid(evaluation.accuracy), options.json)
    for attack in results.attacks:
        print_line(f"{attack.images}: {attack.title}", options.json)
    if not worked:
        print_line("Everything was in the store already: nothing was computed again.", options.json)
    print_line(
        f"Results: {output}/results.json and {len(written) - 1} files beside it", options.json
    )
