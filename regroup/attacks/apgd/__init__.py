"""Auto-PGD, with losses on any scores."""
