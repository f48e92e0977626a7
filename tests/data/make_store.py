"""Writes the store of the current schema version that later releases must read for ever.

Run once for each schema version, `python tests/data/make_store.py`, and commit what it writes:
`schema-<version>/store` and `schema-<version>/expected.json`, which is made of the values below,
never read back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regroup_store.format.element import BlockElement
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.manifests import SCHEMA_VERSION
from regroup_store.format.store import open_store
from regroup_store.kinds import adversarials, features, votes
from regroup_store.kinds.banks import BankSpec, create_bank
from regroup_store.kinds.indexes import COLUMNS as INDEX_COLUMNS
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.listings import Listing
from regroup_store.sources import SourceRow
from regroup_store.sources.left_out import LeftOut

TAPS = (("conv-1", 3), ("logits", 2))
MODEL = {"name": "tiny", "weights": "none"}
IDS, LABELS = ["cat/0.png", "cat/1.png", "dog/0.png"], [0, 0, 1]
STAMPS = ["75 bytes, 1 ns", "75 bytes, 2 ns", "75 bytes, 3 ns"]
DIGESTS = ["0" * 31 + "a", "", "0" * 31 + "c"]
STATUS: dict[str, list[Any]] = {
    "sample_id": IDS,
    "status": ["ok", "failed", "ok"],
    "error": [None, "truncated image", None],
    "label": LABELS,
}
FEATURES: dict[str, list[Any]] = {
    **STATUS,
    "prediction": [0, -1, 0],
    "confidence": [0.75, None, 0.625],
    "true_confidence": [0.75, None, 0.375],
    "top5": [[0, 1], None, [0, 1]],
}
ADVERSARIALS: dict[str, list[Any]] = {
    **STATUS,
    "success": [True, False, False],
    "success_8bit": [True, False, False],
    "claimed": [True, False, True],
    "adversarial_class": [1, -1, -1],
    "target": [-1, -1, 0],
    "epsilon": [0.25, None, 0.5],
    "l2": [1.5, None, 2.5],
    "linf": [0.25, None, 0.5],
    "mse": [0.125, None, 0.0625],
    "steps": [4, 0, 40],
    "queries": [5, 0, 41],
    "backward_passes": [4, 0, 40],
}
VOTES: dict[str, list[Any]] = {
    **STATUS,
    "prediction": [0, -1, 0],
    "top5_correct": [True, None, True],
    "success": [None, None, None],
}


class Pets:
    """A source of three images, one of which cannot be read."""

    spec, class_names, left_out = "imagefolder:pets", ("cat", "dog"), LeftOut()

    def rows(self) -> Iterator[SourceRow]:
        """The images as they are listed."""
        return map(SourceRow, IDS, LABELS, IDS, STAMPS)

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Nothing: no image is read here."""
        raise NotImplementedError


def ramp(shape: tuple[int, ...], step: float, dtype: str = "float32") -> np.ndarray[Any, Any]:
    """Values that every 32-bit float holds exactly; row 1, the failed one, holds none."""
    found = (np.arange(np.prod(shape)).reshape(shape) * step).astype(dtype)
    found[1] = np.nan if dtype.startswith("float") else -1
    return found


def arrays_of(spec: ElementSpec) -> dict[str, np.ndarray[Any, Any]]:
    """The values of an element's arrays, by path."""
    return {
        a.path: ramp(a.shape(spec.rows), 1 / 32 if a.dtype.startswith("float") else 1, a.dtype)
        for a in spec.arrays
    }


def write(store: Any, spec: ElementSpec, rows: dict[str, list[Any]]) -> dict[str, Any]:
    """Write an element in blocks of two rows and finalise it; return what it holds, as JSON."""
    element, arrays = BlockElement.create(store, spec, {}), arrays_of(spec)
    table = pa.table(rows, schema=spec.columns)
    for block in range(element.plan.blocks):
        span = element.plan.span(block)
        values = {path: array[span] for path, array in arrays.items()}
        part = table.slice(span.start, span.stop - span.start)
        element.write_block(block, values, part, {"seconds": 0.5})
    element.finalise({"samples": 3})
    plain = {path: _plain(array) for path, array in arrays.items()}
    return {"ref": element.ref, "rows": rows, "arrays": plain, "summary": {"samples": 3}}


def _plain(array: np.ndarray[Any, Any]) -> Any:
    """Nested lists, with null for NaN."""
    objects = array.astype(object)
    objects[np.isnan(array)] = None
    return objects.tolist()


def write_all(folder: Path) -> dict[str, Any]:
    """Write one element of every kind; return what the store holds."""
    store = open_store(str(folder), create=True)
    with Listing.drafted("pets", Pets()) as draft:
        listing = draft.write(store, {})
    listed = {"sample_id": IDS, "label": LABELS, "locator": IDS, "stamp": STAMPS}
    rows = {"sample_id": IDS, "label": LABELS, "locator": IDS, "digest": DIGESTS}
    table = pa.table(rows, schema=INDEX_COLUMNS)
    index = SampleIndex.write(store, "pets", [table], ("cat", "dog"), "imagefolder:pets")
    plan: dict[str, Any] = {"rows": 3, "block_rows": 2}
    attacked = adversarials.adversarials_spec(
        "pets-pgd", model=MODEL, attack={"name": "pgd", "seed": 0, "epsilon": 0.25},
        index_fingerprint=index.fingerprint, image_shape=(3, 1, 2), **plan,
    )  # fmt: skip
    extracted = features.features_spec(
        "pets-tiny", model=MODEL, taps=TAPS, policy="preactivation",
        source={"index": index.fingerprint}, num_classes=2, **plan,
    )  # fmt: skip
    recipe = {"model": MODEL, "policy": "preactivation", "features": extracted.fingerprint}
    writer = create_bank(store, BankSpec("pets-tiny", recipe, TAPS, ("cat", "dog")))
    mixtures = {tap: (np.arange(4 * c).reshape(2, 2, c) / 16).tolist() for tap, c in TAPS}
    for tap, values in mixtures.items():
        writer.write_tap(tap, np.array(values, np.float64))
    scored = votes.votes_spec(
        "pets-tiny", features_fingerprint=extracted.fingerprint,
        bank_fingerprint=writer.spec.fingerprint, scoring={"delta": 1e-20},
        taps=[tap for tap, _ in TAPS], **plan,
    )  # fmt: skip
    digested = replace(listing.digests_spec(), block_rows=2)
    later: dict[str, list[Any]] = dict.fromkeys(adversarials.LATER, [0] * len(IDS))
    return {
        "listings": {"ref": listing.ref, "rows": listed, "class_names": ["cat", "dog"]},
        "digests": write(store, digested, {**STATUS, "digest": DIGESTS}),
        "indexes": {"ref": index.ref, "rows": rows, "class_names": ["cat", "dog"]},
        "adversarials": write(store, attacked, ADVERSARIALS | later),
        "features": write(store, extracted, FEATURES),
        "banks": {"ref": writer.finish([2, 1]), "mixtures": mixtures, "counts": [2, 1]},
        "votes": write(store, scored, VOTES),
    }


def main() -> None:
    """Write the store of this schema version beside this file."""
    folder = Path(__file__).parent / f"schema-{SCHEMA_VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "store").mkdir(parents=True)
    expected = write_all(folder / "store")
    (folder / "expected.json").write_text(json.dumps(expected, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
