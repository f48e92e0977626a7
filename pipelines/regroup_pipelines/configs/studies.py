"""Options of the commands that run studies, and of training the demo's network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, UseAppendAction

from regroup_pipelines.configs.options import ClusterOptions, GapOptions, StrictOptions


@dataclass(frozen=True, kw_only=True)
class RunConfig(ClusterOptions, GapOptions, StrictOptions):
    """Run the missing steps of a study, a TOML file (docs/studies.md); write tables and figures.

    Example: regroup run mini-imagenet --data /data --dry-run
    """

    study: Positional[str]
    """The study: a file, or the name of a shipped study."""
    store: str = ""
    """The store, a folder or an s3:// URI (default: the study's)."""
    output: str = ""
    """Folder for tables, figures and results.json (default: NAME-results in this folder)."""
    data: str = ""
    """Replaces {data} in the study's datasets and weights (default: the study's)."""
    set: Annotated[tuple[str, ...], UseAppendAction] = field(default=())
    """Change a key of the study: --set datasets.train=imagefolder:PATH --set attacks.pgd.limit=9"""
    dry_run: bool = False
    """Only print every step and how much of it the store holds."""
    block_rows: int = 0
    """Samples per block (default: the study's); attacks that set their own keep it."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ClusterOptions):
    """Run a complete study on the embedded digits: train, bank, two attacks, tables, report.

    Example: regroup demo
    """

    store: str = "demo-store"
    """The store: a folder or an s3:// URI."""
    output: str = "demo-results"
    """Folder for the weights, the tables, the figures and the report."""
    block_rows: int = 128
    """Samples per block."""
    limit: int = 200
    """Correctly classified images per attack."""
    epsilon: str = "32/255"
    """L-infinity budget (budget), and first epsilon tried (minimal)."""
    seed: int = 0
    """Seed of training, of the bank and of the attacks."""


@dataclass(frozen=True, kw_only=True)
class TrainDemoModelConfig:
    """Train digits-cnn on digits:train and save its weights (seconds on two cores).

    Example: regroup train-demo-model --output digits-cnn.safetensors
    """

    store: str | None = None
    """A store: the weights are saved in it as weights/digits-cnn.safetensors."""
    output: str | None = None
    """A file (.safetensors) to save the weights to instead; an existing file is kept."""
    seed: int = 0
    """Seed of initialisation and shuffling."""
    json: bool = False
    """Print a machine-readable summary on standard output."""
