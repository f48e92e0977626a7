"""The typed records that every table, export, report page and `--json` is made of.

`StudyResults` is what `results.json` holds (docs/results-schema.md). Kinds of rows are types, told
apart by `kind`; a number that is missing is None, never an absent key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field

from regroup_pipelines.results.base import Accuracies, Accuracy, Record
from regroup_pipelines.schema.study import Study

if TYPE_CHECKING:
    from regroup_pipelines.schema.paper_values import MeasureName

RESULTS_VERSION = 2


class WholeSubset(Record):
    """What "over all" counts for an attack on a whole subset (`correct = false`).

    Attributes:
        subset: its name.
        samples: samples of the subset.
        counted: those with an outcome.
        attacked: those of them that count by their attacked image.
        clean: the same samples, by their clean images.
    """

    subset: str
    samples: int
    counted: int
    attacked: int
    clean: Accuracies


class MeasuredImages(Record):
    """A row of the accuracy table.

    Attributes:
        images: what tables call the set of images.
        attempted: readable samples.
        failed: rows without votes.
        success: #S, the samples whose attack succeeded; None for clean images.
        over_all: over the attempted samples, or over a whole subset (see `whole`).
        over_success: over S; None for clean images.
    """

    kind: Literal["measured"] = "measured"
    images: str
    attempted: int
    failed: int
    success: int | None
    k: int
    signs: str
    over_all: Accuracies
    over_success: Accuracies | None = None
    whole: WholeSubset | None = None

    def over(self, group: str) -> Accuracies | None:
        """The accuracies over "all" or over "S"."""
        return self.over_all if group == "all" else self.over_success

    def accuracy(self, group: str, measure: MeasureName) -> Accuracy | None:
        """One measure over a group; None over S for clean images."""
        found = self.over(group)
        return None if found is None else found.of(measure)


class ImagesNotRun(Record):
    """A set of images without numbers, and why."""

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
        votes: whether it is among the last k taps.
    """

    position: int
    tap: str
    votes: bool
    accuracy: dict[str, Accuracy]


class ChosenK(Record):
    """What the rule of k gave; see `regroup.choose_k.KChoice`."""

    k: int
    count: int
    threshold: float
    reached: bool


class Spread(Record):
    """The median of several rounds, and the lowest and the highest."""

    median: float
    low: float
    high: float


class BatchTimes(Record):
    """Seconds per image at one batch size, and REGroup's over softmax's.

    Attributes:
        batch: images per prediction.
        images: images per round.
    """

    batch: int
    images: int
    softmax: Spread
    regroup: Spread
    ratio: Spread


class Timing(Record):
    """How long a prediction takes on a device; `words` describes the machine."""

    kind: Literal["measured"] = "measured"
    device: str
    machine: dict[str, str | int | float | None]
    words: str
    rounds: int
    times: tuple[BatchTimes, ...]


class TimingNotRun(Record):
    """A device that was not timed, and why."""

    kind: Literal["not run"] = "not run"
    device: str
    reason: str


TimingRow = Annotated[Timing | TimingNotRun, Field(discriminator="kind")]


class AttackSummary(Record):
    """An attack's counts, distances and costs.

    Attributes:
        success: #S, verified on the stored images; success_8bit: after rounding to 8 bits.
        claimed_not_verified: successes of the kernel that the stored images do not show.
        mean_l2, median_l2, mean_linf, median_linf: of the perturbations over S, in [0, 1].
        queries, backward_passes: in all; their means and medians are per attempted sample, like
            those of the seconds.
        halved_rows: images at once where a GPU's memory did not hold the batch size.
        missing_blocks: blocks that the element was finalised without.
    """

    # Elements of earlier and later releases may say less or more.
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


class CleanImages(Record):
    """Clean images that were scored; `index`: of their samples."""

    kind: Literal["clean"] = "clean"
    images: str
    dataset: str
    index: str

    @property
    def title(self) -> str:
        """What captions call them."""
        return "clean images"


class AttackedImages(Record):
    """The images of an attack."""

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
        correct: samples of it that the network classifies correctly.
        fewer: classes with fewer samples than were requested, and how many they have.
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
        """`50`, or `41 to 50`."""
        return f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"


class LedgerEntry(Record):
    """What one step did.

    Attributes:
        step: what was made, such as "extract digits-val".
        ref: the element in the store.
        blocks: blocks computed now.
        skipped: blocks that the store already held.
        samples: samples of the blocks computed now.
        failed: failed rows among them.
        forward_passes: samples that went through a classifier, counted in the workers.
        seconds: wall time.
        phases: seconds by phase (read, network, write, ...), summed over the workers.
        peak_rss_bytes: the most memory that one worker had held.
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
    """The entry of a step that found everything in the store."""
    return LedgerEntry(
        step=step, ref=ref, blocks=0, skipped=blocks, samples=0, failed=0, forward_passes=0,
        seconds=seconds,
    )  # fmt: skip


class EvaluationResults(Record):
    """One pair of tap policy and bank.

    Attributes:
        votes: the votes element of every set of images that was scored.
        rule: what the rule of k gave, whatever k is.
        inference_time: None where no table asks for it.
    """

    taps: str
    bank: str
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
        """The accuracy row of a set of images, or None where it was not run."""
        rows = (row for row in self.accuracy if row.images == images)
        return next((row for row in rows if isinstance(row, MeasuredImages)), None)

    def accuracy_of(self, images: str, group: str, measure: MeasureName) -> Accuracy | None:
        """One measure over a group; None where the images were not run."""
        row = self.row(images)
        return None if row is None else row.accuracy(group, measure)

    @property
    def clean(self) -> MeasuredImages:
        """The row of the clean images that choose k, which are always measured."""
        (row,) = [row for row in self.accuracy if row.images == "clean"]
        assert isinstance(row, MeasuredImages)
        return row


class StudyResults(Record):
    """All tables of a study and all that they come from: the content of `results.json`.

    Attributes:
        settings: the study as it was declared.
        forward_passes, seconds, steps: what this run cost; a later run that computes nothing
            leaves those of the run that did.
    """

    schema_version: Literal[2] = 2
    study: str
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
        """The same numbers, without what it cost to compute them."""
        return self.model_copy(update={"forward_passes": 0, "seconds": 0.0, "steps": ()})

    @property
    def unswept(self) -> list[str]:
        """The sets of images other than those of the sweeps, which figure 2 shows."""
        swept = {f"{name}-{n}" for name, s in self.settings.sweeps.items() for n in s.levels}
        return [row.images for row in self.images if row.images not in swept]
