"""The figures of the tree that are kept: `make house`."""
