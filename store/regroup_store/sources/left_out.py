"""What of a dataset is no sample of it: counted by reason, so that nothing is lost in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

# Of each reason, as many names are kept.
FIRST_NAMES = 3
LONGEST_SHOWN = 120
HIDDEN = "hidden or of the system"
NO_IMAGE = "no image by its name"
# Files and folders that systems leave behind, besides those whose names begin with a dot.
_CLUTTER = frozenset(
    (
        "__macosx",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "lost+found",
        "$recycle.bin",
        "system volume information",
    )
)


def is_hidden(path: str) -> bool:
    """Whether a file or a folder above it is hidden, or left there by a system or a notebook."""
    parts = (part for part in path.split("/") if part not in ("", ".", ".."))
    return any(part.startswith(".") or part.lower() in _CLUTTER for part in parts)


@dataclass
class LeftOut:
    """Files and rows that are no samples.

    Attributes:
        counts: how many, by reason.
        first: the first few names of each reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget all, before the dataset is listed anew."""
        self.counts.clear()
        self.first.clear()

    def add(self, reason: str, name: str) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        names = self.first.setdefault(reason, [])
        if len(names) < FIRST_NAMES:
            names.append(name.encode("utf-8", "backslashreplace").decode()[:LONGEST_SHOWN])

    def recorded(self) -> dict[str, object]:
        """Return the counts and first names as JSON; empty where nothing was left out."""
        return {
            reason: {"count": count, "first": self.first[reason]}
            for reason, count in sorted(self.counts.items())
        }

    def sentence(self) -> str:
        """Say how many were left out, why, and the first names; "" where nothing was."""
        return "; ".join(
            f"{count} {reason} ({', '.join(self.first[reason])}"
            + (", ...)" if count > len(self.first[reason]) else ")")
            for reason, count in sorted(self.counts.items())
        )
