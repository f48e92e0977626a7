"""Credentials in texts: what is logged, recorded or shown has them masked."""

from __future__ import annotations

import os
import re

# In a URI: user and password (which may hold slashes, as keys of AWS do; a port is none), and a
# query with values, which may be a signature. A `?` without is a pattern of file names.
_PASSWORD = r"[^\s/@:]*:(?!\d{1,5}(?:[/?#\s'\",;)]|$))[^\s@]*@(?:[^\s/@]*@)*"
_SECRETS = re.compile(rf"(?<=://)(?:{_PASSWORD}|(?:[^/\s@]+@)+)|(?<=\S)\?[^\s?=]*=\S*")
_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
# A shorter value would be found in ordinary words.
_SHORTEST = 8


def without_secrets(text: str) -> str:
    """Return `text` with passwords in URIs, signatures, and this process's own keys as `***`."""
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        text = text.replace(value, "***") if len(value) >= _SHORTEST else text
    return _SECRETS.sub(_mask, text) if "://" in text else text


def _mask(found: re.Match[str]) -> str:
    return "***@" if found[0].endswith("@") else "?***"
