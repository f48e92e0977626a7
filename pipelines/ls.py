"""List what a store holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.options import StoreOptions


@dataclass(frozen=True, kw_only=True)
class LsConfig(StoreOptions):
    """List what a store holds: kind, name and fingerprint, rows, blocks, state, size.

    Example: regroup ls --store runs
    """


def main(config: LsConfig) -> dict[str, Any]:
    """Print a row for every element of the store."""
    from dataclasses import asdict

    from rich.filesize import decimal
    from rich.table import Table

    from pipelines.tables import show
    from store.stores import open_store

    store = open_store(config.store, writable=False)
    elements, runs = store.elements(), len(store.backend.children("runs"))
    table = Table(title=config.store, caption=f"runs recorded: {runs}")
    for head in ("kind", "name and fingerprint", "rows", "blocks", "state", "size"):
        right = head in ("rows", "blocks", "size")
        table.add_column(head, justify="right" if right else "left")
    for e in elements:
        blocks = f"{e.blocks_committed} of {e.blocks_planned}"
        state = e.problem or ("complete" if e.finalised else "incomplete")
        table.add_row(e.kind, e.ref, str(e.rows), blocks, state, decimal(e.size_bytes))
    show(table, config.json)
    return {"store": config.store, "elements": [asdict(e) for e in elements], "runs": runs}


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("ls")
