"""The state of an element in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_pipelines.errors import DamageFoundError
from regroup_store.format.block_plan import format_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regroup_pipelines.json_types import JsonObject
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


def refuse_unreadable(
    infos: Iterable[ElementInfo], advice: str = "", summary: JsonObject | None = None
) -> None:
    """Name the elements that cannot be read, instead of leaving them out.

    Args:
        infos: of the elements that an answer is about.
        advice: what to do instead of repairing them.
        summary: the answer without them, for --json.

    Raises:
        DamageFoundError: there are some.
    """
    bad = [info for info in infos if info.problem]
    if bad:
        named = "; ".join(f"{info.kind}/{info.ref}: {info.problem}" for info in bad)
        advice = f", or {advice}" if advice else ""
        raise DamageFoundError(
            f"{len(bad)} elements cannot be read: {named}; run `regroup repair`{advice}",
            summary or {},
        )
