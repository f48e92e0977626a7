"""Run a study: do what the store does not hold yet of it, and write its tables and figures."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.log import log
from regroup_pipelines.study.results import Results
from regroup_store.kinds.studies import read_study, studies, write_study

if TYPE_CHECKING:
    from regroup_pipelines.steps.session import Session
    from regroup_pipelines.study.steps import StudySteps


COST = ("forward_passes", "seconds", "steps")


class StudyIncompleteError(IncompleteError):
    """Some attacks could not be run (exit status 1); `summary` holds what was measured."""

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


def refuse_failures(results: Results, described: dict[str, Any]) -> None:
    """Raise `StudyIncompleteError` where a part of the study could not be made."""
    if results.failures:
        names = ", ".join(results.failures)
        first = next(iter(results.failures.values()))
        raise StudyIncompleteError(f"not run: {names}; the first: {first}", described)


def run_study(
    session: Session, steps: StudySteps, started: float
) -> tuple[Results, dict[str, Any]]:
    """Do what is missing of a study, and leave its results, returned as JSON too, in the store.

    `started`: when the job was, by `time.perf_counter`.
    """
    results = Results(steps, _make(steps))
    described = {**results.describe(), **_cost(session, started)}
    _keep(described, session)
    return results, described


def _make(steps: StudySteps) -> dict[str, str]:
    """Make every element; an attack that fails leaves the others to go on: why, by its name.

    So does a timing that fails.
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


def _cost(session: Session, started: float) -> dict[str, Any]:
    passes = sum(entry.forward_passes for entry in session.ledger)
    cost = (passes, time.perf_counter() - started, session.summary())
    return dict(zip(COST, cost, strict=True))


def _keep(results: dict[str, Any], session: Session) -> None:
    """Leave the results in the store, unless they are there: what they cost was told then."""
    name, results = results["study"], json.loads(json.dumps(results))
    kept = read_study(session.store, name) if name in studies(session.store) else {}
    if any(kept.get(key, "") != value for key, value in results.items() if key not in COST):
        write_study(session.store, name, results)
