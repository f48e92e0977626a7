"""Attacks: adversarial examples of one block of an index, written to the store.

Attacked, written, read back, verified, committed: success is decided on the bytes that the store
holds, never on what a kernel claims.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from regroup.attacks import AttackSpec, Verification, run_attack, verify
from regroup.attacks.network import AttackedNetwork
from regroup.errors import ConfigurationError
from regroup.models.seeding import seeded_where
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.workers.attack_buffer import AttackBlockBuffer
from regroup_cluster.workers.attack_checkpoints import AttackCheckpoints
from regroup_cluster.workers.batch_size import AdaptiveBatchSize
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.adversarials import IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from regroup.models import ModelSpec
    from regroup_cluster.dispatch.stopwatch import BlockClock
    from regroup_cluster.workers.images import ImageBatch, IndexSpec

# Seconds of work between checkpoints.
CHECKPOINT_S = 5.0


class AttackRefusedError(ClusterUsageError):
    """This attack cannot be run on this model, so every block would fail."""

    fatal = True


@dataclass(frozen=True)
class AttackWork(BlockWork):
    """Attacks the blocks of one index of correctly classified samples.

    Attributes:
        store_uri: the store of index and adversarials.
        adversarials_ref: the adversarials element to fill.
        images: the index.
        model: the classifier to build.
        attack: the attack with its options.
        batch: samples attacked together; the group size of an attack that couples samples takes
            precedence.
        device: torch device of the network.
        checkpoint_s: see `AttackCheckpoints`.
    """

    store_uri: str
    adversarials_ref: str
    images: IndexSpec
    model: ModelSpec
    attack: AttackSpec
    batch: int
    device: str = "cpu"
    checkpoint_s: float = CHECKPOINT_S

    def on_device(self, device: str) -> Self:
        """See `BlockWork.on_device`."""
        return replace(self, device=device)

    def open(self) -> AttackWorker:
        """Build the network and open the images.

        Raises:
            ClusterUsageError: blocks would split a group of the attack.
        """
        return AttackWorker(self)


class AttackWorker:
    """Attacks one block at a time, whose rows are samples that the classifier gets right."""

    def __init__(self, work: AttackWork) -> None:
        self._work = work
        self._element = BlockElement.open(
            open_store(work.store_uri), "adversarials", work.adversarials_ref
        )
        block_rows = self._element.plan.block_rows
        self._group = work.attack.facts.group
        if self._group and block_rows % self._group:
            raise ClusterUsageError(
                f"{work.attack.name} runs on groups of {self._group} samples: blocks of "
                f"{block_rows} rows would split some of them; give a multiple as --block-rows"
            )
        self._classifier = fetch_classifier(work.model).to(work.device)
        work.model.compute.set_tf32()
        rows = work.attack.facts.group or AttackedNetwork(self._classifier).fixed_rows
        self._size = AdaptiveBatchSize(work.batch, rows)
        preprocessing = self._classifier.preprocessing
        self._images = work.images.open(work.store_uri, self._element, preprocessing, work.device)

    def process(self, block: int, clock: BlockClock) -> BlockOutcome:
        """Attack and commit `block` of the adversarials element."""
        with seeded_where(self._classifier.stochastic, block):
            return self._process(block, clock)

    def _process(self, block: int, clock: BlockClock) -> BlockOutcome:
        images = self._images.block(block)
        buffer = AttackBlockBuffer(images.rows, self._classifier.preprocessing.crop)
        stored = self._element.checkpoints(block)
        checkpoints = AttackCheckpoints(stored, buffer, self._work.checkpoint_s)
        with clock.phase("read"):
            resumed = checkpoints.restore()
        for batch in clock.each("read", images.batches(self._group or self._work.batch)):
            with clock.phase("network"):
                self._attack(batch, buffer)
            with clock.phase("write"):
                checkpoints.save()
        with clock.phase("write"):
            committed = self._write(block, buffer, clock.seconds, resumed)
            checkpoints.clear()
        return BlockOutcome(committed, len(images.rows.sample_ids), len(buffer.errors))

    def _attack(self, batch: ImageBatch, buffer: AttackBlockBuffer) -> None:
        """Attack the samples of the batch that no earlier attempt has attacked."""
        buffer.fail(batch.errors)
        positions = np.flatnonzero(~buffer.attacked[batch.rows])
        while len(positions):
            piece = positions if self._group else positions[: self._size.batch]
            if self._size.attempt(partial(self._attack_piece, batch, piece, buffer)):
                positions = positions[len(piece) :]

    def _attack_piece(
        self, batch: ImageBatch, positions: NDArray[np.int64], buffer: AttackBlockBuffer
    ) -> bool:
        rows, pixels = batch.rows[positions], batch.pixels[positions].to(self._work.device)
        labels = buffer.rows.labels[rows]
        right = self._predictions(pixels) == labels
        # The index was drawn from stored features; rounding may decide a tie differently here.
        wrong = rows[~right].tolist()
        buffer.fail(dict.fromkeys(wrong, "misclassified when it was attacked"))
        rows = rows[right]
        ids = [buffer.rows.sample_ids[row] for row in rows]
        try:
            result = run_attack(
                self._work.attack, self._classifier, pixels[torch.from_numpy(right)], labels[right],
                ids, rows=self._size.rows,
            )  # fmt: skip
        except ConfigurationError as error:
            raise AttackRefusedError(str(error)) from error
        buffer.fill(rows, result)
        return True

    def _predictions(self, pixels: torch.Tensor) -> NDArray[np.int64]:
        network = AttackedNetwork(self._classifier, self._size.rows)
        found: NDArray[np.int64] = network.predictions(pixels).cpu().numpy()
        return found

    def _write(self, block: int, buffer: AttackBlockBuffer, seconds: float, resumed: int) -> bool:
        """Write the images, verify them as read back from the store, and commit the block."""
        report: dict[str, Any] = {
            "failed": len(buffer.errors),
            "seconds": seconds,
            "sample_seconds": [round(each, 6) for each in buffer.seconds.tolist()],
            "resumed": resumed,
        }
        if self._size.halved:
            report["halved_rows"] = self._size.rows

        def verified_table(stored: Mapping[str, NDArray[np.generic]]) -> pa.Table:
            """Make the table of the block from its images as read back from the store."""
            return buffer.table(self._verify(buffer, stored[IMAGES]), self._element.column_names)

        images = buffer.images
        images[[*buffer.errors]] = np.nan
        return self._element.write_block(block, {IMAGES: images}, verified_table, report)

    def _verify(self, buffer: AttackBlockBuffer, stored: NDArray[Any]) -> Verification:
        good, found = buffer.good, list[Verification]()
        while len(good):
            rows = good[: self._size.batch]
            function = partial(
                verify, self._work.attack, self._classifier, stored[rows], buffer.rows.labels[rows],
                buffer.outcome["target"][rows], self._size.rows,
            )  # fmt: skip
            if verified := self._size.attempt(function):
                found.append(verified)
                good = good[len(rows) :]
        return _joined(found)


def _joined(found: list[Verification]) -> Verification:
    """Concatenate the verifications of consecutive images."""
    empty = Verification(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, np.int64))
    parts = [empty, *found]
    return Verification(
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.success_8bit for part in parts]),
        np.concatenate([part.adversarial_class for part in parts]),
    )
