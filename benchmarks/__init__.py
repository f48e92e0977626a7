"""Benchmarks: the source of every performance figure in the README and the docs."""
