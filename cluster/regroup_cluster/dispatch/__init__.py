"""Dispatch of blocks to workers: one loop over actors and tasks, with retries and progress."""
