"""Run a study: compute what the store lacks, and store the results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.log import log
from regroup_pipelines.results.stored import damaged_results, keep_results
from regroup_pipelines.study.results import ResultsBuilder

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import StudyResults
    from regroup_pipelines.steps.session import Session
    from regroup_pipelines.study.steps import StudySteps


class StudyIncompleteError(IncompleteError):
    """Some attacks or timings failed (exit status 1).

    Attributes:
        summary: the results of everything else, for --json.
    """

    def __init__(self, message: str, summary: JsonObject) -> None:
        super().__init__(message)
        self.summary = summary


def refuse_incomplete(failures: dict[str, str], results: StudyResults) -> None:
    """Report the parts of a study that failed.

    Raises:
        StudyIncompleteError: there are some.
    """
    if failures:
        first = next(iter(failures.values()))
        raise StudyIncompleteError(
            f"not run: {', '.join(failures)}; the first: {first}", results.plain()
        )


def run_study(
    session: Session, steps: StudySteps, started: float
) -> tuple[StudyResults, dict[str, str]]:
    """Run the missing steps of a study and store its results.

    Args:
        session: store and workers.
        steps: the steps of the study.
        started: when the command began, by `time.perf_counter`.

    Returns:
        The results, and the reasons of the parts of the study that failed, by name.

    Raises:
        SchemaVersionError: the store has results of this study by a later release.
    """
    if problem := damaged_results(session.store, steps.study.name):  # raises before any work
        log(f"{problem}: this run replaces them")
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
    """Run every step, also after an attack or a timing fails; return the reasons by name."""
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
            log(f"{step.label}: {error}\n{step.part}: the study continues without it")
    return failures
