"""Encoded images to pixels: preprocessing as the network was trained with, and batched decoding."""
