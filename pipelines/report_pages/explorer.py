"""The vote explorer's data: every attacked sample by number, some of them with pictures and ranks.

Which ones depends on the seed and the samples' ids alone, so that attacks on the same images show
the same samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.report_pages.evaluation import Missing, attempt
from pipelines.report_pages.pictures import (
    SMALLEST_SHOWN,
    AttackedImages,
    difference,
    open_clean_images,
)
from pipelines.report_pages.voters import read_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.report_pages.evaluation import Evaluation, Row, Study
    from pipelines.report_pages.outcomes import Outcomes
    from pipelines.report_pages.pictures import Album, CleanImages

# More rows would not fit into 15 MB beside the pictures; the first by the seed are listed.
ROWS_LISTED = 40_000
COLUMNS = (
    "label", "success", "adversarial", "clean_softmax", "attacked_softmax", "clean_regroup",
    "attacked_regroup", "clean_rank", "attacked_rank",
)  # fmt: skip


@dataclass
class Explorer:
    """What the page holds, and what it had to leave out, a line each."""

    study: Study
    album: Album
    images: int
    seed: int
    notes: list[str] = field(default_factory=list)
    _ids: dict[str, int] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Plain JSON for the page's script; lists of samples are places in `ids`."""
        evaluations = [self._evaluation(each) for each in self.study.evaluations]
        return {
            "ids": list(self._ids),
            "evaluations": evaluations,
            "pictures": self._pictures(),
            "notes": list(dict.fromkeys(self.notes)),
            "smallest": SMALLEST_SHOWN,
        }

    @property
    def _listed_an_attack(self) -> int:
        each = len(self.study.attacks) * len(self.study.evaluations)
        return ROWS_LISTED // max(each, 1)

    @property
    def _shown_an_attack(self) -> int:
        return -(-self.images // max(len(self.study.attacks), 1))

    def _evaluation(self, evaluation: Evaluation) -> dict[str, Any]:
        names = attempt(lambda: evaluation.class_names)
        if isinstance(names, Missing):
            self.notes.append(f"{evaluation.title}: {names.reason}")
        return {
            "key": evaluation.key,
            "title": evaluation.title,
            "k": evaluation.k,
            "signs": evaluation.signs,
            "taps": evaluation.taps,
            "classes": [] if isinstance(names, Missing) else names,
            "attacks": [self._attack(evaluation, row) for row in self.study.attacks],
        }

    def _attack(self, evaluation: Evaluation, attack: Row) -> dict[str, Any]:
        head = {"name": attack["images"], "title": attack["title"]}
        found = attempt(lambda: evaluation.outcomes(attack))
        if isinstance(found, Missing):
            self.notes.append(f"{evaluation.title}, {attack['images']}: {found.reason}")
            return {**head, "samples": [], "columns": {}, "ranks": None}
        listed = found.take(by_seed(found.sample_ids, self.seed)[: self._listed_an_attack])
        if len(listed) < len(found):
            self.notes.append(
                f"{evaluation.title}, {attack['images']}: {len(listed)} of {len(found)} samples "
                f"are listed, drawn with seed {self.seed}; every number on other pages is of all."
            )
        return {
            **head,
            "samples": [self._ids.setdefault(each, len(self._ids)) for each in listed.sample_ids],
            "columns": _numbers(listed),
            "ranks": self._ranks(evaluation, attack, listed.take(range(self._shown(listed)))),
        }

    def _shown(self, listed: Outcomes) -> int:
        return min(self._shown_an_attack, len(listed))

    def _ranks(self, evaluation: Evaluation, attack: Row, shown: Outcomes) -> Any:
        """Ranks of the first samples of the list, clean and attacked; None where they are gone."""
        if not len(shown):
            return None
        clean = evaluation.study.clean_of(attack)
        rows = {clean: shown["clean_row"], attack["images"]: shown["attacked_row"]}

        def read() -> dict[str, Any]:
            """The ranks of both sets of images, as JSON; StoreError where they are gone."""
            both = [
                read_ranks(evaluation, images, at, shown["label"], shown["adversarial"])
                for images, at in rows.items()
            ]
            return {
                name: {part: getattr(ranks, part).tolist() for part in ("true", "other", "winners")}
                for name, ranks in zip(("clean", "attacked"), both, strict=True)
            }

        found = attempt(read)
        if isinstance(found, Missing):
            self.notes.append(f"{evaluation.title}, {attack['images']}: no ranks: {found.reason}")
        return None if isinstance(found, Missing) else found

    def _pictures(self) -> dict[str, dict[str, Any]]:
        """Pictures by attack and sample id, of the samples that have ranks."""
        found = {}
        for attack in self.study.attacks if self.study.evaluations else ():
            found[attack["images"]] = self._pictures_of(attack)
        return found

    def _pictures_of(self, attack: Row) -> dict[str, Any]:
        outcomes = attempt(lambda: self.study.evaluations[0].outcomes(attack))
        made = attempt(lambda: self.study.adversarials(attack))
        if isinstance(outcomes, Missing) or isinstance(made, Missing):
            return {}
        order = by_seed(outcomes.sample_ids, self.seed)[: self._shown_an_attack]
        clean, attacked = self._clean(attack, made.inputs["model"]), AttackedImages(made)
        return {
            outcomes.sample_ids[row]: shown
            for row in sorted(order, key=lambda row: int(outcomes["image_row"][row]))
            if (shown := self._picture(outcomes, int(row), clean, attacked)) is not None
        }

    def _clean(self, attack: Row, model: Any) -> CleanImages | Missing:
        refs = {
            row["images"]: row["index"] for row in self.study.results["images"] if "index" in row
        }
        ref = refs[self.study.clean_of(attack)]
        found = attempt(lambda: open_clean_images(self.study, ref, model["preprocessing"]))
        problem = found.reason if isinstance(found, Missing) else found.problem
        if problem:
            self.notes.append(f"Clean images of {attack['dataset']} cannot be read: {problem}")
        return found

    def _picture(
        self,
        outcomes: Outcomes,
        row: int,
        clean: CleanImages | Missing,
        attacked: AttackedImages,
    ) -> dict[str, Any] | None:
        """The files of one sample's pictures; what is missing says why."""
        name = outcomes.sample_ids[row]
        before = clean if isinstance(clean, Missing) else clean.read(name)
        after = attacked.read(int(outcomes["image_row"][row]))
        pixels, told = _shown_pixels(before, after)
        files = self.album.add(pixels)
        if files is None:
            self.notes.append("Some samples have no pictures: those shown fill the room for them.")
            return None
        return {"files": files, **told}


def _shown_pixels(
    before: NDArray[np.float32] | Missing, after: NDArray[np.float32] | Missing
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """The pictures that there are, by kind, and what is to be said of them."""
    both = {"clean": before, "attacked": after}
    pixels = {kind: each for kind, each in both.items() if not isinstance(each, Missing)}
    problems = {kind: each.reason for kind, each in both.items() if isinstance(each, Missing)}
    told: dict[str, Any] = {"problems": problems}
    if not problems:
        pixels["difference"], told["gain"] = difference(pixels["clean"], pixels["attacked"])
    if pixels:
        told["side"] = max(next(iter(pixels.values())).shape[1:])
    return pixels, told


def by_seed(sample_ids: list[str], seed: int) -> NDArray[np.int64]:
    """The samples in an order that depends on the seed and their ids alone: (N,) int64 rows."""
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in sample_ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _numbers(outcomes: Outcomes) -> dict[str, list[Any]]:
    """Columns as JSON: small integers, and distances in four digits."""
    columns: dict[str, list[Any]] = {
        name: outcomes[name].astype(np.int64).tolist() for name in COLUMNS
    }
    for name in ("l2", "linf"):
        columns[name] = [float(f"{value:.4g}") for value in outcomes[name]]
    return columns
