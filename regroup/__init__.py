"""The method: taps, accumulators, banks, scoring, attacks. Torch and NumPy only."""
