"""Attacks on colour, which preserve the lightness of an image."""
