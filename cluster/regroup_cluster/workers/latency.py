"""How long a prediction takes: one task runs the bare network and REGroup in turn on images."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import torch

from regroup.classifier import REGroupClassifier
from regroup.models import forward_samples
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
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

# After one to warm up.
ROUNDS = 5
# Images that a round of batch 1 is of: one alone would be within the clock's noise on a GPU.
SINGLES = 8
CONTENDERS = ("softmax", "regroup")


def images_timed(images: int) -> int:
    """Images of one round of one contender, of both batch sizes, where batch n is of `images`."""
    return min(SINGLES, images) + (images if images > 1 else 0)


@dataclass(frozen=True)
class TimingJob:
    """Everything the task needs; picklable.

    Attributes:
        study, ref, inputs: where the timing is kept, and what it is of.
        index_ref: the dataset whose first `batch` readable images are predicted.
        taps: the last k taps of the bank, which vote.
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

    # Two attempts at once would take each other's time.
    create_only: ClassVar[bool] = False

    def __call__(self, block: int) -> BlockReport:
        """Measure and keep it; `block` is the only one."""
        started, phases = time.perf_counter(), Phases()
        with phases("read"):
            classifier = fetch_classifier(self.model).to(self.device)
            self.model.compute.set_tf32()
            pixels = self._pixels(classifier).to(self.device)
            robust = self._robust(classifier)
        forwarded = forward_samples()
        with phases("network"):
            times = time_both(classifier, robust, pixels)
        passes = forward_samples() - forwarded
        with phases("write"):
            committed = self._keep(times)
        return BlockReport(
            block=block,
            committed=committed,
            samples=images_timed(len(pixels)),
            failed=0,
            forward_passes=passes,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _robust(self, classifier: Classifier) -> REGroupClassifier:
        bank = load_bank(self.store_uri, self.bank_ref, self.taps)
        return REGroupClassifier(
            classifier,
            bank,
            len(self.taps),
            self.signs,
            self.policy,
            example=example_pixels(classifier, self.device),
            root_module=classifier.network,
        )

    def _pixels(self, classifier: Classifier) -> Tensor:
        """The first images of the index that can be read, at most `batch`, (n, 3, H, W)."""
        # PIL, whatever the features were decoded by: decoding is not timed.
        preprocessing = replace(classifier.preprocessing, decoder="pil")
        rows = SampleIndex.open(open_store(self.store_uri), self.index_ref).rows_count
        images = IndexImages(self.store_uri, self.index_ref, self.batch, preprocessing, "cpu", 0)
        found = torch.empty(0)
        for block in range(-(-rows // self.batch)):
            for batch in images.batches(block, self.batch):
                found = torch.cat([found, batch.pixels]) if len(found) else batch.pixels
            if len(found) >= self.batch:
                break
        if not len(found):
            raise ClusterError(f"no image of {self.index_ref} can be read: nothing was timed")
        return found[: self.batch]

    def _keep(self, times: list[dict[str, object]]) -> bool:
        ran_on = machine(self.device)
        found = {"machine": ran_on, "words": in_words(ran_on), "rounds": ROUNDS, "times": times}
        store = open_store(self.store_uri)
        return write_timing(store, self.study, self.ref, self.inputs, found)


def time_both(bare: nn.Module, robust: nn.Module, pixels: Tensor) -> list[dict[str, object]]:
    """Seconds an image of both at batch 1 and batch n, the n images of `pixels` (n, 3, H, W).

    Plain JSON, an entry a batch size: `batch`; `images` of a round; `softmax`, `regroup` and
    `ratio` (REGroup's over the bare network's, round by round), each with `median`, `low`, `high`.
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
    told = {"softmax": _spread(softmax), "regroup": _spread(regroup), "ratio": _spread(ratio)}
    return {"batch": size, "images": images, **told}


def _predictions(model: nn.Module, batches: Sequence[Tensor]) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        """Predict every batch, and have the answers."""
        for pixels in batches:
            model(pixels).argmax(1).cpu()  # on a GPU that waits for the work

    return run


def alternate(runs: Sequence[Callable[[], None]], rounds: int = ROUNDS) -> list[list[float]]:
    """Seconds of every round of each of `runs`, in turn, each round beginning with another one.

    One round before, to warm up, does not count.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for place in [(number + step) % len(runs) for step in range(len(runs))]:
            started = time.perf_counter()
            runs[place]()
            if number:
                taken[place].append(time.perf_counter() - started)
    return taken


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}
