"""Compilation of functions by Numba, if installed; the compiled code releases the GIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def compile_with_numba(*functions: Callable[..., object]) -> tuple[Callable[..., Any], ...] | None:
    """Compile `functions`, each at its first call; return None if Numba is not installed.

    No fast mathematics: NaN and infinity are preserved, and sums are the same everywhere.
    """
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        kept = njit(nogil=True, cache=True)
        return tuple(kept(function) for function in functions)
    except RuntimeError:  # no cache folder: each process compiles
        fresh = njit(nogil=True)
        return tuple(fresh(function) for function in functions)
