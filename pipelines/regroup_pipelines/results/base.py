"""The base class of records, and the accuracies that most of them hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from regroup.intervals import wilson

if TYPE_CHECKING:
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.schema.paper_values import MeasureName

NOT_RUN = "not run"


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A name that becomes a part of files and links: a stored one is not trusted to be harmless."""


class Record(BaseModel):
    """A frozen record; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plain(self) -> JsonObject:
        """Return the record as plain JSON, with keys as in study files."""
        return self.model_dump(mode="json", by_alias=True)


class Accuracy(Record):
    """A proportion of samples with its 95 % Wilson interval, in [0, 1].

    Attributes:
        correct: number of correct samples.
        total: number of samples.
    """

    # Computed fields are written too; reading ignores them.
    model_config = ConfigDict(frozen=True, extra="ignore")

    correct: Annotated[int, Field(ge=0)]
    total: int

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.correct > self.total:
            raise ValueError(f"{self.correct} correct of {self.total}")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accuracy(self) -> float | None:
        """The proportion, or None over no samples."""
        return self.correct / self.total if self.total else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def interval95(self) -> tuple[float, float]:
        """The Wilson interval; (0, 1) over no samples."""
        return wilson(self.correct, self.total)

    def __str__(self) -> str:
        """Return `57.0 % [52.1, 61.8]`, or "-" over no samples."""
        if self.accuracy is None:
            return "-"
        low, high = self.interval95
        return f"{100 * self.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


MEASURES: tuple[MeasureName, ...] = (
    "softmax_top1", "softmax_top5", "regroup_top1", "regroup_top5",
)  # fmt: skip


class Accuracies(Record):
    """Softmax's and REGroup's accuracy over one group of samples."""

    softmax_top1: Accuracy
    softmax_top5: Accuracy
    regroup_top1: Accuracy
    regroup_top5: Accuracy

    def of(self, measure: MeasureName) -> Accuracy:
        """Return one of the four by name."""
        found: Accuracy = getattr(self, measure)
        return found
