"""Blocks are handed to workers, tried again and reported: one loop over actors and tasks."""
