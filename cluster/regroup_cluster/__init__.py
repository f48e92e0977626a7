"""Distributed execution on Ray: sessions, dispatch of blocks, retries, and the workers."""
