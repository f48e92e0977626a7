"""Adversarials: the images that an attack made, and what it took to make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from regroup_store.format.arrays import ArraySpec
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.parquet_parts import STATUS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "adversarials"
IMAGES = "images.zarr"
# Part of the fingerprint: an element whose columns were made otherwise is another one. Columns that
# only say more about the same images are `LATER`, and leave it as it is.
COLUMNS_VERSION = 2
# Lacking in elements of earlier releases. The gradients of the sample until it was fooled, those
# among them that were zero everywhere or not finite, and the bits of FLAGS; which attack of several
# won, -1 for none.
LATER = ("gradients", "zero_gradients", "not_finite_gradients", "flags", "member")
# AutoAttack's own checks, bit by bit from the lowest.
FLAGS = ("randomised", "probabilities", "dynamic", "zero gradient", "Square alone")
# Class -1: none (adversarial_class of a failed attack, target of an untargeted one). epsilon and
# the distances are in pixel units of [0, 1]; queries and backward_passes count the sample's own.
COLUMNS = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("success", pa.bool_()),
        pa.field("success_8bit", pa.bool_()),
        pa.field("claimed", pa.bool_()),
        pa.field("adversarial_class", pa.int32(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),
        pa.field("epsilon", pa.float32()),
        pa.field("l2", pa.float32()),
        pa.field("linf", pa.float32()),
        pa.field("mse", pa.float32()),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("backward_passes", pa.int64(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in LATER),
    ]
)


def adversarials_spec(
    name: str,
    *,
    model: Mapping[str, object],
    attack: Mapping[str, object],
    index_fingerprint: str,
    image_shape: tuple[int, int, int],
    rows: int,
    block_rows: int,
    labels: Sequence[int] | None = None,
    label_order: str | None = None,
) -> ElementSpec:
    """Describe adversarials: images (channel, height, width) float32 in [0, 1].

    Args:
        name: what people call them.
        model: what determines the network, as JSON.
        attack: what determines the attack, seed included, as JSON.
        index_fingerprint: of the index of the attacked samples.
        image_shape: (channel, height, width).
        rows: number of samples.
        block_rows: samples per block.
        labels: the model's class for every label of the index, where they differ.
        label_order: "position" where labels go by it although names say otherwise.
    """
    inputs: dict[str, object] = {
        "model": dict(model),
        "attack": dict(attack),
        "index": index_fingerprint,
        "columns": COLUMNS_VERSION,
        **({"labels": list(labels)} if labels else {}),
        **({"label_order": label_order} if label_order else {}),
    }
    arrays = (ArraySpec(IMAGES, image_shape, "float32"),)
    return ElementSpec(KIND, name, inputs, rows, block_rows, arrays, COLUMNS, LATER)
