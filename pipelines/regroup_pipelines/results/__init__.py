"""Results as typed records: counts, accuracies, samples, curves."""
