"""Options of the commands that do one step of a study."""

from __future__ import annotations

from dataclasses import dataclass, field

from regroup_pipelines.configs.options import (
    AttackOptions,
    BankOptions,
    ClusterOptions,
    GapOptions,
    ModelOptions,
    SignsName,
    VotingOptions,
)


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ClusterOptions):
    """Index a dataset: a row an image with its id, label and digest.

    Example: regroup index-dataset --store runs --dataset imagefolder:photos/val
    """

    dataset: str
    """digits, digits:train, digits:val, imagefolder:PATH (class folders), parquet:GLOB (Hugging
    Face), webdataset:GLOB (tar shards; {000..146} names a range), or imagenet:train:PATH and
    imagenet:val:PATH: ILSVRC 2012 with its class folders, as Kaggle has it, or in the untouched
    archives. PATH and GLOB may be s3:// URIs."""
    name: str | None = None
    """Name of the index (default: from the dataset)."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(ClusterOptions, ModelOptions, GapOptions):
    """Extract the features of a dataset: one forward pass an image, kept for ever.

    Example: regroup extract --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors
    """

    dataset: str
    """digits:val, imagefolder:PATH, imagenet:val:PATH, ... (see index-dataset)."""


@dataclass(frozen=True, kw_only=True)
class BuildBankConfig(ClusterOptions, ModelOptions, GapOptions, BankOptions):
    """Build the class-conditional mixtures of every voter from clean training images.

    Example: regroup build-bank --store runs --dataset digits:train --model digits-cnn
    --weights digits-cnn.safetensors --per-class 50
    """

    dataset: str
    """Training images: digits:train, imagenet:train:PATH, ... (see index-dataset)."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig(ClusterOptions, ModelOptions, GapOptions, AttackOptions):
    """Attack a dataset's correctly classified images and store the adversarials.

    Example: regroup attack --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors --protocol minimal --epsilon 4/255 --limit 200
    """

    dataset: str
    """Images to attack: digits:val, imagenet:val:PATH, ... (see index-dataset)."""
    parameters: tuple[str, ...] = ()
    """Parameters of the attack's own, as KEY=VALUE ..."""
    list: bool = False
    """Print every attack and preset, with what it needs and costs, and do nothing else."""
    block_rows: int = 0
    """Samples a block (default: of the attack by its cost, of the features 256)."""


@dataclass(frozen=True, kw_only=True)
class AttackListConfig:
    """Print every attack and every preset, with what it needs and costs.

    Example: regroup attack --list
    """

    list: bool = False
    """Print the attacks and the presets."""
    json: bool = False
    """Print them as JSON on standard output."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ClusterOptions, ModelOptions, GapOptions, VotingOptions):
    """Accuracy of softmax and REGroup on a dataset and on stored adversarials of it.

    Example: regroup evaluate --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors --bank digits-train-digits-cnn
    --adversarials digits-val-digits-cnn-pgd-minimal
    """

    dataset: str
    """Clean images: digits:val, imagefolder:PATH, imagenet:val:PATH, ... (see index-dataset)."""
    bank: str
    """The bank: its name, name-fingerprint, or the start of its fingerprint."""
    adversarials: tuple[str, ...] = field(default=())
    """Stored adversarials to evaluate as well."""
    k: int | None = None
    """How many of the last taps vote (default: the paper's 75 % rule on the clean images)."""
    signs: SignsName = "both"
    """Which voters of a tap count."""
    threshold: float = 0.75
    """The rule's threshold on a tap's own accuracy."""
