"""Colours in Parquet files whose ClassLabel names have an order of their own, and networks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor, nn

from regroup.images.preprocessing import Preprocessing

SIDE = 8
IMAGES = 4  # of each class
COLOURS = "abc"  # red, green, blue


class Bare(nn.Module):
    """Logits are the mean red, green and blue: classes a, b and c, which it does not say."""

    preprocessing = Preprocessing(SIDE)

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 20 * self.relu(x).mean((2, 3))
        return logits


class Named(Bare):
    """The same, with its names as one library keeps them."""

    class_to_idx = {"c": 2, "a": 0, "b": 1}  # noqa: RUF012


class Misnamed(Bare):
    class_names = "b", "a", "c"


def write_colours(path: Path, order: str, names: tuple[str, ...] = ()) -> str:
    """Write a dataset whose labels stand for the colours `order`; return it as --dataset."""
    random = np.random.default_rng(0)
    rows = [
        (_png(random, COLOURS.index(of)), label)
        for _ in range(IMAGES)
        for label, of in enumerate(order)
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": data, "path": None} for data, _ in rows], kind)
    label = {"names": [*(names or order)], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    table = pa.table({"image": images, "label": [label for _, label in rows]})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return f"parquet:{path}"


def _png(random: np.random.Generator, channel: int) -> bytes:
    pixels = random.integers(0, 60, (SIDE, SIDE, 3))
    pixels[..., channel] += 150
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, "PNG")
    return file.getvalue()
