"""Projected gradient descent, in both protocols."""
