"""Run the demo: a complete study on scikit-learn's digits, from training to tables and a report.

It trains a small network and runs the shipped study `demo` on it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.commands.report import main as report
from regroup_pipelines.configs.options import AttackOptions
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.grids import accuracy_grid, k_grid
from regroup_pipelines.render.output_folder import output_file
from regroup_pipelines.render.study_files import write_report
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.schema.attack_options import attack_spec
from regroup_pipelines.schema.loading import load_study, shipped_studies
from regroup_pipelines.steps.demo_model import train_demo_model
from regroup_pipelines.steps.rescoring import RescoringCost
from regroup_pipelines.steps.session import Session
from regroup_pipelines.study.run import refuse_incomplete, run_study
from regroup_pipelines.study.steps import StudySteps

if TYPE_CHECKING:
    from regroup_pipelines.configs.studies import DemoConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import StudyResults
    from regroup_pipelines.schema.study import Study

STUDY = "demo"


def demo_study(config: DemoConfig) -> Study:
    """Load the shipped study with the demo's options and the paper's taps only, which is faster.

    Raises:
        UsageError: an option is out of range.
    """
    # Checked before the study is loaded: an error then names the option, not the study's key.
    attack_spec(AttackOptions(epsilon=config.epsilon))
    if config.limit < 1:
        raise UsageError(f"--limit {config.limit}: an attack needs at least 1 image")
    changes = ["taps=['preactivation']", f"banks.paper.seed={config.seed}"]
    for attack in ("pgd-minimal", "pgd-budget"):
        given = {"limit": config.limit, "seed": config.seed, "epsilon": f'"{config.epsilon}"'}
        changes += [f"attacks.{attack}.{key}={value}" for key, value in given.items()]
    return load_study(shipped_studies()[STUDY], changes, config.output).study


def _rescoring(session: Session, steps: StudySteps) -> RescoringCost:
    """Sum up the cost of scoring every k and sign choice of all images from the store."""
    entries = [entry for entry in session.ledger if entry.step.startswith("score ")]
    names = (*steps.study.clean, *steps.attacks)
    votes = [steps.votes(*pair, name) for pair in steps.evaluations for name in names]
    return RescoringCost(
        seconds=sum(entry.seconds for entry in entries),
        samples=sum(element.plan.rows for element in votes),
        forward_passes=sum(entry.forward_passes for entry in entries),
    )


def _report(config: DemoConfig, output: Path) -> str:
    """Write the report of the demo and return the path of its first page."""
    place = str(output / "report")
    options = ReportConfig(store=config.store, output=place, study=STUDY, json=config.json)
    return str(report(options)["index"])


def _print(
    results: StudyResults, rescoring: RescoringCost, output: Path, quiet: bool, worked: bool
) -> None:
    (evaluation,) = results.evaluations
    show(accuracy_grid(evaluation.accuracy), quiet)
    show(k_grid(evaluation.accuracy_against_k, evaluation.votes), quiet)
    print_line(str(rescoring), quiet)
    if not worked:
        print_line("Everything was in the store already: nothing was computed again.", quiet)
    print_line(f"Results: {output}/results.json, tables and figures beside it", quiet)


def main(config: DemoConfig) -> JsonObject:
    """Run the missing steps of the demo, print its tables and write its files."""
    started, output, study = time.perf_counter(), Path(config.output), demo_study(config)
    trained = train_demo_model(output_file(output, output / "digits-cnn.safetensors"), config.seed)
    with Session(config) as session:
        steps = StudySteps(session, study)
        results, failures = run_study(session, steps, started)
        refuse_incomplete(failures, results)
        rescoring = _rescoring(session, steps)
        worked = any(entry.blocks for entry in session.ledger)
    write_report(results, study.report, output)
    _print(results, rescoring, output, config.json, worked)
    report_index, seconds = _report(config, output), time.perf_counter() - started
    print_line(f"Done in {seconds:.0f} s.", config.json)
    return {
        **results.plain(),
        "rescoring": rescoring.plain(),
        "softmax_val": trained["accuracy"],
        "report": report_index,
        "seconds": seconds,
    }
