"""Maintenance of a store: finding elements by name, verifying, repairing and removing them."""
