"""When a session's head counts as lost, and what is said of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from regroup_cluster import head_watch
from regroup_cluster.head_watch import PATIENCE_S, HeadWatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("regroup_cluster.head_watch.time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(head_watch, "_ended_process", lambda: None)
    return clock


def watch() -> HeadWatch:
    return HeadWatch("10.0.0.1:6379", lambda sentence: 1, threading.Event())


def look_for(watched: HeadWatch, clock: Clock, seconds: float, step: float = 6.0) -> list[str]:
    """What is said while `seconds` pass."""
    said = []
    for _ in range(int(seconds / step)):
        clock.now += step
        said += [sentence] if (sentence := watched.look()) else []
    return said


def test_a_head_that_is_silent_for_long_is_lost(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(head_watch, "_answers", lambda: False)
    watched = watch()
    assert look_for(watched, clock, PATIENCE_S - 6) == []
    assert capsys.readouterr().err.count("does not answer: waiting 45 s") == 1
    (sentence, *_) = look_for(watched, clock, 12)
    assert sentence.startswith("the Ray cluster at '10.0.0.1:6379' is lost: its head has not")
    assert "\n" not in sentence


def test_a_head_that_comes_back_is_not_lost(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"now": False}
    monkeypatch.setattr(head_watch, "_answers", lambda: answers["now"])
    watched = watch()
    for _ in range(5):
        answers["now"] = False
        assert look_for(watched, clock, 36) == []
        answers["now"] = True
        assert look_for(watched, clock, 6) == []


def test_hours_in_which_this_process_was_stopped_do_not_count(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_watch, "_answers", lambda: False)
    assert look_for(watch(), clock, 3600, step=3600) == []


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "its process raylet was killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "its process raylet was killed by SIGSEGV"),
        ("raise SystemExit(3)", "its process raylet ended with status 3"),
        ("", "its process raylet ended with status 0"),
    ],
)
def test_a_process_of_our_own_ray_that_ends_is_named_with_how(
    end: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", end])
    process.wait()
    node = SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=process)]})
    monkeypatch.setattr("ray._private.worker._global_node", node)
    sentence = watch().look() or ""
    assert said in sentence
    assert sentence.endswith("run the same command again")


def test_a_signal_without_a_name_is_a_number() -> None:
    assert head_watch._how(-(signal.NSIG + 1)) == f"was killed by signal {signal.NSIG + 1}"
