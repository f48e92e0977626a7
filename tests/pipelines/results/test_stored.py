"""Results of every schema version: version 1 is read as version 2, a later one is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from regroup_pipelines.commands import report
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.results.base import Accuracy
from regroup_pipelines.results.records import (
    AttackedImages,
    AttackNotRun,
    CleanImages,
    ImagesNotRun,
    MeasuredImages,
    StudyResults,
)
from regroup_pipelines.results.stored import (
    damaged_results,
    keep_results,
    kept_results,
    parse_results,
    read_results,
)
from regroup_pipelines.results.timings import Timing, TimingNotRun
from regroup_store.errors import DamagedError, SchemaVersionError
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.studies import read_study, write_study
from tests.pipelines.records import attacked, measured
from tests.pipelines.small_study import write_small_study
from tests.store.elements import memory_store, snapshot

if TYPE_CHECKING:
    from tests.pipelines.conftest import Run

OLD_STORE = Path(__file__).parents[2] / "data" / "store-0.1.0.dev0-ba43c66" / "store"
STUDIES = ("small", "gaps")
# Where version 2 has what version 1 had elsewhere: patterns of paths, in order.
MOVED = (
    (r"^settings\.banks\.(\w+)\.bank_seed$", r"settings.banks.\1.seed"),
    (r"\.samples_a_class\.", ".samples_per_class."),
    (r"\.not_run$", ".reason"),
    (r"\.((?:softmax|regroup)_top[15])_all\.", r".over_all.\1."),
    (r"\.((?:softmax|regroup)_top[15])_S\.", r".over_success.\1."),
    (r"\.whole\.clean\.over_all\.", ".whole.clean."),
    (r"(\.accuracy_against_k\.\d+)\.([\w-]+)\.(?=\w)", r"\1.accuracy.\2."),
    (r"(\.tap_accuracy\.\d+)\.(both|positive|negative)\.", r"\1.accuracy.\2."),
    (
        r"^(images\.\d+)\.(?!images$|dataset$|index$|title$|subset$|adversarials$|reason$)",
        r"\1.summary.",
    ),
)


def leaves(value: object, path: str = "") -> dict[str, object]:
    """Every value that is neither a list nor a dictionary, by the path of keys to it."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        found = [leaves(each, f"{path}.{key}" if path else str(key)) for key, each in parts]
        return {key: each for part in found for key, each in part.items()}
    return {path: value}


def moved(path: str) -> str:
    for pattern, now in MOVED:
        path = re.sub(pattern, now, path)
    return path


# Keys of a study file that came later, at their defaults.
LATER_SETTINGS = {"settings.strict": False, "settings.model.labels": "name"}


def version_1(study: str) -> dict[str, Any]:
    """Results as the old code wrote them."""
    record = json.loads((OLD_STORE / "studies" / study / "results.json").read_text())
    results: dict[str, Any] = record["results"]
    return results


@pytest.fixture
def old_store(tmp_path: Path) -> Store:
    return open_store(str(shutil.copytree(OLD_STORE, tmp_path / "store")))


@pytest.mark.parametrize("study", STUDIES)
def test_every_value_of_version_1_is_one_of_version_2(study: str, old_store: Store) -> None:
    old = version_1(study)
    assert "schema_version" not in old
    before = {moved(path): value for path, value in leaves(old).items()}
    assert len(before) == len(leaves(old)) > 400, "no two values have one place"
    results = read_results(old_store, study)
    now = leaves(results.plain())
    assert {path: now.get(path, "nowhere") for path in before} == before
    # What only version 2 says: which kinds the rows are, and that something is not there.
    new = {path: value for path, value in now.items() if path not in before and value is not None}
    assert {path: value for path, value in new.items() if not path.endswith(".kind")} == {
        "schema_version": 2, **LATER_SETTINGS
    }  # fmt: skip


def test_rows_are_told_by_their_kind() -> None:
    results = parse_results(version_1("small"), "results")
    kinds = {CleanImages: "clean", AttackedImages: "attack", AttackNotRun: "not run"}
    assert [row.kind for row in results.images] == [kinds[type(row)] for row in results.images]
    assert {type(row) for row in results.images} == set(kinds)
    assert "later" not in attacked(results)
    for evaluation in results.evaluations:
        words = {MeasuredImages: "measured", ImagesNotRun: "not run"}
        rows = evaluation.accuracy
        assert [row.kind for row in rows] == [words[type(row)] for row in rows]
        assert [row.images for row in rows if row.kind == "not run"] == ["later"]
        times = evaluation.inference_time or ()
        assert [(row.device, row.kind) for row in times] == [
            ("cpu", "measured"), ("cuda", "not run")
        ]  # fmt: skip
        assert [type(row) for row in times] == [Timing, TimingNotRun]


@pytest.mark.parametrize("kind", ["clean", "measured", "whole", None])
def test_a_row_of_no_kind_is_no_row(kind: str | None) -> None:
    """The kind decides: a row with the keys of another one, or without a kind, is refused."""
    plain = parse_results(version_1("small"), "results").plain()
    (later,) = [row for row in plain["images"] if row["images"] == "later"]
    later.pop("kind")
    later.update({} if kind is None else {"kind": kind})
    with pytest.raises(DamagedError, match=r"images\.\d+"):
        parse_results(plain, "results")


@pytest.mark.parametrize("study", STUDIES)
def test_what_is_written_is_read_back(study: str) -> None:
    results = parse_results(version_1(study), "results")
    assert parse_results(results.plain(), "results") == results
    assert parse_results(json.loads(json.dumps(results.plain())), "results") == results


