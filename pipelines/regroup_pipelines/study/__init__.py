"""Studies: their steps, the plan of a dry run, and their results."""
