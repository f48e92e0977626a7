"""The typed records behind every table, export, report page and `--json`.

`StudyResults` is the content of `results.json` (docs/results-schema.md). Each kind of row is a type
of its own, discriminated by `kind`; a missing number is None, never an absent key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field

from regroup_pipelines.results.base import Accuracies, Accuracy, Name, Record
from regroup_pipelines.results.timings import TimingRow
from regroup_pipelines.schema.study import Study

if TYPE_CHECKING:
    from regroup_pipelines.schema.paper_values import MeasureName

RESULTS_VERSION = 2
# Above this share of samples with useless gradients an attack's success is warned of.
BAD_GRADIENT_SHARE = 0.1


class WholeSubset(Record):
    """The samples behind "over all" for an attack on a subset with `correct = false`.

    Attributes:
        subset: its name.
        samples: samples in the subset.
        counted: samples with an outcome.
        attacked: those among them that count by their attacked image.
        clean: accuracies on the clean images of the same samples.
    """

    subset: str
    samples: int
    counted: int
    attacked: int
    clean: Accuracies


class MeasuredImages(Record):
    """A row of the accuracy table.

    Attributes:
        images: name of the set of images in tables.
        attempted: readable samples.
        failed: rows without votes.
        success: #S, the number of samples whose attack succeeded; None for clean images.
        k: how many of the last taps vote.
        signs: which voters of a tap count.
        over_all: over the attempted samples, or over a whole subset (see `whole`).
        over_success: over S; None for clean images.
        whole: which samples `over_all` counts, for an attack on a whole subset.
    """

    kind: Literal["measured"] = "measured"
    images: str
    attempted: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    success: int | None
    k: int
    signs: str
    over_all: Accuracies
    over_success: Accuracies | None = None
    whole: WholeSubset | None = None

    def over(self, group: str) -> Accuracies | None:
        """Return the accuracies over "all" or over "S"."""
        return self.over_all if group == "all" else self.over_success

    def accuracy(self, group: str, measure: MeasureName) -> Accuracy | None:
        """Return one measure over a group; None over S for clean images."""
        found = self.over(group)
        return None if found is None else found.of(measure)


class ImagesNotRun(Record):
    """A set of images that was not scored, and why."""

    kind: Literal["not run"] = "not run"
    images: str
    reason: str


AccuracyRow = Annotated[MeasuredImages | ImagesNotRun, Field(discriminator="kind")]


class KRow(Record):
    """REGroup's top-1 at one k and sign choice, by set of images: over S where attacked."""

    k: int
    signs: str
    accuracy: dict[str, Accuracy]


class TapRow(Record):
    """One tap alone on the correctly classified clean images, by sign choice.

    Attributes:
        position: from 1, first to last.
        tap: its name.
        votes: whether it is among the last k taps.
        accuracy: top-1 by sign choice.
    """

    position: int
    tap: str
    votes: bool
    accuracy: dict[str, Accuracy]


class ChosenK(Record):
    """The k that the 75 % rule chooses; see `regroup.choose_k.KChoice`."""

    k: int
    count: int
    threshold: Annotated[float, Field(gt=0, le=1)]
    reached: bool


