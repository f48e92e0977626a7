"""Kernels of other libraries under this project's definitions of sample, success and cost."""