def test_records_do_not_change_and_know_their_keys() -> None:
    accuracy = Accuracy(correct=3, total=4)
    assert accuracy.plain() == {
        "correct": 3, "total": 4, "accuracy": 0.75, "interval95": [*accuracy.interval95]
    }  # fmt: skip
    with pytest.raises(ValidationError, match="frozen"):
        accuracy.correct = 4
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ImagesNotRun.model_validate({"images": "a", "reason": "b", "not_run": "c"})


def small() -> tuple[Store, StudyResults]:
    store = memory_store()
    return store, write_small_study(store)


def test_the_same_numbers_are_not_written_again(old_store: Store) -> None:
    """Whatever they cost this time, and whatever their version."""
    before = snapshot(old_store)
    results = read_results(old_store, "small")
    keep_results(old_store, results.model_copy(update={"seconds": 1e9, "forward_passes": 7}))
    assert snapshot(old_store) == before
    assert "schema_version" not in read_study(old_store, "small")


def test_other_numbers_are_written_in_this_version(old_store: Store) -> None:
    results = read_results(old_store, "small")
    first, *others = results.evaluations
    changed = (first.model_copy(update={"k": first.k + 1}), *others)
    keep_results(old_store, results.model_copy(update={"evaluations": changed}))
    assert read_study(old_store, "small")["schema_version"] == 2
    assert read_results(old_store, "small").evaluations[0].k == first.k + 1
    assert measured(read_results(old_store, "gaps").evaluations[0])


def test_a_later_version_is_refused_and_never_replaced() -> None:
    store, results = small()
    later = {**results.plain(), "schema_version": 3, "evaluations": "of another kind"}
    write_study(store, "small", later)
    for read in (read_results, kept_results):
        with pytest.raises(SchemaVersionError, match=r"have schema version 3, .* up to 2: install"):
            read(store, "small")
    with pytest.raises(SchemaVersionError):
        keep_results(store, results)
    assert read_study(store, "small") == later


def test_damaged_results_are_not_read_and_do_not_block_the_next_run() -> None:
    store, results = small()
    key = "studies/small/results.json"
    store.backend.replace(key, store.backend.read(key).replace(b"pets", b"cats"))
    with pytest.raises(DamagedError, match=r"studies/small/results\.json"):
        read_results(store, "small")
    assert key in str(damaged_results(store, "small"))
    keep_results(store, results)
    assert damaged_results(store, "small") is None
    assert read_results(store, "small") == results


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluations": None}, "evaluations: "),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"schema_version": "2"}, "schema_version: "),
        ({"schema_version": 0}, "schema_version: "),
        ({"schema_version": 1}, "(KeyError: "),
        ({"images": [{"kind": "clean"}]}, "images.0.clean.images: Field required"),
        ({"settings": {}}, "settings."),
    ],
)
def test_content_of_no_version_is_one_sentence(change: dict[str, Any], said: str) -> None:
    """And a run of the study may replace it."""
    store, results = small()
    write_study(store, "small", {**results.plain(), **change})
    with pytest.raises(DamagedError) as refused:
        read_results(store, "small")
    text = str(refused.value)
    assert text.startswith(f"the results of small in {store.uri} cannot be read (")
    assert said in text
    assert text.endswith("): run the study again with this release")
    assert "\n" not in text
    assert kept_results(store, "small") is None
    keep_results(store, results)
    assert read_results(store, "small") == results


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 3}, "have schema version 3, this release reads versions up to 2"),
        ({"evaluations": None}, "cannot be read (evaluations: "),
    ],
)
@pytest.mark.parametrize("command", ["report", "export"])
def test_commands_say_so_with_exit_status_1(
    command: str, change: dict[str, Any], said: str, run: Run, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    write_study(store, "small", {**write_small_study(store).plain(), **change})
    done = run(command, "--store", store.uri, "--study", "small", "--output", tmp_path / "out")
    assert done.status == 1
    (line,) = done.err.strip().splitlines()
    assert line.startswith(f"regroup {command}: ")
    assert said in line
    assert not list((tmp_path / "out").glob("*"))


def test_a_report_of_version_1_is_one_of_version_2(old_store: Store, tmp_path: Path) -> None:
    """Its pages and downloads are the same when the results are kept in version 2."""
    pages = []
    for name in ("old", "new"):
        folder = tmp_path / name
        config = ReportConfig(store=old_store.uri, output=str(folder), images=2, json=True)
        report.main(config)
        pages.append(
            {
                path.relative_to(folder).as_posix(): path.read_bytes().replace(
                    str(folder).encode(), b""
                )
                for path in folder.rglob("*")
                if path.suffix in (".html", ".csv", ".json", ".tex")
            }
        )
        for study in STUDIES:
            write_study(old_store, study, read_results(old_store, study).plain())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    "path", [("study",), ("evaluations", 0, "bank"), ("evaluations", 0, "taps")]
)
@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "", ".", "a\n", "\x1b[31m"])
def test_names_that_would_lead_out_of_a_report_are_refused(
    path: tuple[Any, ...], name: str
) -> None:
    plain = json.loads((OLD_STORE / "studies" / "small" / "results.json").read_text())["results"]
    part = plain
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = name
    with pytest.raises(DamagedError, match=r"cannot be read .*pattern"):
        parse_results(plain, "the results")


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValidationError):
        Accuracy(correct=counts[0], total=counts[1])