class AttackSummary(Record):
    """An attack's counts, distances and costs.

    Attributes:
        attempted: readable samples.
        failed: samples without an outcome.
        success: #S, verified on the stored images.
        success_8bit: #S after rounding the images to 8 bits.
        claimed_not_verified: successes that the kernel reports and the stored images refute.
        mean_l2: of the perturbations over S, in pixel units of [0, 1]; also `median_l2`,
            `mean_linf` and `median_linf`.
        queries: total of forward passes; `mean_queries` and `median_queries` are per attempted
            sample.
        backward_passes: total; its mean and median are per attempted sample.
        mean_seconds: per attempted sample; also `median_seconds`.
        halved_rows: reduced batch size where the given one did not fit into a GPU's memory.
        missing_blocks: blocks that the element was finalised without.
        gradient_samples: samples of which an input gradient was taken while they were not fooled,
            failed ones too; None: not measured, by an earlier release. 0: the attack takes none.
        zero_gradient_samples: those among them that met a gradient of zeros.
        not_finite_gradient_samples: those that met a gradient with NaN or infinity.
        bad_gradient_samples: those that met either.
        flags: samples by remark of AutoAttack's own checks.
    """

    # Elements of other releases may have fewer or more fields.
    model_config = ConfigDict(frozen=True, extra="ignore")

    attempted: int
    failed: int
    success: int
    success_8bit: int | None = None
    claimed_not_verified: int | None = None
    mean_l2: float | None = None
    median_l2: float | None = None
    mean_linf: float | None = None
    median_linf: float | None = None
    queries: int | None = None
    mean_queries: float | None = None
    median_queries: float | None = None
    backward_passes: int | None = None
    mean_backward_passes: float | None = None
    median_backward_passes: float | None = None
    mean_seconds: float | None = None
    median_seconds: float | None = None
    halved_rows: int | None = None
    missing_blocks: tuple[int, ...] = ()
    gradient_samples: int | None = None
    zero_gradient_samples: int | None = None
    not_finite_gradient_samples: int | None = None
    bad_gradient_samples: int | None = None
    flags: dict[str, int] | None = None

    @property
    def gradients_useless(self) -> bool:
        """Whether gradients were zero or not finite for more than a tenth of the samples."""
        bad, samples = self.bad_gradient_samples or 0, self.gradient_samples or 0
        return bad > BAD_GRADIENT_SHARE * samples


class CleanImages(Record):
    """A set of clean images that was scored.

    Attributes:
        images: its name in tables.
        dataset: the dataset.
        index: ref of the index of its samples.
    """

    kind: Literal["clean"] = "clean"
    images: str
    dataset: str
    index: str

    @property
    def title(self) -> str:
        """Title for captions."""
        return "clean images"


class AttackedImages(Record):
    """A set of images that an attack made.

    Attributes:
        images: its name in tables, that of the attack.
        dataset: the dataset that was attacked.
        title: the attack in words.
        subset: the subset that was attacked, or None.
        adversarials: ref of the element.
        summary: the attack's counts, distances and costs.
    """

    kind: Literal["attack"] = "attack"
    images: str
    dataset: str
    title: str
    subset: str | None = None
    adversarials: str
    summary: AttackSummary


class AttackNotRun(Record):
    """An attack that was declared and not run, and why."""

    kind: Literal["not run"] = "not run"
    images: str
    dataset: str
    title: str
    subset: str | None = None
    reason: str


ImagesRow = Annotated[CleanImages | AttackedImages | AttackNotRun, Field(discriminator="kind")]


class SubsetRow(Record):
    """A subset that attacks ran on.

    Attributes:
        subset: its name.
        index: ref of the index of its samples.
        samples: samples in it.
        correct: samples in it that the network classifies correctly.
        fewer: classes with fewer samples than requested, and how many they have.
    """

    subset: str
    index: str
    samples: int
    correct: int
    fewer: dict[str, int]


class Range(Record):
    """The smallest and the largest of several counts."""

    fewest: int
    most: int

    def __str__(self) -> str:
        """Return `50`, or `41 to 50`."""
        return f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"


class LedgerEntry(Record):
    """The work and the cost of one step.

    Attributes:
        step: what was made, such as "extract digits-val".
        ref: the element in the store.
        blocks: blocks computed in this run.
        skipped: blocks that the store already held.
        samples: samples in the blocks computed.
        failed: failed rows among them.
        forward_passes: samples that went through a classifier, counted in the workers.
        seconds: wall time.
        phases: seconds by phase (read, network, write, ...), summed over the workers.
        peak_rss_bytes: highest peak memory of a worker.
    """

    step: str
    ref: str
    blocks: int
    skipped: int
    samples: int
    failed: int
    forward_passes: int
    seconds: float
    phases: dict[str, float] = Field(default_factory=dict)
    peak_rss_bytes: int = 0


