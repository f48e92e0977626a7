"""Features: accumulators, logits and outcome of every sample of a split under one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from regroup_store.format.arrays import ArraySpec
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.parquet_parts import STATUS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "features"
LOGITS = "logits.zarr"
# prediction is -1 for failed rows; confidence is the softmax probability of the prediction,
# true_confidence that of the label, top5 the best classes in descending order (null if failed).
COLUMNS = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("confidence", pa.float32()),
        pa.field("true_confidence", pa.float32()),
        pa.field("top5", pa.list_(pa.int32())),
    ]
)


def accumulators_path(tap: str) -> str:
    """Path of a tap's accumulators, (sample, sign, channel)."""
    return f"accumulators.zarr/{tap}"


def features_spec(
    name: str,
    *,
    model: Mapping[str, object],
    taps: Sequence[tuple[str, int]],
    policy: str,
    source: Mapping[str, str],
    num_classes: int,
    rows: int,
    block_rows: int,
    dtype: str = "float32",
    gaps: Mapping[str, object] | None = None,
    labels: Sequence[int] | None = None,
    label_order: str | None = None,
) -> ElementSpec:
    """Describe features: one accumulators array per tap, and the logits.

    Args:
        name: what people call them.
        model: what determines the network (architecture, weights hash, preprocessing), as JSON.
        taps: (name, channels) in execution order.
        policy: which tensors are taps.
        source: {"index": fingerprint} or {"adversarials": fingerprint}.
        num_classes: classes of the model.
        rows: number of samples.
        block_rows: samples per block.
        dtype: what the network computed in.
        gaps: the source's `gap_inputs()`.
        labels: the model's class for every label of the index, where they differ.
        label_order: "position" where labels go by it although names say otherwise.
    """
    if len(source) != 1 or not set(source) <= {"index", "adversarials"}:
        raise ValueError(f"features come from one index or one adversarials, not {source}")
    inputs = {
        "model": dict(model),
        "taps": [[tap, channels] for tap, channels in taps],
        "policy": policy,
        "accumulator": "sum of positive and of negated negative responses, float32",
        "dtype": dtype,
        "source": dict(source),
        **({"labels": list(labels)} if labels else {}),
        **({"label_order": label_order} if label_order else {}),
        **(gaps or {}),
    }
    arrays = [ArraySpec(accumulators_path(tap), (2, channels), "float32") for tap, channels in taps]
    arrays.append(ArraySpec(LOGITS, (num_classes,), "float32"))
    return ElementSpec(KIND, name, inputs, rows, block_rows, tuple(arrays), COLUMNS)


def feature_taps(manifest: Mapping[str, object]) -> tuple[str, ...]:
    """Taps of features, in execution order, from their manifest."""
    inputs = manifest["inputs"]
    assert isinstance(inputs, dict)
    return tuple(str(tap) for tap, _ in inputs["taps"])
