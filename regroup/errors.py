"""Errors of the method package; each says what is wrong, where, and what to do."""

from __future__ import annotations

import re

# Sequences that a terminal obeys: CSI (colours, cursor) and OSC (titles, links).
_TERMINAL = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\].*?(?:\x07|\x1b\\)", re.DOTALL)
_LONGEST = 300


class RegroupError(Exception):
    """Base of every error that the method package raises on purpose (exit status 1)."""

    exit_status: int = 1


class ConfigurationError(RegroupError):
    """An invalid request: a wrong name, range or combination of options (exit status 2)."""

    exit_status = 2


def plain_line(text: object) -> str:
    """Return a text from elsewhere, such as an exception's, as part of a sentence.

    On one line, without a full stop, terminal sequences and characters that are not printed, and of
    bounded length. What torch says of a pickle that it does not load is told without its advice to
    load it all the same.
    """
    if "weights_only" in str(text):
        return "torch.load refuses what is pickled beside tensors; save the state_dict alone"
    plain = "".join(c if c.isprintable() else " " for c in _TERMINAL.sub("", str(text)))
    plain = " ".join(plain.split()).rstrip(".")
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."
