"""Train the demo's small convolutional network on the embedded digits and save its weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from regroup.images.preprocessing import Preprocessing, decode_image
from regroup.models import (
    DIGITS_METADATA,
    ModelSpec,
    load_classifier,
    save_weights,
    train_digits_cnn,
)
from regroup.models.digits import DIGITS_SIDE
from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_store.format.store import open_store
from regroup_store.sources import open_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from regroup_pipelines.json_types import JsonObject


WEIGHTS_KEY = "weights/digits-cnn.safetensors"


def load_split(dataset: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load the images, (N, 3, S, S) float32 in [0, 1], and labels, (N,), of an embedded split."""
    import numpy as np

    source = open_source(dataset)
    rows = list(source.rows())
    data = [item for item in source.read([row.locator for row in rows]) if isinstance(item, bytes)]
    preprocessing = Preprocessing(crop=DIGITS_SIDE, resize=DIGITS_SIDE)
    pixels = np.stack([decode_image(item, preprocessing) for item in data])
    return pixels, np.array([row.label for row in rows], np.int64)


def train_demo_model(output: Path, seed: int) -> JsonObject:
    """Train the network and save its weights to `output`; an existing file is kept.

    Returns:
        The path of the weights, and their accuracy on digits:val.

    Raises:
        UsageError: `output` has another suffix than .safetensors.
    """
    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output}: give a name that ends in .safetensors")
    if output.exists():
        log(f"train: {output} exists and is kept")
    else:
        network = train_digits_cnn(*load_split("digits:train"), seed)
        output.parent.mkdir(parents=True, exist_ok=True)
        metadata = {**DIGITS_METADATA, "dataset": "digits:train", "seed": str(seed)}
        save_weights(network, output, metadata)
    accuracy = _validate(output)
    log(f"train: digits-cnn scores {100 * accuracy:.1f} % on digits:val")
    return {"weights": str(output), "accuracy": accuracy}


def _validate(weights: Path) -> float:
    """Return the accuracy of the saved network on digits:val."""
    import torch

    classifier = load_classifier(ModelSpec(name="digits-cnn", weights=str(weights)))
    images, labels = load_split("digits:val")
    with torch.inference_mode():
        predictions = classifier(torch.from_numpy(images)).argmax(1).numpy()
    return float((predictions == labels).mean())


def train_into_store(uri: str, seed: int) -> JsonObject:
    """Train the network and save its weights in the store at `uri`; existing weights are kept."""
    store = open_store(uri, create=True)
    with tempfile.TemporaryDirectory(prefix="regroup-weights-") as folder:
        path = Path(folder) / Path(WEIGHTS_KEY).name
        if store.backend.exists(WEIGHTS_KEY):
            path.write_bytes(store.backend.read(WEIGHTS_KEY))
        done = train_demo_model(path, seed)
        store.backend.create(WEIGHTS_KEY, path.read_bytes())
    return {**done, "weights": f"{store.uri}/{WEIGHTS_KEY}"}
