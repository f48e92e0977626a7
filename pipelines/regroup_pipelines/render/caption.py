"""The caption of an evaluation's tables: a paragraph, and a list of the sets of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.results.base import NOT_RUN
from regroup_pipelines.results.records import AttackNotRun, CleanImages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.results.records import EvaluationResults, StudyResults


def rule_line(results: StudyResults, evaluation: EvaluationResults) -> str:
    """Say how k was chosen."""
    rule, k = evaluation.rule, evaluation.k
    given = results.settings.scoring.k is not None
    chosen = f"k = {k}, given (the rule chooses {rule.k})" if given else f"k = {k}, by the rule"
    end = "." if rule.reached else ", none at the end."
    return (
        f"{chosen}; {rule.count} taps alone reach {100 * rule.threshold:g} % of the correctly "
        f"classified clean images{end}"
    )


def caption(results: StudyResults, evaluation: EvaluationResults) -> str:
    """Describe network, taps, bank and k, and how to read the tables; one sentence per line."""
    settings = results.settings
    bank, drawn = settings.banks[evaluation.bank], evaluation.samples_per_class
    classes = "the dataset's" if settings.model.classes == "dataset" else "all"
    lines = [
        f"Network {settings.model.name}, candidates: {classes} classes; taps: {evaluation.taps}; "
        f"bank {evaluation.bank}: {drawn} correctly classified images per class of "
        f"{bank.dataset}, {bank.weighting} weights, seed {bank.bank_seed}.",
        rule_line(results, evaluation),
        "Brackets: 95 % Wilson intervals. S: the samples whose attack succeeded, #S of them.",
    ]
    return "\n".join(lines)


def image_lines(results: StudyResults) -> Iterator[str]:
    """Yield one line per set of images: its dataset and attack, or why it was not run."""
    for row in results.images:
        subset = None if isinstance(row, CleanImages) else row.subset
        drawn = f"subset {subset} of " if subset else ""
        why = f" **{NOT_RUN}**: {row.reason}" if isinstance(row, AttackNotRun) else ""
        yield f"- {row.images}: {drawn}{row.dataset}, {row.title}.{why}"
