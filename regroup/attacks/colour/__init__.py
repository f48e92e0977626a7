"""Attacks on colour, which leave the lightness of an image alone."""
