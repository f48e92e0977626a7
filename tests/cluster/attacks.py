"""Attacks that do something simple on purpose, and an index of noise for them to attack."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from regroup.attacks.batch import AttackBatch
from regroup.attacks.network import AttackedNetwork, predictions
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import stream
from regroup.attacks.spec import AttackFacts, AttackSpec, Cost, Norm, Protocol
from regroup.images.preprocessing import decode_image
from regroup.models import Classifier, ModelSpec, load_classifier
from regroup_cluster.workers.attack import AttackWork
from regroup_cluster.workers.images import IndexSpec
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.adversarials import adversarials_spec
from regroup_store.kinds.indexes import COLUMNS, SampleIndex

MODEL = ModelSpec("digits-cnn", weights="random")
FACTS = AttackFacts(
    title="Fake", norms=("linf",), protocols=("budget",), knowledge="white-box", source="tests"
)


@dataclass(frozen=True, kw_only=True)
class Fake(AttackSpec):
    """Changes every sample by noise of its own; costs a little; claims success for all."""

    name: ClassVar[str] = "fake"
    facts: ClassVar[AttackFacts] = FACTS

    norm: Norm = "linf"
    protocol: Protocol = "budget"
    epsilon: float | None = 0.5
    passes: int = 5

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        assert self.epsilon is not None
        noise = [stream(self, i, 0).random(batch.clean.shape[1:]) for i in batch.sample_ids]
        change = self.epsilon * (2 * torch.tensor(np.array(noise), dtype=torch.float32) - 1)
        return found(batch, (batch.clean + change).clamp(0, 1), self.passes)

    def cost(self) -> Cost:
        return Cost(self.passes, self.passes)


def found(batch: AttackBatch, images: torch.Tensor, passes: int) -> KernelOutcome:
    n = len(batch)
    each = torch.full((n,), passes)
    return KernelOutcome(
        images, torch.ones(n, dtype=torch.bool), torch.full((n,), 0.5, dtype=torch.float64),
        each + 1, each, each + 2,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Liar(Fake):
    """Claims success and hands back the clean image."""

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        return found(batch, batch.clean, self.passes)


@dataclass(frozen=True, kw_only=True)
class Broken(Fake):
    """Fails by itself on the first sample, and makes images out of range of the second."""

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        made = super().attack(network, batch)
        images = made.images.clone()
        images[1] = 1.5
        member = torch.tensor([0, 2, 1])
        failures = {0: "the library raised ValueError: no start"}
        return replace(made, images=images, member=member, failures=failures)


@dataclass(frozen=True, kw_only=True)
class Coupled(Fake):
    """Every example depends on all samples beside it and on their order."""

    facts: ClassVar[AttackFacts] = replace(FACTS, group=4)

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        weights = torch.arange(1.0, len(batch) + 1).view(-1, 1, 1, 1)
        mean = (weights * batch.clean).mean(dim=0, keepdim=True) / 4
        return found(batch, (batch.clean - mean).clamp(0, 1), self.passes)


@dataclass(frozen=True, kw_only=True)
class Targeted(Fake):
    """Offered with a target, of which it takes no notice."""

    facts: ClassVar[AttackFacts] = replace(FACTS, targeted=True)


@dataclass(frozen=True, kw_only=True)
class BlackBox(Fake):
    """Asks the network for nothing but its decisions."""

    facts: ClassVar[AttackFacts] = replace(FACTS, knowledge="black-box, decisions")


@dataclass(frozen=True, kw_only=True)
class Slow(Fake):
    """Takes its time, and leaves a line for each sample in a file."""

    name: ClassVar[str] = "slow"
    seconds: float = 0.0
    log: str = ""

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        time.sleep(self.seconds)
        with Path(self.log).open("a") as file:
            file.writelines(f"{os.getpid()} {sample}\n" for sample in batch.sample_ids)
        return super().attack(network, batch)

    def describe(self) -> dict[str, object]:
        described = super().describe()
        del described["log"], described["seconds"]
        return described

    def attacked(self) -> list[str]:
        """The samples in the order in which they were attacked."""
        path = Path(self.log)
        return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Noise:
    """An index of `rows` noisy photos in a store; labels are what the model says of them."""

    store: Store
    index: SampleIndex
    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    model: ModelSpec

    @property
    def classifier(self) -> Classifier:
        return classifier_of(self.model)

    @property
    def ids(self) -> list[str]:
        return [f"s{row}" for row in range(len(self.labels))]

    def photo(self, row: int) -> Path:
        return Path(self.index.source_spec.removeprefix("imagefolder:")) / f"noise/{row}.png"

    def work(self, attack: AttackSpec, block_rows: int, **options: Any) -> AttackWork:
        """The work on a new element, or the one that is there."""
        side = self.classifier.preprocessing.crop
        spec = adversarials_spec(
            "noise", model={"name": self.model.name}, attack=attack.describe(),
            index_fingerprint=self.index.fingerprint, image_shape=(3, side, side),
            rows=len(self.labels), block_rows=block_rows,
        )  # fmt: skip
        element = BlockElement.create(self.store, spec, {})
        given = {"batch": 3, "device": "cpu", **options}
        images = IndexSpec(self.index.ref)
        return AttackWork(self.store.uri, element.ref, images, self.model, attack, **given)

    def element(self, work: AttackWork) -> BlockElement:
        return BlockElement.open(self.store, "adversarials", work.adversarials_ref)


@cache
def classifier_of(model: ModelSpec) -> Classifier:
    return load_classifier(model)


def noise(folder: Path, rows: int, model: ModelSpec = MODEL, wrong: int | None = None) -> Noise:
    """`wrong`: the row whose label is not what the model says."""
    classifier, random = classifier_of(model), np.random.default_rng(0)
    side, photos = classifier.preprocessing.crop, folder / "photos" / "noise"
    photos.mkdir(parents=True)
    for row in range(rows):
        grey = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(grey).save(photos / f"{row}.png")
    encoded = [(photos / f"{row}.png").read_bytes() for row in range(rows)]
    pixels = np.stack([decode_image(data, classifier.preprocessing) for data in encoded])
    labels = predictions(classifier, torch.from_numpy(pixels)).numpy()
    if wrong is not None:
        labels[wrong] = (labels[wrong] + 1) % 10
    columns = {
        "sample_id": [f"s{row}" for row in range(rows)],
        "label": labels,
        "locator": [f"noise/{row}.png" for row in range(rows)],
        "digest": [encoded_digest(data) for data in encoded],
    }
    store = open_store(str(folder / "store"), create=True)
    index = SampleIndex.write(
        store, "noise", [pa.table(columns, schema=COLUMNS)],
        [str(y) for y in range(classifier.num_classes)], f"imagefolder:{photos.parent}",
    )  # fmt: skip
    return Noise(store, index, pixels, labels, model)
