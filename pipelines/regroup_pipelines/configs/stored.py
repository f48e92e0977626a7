"""Options of the commands that answer from the store alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg

from regroup_pipelines.configs.options import (
    ClusterOptions,
    SignsName,
    StoreOptions,
    VotingOptions,
    WeightingName,
)


@dataclass(frozen=True, kw_only=True)
class RescoreConfig(ClusterOptions, VotingOptions):
    """Accuracy against k and signs, from stored features: no network, no forward pass.

    Example: regroup rescore --store runs --bank digits-train-digits-cnn --tie-break divergence

    Example: regroup rescore --store runs --bank digits-train-digits-cnn --k 5 --signs both
    --per-class 1 5 10 20 50 --bootstrap 20
    """

    bank: str
    """The bank: its name, name-fingerprint, or the start of its fingerprint."""
    features: tuple[str, ...] = field(default=())
    """Features to score (default: all in the store of the bank's model)."""
    k: tuple[int, ...] = field(default=())
    """Show these k only (default: every k)."""
    signs: tuple[SignsName, ...] = ("both", "positive", "negative")
    """Sign choices to show."""
    per_class: tuple[int, ...] = ()
    """Compare banks of so many samples a class (default: the bank's)."""
    weighting: tuple[WeightingName, ...] = ()
    """Compare banks with these weights of samples (default: the bank's)."""
    bank_seeds: tuple[int, ...] = ()
    """Compare banks of samples drawn by these seeds (default: the bank's)."""
    deltas: tuple[float, ...] = ()
    """Compare these deltas, in banks and samples alike (default: the bank's, and --delta)."""
    bootstrap: int = 0
    """Resample each bank's samples so many times, with replacement: how far accuracy varies with
    the samples that a bank happens to be made of."""


Size = Literal["linf", "l2", "mse"]


@dataclass(frozen=True, kw_only=True)
class CurveConfig(ClusterOptions, VotingOptions):
    """Softmax's and REGroup's accuracy against perturbation size, from stored votes.

    Example: regroup curve --store runs --bank digits-train-digits-cnn
    --adversarials digits-val-digits-cnn-pgd-minimal
    """

    bank: str
    """The bank: its name, name-fingerprint, or the start of its fingerprint."""
    adversarials: str
    """Stored adversarials of protocol minimal, evaluated before."""
    k: int | None = None
    """How many of the last taps vote (default: the paper's 75 % rule on the clean images)."""
    signs: SignsName = "both"
    """Which voters of a tap count."""
    threshold: float = 0.75
    """The rule's threshold on a tap's own accuracy."""
    size: Size | None = None
    """How perturbations are measured: linf, l2 or mse (default: the attack's norm)."""
    points: int = 12
    """Rows of the table, spread over the samples (a file and --json hold every epsilon)."""
    output: str = ""
    """A CSV file for the whole curve."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoreOptions):
    """Write a static report of a store's studies: tables, curves, vote explorer, cost.

    Example: regroup report --store demo-store -o report
    """

    output: Annotated[str, arg(aliases=["-o"])] = "report"
    """Folder of the report; one that is there is replaced, anything else refused."""
    study: str = ""
    """Only this study (default: all in the store)."""
    images: int = 200
    """Attacked samples of a study that are shown in pictures and with every voter's ranks; fewer
    where a report of several studies would pass 15 MB."""
    seed: int = 0
    """Seed of the choice of those samples."""


FormatName = Literal["parquet", "csv"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StoreOptions):
    """Write every sample of a study, a row each, as Parquet and CSV (docs/exports.md).

    Example: regroup export --store runs --study mini-imagenet -o exports --format parquet
    """

    study: str
    """The study: its name, as `regroup run` left its results in the store."""
    output: Annotated[str, arg(aliases=["-o"])]
    """Folder for STUDY-samples.parquet and STUDY-samples.csv."""
    format: tuple[FormatName, ...] = ("parquet", "csv")
    """What to write."""
