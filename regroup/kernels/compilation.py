"""Functions compiled by Numba where it is installed, which let go of Python's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def compile_with_numba(*functions: Callable[..., object]) -> tuple[Callable[..., Any], ...] | None:
    """`functions` compiled, each when it is first called; None where Numba is not installed.

    No fast mathematics: NaN and infinity stay what they are, and sums the same everywhere.
    """
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        kept = njit(nogil=True, cache=True)
        return tuple(kept(function) for function in functions)
    except RuntimeError:  # no folder to keep the compiled code in: each process compiles
        fresh = njit(nogil=True)
        return tuple(fresh(function) for function in functions)
