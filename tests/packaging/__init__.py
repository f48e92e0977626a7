"""The distribution: what a wheel installs, and beside what it can live."""
