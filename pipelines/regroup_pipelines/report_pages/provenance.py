"""Provenance: fingerprints, versions, commits, and the commands that reproduce the numbers."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from tyro.conf import Positional, UseAppendAction

from regroup_pipelines.configs.table import CONFIGS
from regroup_pipelines.render.table import Cell, Table, text_cell
from regroup_pipelines.report_pages.curves import is_minimal
from regroup_pipelines.report_pages.evaluation import Missing, or_missing
from regroup_pipelines.results.base import NOT_RUN
from regroup_pipelines.results.records import AttackedImages, AttackNotRun, CleanImages
from regroup_pipelines.steps.run_record import public
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.lineage import parents
from regroup_store.format.manifests import Location, locate, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regroup_pipelines.json_types import FlatRow, JsonObject
    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation, ReportedStudy
    from regroup_pipelines.schema.study import DeclaredBank


def elements(study: ReportedStudy) -> Iterator[tuple[str, str]]:
    """Yield (kind, ref) of every element behind the study's numbers, without duplicates."""
    named: list[tuple[str, str]] = []
    for row in study.results.images:
        if isinstance(row, CleanImages):
            named.append(("indexes", row.index))
        elif isinstance(row, AttackedImages):
            named.append(("adversarials", row.adversarials))
    for evaluation in study.evaluations:
        named.append(("banks", evaluation.results.bank_ref))
        for images, ref in evaluation.results.votes.items():
            named += [*_features(evaluation, images), ("votes", ref)]
    yield from dict.fromkeys(named)


def _features(evaluation: ReportedEvaluation, images: str) -> list[tuple[str, str]]:
    found = or_missing(lambda: evaluation.features(images).ref)
    return [] if isinstance(found, Missing) else [("features", found)]


def elements_table(study: ReportedStudy) -> Table:
    """Return every element with its full fingerprint, its parents, its time and its git commit."""
    rows, download = [], []
    for kind, ref in elements(study):
        found = _describe(study, kind, ref)
        download.append(found)
        rows.append([Cell(str(value), str(value)) for value in found.values()])
    heads = ["kind", "name", "fingerprint", "made from", "created", "git commit"]
    note = "A fingerprint is the hash of all that determines an element (docs/format.md)."
    return Table("elements", "Elements", heads, rows, download, note)


def _describe(study: ReportedStudy, kind: str, ref: str) -> FlatRow:
    manifest = or_missing(lambda: _manifest(study, kind, ref))
    location = Location(kind, ref)
    head = {"kind": kind, "name": location.name}
    if isinstance(manifest, Missing):
        gone = {
            "fingerprint": location.short_fingerprint,
            "made_of": f"missing: {manifest.reason}",
        }
        return {**head, **gone, "made_at": "-", "git_commit": "-"}
    recorded: Any = manifest.get("recorded") or {}
    made_of = [
        f"{parent} {short_fingerprint(fingerprint)}"
        for parent, fingerprint in parents(kind, manifest["inputs"])
    ]
    return {
        **head,
        "fingerprint": manifest["fingerprint"],
        "made_of": ", ".join(made_of) or "-",
        "made_at": recorded.get("created") or "-",
        "git_commit": code_of(recorded),
    }


def code_of(recorded: JsonObject) -> str:
    """Name the code that wrote a record: its git commit, else the digests of its packages."""
    digests = "-".join(str(each)[:8] for each in (recorded.get("code") or {}).values())
    return str(recorded.get("git_commit") or (f"unknown, code {digests}" if digests else "unknown"))


def _manifest(study: ReportedStudy, kind: str, ref: str) -> JsonObject:
    backend = study.store.backend
    return read_manifest(backend, locate(backend, kind, ref))


def versions(study: ReportedStudy) -> list[tuple[str, str]]:
    """Return every package with the versions that made the study's elements."""
    found: dict[str, dict[str, None]] = {}
    for kind, ref in elements(study):
        manifest = or_missing(lambda kind=kind, ref=ref: _manifest(study, kind, ref))  # type: ignore[misc]
        recorded: Any = {} if isinstance(manifest, Missing) else manifest.get("recorded") or {}
        for package, version in (recorded.get("versions") or {}).items():
            found.setdefault(str(package), {})[str(version)] = None
    return [(package, ", ".join(each)) for package, each in found.items()]


def runs_table(runs: Iterable[JsonObject]) -> Table:
    """Return the recorded runs that made elements of the study, with their command lines."""
    rows, download = [], []
    for run in runs:
        line, commit = command_line(run), code_of(run)
        dirty = " with changes" if run.get("git_dirty") else ""
        cells: FlatRow = {
            "started": str(run.get("started")),
            "command": line,
            "state": str(run.get("state")),
            "seconds": run.get("seconds"),
            "git_commit": commit + dirty,
        }
        download.append(cells)
        rows.append([_cell(value) for value in cells.values()])
    heads = ["started", "command", "state", "seconds", "git commit"]
    return Table("runs", "Runs that worked for this study", heads, rows, download)


def _cell(value: Any) -> Cell:
    number = isinstance(value, int | float)
    return Cell(f"{value:.1f}", value) if number else text_cell(value)


