"""Data of the vote explorer: the outcome of every attacked sample, some with pictures and ranks.

Which samples have pictures depends on the seed and the samples' ids alone, so that attacks on the
same images show the same samples. How many depends on the bytes that the report may take.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from regroup_pipelines.json_types import JsonObject
from regroup_pipelines.report_pages.evaluation import Missing, or_missing
from regroup_pipelines.report_pages.outcomes import outcomes_of
from regroup_pipelines.report_pages.pictures import (
    SMALLEST_SHOWN,
    AttackedPictures,
    difference,
    open_clean_images,
)
from regroup_pipelines.report_pages.points import VotingRule, rule_of
from regroup_pipelines.report_pages.voters import read_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation, ReportedStudy
    from regroup_pipelines.report_pages.outcomes import Outcomes
    from regroup_pipelines.report_pages.pictures import Album, CleanPictures
    from regroup_pipelines.results.records import AttackedImages

# Maximum number of listed rows, over all attacks and evaluations, and the bytes of one.
ROWS_LISTED, ROW_BYTES = 40_000, 110
# Bytes of the page without samples; of a shown sample, in the page and in the report's list of
# files; and of each of its taps in every evaluation (ranks, winners and points).
PAGE_BYTES, SAMPLE_BYTES, TAP_BYTES = 20_000, 700, 90
# Samples whose pictures are read together, ordered by block.
READ_TOGETHER = 16
_COLUMNS = (
    "label", "success", "adversarial", "clean_softmax", "attacked_softmax", "clean_regroup",
    "attacked_regroup", "clean_rank", "attacked_rank",
)  # fmt: skip


@dataclass
class Explorer:
    """Collects the data of the explorer's page.

    Attributes:
        study: the study.
        album: writes the pictures.
        images: maximum number of samples with pictures and ranks, over all attacks.
        seed: seed of their choice.
        notes: what the page leaves out and why, one line each.
    """

    study: ReportedStudy
    album: Album
    images: int
    seed: int
    notes: list[str] = field(default_factory=list)
    _ids: dict[str, int] = field(default_factory=dict)
    _shown: dict[str, int] = field(default_factory=dict)

    def describe(self) -> JsonObject:
        """Return plain JSON for the page's script; samples are given by their position in `ids`."""
        evaluations = [self._evaluation(each) for each in self.study.evaluations]
        data: JsonObject = {"ids": list(self._ids), "evaluations": evaluations}
        size = PAGE_BYTES + len(json.dumps(data, separators=(",", ":")).encode())
        self.album.bytes_left -= size
        data["pictures"] = self._pictures()
        for evaluation, row in zip(self.study.evaluations, evaluations, strict=True):
            for attack, listed in zip(self.study.attacks, row["attacks"], strict=True):
                listed["ranks"] = self._ranks(evaluation, attack)
        notes = list(dict.fromkeys(self.notes))
        return {**data, "notes": notes, "smallest": SMALLEST_SHOWN}

    def shown_line(self) -> str:
        """Say how many of the attacked samples are shown with pictures and ranks."""
        first = self.study.evaluations[:1]
        counts = [
            len(found)
            for each in first
            for attack in self.study.attacks
            if not isinstance(found := self._outcomes(each, attack), Missing)
        ]
        shown, every = sum(self._shown.values()), sum(counts)
        line = f"{shown:,} of {every:,} attacked samples are shown with pictures and every voter's "
        line += f"ranks, drawn with seed {self.seed}; the others by their numbers only."
        if shown < min(every, sum(min(self._wanted, count) for count in counts)):
            line += f" More, up to --images {self.images}, would not fit into the report's 15 MB"
            line += ": a report of this study alone (--study) can hold more."
        return line

    @property
    def _wanted(self) -> int:
        """Samples per attack to show with pictures, if they fit."""
        return -(-self.images // max(len(self.study.attacks), 1))

    @cached_property
    def _listed_per_attack(self) -> int:
        """Rows listed per attack and evaluation; cached before pictures take any bytes."""
        each = len(self.study.attacks) * len(self.study.evaluations)
        rows = min(ROWS_LISTED, max(self.album.bytes_left // 2, 0) // ROW_BYTES)
        return rows // max(each, 1)

    @property
    def _bytes_per_sample(self) -> int:
        taps = sum(len(each.taps) for each in self.study.evaluations)
        return SAMPLE_BYTES + TAP_BYTES * taps

    def _outcomes(
        self, evaluation: ReportedEvaluation, attack: AttackedImages
    ) -> Outcomes | Missing:
        return or_missing(lambda: outcomes_of(evaluation, attack))

    def _evaluation(self, evaluation: ReportedEvaluation) -> JsonObject:
        names = or_missing(lambda: evaluation.class_names)
        if isinstance(names, Missing):
            self.notes.append(f"{evaluation.title}: {names.reason}")
        return {
            "key": evaluation.key,
            "title": evaluation.title,
            "k": evaluation.k,
            "signs": evaluation.signs,
            "rule": self._rule(evaluation).describe(),
            "taps": evaluation.taps,
            "classes": [] if isinstance(names, Missing) else names,
            "attacks": [self._attack(evaluation, row) for row in self.study.attacks],
        }

    def _rule(self, evaluation: ReportedEvaluation) -> VotingRule:
        """Return the rule of the stored votes, or of the settings where the votes are gone."""
        found = or_missing(lambda: rule_of(evaluation.votes("clean")))
        scoring = self.study.settings.scoring
        if isinstance(found, Missing):
            return VotingRule(scoring.rule, None, scoring.tie_break)
        return found

    def _attack(self, evaluation: ReportedEvaluation, attack: AttackedImages) -> JsonObject:
        head = {"name": attack.images, "title": attack.title}
        found = self._outcomes(evaluation, attack)
        if isinstance(found, Missing):
            self.notes.append(f"{evaluation.title}, {attack.images}: {found.reason}")
            return {**head, "samples": [], "columns": {}, "ranks": None}
        listed = self._first(found, self._listed_per_attack)
        if len(listed) < len(found):
            self.notes.append(
                f"{evaluation.title}, {attack.images}: {len(listed)} of {len(found)} samples "
                f"are listed, drawn with seed {self.seed}; every number on other pages is of all."
            )
        positions = [self._ids.setdefault(each, len(self._ids)) for each in listed.sample_ids]
        return {**head, "samples": positions, "columns": _numbers(listed), "ranks": None}

    def _first(self, outcomes: Outcomes, count: int) -> Outcomes:
        """Return the first samples in seeded order."""
        return outcomes.take(by_seed(outcomes.sample_ids, self.seed)[:count])

    def _ranks(self, evaluation: ReportedEvaluation, attack: AttackedImages) -> Any:
        """Return the ranks of the shown samples, clean and attacked; None where they are gone."""
        outcomes = self._outcomes(evaluation, attack)
        count = min(self._shown.get(attack.images, 0), self._listed_per_attack)
        if isinstance(outcomes, Missing) or not count or not len(outcomes):
            return None
        shown, clean = self._first(outcomes, count), evaluation.study.clean_images_of(attack).images
        rows = {clean: shown["clean_row"], attack.images: shown["attacked_row"]}

        def read() -> JsonObject:
            """Read the ranks on the clean and on the attacked images, as JSON."""
            both = [
                read_ranks(evaluation, images, at, shown["label"], shown["adversarial"])
                for images, at in rows.items()
            ]
            return {
                name: ranks.describe()
                for name, ranks in zip(("clean", "attacked"), both, strict=True)
            }

        found = or_missing(read)
        if isinstance(found, Missing):
            self.notes.append(f"{evaluation.title}, {attack.images}: no ranks: {found.reason}")
        return None if isinstance(found, Missing) else found

    def _pictures(self) -> dict[str, JsonObject]:
        """Write the pictures, each attack's within an equal share of the bytes; return them."""
        found: dict[str, JsonObject] = {}
        attacks = self.study.attacks if self.study.evaluations else []
        for number, attack in enumerate(attacks):
            others = len(attacks) - number - 1
            found[attack.images] = self._pictures_of(attack, others)
            self._shown[attack.images] = len(found[attack.images])
        return found

    def _pictures_of(self, attack: AttackedImages, others: int) -> JsonObject:
        """Write the pictures of an attack; return them by sample id.

        Args:
            attack: the attack.
            others: number of attacks that still need their share of the bytes.
        """
        outcomes = self._outcomes(self.study.evaluations[0], attack)
        made = or_missing(lambda: self.study.adversarials(attack))
        if isinstance(outcomes, Missing) or isinstance(made, Missing):
            return {}
        reserve = self.album.bytes_left * others // (others + 1)
        images = self._clean(attack, made.inputs["model"]), AttackedPictures(made)
        wanted = min(self._wanted, self._listed_per_attack)
        order, found = by_seed(outcomes.sample_ids, self.seed)[:wanted], JsonObject()
        for start in range(0, len(order), READ_TOGETHER):
            for name, pixels, facts in _read(
                outcomes, order[start : start + READ_TOGETHER], images
            ):
                files = self.album.add(pixels, self._bytes_per_sample, reserve)
                if files is None:
                    return found
                found[name] = {"files": files, **facts}
        return found

    def _clean(self, attack: AttackedImages, model: Any) -> CleanPictures | Missing:
        ref = self.study.clean_images_of(attack).index
        found = or_missing(lambda: open_clean_images(self.study, ref, model["preprocessing"]))
        problem = found.reason if isinstance(found, Missing) else found.problem
        if problem:
            self.notes.append(f"Clean images of {attack.dataset} cannot be read: {problem}")
        return found


def _read(
    outcomes: Outcomes,
    rows: NDArray[np.int64],
    images: tuple[CleanPictures | Missing, AttackedPictures],
) -> Iterator[tuple[str, dict[str, NDArray[np.float32]], JsonObject]]:
    """Yield the id, the pictures and facts about them of some samples, in the order of `rows`.

    They are read in the order of the attacked images, so that each block is read once.
    """
    clean, attacked = images
    read = {}
    for row in sorted(rows.tolist(), key=lambda row: int(outcomes["image_row"][row])):
        name = outcomes.sample_ids[row]
        before = clean if isinstance(clean, Missing) else clean.read(name)
        read[row] = _shown_pixels(before, attacked.read(int(outcomes["image_row"][row])))
    yield from ((outcomes.sample_ids[row], *read[row]) for row in rows.tolist())


def _shown_pixels(
    before: NDArray[np.float32] | Missing, after: NDArray[np.float32] | Missing
) -> tuple[dict[str, NDArray[np.float32]], JsonObject]:
    """Return the pictures that can be read, by kind, and facts about them for the page."""
    both = {"clean": before, "attacked": after}
    pixels = {kind: each for kind, each in both.items() if not isinstance(each, Missing)}
    problems = {kind: each.reason for kind, each in both.items() if isinstance(each, Missing)}
    facts: JsonObject = {"problems": problems}
    if not problems:
        pixels["difference"], facts["gain"] = difference(pixels["clean"], pixels["attacked"])
    if pixels:
        facts["side"] = max(next(iter(pixels.values())).shape[1:])
    return pixels, facts


def by_seed(sample_ids: list[str], seed: int) -> NDArray[np.int64]:
    """Return the samples' rows, (N,) int64, in an order that depends on seed and ids alone."""
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in sample_ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _numbers(outcomes: Outcomes) -> dict[str, list[Any]]:
    """Return the columns as JSON: small integers, and distances with four digits."""
    columns: dict[str, list[Any]] = {
        name: outcomes[name].astype(np.int64).tolist() for name in _COLUMNS
    }
    for name in ("l2", "linf"):
        columns[name] = [float(f"{value:.4g}") for value in outcomes[name]]
    return columns
