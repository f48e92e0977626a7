"""What is exported is what the study's tables count, read back with pandas and DuckDB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_pipelines.commands import export as exports
from regroup_pipelines.results.base import MEASURES
from regroup_pipelines.results.records import EvaluationResults, StudyResults
from regroup_pipelines.results.sample_rows import SCHEMA, WORD, Evaluated
from regroup_store.errors import DamagedError
from regroup_store.format.store import Store, open_store
from tests.pipelines.conftest import Run
from tests.pipelines.records import measured
from tests.pipelines.small_study import IDS, STATUS, TITLE, write_small_study
from tests.store.elements import memory_store

DOCS = Path(__file__).parents[3] / "docs" / "exports.md"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StudyResults]:
    store = open_store(str(tmp_path_factory.mktemp("small") / "store"), create=True)
    return store, write_small_study(store)


@pytest.fixture(scope="module")
def files(small: tuple[Store, StudyResults], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    exports.export(*small, folder, ("parquet", "csv"))
    return folder


COUNTS = """
    SELECT images, count(*) FILTER (status = 'ok') AS attempted,
        count(*) FILTER (status = 'failed') AS failed,
        count(*) FILTER (success) AS s,
        count(*) FILTER (softmax_correct) AS softmax,
        count(*) FILTER (softmax_top5_correct) AS softmax5,
        count(*) FILTER (regroup_correct) AS regroup,
        count(*) FILTER (regroup_true_rank <= 5) AS regroup5,
        count(*) FILTER (softmax_correct AND success) AS softmax_s,
        count(*) FILTER (regroup_correct AND success) AS regroup_s
    FROM '{}' WHERE taps = '{}' AND bank = '{}' GROUP BY images
"""


def assert_same_counts(path: Path, evaluation: EvaluationResults) -> None:
    """Every number of the accuracy table is counted from the rows, by DuckDB."""
    query = COUNTS.format(path, evaluation.taps, evaluation.bank)
    counted = {row[0]: row[1:] for row in duckdb.connect().execute(query).fetchall()}
    rows = measured(evaluation)
    assert counted.keys() == rows.keys()
    for images, row in rows.items():
        tops = [row.over_all.of(measure).correct for measure in MEASURES]
        found = [row.accuracy("S", measure) for measure in ("softmax_top1", "regroup_top1")]
        over = [0 if each is None else each.correct for each in found]
        wanted = (row.attempted, row.failed, row.success or 0, *tops, *over)
        assert counted[images] == wanted


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_counts_are_those_of_the_tables(
    files: Path, small: tuple[Store, StudyResults], format: str
) -> None:
    (evaluation,) = small[1].evaluations
    assert_same_counts(files / f"small-samples.{format}", evaluation)


def test_every_sample_is_a_row_failed_ones_too(files: Path) -> None:
    table = pq.read_table(files / "small-samples.parquet")
    assert table["sample_id"].to_pylist() == IDS * 2
    assert table["error"].to_pylist() == STATUS["error"] * 2
    failed = table.filter(pa.compute.equal(table["status"], "failed")).to_pylist()
    assert len(failed) == 2
    known = {"study", "taps", "bank", "images", "attack", "sample_id", "status", "error", "label"}
    known |= {"class_name", "k", "signs", "steps", "queries", "backward_passes"}
    for row in failed:
        assert {name for name, value in row.items() if value is not None} <= known


def test_values_of_one_attacked_sample(files: Path) -> None:
    rows = pq.read_table(files / "small-samples.parquet").to_pylist()
    (last,) = (r for r in rows if (r["images"], r["sample_id"]) == ("pgd", "dog/1.png"))
    assert last == {
        "study": "small", "taps": "preactivation", "bank": "two", "images": "pgd",
        "attack": TITLE, "sample_id": "dog/1.png", "status": "ok", "error": None, "label": 1,
        "class_name": "dog", "softmax_prediction": 0, "softmax_correct": False,
        "softmax_top5_correct": True, "confidence": 0.5, "true_confidence": 0.5, "success": True,
        "success_8bit": False, "claimed": True, "adversarial_class": 0, "target": None,
        "epsilon": 0.25, "l2": 0.5, "linf": 0.25, "mse": 0.0625, "steps": 2, "queries": 3,
        "backward_passes": 2, "k": 2, "signs": "both", "regroup_prediction": 1,
        "regroup_true_rank": 1, "regroup_correct": True, "regroup_top5_correct": True,
    }  # fmt: skip
    (clean,) = (r for r in rows if (r["images"], r["sample_id"]) == ("clean", "dog/1.png"))
    attack = ("attack", "success", "success_8bit", "l2", "queries", "adversarial_class", "target")
    assert {clean[name] for name in attack} == {None}


def test_pandas_reads_the_same_from_both(files: Path) -> None:
    parquet = pd.read_parquet(files / "small-samples.parquet")
    csv = pd.read_csv(files / "small-samples.csv")
    assert list(parquet.columns) == list(csv.columns) == SCHEMA.names
    assert isinstance(parquet["class_name"].dtype, pd.CategoricalDtype)
    for name in SCHEMA.names:
        left, right = parquet[name].astype(object), csv[name].astype(object)
        assert (left.isna() == right.isna()).all(), name
        there = left.notna()
        if SCHEMA.field(name).type == pa.float32():
            np.testing.assert_allclose(
                left[there].astype(float), right[there].astype(float), rtol=1e-6
            )
        else:
            assert (left[there] == right[there]).all(), name


def test_the_schema_is_the_documented_one(files: Path) -> None:
    schema = pq.read_schema(files / "small-samples.parquet")
    assert schema.names == SCHEMA.names
    assert json.loads(schema.metadata[b"regroup"])["export_version"] == exports.EXPORT_VERSION
    documented = {
        cells[1].strip(" `"): cells[2].strip()
        for line in DOCS.read_text().splitlines()
        if len(cells := line.split("|")) > 4 and cells[1].startswith(" `")
    }
    shown = {f.name: "string, dictionary" if f.type == WORD else str(f.type) for f in SCHEMA}
    assert documented == shown


def test_groups_are_joined_and_memory_is_theirs(
    small: tuple[Store, StudyResults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "GROUP_ROWS", 3)
    exports.export(*small, tmp_path, ("parquet",))
    file = pq.ParquetFile(tmp_path / "small-samples.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [4, 4]
    tables = [pa.table({"a": range(n)}) for n in (2, 2, 2, 1)]
    assert [t.num_rows for t in exports.grouped(iter(tables), 3)] == [4, 3]


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_memory_is_flat_in_the_samples(
    small: tuple[Store, StudyResults],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    """What Arrow holds while a hundred blocks are written is what it holds for ten."""
    monkeypatch.setattr(exports, "GROUP_ROWS", 4096)
    (part, _) = exports.evaluated(*small)
    rows = pa.concat_tables([*part.tables()] * 512).combine_chunks()
    held: list[int] = []

    def peak(blocks: int) -> int:
        held.clear()

        def tables(self: Evaluated) -> Any:
            for _ in range(blocks):
                held.append(pa.total_allocated_bytes())
                yield pa.concat_tables([rows]).take(pa.array(range(rows.num_rows)))

        monkeypatch.setattr(Evaluated, "tables", tables)
        written = exports.export(*small, tmp_path / str(blocks), (format,))
        assert written[0].rows == blocks * rows.num_rows
        return max(held)

    assert peak(100) < 1.3 * peak(10)


def test_what_fails_half_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last block is damaged: neither file is replaced, and no temporary file stays."""
    store = memory_store()
    results = write_small_study(store)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "small-samples.csv").write_text("of before")
    ref = results.evaluations[0].votes["pgd"]
    store.backend.delete(f"votes/{ref}/true_rank.zarr/c/1/0/0")
    with pytest.raises(DamagedError, match="true_rank"):
        exports.export(store, results, folder, ("parquet", "csv"))
    assert [path.name for path in folder.iterdir()] == ["small-samples.csv"]
    assert (folder / "small-samples.csv").read_text() == "of before"


