"""Records of how long a prediction takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from regroup_pipelines.results.base import Record


class Spread(Record):
    """The median, lowest and highest value of several rounds."""

    median: float
    low: float
    high: float


class BatchTimes(Record):
    """Seconds per image at one batch size.

    Attributes:
        batch: images per prediction.
        images: images per round.
        softmax: seconds per image of the bare network.
        regroup: seconds per image of REGroup.
        ratio: REGroup's time divided by softmax's.
    """

    batch: int
    images: int
    softmax: Spread
    regroup: Spread
    ratio: Spread


class Timing(Record):
    """How long a prediction takes on a device.

    Attributes:
        device: "cpu" or "cuda".
        machine: facts about the machine.
        words: the machine in words.
        rounds: how often each time was measured.
        times: one entry per batch size.
    """

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
