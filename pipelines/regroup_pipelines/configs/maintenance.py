"""Options of the commands that show and maintain what a store holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from regroup_pipelines.configs.options import StoreOptions


@dataclass(frozen=True, kw_only=True)
class LsConfig(StoreOptions):
    """List what a store holds: kind, name and fingerprint, rows, blocks, state, size.

    Example: regroup ls --store runs
    """

    reasons: bool = False
    """Print why blocks failed."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(StoreOptions):
    """Print an element's manifest, and what it was made from, as trees.

    Example: regroup inspect banks/digits-train-digits-cnn --store runs --children
    """

    ref: Positional[Annotated[str, arg(metavar="REF")]]
    """Name, name-fingerprint or start of the fingerprint of the element; where these are ambiguous
    after its kind, as in features/NAME."""
    children: bool = False
    """Also print what was made from it."""


@dataclass(frozen=True, kw_only=True)
class DiffConfig(StoreOptions):
    """Print the settings that differ between two elements of one kind and between their parents.

    Example: regroup diff features/digits-val-digits-cnn 3f9c --store runs --store-b other-runs
    """

    a: Positional[Annotated[str, arg(metavar="A")]]
    """Name, name-fingerprint or start of the fingerprint of one element; where these are ambiguous
    after its kind, as in features/NAME."""
    b: Positional[Annotated[str, arg(metavar="B")]]
    """The other element, of the same kind."""
    store_b: str | None = None
    """The store of the other element (default: --store)."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StoreOptions):
    """Compare everything in the store with its checksums; exit status 1 if anything is damaged.

    Example: regroup verify --store runs
    """

    refs: Positional[tuple[str, ...]] = ()
    """Elements to check: name, name-fingerprint or start of a fingerprint; where these are
    ambiguous after the kind, as in features/NAME (default: everything)."""


@dataclass(frozen=True, kw_only=True)
class RepairConfig(StoreOptions):
    """Remove the commit records of damaged blocks, so that the next run computes only these.

    Example: regroup repair --store runs --dry-run
    """

    refs: Positional[tuple[str, ...]] = ()
    """Elements to repair: name, name-fingerprint or start of a fingerprint; where these are
    ambiguous after the kind, as in features/NAME (default: everything)."""
    dry_run: bool = False
    """Only print what would be done."""


@dataclass(frozen=True, kw_only=True)
class GcConfig(StoreOptions):
    """List, or with --delete remove, what no study's results and no --keep refer to (docs/cli.md).

    Example: regroup gc --store runs --keep digits-train-digits-cnn --delete
    """

    keep: Annotated[tuple[str, ...], UseAppendAction] = field(default=())
    """An element to keep with all that it was made from: a name (every element of that name),
    name-fingerprint or start of a fingerprint; may be given several times."""
    unfinished: bool = False
    """Include unfinished work: incomplete elements, and elements made by runs that were
    stopped."""
    delete: bool = False
    """Remove the listed elements after a confirmation."""
    yes: bool = False
    """Do not ask for confirmation."""
