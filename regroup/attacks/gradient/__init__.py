"""White-box attacks that follow gradients; PGD has a folder of its own."""
