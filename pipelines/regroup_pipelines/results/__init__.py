"""What was found, as typed records: counts, accuracies, samples, curves."""
