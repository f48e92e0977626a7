"""Description of a block element before any of it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup_store.errors import FingerprintMismatchError
from regroup_store.format.arrays import ArraySpec, specs_to_json
from regroup_store.format.environment import environment_record
from regroup_store.format.manifests import SCHEMA_VERSION, element_fingerprint
from regroup_store.format.parquet_parts import columns_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


@dataclass(frozen=True)
class ElementSpec:
    """Description of a block element.

    Attributes:
        kind: one of `BLOCK_KINDS`.
        name: what people call it; not hashed.
        inputs: all that determines the content, as JSON; hashed.
        rows: number of samples; not hashed, since `inputs` hold the index's fingerprint.
        block_rows: samples per block; not hashed.
        arrays: its arrays, in the order of the manifest.
        columns: of its samples table.
        later: names of columns that an element of an earlier release may lack: they determine
            nothing, so that it keeps its fingerprint and goes on without them.
    """

    kind: str
    name: str
    inputs: Mapping[str, object]
    rows: int
    block_rows: int
    arrays: tuple[ArraySpec, ...]
    columns: pa.Schema
    later: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the element, 64 hex characters."""
        return element_fingerprint(self.kind, self.inputs)

    def manifest(self, recorded: Mapping[str, object]) -> dict[str, object]:
        """Manifest of a new element: its description, and the environment that makes it."""
        return {**self.description(), "recorded": environment_record(recorded)}

    def description(self) -> dict[str, object]:
        """What the manifest states about the element itself; costs nothing to build."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "inputs": dict(self.inputs),
            "rows": self.rows,
            "block_rows": self.block_rows,
            "arrays": specs_to_json(self.arrays, self.rows),
            "columns": columns_to_json(self.columns),
        }

    def columns_beside(self, stored: object) -> list[dict[str, object]]:
        """Return the columns that an element has whose manifest states `stored`."""
        held = stored if isinstance(stored, list) else []
        return [
            column
            for column in columns_to_json(self.columns)
            if column["name"] not in self.later or column in held
        ]


def require_same(manifest: Mapping[str, object], spec: ElementSpec, where: str) -> None:
    """Refuse an element with the fingerprint of `spec` but other rows, columns or arrays.

    Raises:
        FingerprintMismatchError: they differ; the message begins with `where`.
    """
    expected = spec.description()
    expected["columns"] = spec.columns_beside(manifest.get("columns"))
    for key in ("rows", "columns", "arrays"):
        if manifest.get(key) != expected[key]:
            raise FingerprintMismatchError(
                f"{where} has the requested fingerprint but other {key}, as a development version "
                "may have written it: remove the folder and run the command again"
            )
