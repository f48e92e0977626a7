"""Compiled and library kernels of the hot loops, each tested against a slow oracle."""
