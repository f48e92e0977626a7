"""The format (docs/format.md): fingerprints, manifests, arrays, tables, commits and elements."""

from __future__ import annotations
