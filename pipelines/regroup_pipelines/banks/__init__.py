"""Banks: which samples make one, how it is built, and how banks compare."""
