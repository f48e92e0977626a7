"""Findings of verification, and how errors of reading become findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from regroup_store.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regroup_store.backends.base import Backend
    from regroup_store.format.manifests import Location

# damaged: it is not what was written. unreadable: it could not be read (an I/O error, another
# schema version), so its state is unknown. note: information; nothing is wrong.
Level = Literal["damaged", "unreadable", "note"]
What = Literal[
    "marker", "manifest", "metadata", "commit", "chunk", "part", "summary",
    "quarantine", "gap", "leftover", "parent", "results", "timing", "run", "link", "stray",
    "unnamed",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One deviation from an intact store.

    Attributes:
        level: how bad it is.
        what: which part of an element it concerns.
        kind: of the element, "studies" or "runs"; empty for what belongs to neither.
        ref: of the element, or the name of the study or run; empty as `kind`.
        block: of a block element, or None.
        path: the key of the file or folder.
        problem: one sentence.
    """

    level: Level
    what: What
    kind: str
    ref: str
    block: int | None
    path: str
    problem: str

    @classmethod
    def at(
        cls,
        level: Level,
        what: What,
        location: Location,
        name: str,
        problem: str,
        block: int | None = None,
    ) -> Finding:
        """Make a finding about the file or folder `name` of an element."""
        path = location.key(name)
        return cls(level, what, location.kind, location.ref, block, path, problem)

    @classmethod
    def from_error(
        cls,
        error: Exception,
        what: What,
        location: Location,
        name: str,
        block: int | None = None,
    ) -> Finding:
        """Make a finding from an error of reading the file `name` of an element."""
        problem = describe_error(error, location.key(name))
        return cls.at(level_of_error(error), what, location, name, problem, block)


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, those of elements that state no fingerprint as one, at the end."""
    unnamed = []
    for finding in findings:
        if finding.what == "unnamed":
            unnamed.append(finding)
        else:
            yield finding
    if unnamed:
        count, first = len(unnamed), unnamed[0]
        problem = (
            f"{count} elements have commits or summaries without their fingerprint (made before "
            f"releases wrote it; {first.kind}/{first.ref} is the first): an exchange between them "
            "would be noticed only where other counts give it away"
        )
        yield Finding("note", "unnamed", "", "", None, first.path, problem)


def describe_error(error: Exception, key: str) -> str:
    """Describe an error of reading `key` in a finding."""
    return f"{key} is missing" if isinstance(error, FileNotFoundError) else str(error)


def level_of_error(error: Exception) -> Level:
    """Distinguish wrong or missing bytes from bytes that could not be read or understood."""
    return "damaged" if isinstance(error, DamagedError | FileNotFoundError) else "unreadable"


def reading_error(read: Callable[..., object], *arguments: object) -> Exception | None:
    """Call `read` and catch its error of reading, if any; a missing file is one."""
    try:
        read(*arguments)
    except (StoreError, FileNotFoundError) as error:
        return error
    return None


def zarr_reading_error(
    backend: Backend, keys: list[str], read: Callable[[], object]
) -> Exception | None:
    """Call `read`, which reads `keys` through zarr, and catch its error of reading, if any.

    zarr does not distinguish wrong bytes from bytes that did not arrive (a broken connection), so
    they are read again without it before anything is called damaged.
    """
    error = reading_error(read)
    if error is None:
        return None
    for key in keys:
        again = reading_error(backend.read, key)
        if again is not None and not isinstance(again, FileNotFoundError):
            return again
    return error if reading_error(read) else None
