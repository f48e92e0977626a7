"""Backends: where the bytes of a store are kept, a folder or an object store."""

from __future__ import annotations