def found_entry(step: str, ref: str, blocks: int, seconds: float) -> LedgerEntry:
    """Return the ledger entry of a step that found everything in the store."""
    return LedgerEntry(
        step=step, ref=ref, blocks=0, skipped=blocks, samples=0, failed=0, forward_passes=0,
        seconds=seconds,
    )  # fmt: skip


class EvaluationResults(Record):
    """The results of one pair of tap policy and bank.

    Attributes:
        taps: the tap policy.
        bank: name of the bank in the study.
        bank_ref: ref of the bank.
        votes: ref of the votes on every set of images that was scored.
        samples_per_class: of the bank.
        k: how many of the last taps vote.
        rule: the k that the rule chooses, also where the study sets k itself.
        accuracy: one row per set of images.
        accuracy_against_k: one row per k and sign choice.
        tap_accuracy: one row per tap.
        inference_time: one row per device; None where the study has no such table.
    """

    taps: Name
    bank: Name
    bank_ref: str
    votes: dict[str, str]
    samples_per_class: Range
    k: int
    rule: ChosenK
    accuracy: tuple[AccuracyRow, ...]
    accuracy_against_k: tuple[KRow, ...]
    tap_accuracy: tuple[TapRow, ...]
    inference_time: tuple[TimingRow, ...] | None = None

    def row(self, images: str | None) -> MeasuredImages | None:
        """Return the accuracy row of a set of images, or None where it was not run."""
        rows = (row for row in self.accuracy if row.images == images)
        return next((row for row in rows if isinstance(row, MeasuredImages)), None)

    def accuracy_of(self, images: str, group: str, measure: MeasureName) -> Accuracy | None:
        """Return one measure over a group; None where the images were not run."""
        row = self.row(images)
        return None if row is None else row.accuracy(group, measure)

    @property
    def clean(self) -> MeasuredImages:
        """The row of the clean images that choose k; these are always measured."""
        (row,) = [row for row in self.accuracy if row.images == "clean"]
        assert isinstance(row, MeasuredImages)
        return row


class StudyResults(Record):
    """All tables of a study and what they are based on: the content of `results.json`.

    A later run that computes nothing keeps the cost of the run that did.

    Attributes:
        study: its name.
        settings: the study as declared.
        subsets: the subsets that attacks ran on.
        images: every set of images, clean ones first.
        evaluations: one entry per pair of tap policy and bank.
        forward_passes: of the run that computed the results.
        seconds: wall time of that run.
        steps: its ledger.
    """

    schema_version: Literal[2] = 2
    study: Name
    settings: Study
    subsets: tuple[SubsetRow, ...] = ()
    images: tuple[ImagesRow, ...]
    evaluations: tuple[EvaluationResults, ...]
    forward_passes: int = 0
    seconds: float = 0.0
    steps: tuple[LedgerEntry, ...] = ()

    @property
    def attacks(self) -> list[AttackedImages | AttackNotRun]:
        """The sets of images that are attacks, run or not."""
        return [row for row in self.images if not isinstance(row, CleanImages)]

    @property
    def signs(self) -> str:
        """Which voters of a tap count."""
        return self.settings.scoring.signs

    def without_cost(self) -> Self:
        """Return the results with an empty cost, to compare the numbers alone."""
        return self.model_copy(update={"forward_passes": 0, "seconds": 0.0, "steps": ()})

    @property
    def unswept(self) -> list[str]:
        """The sets of images that belong to no sweep (figure 2 shows those of sweeps)."""
        swept = {f"{name}-{n}" for name, s in self.settings.sweeps.items() for n in s.levels}
        return [row.images for row in self.images if row.images not in swept]
