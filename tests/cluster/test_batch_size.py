"""Out of GPU memory: half as many images at once, said once; a single image that does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regroup.attacks import Verification, verify
from regroup.attacks.pgd.attack import PGD
from regroup.models import Classifier
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.workers.batch_size import OutOfDeviceMemoryError
from regroup_store.kinds.adversarials import IMAGES
from tests.cluster.attacks import Coupled, noise

ATTACK = PGD(epsilon=64 / 255, steps=3, step_ratio=0.5, protocol="budget")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """What the worker logs."""
    lines: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        "regroup_cluster.workers.batch_size.log_event",
        lambda event, **fields: lines.append((event, fields)),
    )
    return lines


def small_device(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """A network that runs out of memory above `most` images; the sizes it was given."""
    sizes: list[int] = []
    forward = Classifier.forward

    def limited(self: Classifier, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        return forward(self, pixels)

    monkeypatch.setattr(Classifier, "forward", limited)
    return sizes


# The network's fixed rows on a CPU are 16, and those of a group its own 4: halved until they fit.
@pytest.mark.parametrize(
    ("attack", "most", "seen"),
    [(ATTACK, 5, [16, 8, 4]), (Coupled(), 3, [4, 2])],
    ids=["pgd", "coupled"],
)
def test_the_batch_is_halved_until_it_fits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[tuple[str, dict[str, object]]],
    attack: PGD | Coupled,
    most: int,
    seen: list[int],
) -> None:
    given = noise(tmp_path, 8)
    plain = noise(tmp_path / "plain", 8)
    whole = plain.work(attack, 8, batch=8)
    measured(whole.open(), 0)
    work = given.work(attack, 8, batch=8)
    worker = work.open()
    sizes = small_device(monkeypatch, most)
    assert measured(worker, 0).failed == 0
    assert [event for event, _ in told] == ["out of GPU memory: halved"]
    assert told[0][1]["outcome"] == "CUDA out of memory. Tried to allocate 2 GiB."
    assert sizes[: len(seen)] == seen
    assert set(sizes[len(seen) :]) == {seen[-1]}
    element = given.element(work)
    assert element.commit(0).report["halved_rows"] == seen[-1]
    images, expected = (e.read_array(IMAGES, 0) for e in (element, plain.element(whole)))
    np.testing.assert_allclose(images, expected, atol=1e-5)
    assert element.samples()["success"].equals(plain.element(whole).samples()["success"])


def test_running_out_while_judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample is judged twice, or never."""
    given = noise(tmp_path, 8)
    work = given.work(Coupled(), 8, batch=8)
    worker = work.open()
    calls: list[int] = []

    def limited(*args: Any) -> Verification:
        calls.append(len(args[2]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return verify(*args)

    worker._size.batch = 4
    monkeypatch.setattr("regroup_cluster.workers.attack.verify", limited)
    measured(worker, 0)
    assert calls == [4, 4, 2, 2]
    plain = noise(tmp_path / "plain", 8)
    whole = plain.work(Coupled(), 8)
    monkeypatch.undo()
    measured(whole.open(), 0)
    assert given.element(work).samples().equals(plain.element(whole).samples())


def test_a_single_image_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = noise(tmp_path, 2)
    worker = given.work(ATTACK, 2).open()
    sizes = small_device(monkeypatch, 0)
    words = r"with a single image .*--gpus-per-worker"
    with pytest.raises(OutOfDeviceMemoryError, match=words) as error:
        measured(worker, 0)
    assert "\n" not in str(error.value)
    assert error.value.fatal
    assert sizes == [16, 8, 4, 2, 1]
