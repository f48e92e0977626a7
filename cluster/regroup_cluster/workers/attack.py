"""The attack worker: adversarial examples of one block of an index, written to the store.

Attacked, written, read back, judged, committed: what counts as a success is decided on the bytes
that the store holds, never on what a kernel says of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from regroup.attacks import AttackSpec, Verification, run_attack, verify
from regroup.attacks.network import AttackedNetwork
from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, forward_samples
from regroup_cluster.dispatch.blocks import BlockReport
from regroup_cluster.dispatch.stopwatch import Phases
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.workers.attack_buffer import AttackedBlock
from regroup_cluster.workers.attack_checkpoints import AttackCheckpoints
from regroup_cluster.workers.batch_size import DeviceRoom
from regroup_cluster.workers.images import ImageBatch, IndexImages, map_labels
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

# Seconds of work that are kept before the block is done.
CHECKPOINT_S = 5.0


class AttackRefusedError(ClusterUsageError):
    """This attack cannot be run on this model: every block would meet it."""

    fatal = True


@dataclass(frozen=True)
class AttackJob:
    """Everything a worker needs to attack blocks of one index of correct samples; picklable.

    Attributes:
        batch: samples attacked together; of an attack that couples them its group takes its place.
        checkpoint_s: see `AttackCheckpoints`.
    """

    store_uri: str
    adversarials_ref: str
    index_ref: str
    model: ModelSpec
    attack: AttackSpec
    batch: int
    device: str
    labels: tuple[int, ...] | None = None
    decode_workers: int | Literal["auto"] = "auto"
    checkpoint_s: float = CHECKPOINT_S

    def __call__(self) -> AttackWorker:
        """Build the worker, inside the actor."""
        return AttackWorker(self)


class AttackWorker:
    """Attacks one block at a time. Rows are samples that the classifier gets right."""

    def __init__(self, job: AttackJob) -> None:
        self._job = job
        self._element = BlockElement.open(
            open_store(job.store_uri), "adversarials", job.adversarials_ref
        )
        block_rows = self._element.plan.block_rows
        self._group = job.attack.facts.group
        if self._group and block_rows % self._group:
            raise ClusterUsageError(
                f"{job.attack.name} runs on groups of {self._group} samples: blocks of "
                f"{block_rows} rows would cut some in two; give a multiple as --block-rows"
            )
        self._classifier = fetch_classifier(job.model).to(job.device)
        job.model.compute.set_tf32()
        rows = job.attack.facts.group or AttackedNetwork(self._classifier).fixed_rows
        self._room = DeviceRoom(job.batch, rows)
        self._images = IndexImages(
            job.store_uri,
            job.index_ref,
            block_rows,
            self._classifier.preprocessing,
            job.device,
            job.decode_workers,
        )

    def process(self, block: int) -> BlockReport:
        """Attack and commit `block` of the adversarials element."""
        started, forwarded, phases = time.perf_counter(), forward_samples(), Phases()
        rows = map_labels(self._images.rows(block), self._job.labels)
        made = AttackedBlock(rows, self._classifier.preprocessing.crop)
        kept = AttackCheckpoints(self._element.checkpoints(block), made, self._job.checkpoint_s)
        with phases("read"):
            resumed = kept.restore()
        batches = self._images.batches(block, self._group or self._job.batch)
        for batch in phases.each("read", batches):
            with phases("network"):
                self._attack(batch, made)
            with phases("write"):
                kept.save()
        with phases("write"):
            committed = self._write(block, made, time.perf_counter() - started, resumed)
            kept.clear()
        return BlockReport(
            block=block,
            committed=committed,
            samples=len(rows.sample_ids),
            failed=len(made.errors),
            forward_passes=forward_samples() - forwarded,
            seconds=time.perf_counter() - started,
            phases=phases.seconds,
        )

    def _attack(self, batch: ImageBatch, made: AttackedBlock) -> None:
        """Attack those samples of the batch that no earlier attempt has attacked."""
        made.fail(batch.errors)
        places = np.flatnonzero(~made.attacked[batch.rows])
        while len(places):
            piece = places if self._group else places[: self._room.batch]
            if self._room.attempt(partial(self._attack_piece, batch, piece, made)):
                places = places[len(piece) :]

    def _attack_piece(
        self, batch: ImageBatch, places: NDArray[np.int64], made: AttackedBlock
    ) -> bool:
        rows, pixels = batch.rows[places], batch.pixels[places].to(self._job.device)
        labels = made.rows.labels[rows]
        right = self._predictions(pixels) == labels
        # The index was drawn from stored features; a tie within rounding may fall the other way.
        wrong = rows[~right].tolist()
        made.fail(dict.fromkeys(wrong, "misclassified when it was attacked"))
        rows = rows[right]
        ids = [made.rows.sample_ids[row] for row in rows]
        try:
            result = run_attack(
                self._job.attack, self._classifier, pixels[torch.from_numpy(right)], labels[right],
                ids, rows=self._room.rows,
            )  # fmt: skip
        except ConfigurationError as error:
            raise AttackRefusedError(str(error)) from error
        made.fill(rows, result)
        return True

    def _predictions(self, pixels: torch.Tensor) -> NDArray[np.int64]:
        network = AttackedNetwork(self._classifier, self._room.rows)
        found: NDArray[np.int64] = network.predictions(pixels).cpu().numpy()
        return found

    def _write(self, block: int, made: AttackedBlock, seconds: float, resumed: int) -> bool:
        """Write the images, judge what the store then holds of them, and commit the block."""
        report: dict[str, Any] = {
            "failed": len(made.errors),
            "seconds": seconds,
            "sample_seconds": [round(each, 6) for each in made.seconds.tolist()],
            "resumed": resumed,
        }
        if self._room.halved:
            report["halved_rows"] = self._room.rows

        def judged(stored: Mapping[str, NDArray[np.generic]]) -> pa.Table:
            """The table of the block, from its images as read back from the store."""
            return made.table(self._verify(made, stored[IMAGES]))

        images = made.images
        images[[*made.errors]] = np.nan
        return self._element.write_block(block, {IMAGES: images}, judged, report)

    def _verify(self, made: AttackedBlock, stored: NDArray[Any]) -> Verification:
        good, found = made.good, list[Verification]()
        while len(good):
            rows = good[: self._room.batch]
            judge = partial(
                verify, self._job.attack, self._classifier, stored[rows], made.rows.labels[rows],
                made.outcome["target"][rows], self._room.rows,
            )  # fmt: skip
            if verified := self._room.attempt(judge):
                found.append(verified)
                good = good[len(rows) :]
        return _joined(found)


def _joined(found: list[Verification]) -> Verification:
    """The verdicts on several images in a row as one."""
    empty = Verification(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, np.int64))
    parts = [empty, *found]
    return Verification(
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.success_8bit for part in parts]),
        np.concatenate([part.adversarial_class for part in parts]),
    )
