"""Options that several commands share. Importing this loads no torch, ray or zarr."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TapPolicyName = Literal["preactivation", "linear"]
SignsName = Literal["both", "positive", "negative"]
ClassesName = Literal["all", "dataset"]
PrecisionName = Literal["fp32", "bf16", "fp16"]
DecoderOption = Literal["pil", "cuda"]
WeightingName = Literal["softmax", "uniform"]
TieBreakName = Literal["class", "divergence"]
RuleName = Literal["borda", "plurality", "copeland", "median-rank", "weighted-borda"]


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where results live and how they are told."""

    store: str
    """The store: a folder or an s3:// URI."""
    json: bool = False
    """Print a machine-readable summary on standard output; logs go to standard error."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(StoreOptions):
    """How the work is spread; the defaults use the whole of this machine."""

    address: str | None = None
    """Ray cluster to join, such as "auto"; without it a local Ray is started."""
    workers: int | Literal["auto"] = "auto"
    """Workers; auto: one per GPU share, or per CPU share without GPUs, as nodes join and go."""
    cpus_per_worker: float | None = None
    """CPUs and threads of a worker (default: 1; beside a GPU its part of the node's, up to 8)."""
    gpus_per_worker: float | None = None
    """GPU share of each worker (default: 1 where the cluster has GPUs, else 0)."""
    block_rows: int = 256
    """Samples a block: the unit of work, of writing and of resuming."""
    attempts: int = 3
    """Attempts before a block is given up and reported."""
    deadline: float = 3600
    """Seconds that one attempt at a block may take."""
    decode_workers: int | Literal["auto"] = "auto"
    """Threads of a worker that decode images ahead of the network (auto: 1; beside a GPU all CPUs
    of the worker but one). 0: it decodes between its batches. Results are the same."""


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """What becomes of blocks that were given up."""

    allow_missing: bool = False
    """Go on without blocks that were given up: their samples count as failed."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which classifier, with which weights and taps."""

    model: str
    """A torchvision classifier, timm:NAME, cifar-resnet20/32/44/56, efficientnet-lite0, digits-cnn,
    or package.module:factory for your own."""
    weights: str | None = None
    """A weights enum (IMAGENET1K_V2), a .safetensors, .pth or .pt file (s3://bucket/key too), or
    "random"."""
    resize: int | None = None
    """Shorter side is resized to this many px before the crop (default: the model's own)."""
    crop: int | None = None
    """Side of the centre crop in px (default: the model's own)."""
    taps: TapPolicyName = "preactivation"
    """Where responses are recorded: preactivation (the paper) or linear (the released demo)."""
    classes: ClassesName = "all"
    """Candidates: all classes of the model, or only those of the dataset."""
    dtype: PrecisionName = "fp32"
    """What the network computes in: fp32, or bf16 or fp16 by autocast; sums are float32 always."""
    channels_last: bool = False
    """Keep images and weights in channels-last memory format."""
    tf32: bool = False
    """Let a GPU round float32 products to TF32."""
    decoder: DecoderOption = "pil"
    """What decodes JPEGs: pil, or cuda (torchvision's nvJPEG, resized on the GPU too), whose pixels
    differ from PIL's."""
    batch: int = 64
    """Samples a forward pass."""


@dataclass(frozen=True, kw_only=True)
class BankOptions:
    """How a bank is drawn from training images (paper, eq. 1)."""

    per_class: int = 50
    """Correctly classified training samples a class."""
    weighting: WeightingName = "softmax"
    """Weights of the samples of a class."""
    bank_seed: int = 0
    """Seed of the order in which samples are taken."""
    expected_accuracy: float = 0.75
    """Share of the training images that the model is thought to get right: sizes the first round of
    extraction. What is drawn does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class VotingOptions:
    """How features are scored."""

    rule: RuleName = "borda"
    """How the voters' rankings are merged (docs/voting.md): the paper's Borda count, first choices,
    pairwise majorities, median ranks, or Borda weighted by each tap's clean accuracy."""
    tie_break: TieBreakName = "class"
    """Among equal classes: the smaller class index, or the smaller summed divergence."""
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
    """A named attack with all its parameters, such as a row of the paper's tables (--list); the
    options beside it change single ones."""
    norm: str | None = None
    """Which size of the perturbation counts: linf, l2 or none (default: the attack's)."""
    protocol: Literal["minimal", "budget"] | None = None
    """minimal: the smallest perturbation, as the paper's code; budget: full steps in a ball
    (default: the attack's; of pgd: budget)."""
    epsilon: str | None = None
    """Size in [0, 1] pixel units, such as 4/255: the budget, or where a search begins (default: the
    attack's). L2 distances may be above 1."""
    steps: int | None = None
    """Steps or iterations (default: the attack's)."""
    targeted: bool = False
    """Towards a class drawn for each sample by the seed, not just away from its own."""
    confidence: float | None = None
    """Softmax probability that a success takes, such as 0.9."""
    growth_limit: int | None = None
    """minimal: how many epsilons are tried, each 1.5 times the last, before giving up (pgd: 20)."""
    bisections: int | None = None
    """minimal: halvings of the interval after the first success (pgd: 20)."""
    limit: int | None = None
    """Attack this many correctly classified samples, drawn by seed (default: all)."""
    seed: int = 0
    """Seed of the drawn subset, of the targets and of every sample's random stream."""
