"""Verifying, repairing and removing what a store holds, and finding it by name."""
