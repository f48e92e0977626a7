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
    """Tell why blocks were given up."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(StoreOptions):
    """Print an element's manifest, and what it comes from, as trees.

    Example: regroup inspect banks/digits-train-digits-cnn --store runs --children
    """

    ref: Positional[Annotated[str, arg(metavar="REF")]]
    """The element: its name, name-fingerprint, or the start of its fingerprint, after "features/"
    or the like if need be."""
    children: bool = False
    """What was made of it as well."""


@dataclass(frozen=True, kw_only=True)
class DiffConfig(StoreOptions):
    """Say which settings differ between two elements of one kind, theirs and their parents'.

    Example: regroup diff features/digits-val-digits-cnn 3f9c --store runs --store-b other-runs
    """

    a: Positional[Annotated[str, arg(metavar="A")]]
    """One element: its name, name-fingerprint, or the start of its fingerprint, after "features/"
    or the like if need be."""
    b: Positional[Annotated[str, arg(metavar="B")]]
    """The other one, of the same kind."""
    store_b: str | None = None
    """The store of the other one (default: --store)."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StoreOptions):
    """Compare everything in the store with its checksums; exit status 1 if anything is damaged.

    Example: regroup verify --store runs
    """

    refs: Positional[tuple[str, ...]] = ()
    """Elements to check: name, name-fingerprint or the start of a fingerprint, after "features/"
    or the like if need be (default: everything)."""


@dataclass(frozen=True, kw_only=True)
class RepairConfig(StoreOptions):
    """Remove the commit records of damaged blocks, so that the next run computes just these.

    Example: regroup repair --store runs --dry-run
    """

    refs: Positional[tuple[str, ...]] = ()
    """Elements to repair: name, name-fingerprint or the start of a fingerprint, after "features/"
    or the like if need be (default: everything)."""
    dry_run: bool = False
    """Only say what would be done."""


@dataclass(frozen=True, kw_only=True)
class GcConfig(StoreOptions):
    """List what no study's results and no --keep refers to; with --delete, remove it (docs/cli.md).

    Example: regroup gc --store runs --keep digits-train-digits-cnn --delete
    """

    keep: Annotated[tuple[str, ...], UseAppendAction] = field(default=())
    """An element to keep, with all that it comes from: a name (every element of it),
    name-fingerprint or the start of a fingerprint; may be given several times."""
    unfinished: bool = False
    """List and remove unfinished work too: elements without all of their blocks, and what runs that
    were stopped had made."""
    delete: bool = False
    """Remove what is listed, after asking."""
    yes: bool = False
    """Do not ask."""
