"""Accuracy at every epsilon from the results of one minimising attack, without a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup.robustness_curve import robustness_curve
from regroup_pipelines.errors import UsageError
from regroup_pipelines.results.base import Accuracy, Record
from regroup_pipelines.results.blocks import tables
from regroup_store.kinds.votes import SIGN_CHOICES, TRUE_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup.robustness_curve import RobustnessCurve
    from regroup_pipelines.configs.stored import Size
    from regroup_pipelines.json_types import FlatRow
    from regroup_store.format.element import BlockElement


def choose_size(adversarials: BlockElement, size: Size | None) -> Size:
    """Return the measure of the perturbations of `adversarials`: `size`, or the attack's norm.

    Raises:
        UsageError: the attack does not minimise, or minimises no size and none is given.
    """
    attack: Any = adversarials.inputs["attack"]
    if attack["protocol"] != "minimal":
        raise UsageError(
            f"the adversarials {adversarials.ref} were made under protocol {attack['protocol']}: "
            "only those of protocol minimal are the smallest that were found, and give a curve"
        )
    if size is None and attack["norm"] not in ("linf", "l2"):
        raise UsageError(
            f"the attack {attack['name']} keeps no norm small: say with --size how to measure"
        )
    chosen: Size = size or attack["norm"]
    return chosen


def _right(votes: BlockElement, signs: str, k: int) -> dict[str, bool]:
    """Return by id whether REGroup is correct on each readable sample."""
    found: dict[str, bool] = {}
    for block in range(votes.plan.blocks):
        table = votes.read_table(block, ["sample_id", "status"]).to_pydict()
        right = votes.read_array(TRUE_RANK, block)[:, SIGN_CHOICES.index(signs), k - 1] == 1
        rows = zip(table["sample_id"], table["status"], right.tolist(), strict=True)
        found.update((name, ok) for name, status, ok in rows if status == "ok")
    return found


@dataclass(frozen=True)
class _Attacked:
    """The N readable attacked samples.

    Attributes:
        names: ids.
        sizes: sizes of the perturbations, (N,).
        success: whether the attack succeeded, (N,).
    """

    names: list[str]
    sizes: NDArray[np.float64]
    success: NDArray[np.bool_]


def _attacked(adversarials: BlockElement, size: Size) -> _Attacked:
    names: list[str] = []
    parts: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    for _, table in tables(adversarials, ["sample_id", "status", "success", size]):
        ok = table["status"].to_numpy() == "ok"
        names += [
            name for name, kept in zip(table["sample_id"].to_pylist(), ok, strict=True) if kept
        ]
        success = np.array(table["success"].fill_null(False).to_pylist(), bool)
        parts.append((table[size].to_numpy().astype(np.float64)[ok], success[ok]))
    sizes, success = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Attacked(names, sizes, success)


def curve_of(
    adversarials: BlockElement,
    size: Size,
    clean: BlockElement,
    attacked: BlockElement,
    signs: str,
    k: int,
) -> RobustnessCurve:
    """Compute the curve of `adversarials`.

    Samples without votes on either image are left out.

    Args:
        adversarials: of protocol minimal.
        size: how perturbations are measured.
        clean: votes on the clean images.
        attacked: votes on the attacked images.
        signs: which voters of a tap count.
        k: how many of the last taps vote.
    """
    made = _attacked(adversarials, size)
    before, after = _right(clean, signs, k), _right(attacked, signs, k)
    rows = [row for row, name in enumerate(made.names) if name in before and name in after]
    kept = [made.names[row] for row in rows]
    return robustness_curve(
        made.sizes[rows],
        made.success[rows],
        np.array([before[name] for name in kept], bool),
        np.array([after[name] for name in kept], bool),
    )


class CurvePoint(Record):
    """Both accuracies at one size of the perturbation.

    Attributes:
        epsilon: the size, in pixel units of [0, 1]; an L2 distance may be larger.
        broken: samples whose smallest perturbation found is at most epsilon; None: unknown.
        softmax: accuracy of softmax.
        regroup: accuracy of REGroup.
    """

    epsilon: float
    broken: int | None = None
    softmax: Accuracy
    regroup: Accuracy

    def flat(self) -> FlatRow:
        """Return the point as a row of CSV."""
        row: FlatRow = {"epsilon": self.epsilon, "total": self.softmax.total}
        for name, cell in (("softmax", self.softmax), ("regroup", self.regroup)):
            low, high = cell.interval95
            row |= {f"{name}_correct": cell.correct, f"{name}_low": low, f"{name}_high": high}
        return row


def curve_points(curve: RobustnessCurve) -> list[CurvePoint]:
    """Return one point per epsilon of a curve."""
    columns = (curve.epsilons, curve.broken, curve.softmax, curve.regroup)
    return [
        CurvePoint(
            epsilon=epsilon,
            broken=broken,
            softmax=Accuracy(correct=softmax, total=curve.total),
            regroup=Accuracy(correct=regroup, total=curve.total),
        )
        for epsilon, broken, softmax, regroup in zip(*(c.tolist() for c in columns), strict=True)
    ]
