"""Compiled and library kernels of the inner loops, each tested against a slow oracle."""
