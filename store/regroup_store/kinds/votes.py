"""Votes: features scored against a bank, for every k and every signs choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from regroup_store.format.arrays import ArraySpec
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.parquet_parts import STATUS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "votes"
SIGN_CHOICES = ("both", "positive", "negative")
PREDICTION = "prediction.zarr"
TRUE_RANK = "true_rank.zarr"
TAP_PREDICTION = "tap_prediction.zarr"
TAP_TRUE_RANK = "tap_true_rank.zarr"
# prediction is the softmax's; success is null for votes on clean samples.
COLUMNS = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("top5_correct", pa.bool_()),
        pa.field("success", pa.bool_()),
    ]
)


def votes_spec(
    name: str,
    *,
    features_fingerprint: str,
    bank_fingerprint: str,
    scoring: Mapping[str, object],
    taps: Sequence[str],
    rows: int,
    block_rows: int,
    gaps: Mapping[str, object] | None = None,
) -> ElementSpec:
    """Describe votes: int32 arrays (sample, signs, k) and, for single taps, (sample, signs, tap).

    Index k - 1 of the k axis means that the last k taps vote; true_rank 1 is the best.

    Args:
        name: what people call them.
        features_fingerprint: of the features scored.
        bank_fingerprint: of the bank.
        scoring: rule, delta, tie_break and the like, as JSON.
        taps: those of the bank, in execution order.
        rows: number of samples.
        block_rows: samples per block.
        gaps: the features' `gap_inputs()`.
    """
    inputs = {
        "features": features_fingerprint,
        "bank": bank_fingerprint,
        "scoring": dict(scoring),
        "taps": list(taps),
        "signs": list(SIGN_CHOICES),
        **(gaps or {}),
    }
    paths = (PREDICTION, TRUE_RANK, TAP_PREDICTION, TAP_TRUE_RANK)
    tail = (len(SIGN_CHOICES), len(taps))
    arrays = tuple(ArraySpec(path, tail, "int32") for path in paths)
    return ElementSpec(KIND, name, inputs, rows, block_rows, arrays, COLUMNS)
