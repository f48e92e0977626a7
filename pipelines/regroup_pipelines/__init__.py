"""The commands of `regroup`, the steps and studies they run, and what they report."""