def command_line(run: JsonObject) -> str:
    """The command of a run record with the options that were not at their default.

    A password or a query in a URI is masked.
    """
    command = str(run["command"])
    known, markers, words = _defaults(command), _markers(command), ["regroup", command]
    options = public(run.get("options") or {})
    for name, value in options.items():
        default = known.get(name, MISSING)
        same = (
            list(value) == list(default)
            if isinstance(value, list) and _listed(default)
            else (value == default)
        )
        if not same and value is not None:
            words += _option(name, value, markers.get(name, ()))
    return " ".join(shlex.quote(word) for word in words)


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _option(name: str, value: Any, markers: tuple[object, ...]) -> list[str]:
    """Return the words of one option, as the command's own options say that it is written."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    values = [str(each) for each in (value if _listed(value) else [value])]
    if Positional in markers:
        return values
    if UseAppendAction in markers or not _listed(value):
        return [word for each in values for word in _pair(flag, each)]
    return [flag, *values]


def _pair(flag: str, value: str) -> list[str]:
    """Return an option with its value: as one word where the value looks like an option."""
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def _markers(command: str) -> dict[str, tuple[object, ...]]:
    """Return what marks each option of a command: positional, given once per value."""
    if command not in CONFIGS:
        return {}
    hints = get_type_hints(CONFIGS[command], include_extras=True)
    return {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}


def _defaults(command: str) -> JsonObject:
    """Return the defaults of a command's options, by name; {} for an unknown command."""
    if command not in CONFIGS:
        return {}
    return {
        each.name: each.default if each.default is not MISSING else _made(each)
        for each in fields(CONFIGS[command])
    }


def _made(option: Any) -> Any:
    return option.default_factory() if option.default_factory is not MISSING else MISSING


def commands(study: ReportedStudy, store: str, runs: Iterable[JsonObject]) -> list[dict[str, str]]:
    """Return one row per group of numbers, with the command that reproduces them.

    Args:
        study: the study.
        store: the store as the user named it.
        runs: the recorded runs that made elements of the study.
    """
    ran = [run for run in runs if run.get("command") == "run" and _ran(run, study.name)]
    line = command_line(ran[-1]) if ran else f"regroup run STUDY.toml --store {shlex.quote(store)}"
    found = [
        {
            "numbers": "every table; what the store holds is not computed again",
            "command": line,
        }
    ]
    for evaluation in study.evaluations:
        found += _evaluation_commands(evaluation, store)
    return found


def _ran(run: JsonObject, name: str) -> bool:
    """Return whether a run was of the study `name`, given by name or by a file of that name."""
    from pathlib import PurePath

    named = str((run.get("options") or {}).get("study", ""))
    return PurePath(named).stem == name


def _evaluation_commands(evaluation: ReportedEvaluation, store: str) -> list[dict[str, str]]:
    scoring = evaluation.study.settings.scoring
    head = ["--store", store, "--bank", evaluation.results.bank_ref]
    voting = ["--tie-break", scoring.tie_break, "--delta", f"{scoring.delta:g}"]
    voting += ["--rule", scoring.rule]
    features = [
        ref for images in evaluation.results.votes for _, ref in _features(evaluation, images)
    ]
    rescore = [
        "regroup",
        "rescore",
        *head,
        *voting,
        *(["--features", *features] if features else []),
    ]
    found = [(f"{evaluation.title}: accuracy against k, 0 forward passes", rescore)]
    for attack in evaluation.study.attacks:
        made = or_missing(lambda attack=attack: evaluation.study.adversarials(attack))  # type: ignore[misc]
        if not isinstance(made, Missing) and is_minimal(made):
            curve = ["regroup", "curve", *head, *voting, "--adversarials", attack.adversarials]
            curve += ["--k", str(evaluation.k), "--signs", evaluation.signs]
            found.append((f"{evaluation.title}: the curve of {attack.images}", curve))
    return [
        {"numbers": what, "command": " ".join(shlex.quote(word) for word in words)}
        for what, words in found
    ]


def what_was_run(study: ReportedStudy) -> list[tuple[str, str]]:
    """Describe the study in words: network, datasets, banks, taps, scoring and attacks."""
    settings = study.settings
    model, scoring = settings.model, settings.scoring
    classes = "the dataset's classes" if model.classes == "dataset" else "all of its classes"
    rule = f"k by the rule, threshold {100 * scoring.threshold:g} %"
    k = rule if scoring.k is None else f"k = {scoring.k}"
    pairs = [
        ("network", f"{model.name}, {classes}, {model.dtype}"),
        ("weights", str(public(model.weights)) if model.weights else "the model's own"),
        *((f"dataset {name}", str(public(spec))) for name, spec in settings.datasets.items()),
        *((f"bank {name}", _bank(bank)) for name, bank in settings.banks.items()),
        ("taps", ", ".join(settings.taps)),
        ("scoring", f"{k}, signs {scoring.signs}, ties by {scoring.tie_break}"),
    ]
    return pairs + [(f"attack {name}", text) for name, text in _attacks(study)]


def _bank(bank: DeclaredBank) -> str:
    return (
        f"{bank.per_class} correctly classified images per class of {bank.dataset}, "
        f"{bank.weighting} weights, seed {bank.bank_seed}"
    )


def _attacks(study: ReportedStudy) -> Iterator[tuple[str, str]]:
    for row in study.results.attacks:
        why = f" ({NOT_RUN}: {row.reason})" if isinstance(row, AttackNotRun) else ""
        yield row.images, f"{row.title}, on {row.dataset}{why}"
