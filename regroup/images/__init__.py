"""Encoded images to pixels: the preprocessing that a network was trained with, batched decoding."""
