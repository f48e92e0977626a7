"""The work on a block: extraction, attacks, scoring, banks, indexing and latency."""
