"""The state of an element in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_store.format.block_plan import format_blocks

if TYPE_CHECKING:
    from regroup_store.format.store import ElementInfo


def state_of(info: ElementInfo) -> str:
    """Say whether an element is complete, and which blocks it lacks."""
    if info.problem:
        return info.problem
    if info.finalised and info.missing_blocks:
        return f"finalised without block {format_blocks([*info.missing_blocks])}"
    if info.quarantined:
        return f"incomplete, failed block {format_blocks([q.block for q in info.quarantined])}"
    return "complete" if info.finalised else "incomplete"


def reasons(elements: list[ElementInfo]) -> list[str]:
    """Return one line per failed block with its reason."""
    return [
        f"{info.kind}/{info.ref} block {q.block}, {q.attempts} attempts: {q.cause}"
        for info in elements
        for q in info.quarantined
    ]
