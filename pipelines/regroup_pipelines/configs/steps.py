"""Options of the commands that do one step of a study."""

from __future__ import annotations

from dataclasses import dataclass, field

from regroup_pipelines.configs.options import (
    AttackOptions,
    BankOptions,
    ClusterOptions,
    DatasetOptions,
    GapOptions,
    ModelOptions,
    SignsName,
    StrictOptions,
    VotingOptions,
)


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ClusterOptions, DatasetOptions):
    """Index a dataset: one row per image with its id, label and digest.

    Example: regroup index-dataset --store runs --dataset imagefolder:photos/val
    """

    dataset: str
    """digits, digits:train, digits:val, imagefolder:PATH (class folders), parquet:GLOB (Hugging
    Face), webdataset:GLOB (tar shards; {000..146} is a range), or imagenet:train:PATH and
    imagenet:val:PATH: ILSVRC 2012 as class folders, as on Kaggle, or as the original archives. PATH
    and GLOB may be s3:// URIs."""
    name: str | None = None
    """Name of the index (default: from the dataset)."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(ClusterOptions, DatasetOptions, ModelOptions, GapOptions):
    """Extract the features of a dataset: one forward pass per image, stored and reused.

    Example: regroup extract --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors
    """

    dataset: str
    """digits:val, imagefolder:PATH, imagenet:val:PATH, ... (see index-dataset)."""


@dataclass(frozen=True, kw_only=True)
class BuildBankConfig(ClusterOptions, DatasetOptions, ModelOptions, GapOptions, BankOptions):
    """Build the class-conditional mixtures of every voter from clean training images.

    Example: regroup build-bank --store runs --dataset digits:train --model digits-cnn
    --weights digits-cnn.safetensors --per-class 50
    """

    dataset: str
    """Training images: digits:train, imagenet:train:PATH, ... (see index-dataset)."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig(
    ClusterOptions, DatasetOptions, ModelOptions, GapOptions, AttackOptions, StrictOptions
):
    """Attack the correctly classified images of a dataset and store the adversarials.

    Example: regroup attack --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors --protocol minimal --epsilon 4/255 --limit 200
    """

    dataset: str
    """Images to attack: digits:val, imagenet:val:PATH, ... (see index-dataset)."""
    parameters: tuple[str, ...] = ()
    """Parameters specific to the attack, as KEY=VALUE ..."""
    list: bool = False
    """Only print every attack and preset, with requirements and cost."""
    block_rows: int = 0
    """Samples per block (default: for the attack from its cost, for features 256)."""


@dataclass(frozen=True, kw_only=True)
class AttackListConfig:
    """Print every attack and every preset, with requirements and cost.

    Example: regroup attack --list
    """

    list: bool = False
    """Print the attacks and the presets."""
    json: bool = False
    """Print them as JSON on standard output."""


@dataclass(frozen=True, kw_only=True)
class DefensesConfig:
    """Print every defense: its source, what an attacker differentiates, what it needs, its options.

    Example: regroup defenses --list
    """

    list: bool = False
    """Print the defenses, which the command does without this option as well."""
    json: bool = False
    """Print them as JSON on standard output."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(
    ClusterOptions, DatasetOptions, ModelOptions, GapOptions, VotingOptions, StrictOptions
):
    """Print the accuracy of softmax and REGroup on a dataset and on stored adversarials of it.

    Example: regroup evaluate --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors --bank digits-train-digits-cnn
    --adversarials digits-val-digits-cnn-pgd-minimal
    """

    dataset: str
    """Clean images: digits:val, imagefolder:PATH, imagenet:val:PATH, ... (see index-dataset)."""
    bank: str
    """Name, name-fingerprint or start of the fingerprint of the bank."""
    adversarials: tuple[str, ...] = field(default=())
    """Stored adversarials to evaluate as well."""
    k: int | None = None
    """How many of the last taps vote (default: the paper's 75 % rule on the clean images)."""
    signs: SignsName = "both"
    """Which voters of a tap count."""
    threshold: float = 0.75
    """Threshold of the rule on each tap's own accuracy."""
