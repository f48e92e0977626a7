"""Maintenance of a store: finding elements by name, verifying, repairing and removing them."""

from __future__ import annotations
