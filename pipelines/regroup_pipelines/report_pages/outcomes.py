"""Per-sample outcomes: softmax and REGroup on the clean and on the attacked image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.results.blocks import tables
from regroup_store.kinds.votes import PREDICTION, SIGN_CHOICES, TRUE_RANK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
    from regroup_pipelines.results.records import AttackedImages
    from regroup_store.format.element import BlockElement

SIZES = ("l2", "linf")
# An unknown value in an attack's column.
NONE = -1


@dataclass(frozen=True)
class VotedSamples:
    """The N readable samples of a votes element, at one k and sign choice.

    Attributes:
        sample_ids: ids.
        positions: rows within the element, (N,).
        label: true classes, (N,).
        softmax: softmax's predictions, (N,).
        regroup: REGroup's predictions, (N,).
        rank: REGroup's rank of the true class, from 1, (N,).
    """

    sample_ids: list[str]
    positions: NDArray[np.int64]
    label: NDArray[np.int64]
    softmax: NDArray[np.int64]
    regroup: NDArray[np.int64]
    rank: NDArray[np.int64]


def read_votes(votes: BlockElement, k: int, signs: str) -> VotedSamples:
    """Read the votes of every readable sample. Memory: five numbers and an id per sample."""
    choice = (SIGN_CHOICES.index(signs), k - 1)
    names: list[str] = []
    parts = []
    for start, table in tables(votes, ["sample_id", "status", "label", "prediction"]):
        block = start // votes.plan.block_rows
        ok = np.flatnonzero(np.array(table["status"].to_pylist()) == "ok")
        names += table["sample_id"].take(ok).to_pylist()
        label, softmax = (table[name].to_numpy()[ok] for name in ("label", "prediction"))
        decided = [
            votes.read_array(path, block)[ok][:, *choice] for path in (PREDICTION, TRUE_RANK)
        ]
        parts.append(np.stack([ok + start, label, softmax, *decided]).astype(np.int64))
    return VotedSamples(names, *np.concatenate(parts, axis=1))


@dataclass(frozen=True)
class Outcomes:
    """The N samples of an attack whose clean and attacked images both have votes.

    Attributes:
        sample_ids: ids, (N,).
        columns: arrays (N,) by name:
            label: the true class;
            clean_softmax, clean_regroup, attacked_softmax, attacked_regroup: predictions;
            clean_rank, attacked_rank: REGroup's rank of the true class, from 1;
            success: whether the attack succeeded;
            adversarial: the class that softmax gives the attacked image where the attack
            succeeded, else the target (-1: none);
            l2, linf: size of the perturbation;
            clean_row, attacked_row, image_row: the sample's row in the votes on clean images, in
            the votes on attacked images, and in the adversarials.
    """

    sample_ids: list[str]
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def softmax_right(self) -> NDArray[np.bool_]:
        """Whether softmax is right on the attacked image."""
        right: NDArray[np.bool_] = self["attacked_softmax"] == self["label"]
        return right

    @property
    def regroup_right(self) -> NDArray[np.bool_]:
        """Whether REGroup is right on the attacked image."""
        right: NDArray[np.bool_] = self["attacked_regroup"] == self["label"]
        return right

    @property
    def regroup_right_clean(self) -> NDArray[np.bool_]:
        """Whether REGroup is right on the clean image."""
        right: NDArray[np.bool_] = self["clean_regroup"] == self["label"]
        return right

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Outcomes:
        """Return some of the samples, in the order of `rows`."""
        return Outcomes(
            [self.sample_ids[row] for row in rows],
            {name: values[np.asarray(rows, np.int64)] for name, values in self.columns.items()},
        )


def outcomes_of(evaluation: ReportedEvaluation, attack: AttackedImages) -> Outcomes:
    """Return the outcome of every sample of an attack, read once; see `or_missing` for errors."""
    key = f"outcomes {attack.images}"
    return evaluation.once(key, lambda: _read_outcomes(evaluation, attack))


def _clean_votes(evaluation: ReportedEvaluation, images: str) -> VotedSamples:
    """Return the votes on clean images, read once for all attacks on them."""
    k, signs = evaluation.k, evaluation.signs
    return evaluation.once(
        f"votes {images}", lambda: read_votes(evaluation.votes(images), k, signs)
    )


def _read_outcomes(evaluation: ReportedEvaluation, attack: AttackedImages) -> Outcomes:
    clean = _clean_votes(evaluation, evaluation.study.clean_images_of(attack).images)
    attacked = read_votes(evaluation.votes(attack.images), evaluation.k, evaluation.signs)
    made = _made(evaluation.study.adversarials(attack))
    before = {name: row for row, name in enumerate(clean.sample_ids)}
    rows = [
        row for row, name in enumerate(attacked.sample_ids) if name in before and name in made.rows
    ]
    names = [attacked.sample_ids[row] for row in rows]
    first = [before[name] for name in names]
    third = [made.rows[name] for name in names]
    columns = {
        "label": attacked.label[rows],
        **_prefixed("clean", clean, first),
        **_prefixed("attacked", attacked, rows),
        **{name: values[third] for name, values in made.columns.items()},
    }
    return Outcomes(names, columns)


def _prefixed(prefix: str, votes: VotedSamples, rows: list[int]) -> dict[str, NDArray[np.int64]]:
    return {
        f"{prefix}_row": votes.positions[rows],
        f"{prefix}_softmax": votes.softmax[rows],
        f"{prefix}_regroup": votes.regroup[rows],
        f"{prefix}_rank": votes.rank[rows],
    }


@dataclass(frozen=True)
class _Made:
    rows: dict[str, int]
    columns: dict[str, NDArray[Any]]


def _made(adversarials: BlockElement) -> _Made:
    """Read the attack's columns for its readable samples."""
    wanted = ["sample_id", "status", "success", "adversarial_class", "target", *SIZES]
    names: list[str] = []
    parts: dict[str, list[NDArray[Any]]] = {}
    for start, table in tables(adversarials, wanted):
        ok = np.flatnonzero(np.array(table["status"].to_pylist()) == "ok")
        names += table["sample_id"].take(ok).to_pylist()
        for column, values in _columns(table).items():
            parts.setdefault(column, []).append(values[ok])
        parts.setdefault("image_row", []).append(ok + start)
    joined = {column: np.concatenate(values) for column, values in parts.items()}
    return _Made({name: row for row, name in enumerate(names)}, joined)


def _columns(table: Any) -> dict[str, NDArray[Any]]:
    success = np.array(table["success"].fill_null(False).to_pylist(), bool)
    reached, target = (table[name].to_numpy() for name in ("adversarial_class", "target"))
    return {
        "success": success,
        "adversarial": np.where(success & (reached >= 0), reached, target).astype(np.int64),
        **{name: table[name].to_numpy().astype(np.float64) for name in SIZES},
    }
