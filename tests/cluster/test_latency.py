"""What a prediction takes: who runs when, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regroup_cluster.machine import in_words, machine
from regroup_cluster.workers import latency
from regroup_cluster.workers.latency import ROUNDS, SINGLES, alternate, images_timed, time_both


class Told(nn.Module):
    """Counts what it sees, and moves a clock on by so many seconds a call."""

    def __init__(self, clock: list[float], seconds: Callable[[int], float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.seen: list[list[float]] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels[:, 0, 0, 0].tolist())
        self.clock[0] += self.seconds(len(self.seen))
        return torch.zeros(len(pixels), 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("regroup_cluster.workers.latency.time.perf_counter", lambda: now[0])
    return now


def pixels(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, 2, 2)


def test_rounds_alternate_and_the_first_does_not_count() -> None:
    order: list[str] = []
    taken = alternate([lambda: order.append("a"), lambda: order.append("b")], rounds=3)
    assert [len(each) for each in taken] == [3, 3]
    assert "".join(order) == "ab" + "ba" + "ab" + "ba"


def test_seconds_are_an_images_and_the_ratio_is_round_by_round(clock: list[float]) -> None:
    bare = Told(clock, lambda _: 1.0)
    # Slower and slower: rounds differ.
    robust = Told(clock, lambda call: 2.0 if call <= SINGLES * ROUNDS else 4.0)
    single, whole = time_both(bare, robust, pixels(10))
    assert (single["batch"], single["images"]) == (1, SINGLES)
    assert (whole["batch"], whole["images"]) == (10, 10)
    assert single["softmax"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert single["ratio"] == {"median": 2.0, "low": 2.0, "high": 4.0}
    assert whole["regroup"] == pytest.approx({"median": 0.4, "low": 0.4, "high": 0.4})
    assert len(single) == len(whole) == 5


def test_both_see_the_same_images(clock: list[float]) -> None:
    both = Told(clock, lambda _: 1.0), Told(clock, lambda _: 1.0)
    time_both(*both, pixels(10))
    assert both[0].seen == both[1].seen
    assert [each[0] for each in both[0].seen[:SINGLES]] == list(range(SINGLES))
    assert both[0].seen[-1] == list(range(10))
    passes = sum(map(len, both[0].seen))
    assert passes == (ROUNDS + 1) * images_timed(10) == (ROUNDS + 1) * (SINGLES + 10)


def test_a_batch_of_one_is_timed_once(clock: list[float]) -> None:
    both = Told(clock, lambda _: 1.0), Told(clock, lambda _: 1.0)
    (only,) = time_both(*both, pixels(1))
    assert only["batch"] == 1
    assert images_timed(1) == 1
    assert len(both[0].seen) == ROUNDS + 1


def test_the_plan_of_a_dry_run_is_what_is_run() -> None:
    from regroup_pipelines.study.plan import PASSES_OF_TIMING

    assert len(latency.CONTENDERS) * (ROUNDS + 1) == PASSES_OF_TIMING
    assert ROUNDS >= 5


def test_the_machine_in_words() -> None:
    told: dict[str, Any] = machine("cpu")
    words = in_words(told)
    assert str(told["processor"]) in words
    assert f"of {told['cores']} cores" in words
    assert in_words(told | {"gpu": "A card"}).startswith("A card, beside ")
    assert ", 1 thread of" in in_words(told | {"threads": 1})
