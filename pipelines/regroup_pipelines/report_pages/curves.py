"""Accuracy against perturbation size per attack, for softmax and REGroup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.report_pages.outcomes import outcomes_of
from regroup_pipelines.results.base import Accuracy
from regroup_pipelines.results.curve import CurvePoint, curve_of, curve_points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.configs.stored import Size
    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.results.records import AttackedImages
    from regroup_store.format.element import BlockElement

POINTS_SHOWN = 300


@dataclass(frozen=True)
class Curve:
    """Accuracy against the size of an attack's perturbations.

    Attributes:
        attack: name of the attack.
        title: the attack in words.
        size: how perturbations are measured.
        every: number of points of the complete curve.
        points: the points that are shown.
        minimal: whether the attack searched for the smallest perturbation; otherwise the points
            are attacks with several budgets.
    """

    attack: str
    title: str
    size: Size
    every: int
    points: list[CurvePoint]
    minimal: bool


def minimal_curve(evaluation: ReportedEvaluation, attack: AttackedImages) -> Curve:
    """Return the curve of an attack that searched for the smallest perturbation.

    It has at most `POINTS_SHOWN` points. See `or_missing` for the errors.
    """
    made = evaluation.study.adversarials(attack)
    clean = evaluation.votes(evaluation.study.clean_images_of(attack).images)
    attacked = evaluation.votes(attack.images)
    size = measured_in(made)
    curve = curve_of(made, size, clean, attacked, evaluation.signs, evaluation.k)
    points = curve_points(curve)
    last = len(points) - 1
    kept = sorted({round(point) for point in np.linspace(0, last, POINTS_SHOWN)})
    shown = [points[row] for row in kept]
    return Curve(attack.images, attack.title, size, len(points), shown, minimal=True)


def measured_in(adversarials: BlockElement) -> Size:
    """Return how an attack's perturbations are measured: by its norm, or by L2 if it has none."""
    attack: Any = adversarials.inputs["attack"]
    norm: Size = attack["norm"] if attack["norm"] in ("linf", "l2") else "l2"
    return norm


def is_minimal(adversarials: BlockElement) -> bool:
    """Return whether the attack searched for the smallest perturbation."""
    attack: Any = adversarials.inputs["attack"]
    return str(attack["protocol"]) == "minimal"


def budget_family(adversarials: BlockElement) -> tuple[str, ...]:
    """Return a key that attacks share if they differ only in their budget."""
    attack: Any = adversarials.inputs["attack"]
    rest = {key: value for key, value in attack.items() if key != "epsilon"}
    return (str(sorted(rest.items())), str(adversarials.inputs["index"]))


def budget_curve(evaluation: ReportedEvaluation, attacks: list[AttackedImages]) -> Curve:
    """Return the curve of attacks that differ only in epsilon, starting at the clean images.

    All points are over the same attempted samples. See `or_missing` for the errors.
    """
    budgets = [(_epsilon(evaluation, attack), attack) for attack in attacks]
    found = [(size, outcomes_of(evaluation, attack)) for size, attack in sorted(budgets, key=_size)]
    first = found[0][1]
    softmax = int((first["clean_softmax"] == first["label"]).sum())
    points = [_point(0.0, softmax, int(first.regroup_right_clean.sum()), len(first))]
    for size, outcomes in found:
        softmax, regroup = int(outcomes.softmax_right.sum()), int(outcomes.regroup_right.sum())
        points.append(_point(size, softmax, regroup, len(outcomes)))
    names = ", ".join(attack.images for attack in attacks)
    measured = measured_in(evaluation.study.adversarials(attacks[0]))
    return Curve(names, attacks[0].title, measured, len(points), points, minimal=False)


def _size(each: tuple[float, AttackedImages]) -> float:
    return each[0]


def _epsilon(evaluation: ReportedEvaluation, attack: AttackedImages) -> float:
    described: Any = evaluation.study.adversarials(attack).inputs["attack"]
    return float(described["epsilon"])


def _point(size: float, softmax: int, regroup: int, total: int) -> CurvePoint:
    return CurvePoint(
        epsilon=size,
        softmax=Accuracy(correct=softmax, total=total),
        regroup=Accuracy(correct=regroup, total=total),
    )


def families(evaluation: ReportedEvaluation) -> Iterator[tuple[bool, list[AttackedImages]]]:
    """Yield the attacks in groups that share a curve, with whether the curve is minimal.

    An attack that neither has a budget nor minimises (a rotation) has no curve.
    """
    groups: dict[tuple[str, ...], list[AttackedImages]] = {}
    for attack in evaluation.study.attacks:
        made = evaluation.study.adversarials(attack)
        described: Any = made.inputs["attack"]
        if is_minimal(made):
            yield True, [attack]
        elif described.get("epsilon") is not None:
            groups.setdefault(budget_family(made), []).append(attack)
    for attacks in groups.values():
        yield False, attacks
