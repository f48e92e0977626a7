"""Options of the commands that answer from the store alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from regroup_pipelines.configs.options import (
    ClusterOptions,
    SignsName,
    StoreOptions,
    VotingOptions,
    WeightingName,
)


@dataclass(frozen=True, kw_only=True)
class RescoreConfig(ClusterOptions, VotingOptions):
    """Print accuracy against k and signs from stored features: no network, no forward pass.

    Example: regroup rescore --store runs --bank digits-train-digits-cnn --tie-break divergence

    Example: regroup rescore --store runs --bank digits-train-digits-cnn --k 5 --signs both
    --per-class 1 5 10 20 50 --bootstrap 20
    """

    bank: str
    """Name, name-fingerprint or start of the fingerprint of the bank."""
    features: tuple[str, ...] = field(default=())
    """Features to score (default: all features of the bank's model)."""
    k: tuple[int, ...] = field(default=())
    """Show these k only (default: every k)."""
    signs: tuple[SignsName, ...] = ("both", "positive", "negative")
    """Sign choices to show."""
    per_class: tuple[int, ...] = ()
    """Compare banks with these numbers of samples per class (default: the bank's)."""
    weighting: tuple[WeightingName, ...] = ()
    """Compare banks with these weightings of samples (default: the bank's)."""
    bank_seeds: tuple[int, ...] = ()
    """Compare banks drawn with these seeds (default: the bank's)."""
    deltas: tuple[float, ...] = ()
    """Compare these deltas, used for banks and samples (default: the bank's, and --delta)."""
    bootstrap: int = 0
    """Number of bootstrap replicates per bank, its samples drawn with replacement: measures how
    much accuracy varies with the choice of samples."""


Size = Literal["linf", "l2", "mse"]


@dataclass(frozen=True, kw_only=True)
class CurveConfig(ClusterOptions, VotingOptions):
    """Print softmax's and REGroup's accuracy against perturbation size, from stored votes.

    Example: regroup curve --store runs --bank digits-train-digits-cnn
    --adversarials digits-val-digits-cnn-pgd-minimal
    """

    bank: str
    """Name, name-fingerprint or start of the fingerprint of the bank."""
    adversarials: str
    """Stored adversarials of protocol minimal that were evaluated before."""
    k: int | None = None
    """How many of the last taps vote (default: the paper's 75 % rule on the clean images)."""
    signs: SignsName = "both"
    """Which voters of a tap count."""
    threshold: float = 0.75
    """Threshold of the rule on each tap's own accuracy."""
    size: Size | None = None
    """How perturbations are measured: linf, l2 or mse (default: the attack's norm)."""
    points: int = 12
    """Rows of the printed table (--output and --json have every epsilon)."""
    output: str = ""
    """CSV file for the complete curve."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoreOptions):
    """Write a static report of the studies in a store: tables, curves, vote explorer, cost.

    Example: regroup report --store demo-store -o report
    """

    output: Annotated[str, arg(aliases=["-o"])] = "report"
    """Folder of the report; an existing report is replaced, anything else is refused."""
    study: str = ""
    """Only this study (default: all in the store)."""
    dataset: Annotated[tuple[str, ...], UseAppendAction] = field(default=())
    """A dataset whose clean images may be shown, as in `index-dataset`; may be given several times.
    A report reads no other place than the store, whatever the store's indexes name."""
    paper_values: str = ""
    """File of published values to show next to the measured ones. The one that a study names is
    not read."""
    images: int = 200
    """Attacked samples per study to show with pictures and every voter's ranks; fewer where the
    report would exceed 15 MB."""
    seed: int = 0
    """Seed of the choice of these samples."""


FormatName = Literal["parquet", "csv"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StoreOptions):
    """Write one row per sample of a study as Parquet and CSV (docs/exports.md).

    Example: regroup export --store runs --study mini-imagenet -o exports --format parquet
    """

    study: str
    """Name of a study whose results `regroup run` has stored."""
    output: Annotated[str, arg(aliases=["-o"])]
    """Folder for STUDY-samples.parquet and STUDY-samples.csv."""
    format: tuple[FormatName, ...] = ("parquet", "csv")
    """File formats to write."""
