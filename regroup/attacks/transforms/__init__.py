"""Rotations, translations and corruptions: attacks without a perturbation budget."""
