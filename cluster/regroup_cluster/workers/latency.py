"""Latency of a prediction: one task runs the bare network and REGroup alternately on images."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import torch

from regroup.classifier import REGroupClassifier
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_cluster.errors import ClusterError
from regroup_cluster.machine import in_words, machine
from regroup_cluster.workers.extraction import example_pixels
from regroup_cluster.workers.images import IndexImages
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_cluster.workers.scoring import load_bank
from regroup_store.format.store import open_store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.studies import write_timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from regroup.models import Classifier, ModelSpec
    from regroup.taps import TapPolicy
    from regroup_cluster.dispatch.stopwatch import BlockClock

# After one warm-up round.
ROUNDS = 5
# Images per round at batch 1: a single one would be within the clock's noise on a GPU.
SINGLES = 8
CONTENDERS = ("softmax", "regroup")


def images_timed(images: int) -> int:
    """Return the images per round and contender, of both batch sizes; batch n has `images`."""
    return min(SINGLES, images) + (images if images > 1 else 0)


@dataclass(frozen=True)
class LatencyWork(BlockWork):
    """Measures the latency of the bare network and of REGroup; block 0 is the only one.

    Attributes:
        store_uri: the store.
        study: the study that the timing belongs to.
        ref: name of the timing in the store.
        inputs: what determines the timing, plain JSON.
        index_ref: the dataset, whose first `batch` readable images are predicted.
        bank_ref: the bank.
        taps: the last k taps of the bank, which vote.
        signs: "both", "positive" or "negative".
        model: the classifier to build.
        policy: the tap policy.
        batch: images of the larger batch size.
        device: "cpu", or "cuda" where the task has a GPU.
    """

    store_uri: str
    study: str
    ref: str
    inputs: Mapping[str, object]
    index_ref: str
    bank_ref: str
    taps: tuple[str, ...]
    signs: str
    model: ModelSpec
    policy: TapPolicy
    batch: int
    device: str

    # Two attempts at once would slow each other down.
    duplicable: ClassVar[bool] = False

    def open(self) -> LatencyWorker:
        """Return the worker; it holds nothing between blocks."""
        return LatencyWorker(self)


class LatencyWorker:
    """Measures the latency and writes it to the store."""

    def __init__(self, work: LatencyWork) -> None:
        self._work = work

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:  # noqa: ARG002
        """Measure and write the timing; `block` is the only one."""
        work = self._work
        with clock.phase("read"):
            classifier = fetch_classifier(work.model).to(work.device)
            work.model.compute.set_tf32()
            pixels = self._pixels(classifier).to(work.device)
            robust = self._robust(classifier)
        clock.restart_count()
        with clock.phase("network"):
            times = time_both(classifier, robust, pixels)
        with clock.phase("write"):
            committed = self._write(times)
        return BlockOutcome(committed, len(pixels))

    def _robust(self, classifier: Classifier) -> REGroupClassifier:
        bank = load_bank(self._work.store_uri, self._work.bank_ref, self._work.taps)
        return REGroupClassifier(
            classifier,
            bank,
            len(self._work.taps),
            self._work.signs,
            self._work.policy,
            example=example_pixels(classifier, self._work.device),
            root_module=classifier.network,
        )

    def _pixels(self, classifier: Classifier) -> Tensor:
        """Return the first readable images of the index, at most `batch`, (n, 3, H, W)."""
        # PIL, whichever decoder the features used: decoding is not timed.
        preprocessing = replace(classifier.preprocessing, decoder="pil")
        rows = SampleIndex.open(open_store(self._work.store_uri), self._work.index_ref).rows_count
        images = IndexImages(
            self._work.store_uri, self._work.index_ref, self._work.batch, preprocessing, "cpu", 0
        )
        found = torch.empty(0)
        for block in range(-(-rows // self._work.batch)):
            for batch in images.block(block).batches(self._work.batch):
                found = torch.cat([found, batch.pixels]) if len(found) else batch.pixels
            if len(found) >= self._work.batch:
                break
        if not len(found):
            raise ClusterError(f"no image of {self._work.index_ref} can be read: nothing was timed")
        return found[: self._work.batch]

    def _write(self, times: list[dict[str, object]]) -> bool:
        ran_on = machine(self._work.device)
        found = {"machine": ran_on, "words": in_words(ran_on), "rounds": ROUNDS, "times": times}
        store = open_store(self._work.store_uri)
        return write_timing(store, self._work.study, self._work.ref, self._work.inputs, found)


def time_both(bare: nn.Module, robust: nn.Module, pixels: Tensor) -> list[dict[str, object]]:
    """Measure the seconds per image of both at batch 1 and batch n.

    Args:
        bare: the network alone.
        robust: the network with REGroup.
        pixels: the n images, (n, 3, H, W).

    Returns:
        Plain JSON, one entry per batch size: `batch`; `images` per round; `softmax`, `regroup` and
        `ratio` (of REGroup to the bare network, round by round), each with `median`, `low`, `high`.
    """
    batches = {1: list(torch.split(pixels[:SINGLES], 1)), len(pixels): [pixels]}
    if len(pixels) == 1:
        batches = {1: [pixels]}
    return [_compared(size, bare, robust, given) for size, given in batches.items()]


def _compared(
    size: int, bare: nn.Module, robust: nn.Module, batches: Sequence[Tensor]
) -> dict[str, object]:
    images = sum(map(len, batches))
    runs = [_predictions(model, batches) for model in (bare, robust)]
    softmax, regroup = ([s / images for s in taken] for taken in alternate(runs))
    ratio = [ours / plain for ours, plain in zip(regroup, softmax, strict=True)]
    spreads = {"softmax": _spread(softmax), "regroup": _spread(regroup), "ratio": _spread(ratio)}
    return {"batch": size, "images": images, **spreads}


def _predictions(model: nn.Module, batches: Sequence[Tensor]) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        """Predict every batch and wait for the classes."""
        for pixels in batches:
            model(pixels).argmax(1).cpu()  # on a GPU, waits for the result

    return run


def alternate(runs: Sequence[Callable[[], None]], rounds: int = ROUNDS) -> list[list[float]]:
    """Run each of `runs` once per round and return its seconds, round by round.

    Each round begins with another one. A warm-up round comes first and is not counted.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for index in [(number + step) % len(runs) for step in range(len(runs))]:
            started = time.perf_counter()
            runs[index]()
            if number:
                taken[index].append(time.perf_counter() - started)
    return taken


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}
