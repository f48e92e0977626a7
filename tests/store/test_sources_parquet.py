"""Parquet files as people have them: columns of other names, label columns, parts of row groups."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.sources import open_source
from tests.store.test_sources import read_all, write_parquet

FINE, COARSE = ["apple", "bee", "cat"], ["fruit", "animal"]


def write(path: Path, columns: dict[str, object], **names: list[str]) -> str:
    """Write columns, with the ClassLabels `names` in Hugging Face's metadata."""
    features = {key: {"names": value, "_type": "ClassLabel"} for key, value in names.items()}
    recorded = json.dumps({"info": {"features": features}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": recorded})
    pq.write_table(table, path)
    return f"{path}"


def cifar100(folder: Path) -> str:
    columns = {"img": [b"a", b"b", b"c"], "fine_label": [0, 2, 1], "coarse_label": [0, 1, 1]}
    return write(folder / "c.parquet", columns, fine_label=FINE, coarse_label=COARSE)


@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [("fine_label", [0, 2, 1], FINE), ("coarse_label", [0, 1, 1], COARSE)],
)
def test_a_label_column_is_named_with_the_dataset(
    column: str, labels: list[int], names: list[str], tmp_path: Path
) -> None:
    source = open_source(f"parquet[{column}]:{cifar100(tmp_path)}")
    assert [row.label for row in source.rows()] == labels
    assert source.class_names == tuple(names)
    assert source.spec == f"parquet[{column}]:{tmp_path}/c.parquet"
    worker = open_source(pickle.loads(pickle.dumps(source)).spec)  # noqa: S301 - what Ray does
    assert read_all(worker) == [b"a", b"b", b"c"]


def test_several_label_columns_have_to_be_chosen_from(tmp_path: Path) -> None:
    with pytest.raises(StoreUsageError, match=r"\(fine_label, coarse_label\); choose one by --lab"):
        open_source(f"parquet:{cifar100(tmp_path)}")
    with pytest.raises(StoreUsageError, match="needs an integer column 'fine'; its columns are im"):
        open_source(f"parquet[fine]:{cifar100(tmp_path)}")


@pytest.mark.parametrize("column", ["labels", "label", "kind of thing"])
def test_the_only_class_label_is_the_label(column: str, tmp_path: Path) -> None:
    columns = {"picture": [b"a", b"b"], column: [1, 0], "width": [3, 4]}
    path = write(tmp_path / "p.parquet", columns, **{column: FINE})
    source = open_source(f"parquet:{path}")
    assert [row.label for row in source.rows()] == [1, 0]
    assert source.class_names == tuple(FINE)
    assert read_all(source) == [b"a", b"b"]  # the only column of bytes, whatever its name


@pytest.mark.parametrize("label", [-1, None])
def test_a_row_without_a_label_is_named_with_what_to_do(label: int | None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [b"a", b"b"], [0, label])
    said = rf"p\.parquet#1: label {label} is not .*; leave out the rows without a label"
    with pytest.raises(StoreUsageError, match=said):
        list(open_source(f"parquet:{tmp_path}/p.parquet").rows())


def test_a_file_of_another_schema_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [b"a"], [0])
    write(tmp_path / "b.parquet", {"image": [b"b"], "text": ["x"]})
    with pytest.raises(StoreUsageError, match=r"b\.parquet needs an integer column 'label'"):
        list(open_source(f"parquet:{tmp_path}/*.parquet").rows())


def test_files_without_a_row_are_counted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [b"a"], [0], ["cat"])
    write_parquet(tmp_path / "b.parquet", [], [], ["cat"])
    source = open_source(f"parquet:{tmp_path}/*.parquet")
    assert len(list(source.rows())) == 1
    assert source.left_out.recorded() == {
        "files without a row": {"count": 1, "first": ["b.parquet"]}
    }


def test_a_row_group_larger_than_the_limit_is_read_in_parts(tmp_path: Path) -> None:
    """16 MB in one row group of 1 MB pages, of which 12 MB may be in memory at a time."""
    images = [bytes([row % 251]) * 40_000 + b"%d" % row for row in range(400)]
    table = pa.table({"image": images, "label": [0] * 400})
    pq.write_table(table, tmp_path / "p.parquet", use_dictionary=False, write_batch_size=8)
    source = open_source(f"parquet:{tmp_path}/p.parquet", largest=12 << 20)
    for asked in (range(400), [399, 0, 250, 3], [5, 4, 3]):
        found = source.read([f"p.parquet#{row}" for row in asked])
        assert found == [images[row] for row in asked]
    (error,) = open_source(f"parquet:{tmp_path}/p.parquet", largest=1 << 20).read(["p.parquet#7"])
    said = r"p\.parquet#7 is of a row group that takes \d{7} bytes, above the limit of 1 MB"
    assert re.match(said, str(error))
