"""Suggestions for misspelt names in error messages."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Quote an unknown word and suggest the nearest known one.

    `'vall': did you mean val?`, or `'x': choose from train, val` where nothing is similar.
    """
    names = list(known)
    found = get_close_matches(word, names, 1)
    if found:
        return f"{word!r}: did you mean {found[0]}?"
    return f"{word!r}: choose from {', '.join(names)}" if names else f"{word!r}: there is none"
