"""Build the results of a study from the summaries of its votes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from regroup.bank import SIGN_CHOICES
from regroup_pipelines.errors import IncompleteError
from regroup_pipelines.results.accuracy import accuracy_row, chosen_k, k_rows, tap_rows
from regroup_pipelines.results.attack_summary import attack_summary
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.results.records import (
    AttackedImages,
    AttackNotRun,
    ChosenK,
    CleanImages,
    EvaluationResults,
    ImagesNotRun,
    MeasuredImages,
    Range,
    StudyResults,
    SubsetRow,
)
from regroup_pipelines.results.timings import TimingNotRun
from regroup_pipelines.results.whole_subset import whole_subset
from regroup_pipelines.steps.inference_time import DEVICES
from regroup_pipelines.study.steps import check_study_k

if TYPE_CHECKING:
    from regroup.choose_k import KChoice
    from regroup_pipelines.configs.options import TapPolicyName
    from regroup_pipelines.results.records import AccuracyRow, ImagesRow
    from regroup_pipelines.results.timings import TimingRow
    from regroup_pipelines.schema.study import Study
    from regroup_pipelines.study.steps import StudySteps
    from regroup_store.format.element import BlockElement


@dataclass
class ResultsBuilder:
    """Builds the results of a study from its finished steps.

    Attributes:
        steps: the steps.
        failures: why an attack (by its name) or a timing (by its step's label) failed.
    """

    steps: StudySteps
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The study as declared."""
        return self.steps.study

    def results(self) -> StudyResults:
        """Return all tables and what they are based on."""
        return StudyResults(
            study=self.study.name,
            settings=self.study,
            subsets=tuple(self._subsets()),
            images=tuple(self._images(name) for name in self._names),
            evaluations=tuple(self._evaluation(*pair) for pair in self.steps.evaluations),
        )

    @property
    def _names(self) -> list[str]:
        return [*self.study.clean, *self.study.attacks]

    def _reason(self, name: str) -> str | None:
        """Return why a set of images was not run, or None where it was."""
        attack = self.study.attacks.get(name)
        if attack is not None and attack.skip:
            return "the study skips it"
        return self.failures.get(name)

    def _subsets(self) -> list[SubsetRow]:
        """Return every subset that an attack ran on."""
        used = {
            attack.subset: None
            for name, attack in self.study.attacks.items()
            if attack.subset is not None and not self._reason(name)
        }
        drawn = {name: self.steps.subset(name) for name in used}
        return [
            SubsetRow(
                subset=name,
                index=each.index.ref,
                samples=each.index.rows_count,
                correct=each.attacked.rows_count,
                fewer=each.fewer,
            )
            for name, each in drawn.items()
        ]

    def _images(self, name: str) -> ImagesRow:
        attack, reason = self.study.attacks.get(name), self._reason(name)
        if attack is None:
            dataset = self.study.clean[name]
            index = self.steps.index(dataset).ref
            return CleanImages(images=name, dataset=dataset, index=index)
        dataset = self.study.attacked_dataset(name)
        title, subset = attack.title, attack.subset
        if reason:
            return AttackNotRun(
                images=name, dataset=dataset, title=title, subset=subset, reason=reason
            )
        made = self.steps.adversarials(name)
        return AttackedImages(
            images=name,
            dataset=dataset,
            title=title,
            subset=subset,
            adversarials=made.ref,
            summary=attack_summary(made),
        )

    def _evaluation(self, policy: TapPolicyName, bank: str) -> EvaluationResults:
        measured = [name for name in self._names if not self._reason(name)]
        votes = {name: self.steps.votes(policy, bank, name) for name in measured}
        summaries = {name: VoteSummary.of(element) for name, element in votes.items()}
        stored, clean = self.steps.bank(policy, bank), summaries["clean"]
        rule, k = self._choose_k(clean, len(stored.taps))
        return EvaluationResults(
            taps=policy,
            bank=bank,
            bank_ref=stored.ref,
            votes={name: element.ref for name, element in votes.items()},
            samples_per_class=Range(fewest=stored.counts.min(), most=stored.counts.max()),
            k=k,
            rule=ChosenK(**asdict(rule)),
            accuracy=tuple(self._accuracy_row(name, votes, k) for name in self._names),
            accuracy_against_k=tuple(
                k_rows(summaries, range(1, len(stored.taps) + 1), SIGN_CHOICES)
            ),
            tap_accuracy=tuple(tap_rows(clean, stored.taps, k)),
            inference_time=self._times(policy, bank) if self.steps.timed else None,
        )

    def _times(self, policy: TapPolicyName, bank: str) -> tuple[TimingRow, ...]:
        """Return how long a prediction takes, one row per device."""
        try:
            return tuple(self.steps.inference_time(policy, bank))
        except IncompleteError as error:
            return tuple(TimingNotRun(device=device, reason=str(error)) for device in DEVICES)

    def _choose_k(self, clean: VoteSummary, taps: int) -> tuple[KChoice, int]:
        scoring = self.study.scoring
        check_study_k(scoring.k or 1, taps)
        return chosen_k(clean, scoring.threshold, scoring.k)

    def _accuracy_row(self, name: str, votes: dict[str, BlockElement], k: int) -> AccuracyRow:
        if name not in votes:
            return ImagesNotRun(images=name, reason=self._reason(name) or "")
        row = accuracy_row(name, VoteSummary.of(votes[name]), k, self.study.scoring.signs)
        return self._over_whole_subset(row, votes)

    def _over_whole_subset(
        self, row: MeasuredImages, votes: dict[str, BlockElement]
    ) -> MeasuredImages:
        """Make the row of an attack on a whole subset count all of it; other rows are unchanged."""
        attack = self.study.attacks.get(row.images)
        subset = attack.subset if attack else None
        if subset is None or self.study.subsets[subset].correct:
            return row
        dataset = self.study.subsets[subset].dataset
        clean = next(each for each, of in self.study.clean.items() if of == dataset)
        index = self.steps.subset(subset).index
        return whole_subset(index, votes[clean], votes[row.images]).in_row(row, subset)
