"""Options that several commands share. Importing this loads no torch, ray or zarr."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TapPolicyName = Literal["preactivation", "linear"]
SignsName = Literal["both", "positive", "negative"]
ClassesName = Literal["all", "dataset"]
LabelsName = Literal["name", "position"]
PrecisionName = Literal["fp32", "bf16", "fp16"]
DecoderOption = Literal["pil", "cuda"]
WeightingName = Literal["softmax", "uniform"]
TieBreakName = Literal["class", "divergence"]
RuleName = Literal["borda", "plurality", "copeland", "median-rank", "weighted-borda"]


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where results are stored and how they are reported."""

    store: str
    """The store: a folder or an s3:// URI."""
    json: bool = False
    """Print a machine-readable summary on standard output; logs go to standard error."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(StoreOptions):
    """How the work is distributed; the defaults use all of this machine."""

    address: str | None = None
    """Ray cluster to join, such as "auto"; without it a local Ray is started."""
    workers: int | Literal["auto"] = "auto"
    """Number of workers; auto: one per GPU share, or without GPUs per CPU share, also on nodes that
    join later."""
    cpus_per_worker: float | None = None
    """CPUs and threads per worker (default: 1; with a GPU its part of the node's, up to 8)."""
    gpus_per_worker: float | None = None
    """GPU share per worker (default: 1 where the cluster has GPUs, else 0)."""
    block_rows: int = 256
    """Samples per block: the unit of work, of writing and of resuming."""
    attempts: int = 3
    """Attempts before a block counts as failed."""
    deadline: float = 3600
    """Time limit of one attempt at a block, in seconds."""
    decode_workers: int | Literal["auto"] = "auto"
    """Threads per worker that decode images ahead of the network (auto: 1; with a GPU all CPUs of
    the worker but one). 0: decode between batches. Results are identical."""
    sample_memory: int = 256
    """Memory that a single image, or a part of a Parquet row group, may cost to read and decode, in
    MB. One that would take more is a failed row."""


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """How a dataset is read."""

    label_column: str | None = None
    """Where parquet: and webdataset: have their labels: a column, an extension, or a field of the
    json (default: label or labels, or the only ClassLabel; cls, or label in the json)."""


def with_label_column(dataset: str, label_column: str | None) -> str:
    """Return the dataset with its column of labels in its name: `parquet[fine_label]:GLOB`."""
    kind, separator, location = dataset.partition(":")
    return f"{kind}[{label_column}]{separator}{location}" if label_column else dataset


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """What to do about failed blocks."""

    allow_missing: bool = False
    """Continue without failed blocks: their samples count as failed."""


@dataclass(frozen=True, kw_only=True)
class StrictOptions:
    """What to do about an attack that cannot work."""

    strict: bool = False
    """Refuse an attack (exit status 1) whose input gradients were zero or not finite for more than
    10 % of the samples that it had not fooled yet, instead of a warning."""


@dataclass(frozen=True, kw_only=True)
class LabelsOptions:
    """What a dataset's labels go by."""

    labels: LabelsName = "name"
    """What labels go by: the names of the dataset's classes and of the model's, or position (label
    0 is the model's class 0, whatever it is called)."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LabelsOptions):
    """Which classifier, with which weights and taps."""

    model: str
    """A torchvision classifier, timm:NAME (also timm:local-dir:PATH, timm:hf-hub:ORG/NAME),
    cifar-resnet20/32/44/56, efficientnet-lite0, digits-cnn, or package.module:factory for your own,
    of an installed package or the working folder."""
    weights: str | None = None
    """A weights enum (IMAGENET1K_V2), a .safetensors, .pth, .pt, .ckpt or .bin file
    (s3://bucket/key too), or "random"."""
    num_classes: int | None = None
    """Number of the network's classes (default: those of the weights file)."""
    resize: int | None = None
    """Size in px of the shorter side before the crop (default: the model's own)."""
    crop: int | None = None
    """Size of the centre crop in px (default: the model's own)."""
    taps: TapPolicyName = "preactivation"
    """Where responses are recorded: preactivation (the paper) or linear (the released demo)."""
    classes: ClassesName = "all"
    """Candidate classes: all classes of the model, or only those of the dataset."""
    dtype: PrecisionName = "fp32"
    """Precision of the network: fp32, or bf16 or fp16 by autocast; accumulators are float32."""
    channels_last: bool = False
    """Keep images and weights in channels-last memory format."""
    tf32: bool = False
    """Let a GPU round float32 products to TF32."""
    decoder: DecoderOption = "pil"
    """JPEG decoder: pil, or cuda (torchvision's nvJPEG, resizing on the GPU too), whose pixels
    differ slightly."""
    batch: int = 64
    """Samples per forward pass."""


@dataclass(frozen=True, kw_only=True)
class BankOptions:
    """How a bank is drawn from training images (paper, eq. 1)."""

    per_class: int = 50
    """Correctly classified training samples per class."""
    weighting: WeightingName = "softmax"
    """Weights of the samples within a class."""
    bank_seed: int = 0
    """Seed of the order in which samples are drawn."""
    expected_accuracy: float = 0.75
    """Expected accuracy on the training images: determines the size of the first round of
    extraction. The drawn samples do not depend on it."""


@dataclass(frozen=True, kw_only=True)
class VotingOptions(LabelsOptions):
    """How features are scored."""

    rule: RuleName = "borda"
    """How the voters' rankings are merged (docs/voting.md): Borda count (the paper's), first
    choices, pairwise majorities, median ranks, or Borda weighted by each tap's clean accuracy."""
    tie_break: TieBreakName = "class"
    """Which of equally ranked classes wins: the smaller index, or the smaller summed divergence."""
    delta: float = 1e-20
    """Added to every accumulator before it becomes a PMF."""
    voting_taps: tuple[str, ...] = ()
    """Names of the taps that may vote (default: all); k then counts among these."""


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Which attack, in which protocol (docs/protocols.md)."""

    attack: str | None = None
    """The attack (default: pgd); `regroup attack --list` names them all."""
    preset: str | None = None
    """A named attack with all its parameters, such as a row of the paper's tables (--list); further
    options override single parameters."""
    norm: str | None = None
    """Norm of the perturbation: linf, l2 or none (default: the attack's)."""
    protocol: Literal["minimal", "budget"] | None = None
    """minimal: smallest perturbation, as the paper's code; budget: full steps in a ball (default:
    the attack's; for pgd: budget)."""
    epsilon: str | None = None
    """Size in [0, 1] pixel units, such as 4/255: the budget, or the start of a search (default: the
    attack's). L2 distances may exceed 1."""
    steps: int | None = None
    """Number of steps or iterations (default: the attack's)."""
    targeted: bool = False
    """Attack towards a random class, drawn per sample by the seed."""
    confidence: float | None = None
    """Softmax probability that a success requires, such as 0.9."""
    growth_limit: int | None = None
    """minimal: maximum number of epsilons to try, each 1.5 times the previous (pgd: 20)."""
    bisections: int | None = None
    """minimal: bisection steps after the first success (pgd: 20)."""
    limit: int | None = None
    """Number of correctly classified samples to attack, drawn by seed (default: all)."""
    seed: int = 0
    """Seed of the drawn samples, of the targets and of every sample's random stream."""
