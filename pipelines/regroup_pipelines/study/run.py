"""Run a study: do what the store does not hold yet of it, and keep its results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.log import log
from regroup_pipelines.results.stored import keep_results
from regroup_pipelines.study.results import ResultsBuilder

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import StudyResults
    from regroup_pipelines.steps.session import Session
    from regroup_pipelines.study.steps import StudySteps


class StudyIncompleteError(IncompleteError):
    """Some attacks could not be run (exit status 1); `summary` holds what was measured."""

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


def refuse_incomplete(failures: dict[str, str], results: StudyResults) -> None:
    """Raise `StudyIncompleteError` where a part of the study could not be made."""
    if failures:
        first = next(iter(failures.values()))
        raise StudyIncompleteError(
            f"not run: {', '.join(failures)}; the first: {first}", results.plain()
        )


def run_study(
    session: Session, steps: StudySteps, started: float
) -> tuple[StudyResults, dict[str, str]]:
    """Do what is missing of a study, and keep its results in the store.

    Args:
        started: when the command began, by `time.perf_counter`.

    Returns:
        The results, and why parts of the study failed, by their names.
    """
    failures = _make(steps)
    cost = {
        "forward_passes": sum(entry.forward_passes for entry in session.ledger),
        "seconds": time.perf_counter() - started,
        "steps": tuple(session.ledger),
    }
    results = ResultsBuilder(steps, failures).results().model_copy(update=cost)
    keep_results(session.store, results)
    return results, failures


def _make(steps: StudySteps) -> dict[str, str]:
    """Make every element; the reasons of attacks and timings that fail, by name.

    The rest of the study is still made.
    """
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
