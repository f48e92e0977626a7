"""List what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.render.element_state import reasons, refuse_unreadable, state_of
from regroup_pipelines.render.formatting import human_size
from regroup_pipelines.render.terminal import print_line, show
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from regroup_pipelines.configs.maintenance import LsConfig
    from regroup_pipelines.json_types import JsonObject


def main(config: LsConfig) -> JsonObject:
    """Print one row per element of the store.

    Raises:
        DamageFoundError: an element cannot be read; its row says why.
    """
    from dataclasses import asdict

    from rich.table import Table

    store = open_store(config.store, writable=False)
    elements, runs = store.elements(), len(store.backend.children("runs"))
    total = human_size(sum(e.size_bytes for e in elements))
    caption = f"elements: {len(elements)}, {total}; runs recorded: {runs}"
    table = Table(title=config.store, caption=caption)
    for head in ("kind", "name and fingerprint", "rows", "blocks", "state", "size"):
        right = head in ("rows", "blocks", "size")
        table.add_column(head, justify="right" if right else "left")
    for e in elements:
        blocks = f"{e.blocks_committed} of {e.blocks_planned}"
        table.add_row(e.kind, e.ref, str(e.rows), blocks, state_of(e), human_size(e.size_bytes))
    show(table, config.json)
    for line in reasons(elements) if config.reasons else []:
        print_line(line, config.json)
    summary = {"store": config.store, "elements": [asdict(e) for e in elements], "runs": runs}
    refuse_unreadable(elements, summary=summary)
    return summary
