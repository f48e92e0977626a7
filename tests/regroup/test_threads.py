"""Parallel work on torch's threads: every part once, failures raised, the threads kept."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from regroup.kernels import threads as module
from regroup.kernels.threads import run_in_parallel, team

needs_team = pytest.mark.skipif(team() is None, reason="torch's OpenMP library is not known here")
Set = Callable[[int], None]


@pytest.fixture
def torch_has(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets how many threads torch reports."""
    return lambda count: monkeypatch.setattr(torch, "get_num_threads", lambda: count)


def pieces(length: int, worth: float = 9) -> list[tuple[int, int]]:
    """The parts in which the work is done, in order."""
    done: list[tuple[int, int]] = []
    run_in_parallel(lambda first, end: done.append((first, end)), length, worth)
    return sorted(done)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 10])
def test_every_part_is_done_once(count: int, length: int, torch_has: Set) -> None:
    torch_has(count)
    done = pieces(length)
    assert [i for first, end in done for i in range(first, end)] == list(range(length))


@needs_team
def test_each_thread_has_a_part(torch_has: Set) -> None:
    torch_has(3)
    assert pieces(10) == [(0, 3), (3, 6), (6, 10)]
    assert pieces(10, worth=0.9) == [(0, 10)]


@needs_team
def test_parts_run_at_once_on_threads_that_stay(torch_has: Set) -> None:
    torch_has(2)
    met, seen = threading.Barrier(2, timeout=20), list[int]()

    def work(_first: int, _end: int) -> None:
        seen.append(threading.get_native_id())
        met.wait()

    for _ in range(2):
        run_in_parallel(work, 2, 9)
    assert len(set(seen[:2])) == 2
    assert set(seen[:2]) == set(seen[2:])


@pytest.mark.parametrize("bad", [0, 1])
def test_what_a_part_raises_is_raised(bad: int, torch_has: Set) -> None:
    torch_has(2)

    def work(first: int, end: int) -> None:
        if first <= bad < end:
            raise ZeroDivisionError(bad)

    with pytest.raises(ZeroDivisionError):
        run_in_parallel(work, 2, 9)


def test_pieces_of_a_piece_are_all_done(torch_has: Set) -> None:
    torch_has(2)
    done: list[int] = []
    run_in_parallel(
        lambda first, end: run_in_parallel(lambda a, b: done.extend(range(a, b)), 5, 9), 2, 9
    )
    assert set(done) == set(range(5))


def test_without_the_library_one_thread_does_all(
    monkeypatch: pytest.MonkeyPatch, torch_has: Set
) -> None:
    monkeypatch.setattr(module, "team", lambda: None)
    torch_has(2)
    assert pieces(10) == [(0, 10)]