def test_other_samples_are_refused(small: tuple[Store, StudyResults], tmp_path: Path) -> None:
    """Features whose rows are not those of the votes: refused, not mixed up."""
    clean, pgd = exports.evaluated(*small)
    swapped = pgd._features
    changed = swapped.read_table(0)
    reordered = changed.take([1, 0])
    swapped.read_table = lambda block, columns=None: reordered.select(columns)  # type: ignore[method-assign]
    with pytest.raises(DamagedError, match="holds other samples"):
        list(pgd.tables())
    assert sum(table.num_rows for table in clean.tables()) == len(IDS)


def test_the_command(small: tuple[Store, StudyResults], run: Run, tmp_path: Path) -> None:
    store = small[0].uri
    done = run("export", "--store", store, "--study", "small", "-o", tmp_path / "out")
    assert done.status == 0
    assert "small-samples.parquet: 8 rows, 2 of them failed;" in done.out
    assert "cadv: no rows, not run: the study skips it" in done.out
    told = run(
        "export", "--store", store, "--study", "small", "--output", tmp_path / "one",
        "--format", "csv", "--json",
    ).json  # fmt: skip
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["small-samples.csv"]
    assert (told["rows"], told["failed"]) == (8, 2)
    assert told["not_run"] == {"cadv": "the study skips it"}
    unknown = run("export", "--store", store, "--study", "smal", "-o", tmp_path / "none")
    assert unknown.status == 2
    assert "regroup export: --study smal: " in unknown.err
    assert "no study 'smal': it has small" in unknown.err
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written(
    small: tuple[Store, StudyResults], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("export", "--store", small[0].uri, "--study", "small", "-o", tmp_path / "file")
    assert done.status == 1
    assert f"cannot write to {tmp_path}/file: " in done.err
    assert "Traceback" not in done.err


def test_formulas_are_text_in_csv_and_exact_in_parquet(
    small: tuple[Store, StudyResults], tmp_path: Path
) -> None:
    store, results = small
    images = [
        row.model_copy(update={"title": "=HYPERLINK(1)"}) if row.images == "pgd" else row
        for row in results.images
    ]
    hostile = results.model_copy(update={"images": tuple(images)})
    exports.export(store, hostile, tmp_path, ("parquet", "csv"))
    (kept,) = set(pd.read_parquet(tmp_path / "small-samples.parquet")["attack"].dropna())
    table = pd.read_csv(tmp_path / "small-samples.csv")
    (written,) = set(table["attack"].dropna())
    assert (kept, written) == ("=HYPERLINK(1)", "'=HYPERLINK(1)")
    assert set(table["sample_id"]) == set(IDS), "and nothing else is changed"
