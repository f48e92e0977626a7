"""Verify everything that a store holds against its checksums."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from regroup_pipelines.errors import DamageFoundError
from regroup_pipelines.log import log
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.results.recount import check_summary
from regroup_store.format.block_plan import format_blocks
from regroup_store.maintenance.element_checks import check_element
from regroup_store.maintenance.findings import merged
from regroup_store.maintenance.other_checks import check_others
from regroup_store.maintenance.verify import check_marker, open_to_verify, select_locations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from regroup_pipelines.configs.maintenance import VerifyConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store
    from regroup_store.maintenance.findings import Finding


def find_all(store: Store, refs: tuple[str, ...]) -> list[Finding]:
    """Check what `refs` name (default: all there is), and return every finding.

    Logs one line per element.
    """
    locations = select_locations(store, refs)
    found = [*check_marker(store), *merged(_of_elements(store, locations))]
    if not refs:
        log("verify: studies, runs, and whatever else there is")
        found += check_others(store)
    return found


def _of_elements(store: Store, locations: list[Location]) -> Iterator[Finding]:
    for location in locations:
        log(f"verify: {location.folder}")
        found = list(check_element(store, location))
        yield from found
        if all(each.level == "note" for each in found):
            yield from check_summary(store, location)


def findings_table(findings: list[Finding], title: str) -> Table:
    """Return a table with one row per finding."""
    from rich.table import Table

    table = Table(title=title)
    for head in ("state", "what", "block", "path", "problem"):
        table.add_column(head, justify="right" if head == "block" else "left", overflow="fold")
    for f in findings:
        block = "" if f.block is None else str(f.block)
        table.add_row(f.level, f.what, block, f.path, f.problem)
    return table


def failure_sentence(findings: list[Finding]) -> str | None:
    """Name everything damaged or unreadable in one sentence; None where there is nothing."""
    bad = [f for f in findings if f.level != "note"]
    if not bad:
        return None
    named: dict[str, list[int]] = {}
    for f in bad:
        name = f.path if f.block is None else f"{f.kind}/{f.ref} block"
        named.setdefault(name, []).extend([] if f.block is None else [f.block])
    places = (f"{name} {format_blocks([*set(blocks)])}".strip() for name, blocks in named.items())
    damaged = sum(f.level == "damaged" for f in bad)
    advice = "run `regroup repair` with the same --store" if damaged else "see the reasons above"
    return f"{damaged} damaged, {len(bad) - damaged} unreadable: {'; '.join(places)}. {advice}"


def main(config: VerifyConfig) -> JsonObject:
    """Print every finding.

    Raises:
        DamageFoundError: a finding is more than a note.
    """
    store = open_to_verify(config.store)
    findings = find_all(store, config.refs)
    if findings:
        show(findings_table(findings, config.store), config.json)
    summary = {"store": config.store, "findings": [asdict(f) for f in findings]}
    if failure := failure_sentence(findings):
        raise DamageFoundError(failure, summary)
    print_line("Nothing is damaged.", config.json)
    return summary
