"""The results of a study as plain JSON, from the summaries of its votes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.results.accuracy import Accuracy, accuracy_row, k_rows, rule_of_k
from regroup_pipelines.results.attack_summary import tell_attack
from regroup_pipelines.results.whole_subset import whole_subset
from regroup_pipelines.steps.inference_time import DEVICES
from regroup_pipelines.study.steps import check_k
from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from regroup.choose_k import KChoice
    from regroup_pipelines.schema.study import Study
    from regroup_pipelines.study.steps import StudySteps
    from regroup_store.format.element import BlockElement


@dataclass
class Results:
    """What came of a study's steps.

    `failures`: why an attack's images, or their votes, are not there, by attack; or a timing, by
    its step.
    """

    steps: StudySteps
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """What was asked for."""
        return self.steps.study

    def describe(self) -> dict[str, Any]:
        """All tables and all that they come from, as JSON."""
        evaluations = [self._evaluation(policy, bank) for policy, bank in self.steps.evaluations]
        return {
            "study": self.study.name,
            "settings": asdict(self.study),
            "subsets": self._subsets(),
            "images": [self._images(name) for name in self._names],
            "evaluations": evaluations,
        }

    @property
    def _names(self) -> list[str]:
        return [*self.study.clean, *self.study.attacks]

    def _why_not(self, name: str) -> str | None:
        """Why there are no numbers of these images, or None where there are."""
        attack = self.study.attacks.get(name)
        if attack is not None and attack.skip:
            return "the study skips it"
        return self.failures.get(name)

    def _subsets(self) -> list[dict[str, Any]]:
        """Every subset that an attack was run on; `fewer`: samples of classes with too few."""
        used = {
            attack.subset: None
            for name, attack in self.study.attacks.items()
            if attack.subset is not None and not self._why_not(name)
        }
        drawn = {name: self.steps.subset(name) for name in used}
        return [
            {
                "subset": name,
                "index": each.index.ref,
                "samples": each.index.rows_count,
                "correct": each.attacked.rows_count,
                "fewer": each.fewer,
            }
            for name, each in drawn.items()
        ]

    def _images(self, name: str) -> dict[str, Any]:
        attack, why = self.study.attacks.get(name), self._why_not(name)
        if attack is None:
            dataset = self.study.clean[name]
            return {"images": name, "dataset": dataset, "index": self.steps.index(dataset).ref}
        row = {"images": name, "dataset": self.study.attacked_dataset(name), "title": attack.title}
        if attack.subset is not None:
            row["subset"] = attack.subset
        if why:
            return {**row, "not_run": why}
        made = self.steps.adversarials(name)
        return {**row, "adversarials": made.ref, **tell_attack(made)}

    def _evaluation(self, policy: Any, bank: str) -> dict[str, Any]:
        measured = [name for name in self._names if not self._why_not(name)]
        votes = {name: self.steps.votes(policy, bank, name) for name in measured}
        summaries: dict[str, Any] = {name: v.summary() or {} for name, v in votes.items()}
        stored = self.steps.bank(policy, bank)
        rule, k = self._choose_k(summaries["clean"], len(stored.taps))
        return {
            "taps": policy,
            "bank": bank,
            "bank_ref": stored.ref,
            "votes": {name: element.ref for name, element in votes.items()},
            "samples_a_class": {
                "fewest": int(stored.counts.min()),
                "most": int(stored.counts.max()),
            },
            "k": k,
            "rule": asdict(rule),
            "accuracy": [self._accuracy_row(name, votes, k) for name in self._names],
            "accuracy_against_k": self._k_rows(summaries, len(stored.taps)),
            "tap_accuracy": _tap_rows(summaries["clean"], stored.taps, k),
            **({"inference_time": self._times(policy, bank)} if self.steps.timed else {}),
        }

    def _times(self, policy: Any, bank: str) -> list[dict[str, Any]]:
        """How long a prediction takes, an entry a device; `not_run` where there is no number."""
        try:
            return self.steps.inference_time(policy, bank)
        except IncompleteError as error:
            return [{"device": device, "not_run": str(error)} for device in DEVICES]

    def _choose_k(self, clean: dict[str, Any], taps: int) -> tuple[KChoice, int]:
        rule, k = rule_of_k(clean, self.study.scoring.threshold), self.study.scoring.k
        check_k(k or 1, taps)
        return rule, k or rule.k

    def _accuracy_row(self, name: str, votes: dict[str, BlockElement], k: int) -> dict[str, Any]:
        if name not in votes:
            return {"images": name, "not_run": self._why_not(name)}
        signs = self.study.scoring.signs
        row = accuracy_row(name, votes[name].summary() or {}, k, signs)
        return row | self._whole(name, votes, k, signs)

    def _whole(
        self, name: str, votes: dict[str, BlockElement], k: int, signs: str
    ) -> dict[str, Any]:
        """What stands in the row of an attack on a whole subset instead: see `whole_subset`."""
        attack = self.study.attacks.get(name)
        subset = attack.subset if attack else None
        if subset is None or self.study.subsets[subset].correct:
            return {}
        dataset = self.study.subsets[subset].dataset
        clean = next(each for each, of in self.study.clean.items() if of == dataset)
        index = self.steps.subset(subset).index
        return whole_subset(index, votes[clean], votes[name]).describe(subset, k, signs)

    def _k_rows(self, summaries: dict[str, Any], taps: int) -> list[dict[str, Any]]:
        return k_rows(summaries, list(range(1, taps + 1)), SIGN_CHOICES)


def _tap_rows(clean: dict[str, Any], taps: tuple[str, ...], k: int) -> list[dict[str, Any]]:
    """Each tap alone over the correctly classified clean samples, first to last, every signs."""
    group = clean["correct"]
    return [
        {
            "position": position + 1,
            "tap": tap,
            "votes": position >= len(taps) - k,
            **{
                signs: Accuracy(group["tap_top1"][signs][position], group["n"]).describe()
                for signs in SIGN_CHOICES
            },
        }
        for position, tap in enumerate(taps)
    ]
