"""Repair a store: mark what `verify` finds damaged so that exactly this is computed again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from regroup_pipelines.commands.verify import find_all
from regroup_pipelines.errors import DamageFoundError
from regroup_pipelines.render.terminal import print_line
from regroup_store.errors import StoreError
from regroup_store.format.block_plan import format_blocks
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.lineage import holds_candidates, parents
from regroup_store.format.manifests import KINDS, ROW_KINDS, locate, read_manifest
from regroup_store.kinds.studies import STUDIES
from regroup_store.maintenance.repair import apply_repair, kept_elements, plan_repairs
from regroup_store.maintenance.verify import open_to_verify

if TYPE_CHECKING:
    from regroup_pipelines.configs.maintenance import RepairConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.manifests import Location
    from regroup_store.format.store import Store
    from regroup_store.maintenance.repair import Repair

# The order in which the commands have to be run: parents first.
COMMAND_ORDER = (
    "index-dataset", "extract", "attack", "evaluate", "build-bank", "rescore", "run",
)  # fmt: skip


def command_for(store: Store, location: Location) -> tuple[str, str]:
    """Return the command that wrote an element and those of its options that are known, quoted."""
    if location.kind == STUDIES:
        return "run", shlex.quote(location.ref)
    try:
        manifest: Any = read_manifest(store.backend, location)
    except (StoreError, FileNotFoundError):
        return _command(store, location.kind, {}), ""
    options = _options(store, location.kind, manifest)
    given = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value]
    return _command(store, location.kind, manifest["inputs"]), " ".join(given)


def _command(store: Store, kind: str, inputs: JsonObject) -> str:
    """Return the command that writes elements of a kind."""
    if holds_candidates(store, kind, inputs):
        return "build-bank"
    if kind == "indexes":
        return "attack" if "parent" in inputs else "index-dataset"
    if kind == "features":
        return "evaluate" if "adversarials" in inputs.get("source", {}) else "extract"
    commands = {"adversarials": "attack", "banks": "build-bank", "votes": "rescore"}
    return commands.get(kind, "index-dataset")


def _options(store: Store, kind: str, manifest: JsonObject) -> dict[str, str | None]:
    inputs = manifest["inputs"]
    if kind == "votes":
        return {name: short_fingerprint(inputs[name]) for name in ("bank", "features")}
    options = {
        "dataset": _dataset(store, kind, manifest),
        "model": inputs.get("model", {}).get("name"),
    }
    adversarials = inputs.get("source", {}).get("adversarials")
    return {**options, "adversarials": adversarials and short_fingerprint(adversarials)}


def _dataset(store: Store, kind: str, manifest: JsonObject) -> str | None:
    """Return the dataset that an element comes from, or None where its index cannot be read."""
    if kind in ROW_KINDS:
        return str(manifest["source_spec"])
    for parent, full in parents(kind, manifest["inputs"]):
        try:
            found = read_manifest(store.backend, locate(store.backend, parent, full))
        except (StoreError, FileNotFoundError):
            continue
        return _dataset(store, parent, found)
    return None


@dataclass(frozen=True)
class RepairedElement:
    """The repair of one element.

    Attributes:
        element: its folder, or "the store".
        action: what is done, as in `regroup_store.maintenance.repair`.
        blocks: blocks to compute again.
        removed: files removed from the element.
        rewritten: files written again.
        kept: elements that were made from it; they stay.
        command: the command to run again, or None.
        options: those of its options that are known, shell-quoted.
    """

    element: str
    action: str
    blocks: list[int]
    removed: list[str]
    rewritten: list[str]
    kept: list[str]
    command: str | None
    options: str


def repaired_element(store: Store, repair: Repair) -> RepairedElement:
    """Describe a repair, with what it keeps and the command to run after it."""
    place = repair.location
    command, options = command_for(store, place) if place else ("", "")
    return RepairedElement(
        element=place.folder if place else "the store",
        action=repair.action,
        blocks=list(repair.blocks),
        removed=list(repair.removed),
        rewritten=list(repair.rewritten),
        kept=[location.folder for location in kept_elements(store, repair)],
        command=command if _needs_a_run(repair) else None,
        options=options,
    )


def _needs_a_run(repair: Repair) -> bool:
    of_a_run = repair.location is not None and repair.location.kind not in (*KINDS, STUDIES)
    return repair.action not in ("rewrite", "forget") and not of_a_run


def sentences(done: RepairedElement, dry_run: bool) -> list[str]:
    """Describe the repair of one element in lines of text."""
    what = {
        "rewrite": f"{'would write' if dry_run else 'wrote'} {', '.join(done.rewritten)} again; "
        "verify again",
        "requeue": f"block {format_blocks(done.blocks)}: the next run computes only "
        f"{'this block' if len(done.blocks) == 1 else f'these {len(done.blocks)} blocks'} again",
        "rebuild": "its manifest is removed, so that the next run writes it again (blocks stay)",
        "summarise": "the next run writes its summary again and computes no block",
        "forget": "the unreadable reason of a failed block is removed; the next run retries it",
        "rerun": "its results are replaced by its next run, which computes only what is gone",
        "discard": "what nothing else depends on is removed; timings are measured again",
    }[done.action]
    lines = [f"{done.element}: {what}"]
    if done.removed:
        lines.append(f"  {'would remove' if dry_run else 'removed'}: {', '.join(done.removed)}")
    if done.kept:
        lines.append(f"  made from it and kept: {', '.join(done.kept)}")
    return lines


def next_commands(store_uri: str, repairs: list[RepairedElement]) -> list[str]:
    """Return the commands to run again, without duplicates, in the order to run them."""
    found = {(r.command, r.options) for r in repairs if r.command}
    ordered = sorted(found, key=lambda each: (COMMAND_ORDER.index(each[0]), each[1]))
    return [
        f"regroup {command} --store {shlex.quote(store_uri)} {options}".rstrip()
        for command, options in ordered
    ]


def main(config: RepairConfig) -> JsonObject:
    """Verify the store and repair what is damaged; nothing is computed here."""
    store = open_to_verify(config.store)
    findings = find_all(store, config.refs)
    repairs = plan_repairs(store, findings)
    described = [repaired_element(store, repair) for repair in repairs]
    for repair, done in zip(repairs, described, strict=True):
        if not config.dry_run:
            apply_repair(store, repair)
        for line in sentences(done, config.dry_run):
            print_line(line, config.json)
    left = [f"{f.path} ({f.problem})" for f in findings if f.level == "unreadable"]
    commands = next_commands(config.store, described)
    for line in [*_advice(commands), *([] if repairs else ["Nothing is damaged."])]:
        print_line(line, config.json)
    summary = {
        "store": config.store,
        "dry_run": config.dry_run,
        "repairs": [asdict(done) for done in described],
        "left_alone": left,
        "commands": commands,
    }
    if left:
        raise DamageFoundError(f"left alone, since unreadable: {'; '.join(left)}", summary)
    return summary


def _advice(commands: list[str]) -> list[str]:
    if not commands:
        return []
    return [
        "Run again, with all of the original options (or `regroup demo`, if it was that):",
        *commands,
    ]
