"""One row per sample of a set of images under one evaluation, block by block.

The columns are those of docs/exports.md. Unknown values are null; no row is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regroup_pipelines.results.base import Record
from regroup_store.errors import DamagedError
from regroup_store.format.element import BlockElement
from regroup_store.format.manifests import find_location, locate, read_manifest
from regroup_store.kinds.votes import PREDICTION, SIGN_CHOICES, TRUE_RANK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_store.format.store import Store

# Dictionary-encoded text: few distinct values over many rows.
WORD = pa.dictionary(pa.int32(), pa.string())
_ATTACK = ("success_8bit", "claimed", "adversarial_class", "target", "epsilon", "l2", "linf", "mse")
_EFFORT = ("steps", "queries", "backward_passes")
SCHEMA = pa.schema(
    [
        *((name, WORD) for name in ("study", "taps", "bank", "images", "attack")),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("status", WORD, nullable=False),
        ("error", pa.string()),
        pa.field("label", pa.int32(), nullable=False),
        ("class_name", WORD),
        ("softmax_prediction", pa.int32()),
        ("softmax_correct", pa.bool_()),
        ("softmax_top5_correct", pa.bool_()),
        ("confidence", pa.float32()),
        ("true_confidence", pa.float32()),
        ("success", pa.bool_()),
        ("success_8bit", pa.bool_()),
        ("claimed", pa.bool_()),
        ("adversarial_class", pa.int32()),
        ("target", pa.int32()),
        *((name, pa.float32()) for name in ("epsilon", "l2", "linf", "mse")),
        *((name, pa.int64()) for name in _EFFORT),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("signs", WORD, nullable=False),
        ("regroup_prediction", pa.int32()),
        ("regroup_true_rank", pa.int32()),
        ("regroup_correct", pa.bool_()),
        ("regroup_top5_correct", pa.bool_()),
    ]
)


class EvaluatedNames(Record):
    """The columns that are constant over a set of images under one evaluation.

    Attributes:
        study: name of the study.
        taps: tap policy.
        bank: name of the bank in the study.
        images: name of the set of images.
        attack: title of the attack; None for clean images.
        signs: which voters of a tap count.
    """

    study: str
    taps: str
    bank: str
    images: str
    attack: str | None
    signs: str


@dataclass(frozen=True)
class Evaluated:
    """The votes on one set of images, with the elements that the other columns are read from.

    Attributes:
        store: the store that holds them.
        votes_ref: ref of the votes.
        bank_ref: ref of the bank, which has the class names.
        words: the columns that are constant.
        k: how many of the last taps vote.
    """

    store: Store
    votes_ref: str
    bank_ref: str
    words: EvaluatedNames
    k: int

    def tables(self) -> Iterator[pa.Table]:
        """Return one table with SCHEMA per block, in order.

        Raises:
            StoreUsageError: the votes, or an element that they were made from, are missing.
            GapError: a block is not committed.
            DamagedError: a block does not match its commit record, or holds other samples than the
                same block of the votes.
        """
        return (self._block(block) for block in range(self._votes.plan.blocks))

    @cached_property
    def _votes(self) -> BlockElement:
        return BlockElement.open(self.store, "votes", self.votes_ref)

    @cached_property
    def _features(self) -> BlockElement:
        return self._source(self._votes, "features", self._votes.inputs["features"])

    @cached_property
    def _adversarials(self) -> BlockElement | None:
        source: Any = self._features.inputs["source"]
        full = source.get("adversarials")
        return self._source(self._features, "adversarials", full) if full else None

    def _source(self, derived: BlockElement, kind: str, full: object) -> BlockElement:
        """Open an element that `derived` was made from, with the gaps it had at that time."""
        location = find_location(self.store.backend, kind, str(full))
        found = BlockElement.open(self.store, kind, location.ref if location else str(full))
        found.accept_gaps_of(derived.inputs)
        return found

    @cached_property
    def _class_names(self) -> pa.Array:
        location = locate(self.store.backend, "banks", self.bank_ref)
        inputs: Any = read_manifest(self.store.backend, location)["inputs"]
        return pa.array(inputs["class_names"], pa.string())

    def _block(self, block: int) -> pa.Table:
        votes = self._votes.read_table(block)
        rows = votes.num_rows
        columns = {
            **{name: _constant(word, rows) for name, word in self.words.plain().items()},
            **self._softmax(block, votes),
            **self._attacked(block, votes),
            **self._regroup(block, votes),
        }
        return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _softmax(self, block: int, votes: pa.Table) -> dict[str, pa.Array]:
        features = self._aligned(self._features, block, votes, ["confidence", "true_confidence"])
        label, prediction = _plain(votes["label"]), _known(votes["prediction"])
        names = pa.DictionaryArray.from_arrays(label, self._class_names)
        return {
            "sample_id": _plain(votes["sample_id"]),
            "status": _plain(votes["status"]).dictionary_encode(),
            "error": _plain(votes["error"]),
            "label": label,
            "class_name": names,
            "softmax_prediction": prediction,
            "softmax_correct": pc.equal(prediction, label),
            "softmax_top5_correct": _plain(votes["top5_correct"]),
            **{name: _known(features[name]) for name in ("confidence", "true_confidence")},
        }

    def _attacked(self, block: int, votes: pa.Table) -> dict[str, pa.Array]:
        """Return the attack's columns, null for clean images and where older elements lack them."""
        made, names = self._adversarials, (*_ATTACK, *_EFFORT)
        there = [name for name in made.column_names if name in names] if made else []
        table = self._aligned(made, block, votes, there) if made else None
        none = {name: pa.nulls(votes.num_rows, SCHEMA.field(name).type) for name in names}
        found = {name: _known(table[name]) for name in there} if table else {}
        return {"success": _plain(votes["success"]), **none, **found}

    def _regroup(self, block: int, votes: pa.Table) -> dict[str, pa.Array]:
        place = (slice(None), SIGN_CHOICES.index(self.words.signs), self.k - 1)
        prediction, rank = (
            _known(pa.array(self._votes.read_array(path, block)[place], pa.int32()))
            for path in (PREDICTION, TRUE_RANK)
        )
        return {
            "k": pa.array(np.full(votes.num_rows, self.k, np.int32)),
            "regroup_prediction": prediction,
            "regroup_true_rank": rank,
            "regroup_correct": pc.equal(rank, 1),
            "regroup_top5_correct": pc.less_equal(rank, 5),
        }

    def _aligned(
        self, element: BlockElement, block: int, votes: pa.Table, columns: list[str]
    ) -> pa.Table:
        """Read columns of a block of `element`, checking that it holds the samples of the votes."""
        found = element.read_table(block, ["sample_id", *columns])
        if not found["sample_id"].equals(votes["sample_id"]):
            raise DamagedError(
                f"block {block} of {element.kind}/{element.ref} holds other samples than that of "
                f"votes/{self._votes.ref}: score these features again"
            )
        return found


def _constant(word: str | None, rows: int) -> pa.Array:
    """Return a column with the same word in every row."""
    if word is None:
        return pa.nulls(rows, WORD)
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [word])


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _known(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Replace NaN, and -1 (no class, no rank), by null."""
    values = _plain(column)
    if pa.types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if values.type == pa.int32():
        return pc.if_else(pc.equal(values, -1), pa.scalar(None, pa.int32()), values)
    return values
