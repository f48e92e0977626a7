"""Bounded memory: whatever a file says of its sizes, a sample costs no more than its limit."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_store.errors import StoreUsageError
from regroup_store.sources import open_source
from regroup_store.sources.limits import LONGEST_NAME
from tests.store.imagenet_layouts import put, tar

MB = 1 << 20
# Reads every row of a dataset in a process of its own, and prints the most memory that took beyond
# what it had before, in MB, and how many rows could be read.
READ = """
import sys
from regroup_store.errors import StoreUsageError
from regroup_store.sources import open_source

def most():
    lines = open("/proc/self/status").read().split("VmHWM:")[1]
    return int(lines.split()[0]) // 1024

before, spec, largest = most(), sys.argv[1], int(sys.argv[2])
try:
    source = open_source(spec, largest)
    read = sum(isinstance(source.read([row.locator])[0], bytes) for row in source.rows())
    print(most() - before, read)
except StoreUsageError:
    print(most() - before, -1)
"""
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts it")


def cost(spec: str, largest: int) -> tuple[int, int]:
    """MB that reading takes at most, and the rows that could be read."""
    command = [sys.executable, "-c", READ, spec, str(largest)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    taken, read = map(int, output.split())
    return taken, read


def bomb(path: Path, value: int, rows: int) -> None:
    """A row group of `rows` equal values of `value` bytes, stored once: less than 10 kB."""
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30}
    image = pa.array([bytes(value)] * rows, pa.binary())
    with pq.ParquetWriter(path, schema, use_dictionary=["image"], **options) as writer:
        writer.write_table(pa.table({"image": image, "label": [0] * rows}), row_group_size=rows)
    assert path.stat().st_size < 10_000


@linux
def test_ten_kilobytes_of_parquet_take_no_gigabyte(tmp_path: Path) -> None:
    """120 MB in one row group, read with 32 MB."""
    bomb(tmp_path / "p.parquet", 2 * MB, 60)
    taken, read = cost(f"parquet:{tmp_path}/p.parquet", 32 * MB)
    assert read == 60
    assert taken < 32 + 30  # what Arrow loads


def test_a_value_that_is_too_large_is_a_failed_row(tmp_path: Path) -> None:
    bomb(tmp_path / "p.parquet", 20 * MB, 2)
    source = open_source(f"parquet:{tmp_path}/p.parquet", 64 * MB)
    for row, error in enumerate(source.read([row.locator for row in source.rows()])):
        assert str(error).startswith(f"p.parquet#{row} is of a row group that takes 12")
        assert str(error).endswith("above the limit of 64 MB per sample (--sample-memory)")


@pytest.mark.parametrize(("rows", "free"), [(2**21, 2**20), (100_000, 0), (300_000, 2**10)])
def test_more_rows_than_bits_are_refused_before_any_is_listed(
    rows: int, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kB can state any number of equal rows."""
    monkeypatch.setattr("regroup_store.sources.parquet_files.FREE_ROWS", free)
    table = pa.table({"image": pa.array([b"x"] * rows, pa.binary()), "label": pa.nulls(rows, "i4")})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    size = (tmp_path / "a.parquet").stat().st_size
    with pytest.raises(StoreUsageError, match=rf"states {rows} rows in {size} bytes"):
        open_source(f"parquet:{tmp_path}/a.parquet")


def test_a_footer_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "p.parquet").open("wb") as file:
        file.truncate(1 << 32)
        file.seek(-8, os.SEEK_END)
        file.write((1 << 30).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(StoreUsageError, match="has a footer of 1073741824 bytes"):
        open_source(f"parquet:{tmp_path}/p.parquet")


def forged(path: Path, kind: bytes, size: int) -> None:
    """An archive whose first header says that its content has `size` bytes; they are a hole."""
    info = tarfile.TarInfo("x.jpg")
    info.type, info.size = kind, size
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + (abs(size) + 511) // 512 * 512 + 1024)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_a_header_that_says_that_it_is_large_is_not_read(kind: bytes, tmp_path: Path) -> None:
    forged(tmp_path / "s.tar", kind, 9 << 30)
    with pytest.raises(StoreUsageError, match=r"s\.tar has a header of 9663676416 bytes \(at"):
        list(open_source(f"webdataset:{tmp_path}/s.tar").rows())


def test_a_negative_size_ends(tmp_path: Path) -> None:
    forged(tmp_path / "s.tar", b"0", -1024)
    with pytest.raises(StoreUsageError, match=r"s\.tar is cut short or damaged"):
        list(open_source(f"webdataset:{tmp_path}/s.tar").rows())


def test_headers_within_headers_end(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10
    put(tmp_path / "s.tar", (info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 1000 + bytes(1024))
    with pytest.raises(StoreUsageError, match="hundreds of headers before one file"):
        list(open_source(f"webdataset:{tmp_path}/s.tar").rows())


def test_a_name_longer_than_any_path_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "s.tar", tar([("x" * (LONGEST_NAME + 1), b"")]))
    with pytest.raises(StoreUsageError, match=f"a name of {LONGEST_NAME + 1} characters"):
        list(open_source(f"webdataset:{tmp_path}/s.tar").rows())


def test_a_member_and_a_sparse_member_that_are_too_large_are_failed_rows(tmp_path: Path) -> None:
    forged(tmp_path / "s.tar", b"0", 3 << 30)
    with (tmp_path / "s.tar").open("r+b") as file:
        file.seek(-1024, os.SEEK_END)
        file.write(tar([("x.cls", b"0")]))
    source = open_source(f"webdataset:{tmp_path}/s.tar")
    (row,) = source.rows()
    (error,) = source.read([row.locator])
    assert "has 3221225472 bytes, above the limit of 256 MB" in str(error)
    (error,) = source.read([f"s.tar#512+{1 << 40}/0+512"])
    assert "has 1099511627776 bytes, above the limit of 256 MB" in str(error)


def test_files_without_content_and_files_without_an_end_are_failed_rows(tmp_path: Path) -> None:
    """A hole of 9 GB, a device that never ends, and a pipe that nobody writes to."""
    (tmp_path / "x").mkdir()
    with (tmp_path / "x" / "hole.png").open("wb") as file:
        file.truncate(9 << 30)
    (tmp_path / "x" / "endless.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "x" / "pipe.png")
    put(tmp_path / "x" / "small.png", bytes(MB + 1))
    source = open_source(f"imagefolder:{tmp_path}")
    endless, hole, pipe, small = source.read([row.locator for row in source.rows()])
    assert str(hole) == (
        "x/hole.png has 9663676416 bytes, above the limit of 256 MB per sample (--sample-memory)"
    )
    assert str(endless) == "x/endless.png cannot be read: it is no file"
    assert str(pipe) == "x/pipe.png cannot be read: it is no file"
    assert small == bytes(MB + 1)
    (small,) = open_source(f"imagefolder:{tmp_path}", MB).read(["x/small.png"])
    assert "has 1048577 bytes, above the limit of 1 MB" in str(small)


def test_a_devkit_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    """A name of 9 GB in some bytes; and a table of labels that is a hole."""
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", b"x")
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 9 << 30
    packed = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    put(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", packed)
    with pytest.raises(StoreUsageError, match="has a header of 9663676416 bytes"):
        list(open_source(f"imagenet:val:{tmp_path}").rows())
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with (tmp_path / "LOC_val_solution.csv").open("wb") as file:
        file.truncate(9 << 30)
    with pytest.raises(StoreUsageError, match="has 9663676416 bytes, above the 67108864"):
        list(open_source(f"imagenet:val:{tmp_path}").rows())
