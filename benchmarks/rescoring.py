"""Re-scoring from the store against running the network again: `python -m benchmarks.rescoring`.

The same samples both ways, on a CPU. Ours: ResNet-50's features read from a store and verified,
scored for every k and sign choice, the votes written: by the worker that Ray runs, without Ray. The
other: the forward passes at 224 px for their accumulators, decoding and scoring left out, which is
what stored features save; fewer images, seconds divided by how many. At least 30 times as fast with
all taps, 150 times where the last five vote. Exit status 1 where a target is missed.
"""

from __future__ import annotations

import itertools
import tempfile
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from benchmarks.alternating import Case, parsed, parser, run
from benchmarks.networks import CLASSES, network, pixels, random_bank
from cluster.scoring import ScoringJob, ScoringWorker
from regroup.accumulators import Extractor
from regroup.bank import DELTA
from store.banks import BankSpec, create_bank, read_bank
from store.element import BlockElement
from store.features import COLUMNS, LOGITS, accumulators_path, features_spec
from store.stores import open_store
from store.votes import votes_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAST = 5
TARGETS = {"all taps": 30.0, f"k = {LAST}": 150.0}
# Network, its images' side in px, samples of the store, images that go through the network.
SIZES = {"small": ("resnet50", 224, 2048, 16), "tiny": ("squeezenet1_1", 64, 16, 2)}


class Subject:
    """Features of made-up accumulators in a store, a bank of noise, and the network."""

    def __init__(self, folder: str, size: str) -> None:
        name, side, self.samples, self.images = SIZES[size]
        memory = torch.channels_last
        self._pixels = pixels(self.images, side, "cpu", memory)
        self._extractor = Extractor(network(name, "cpu", memory), "preactivation", self._pixels[:1])
        self.taps = tuple((tap.name, tap.channels) for tap in self._extractor.taps)
        self._store = open_store(folder, create=True)
        self._features = self._write_features(name)
        self._bank = self._write_bank(name)
        self._numbers = itertools.count()

    @torch.inference_mode()
    def network(self) -> object:
        """The forward passes, accumulators summed."""
        return self._extractor(self._pixels)

    def rescore(self, taps: tuple[str, ...]) -> None:
        """Votes of all samples, of a name that the store does not have yet."""
        bank = read_bank(self._store, self._bank, taps=taps)
        spec = votes_spec(
            f"again-{next(self._numbers)}",
            features_fingerprint=self._features.fingerprint,
            bank_fingerprint=bank.fingerprint,
            scoring={"number": next(self._numbers)},
            taps=taps,
            rows=self.samples,
            block_rows=self._features.plan.block_rows,
        )
        votes = BlockElement.create(self._store, spec, {})
        where = (self._store.uri, votes.ref, self._features.ref, None, self._bank)
        worker = ScoringWorker(ScoringJob(*where, taps, DELTA, "class", "cpu"))
        for block in range(votes.plan.blocks):
            worker.process(block)

    def _write_features(self, name: str) -> BlockElement:
        spec = features_spec(
            name, model={"name": name}, taps=self.taps, policy="preactivation",
            source={"index": "0" * 64}, num_classes=CLASSES, rows=self.samples,
            block_rows=min(1024, self.samples),
        )  # fmt: skip
        features = BlockElement.create(self._store, spec, {})
        random = np.random.default_rng(0)
        for block in range(features.plan.blocks):
            rows = features.plan.size(block)
            arrays = {
                accumulators_path(tap): random.lognormal(size=(rows, 2, size)).astype(np.float32)
                for tap, size in self.taps
            }
            arrays[LOGITS] = random.normal(size=(rows, CLASSES)).astype(np.float32)
            features.write_block(block, arrays, _table(block, rows), {})
        features.finalise({})
        return features

    def _write_bank(self, name: str) -> str:
        names = tuple(str(number) for number in range(CLASSES))
        inputs = {"model": {"name": name}, "policy": "preactivation"}
        writer = create_bank(self._store, BankSpec(name, inputs, self.taps, names))
        made = random_bank(self.taps)
        for tap, mixtures in zip(made.taps, made.mixtures, strict=True):
            writer.write_tap(tap, mixtures)
        return writer.finish([1] * CLASSES)


def _table(block: int, rows: int) -> pa.Table:
    labels = np.arange(rows) % CLASSES
    columns = {
        "sample_id": [f"{block}-{row}" for row in range(rows)],
        "status": ["ok"] * rows,
        "error": [None] * rows,
        "label": labels,
        "prediction": labels,
        "confidence": np.ones(rows),
        "true_confidence": np.ones(rows),
        "top5": [[label] for label in labels.tolist()],
    }
    return pa.table(columns, schema=COLUMNS)


def cases(subject: Subject) -> Iterator[Case]:
    """All taps, and the last five, against the forward passes."""
    names = tuple(name for name, _ in subject.taps)
    for (what, target), taps in zip(TARGETS.items(), (names, names[-LAST:]), strict=True):
        yield Case(
            what=f"re-scoring {subject.samples} samples, {what}",
            against=f"{subject.images} forward passes",
            ours=partial(subject.rescore, taps),
            baseline=subject.network,
            target=target,
            better="higher",
            per_ours=subject.samples,
            per_baseline=subject.images,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; the table goes to standard output."""
    options = parsed(parser("rescoring", __doc__, list(SIZES)), arguments)
    with tempfile.TemporaryDirectory() as folder:
        return run(options, cases(Subject(folder, options.sizes)), {"classes": CLASSES})


if __name__ == "__main__":
    raise SystemExit(main())
