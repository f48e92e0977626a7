"""Adapters: other libraries' kernels under this project's definitions of sample, success, cost."""
