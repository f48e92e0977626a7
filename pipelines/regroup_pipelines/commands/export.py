"""Export every sample of a study as Parquet and CSV, for pandas, DuckDB, R or a spreadsheet."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.escapes import csv_table
from regroup_pipelines.render.formatting import human_size
from regroup_pipelines.render.terminal import print_line
from regroup_pipelines.results.records import AttackNotRun, StudyResults
from regroup_pipelines.results.sample_rows import SCHEMA, WORD, Evaluated, EvaluatedNames
from regroup_pipelines.results.stored import read_results
from regroup_store.errors import StoreUsageError
from regroup_store.format.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from regroup_pipelines.configs.stored import ExportConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store

# Rows per row group of a Parquet file; memory holds at most these and one block.
GROUP_ROWS = 32768
# Incremented when a column changes its meaning or is removed.
EXPORT_VERSION = 1


class ExportError(Exception):
    """A file could not be written, or what it is of is gone (exit status 1)."""

    exit_status = 1


class ExportedImages(EvaluatedNames):
    """How many rows were exported for one set of images."""

    k: int
    votes: str
    rows: int
    failed: int


def evaluated(store: Store, results: StudyResults) -> list[Evaluated]:
    """Return every set of images of every evaluation of a study, in order."""
    titles = {row.images: row.title for row in results.attacks}
    return [
        Evaluated(
            store=store,
            votes_ref=ref,
            bank_ref=evaluation.bank_ref,
            words=EvaluatedNames(
                study=results.study,
                taps=evaluation.taps,
                bank=evaluation.bank,
                images=images,
                attack=titles.get(images),
                signs=results.signs,
            ),
            k=evaluation.k,
        )
        for evaluation in results.evaluations
        for images, ref in evaluation.votes.items()
    ]


def export(
    store: Store, results: StudyResults, folder: Path, formats: tuple[str, ...]
) -> list[ExportedImages]:
    """Write the export files, each completely or not at all.

    Memory does not grow with the number of samples: it holds GROUP_ROWS rows and one block.

    Returns:
        One entry per set of images.

    Raises:
        ExportError: a file cannot be written, or votes of the study are gone.
        StoreError: an element of the study is missing or damaged.
    """
    name = results.study
    try:
        parts = evaluated(store, results)
        votes = [part.votes_ref for part in parts]
        head: JsonObject = {"export_version": EXPORT_VERSION, "study": name, "votes": votes}
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            files = [stack.enter_context(_FORMATS[f](folder, name, head)) for f in formats]
            return [_exported(part, files) for part in parts]
    except OSError as error:
        raise ExportError(f"cannot write to {folder}: {error.strerror or error}") from error
    except StoreUsageError as error:  # what it names is of the results, not of the user
        raise ExportError(f"the results of the study {name} name what is gone: {error}") from error


def _exported(part: Evaluated, files: list[Callable[[pa.Table], None]]) -> ExportedImages:
    """Write the rows of one set of images and count them."""
    rows = failed = 0
    for table in grouped(part.tables(), GROUP_ROWS):
        for write in files:
            write(table)
        rows += table.num_rows
        failed += table["status"].to_pylist().count("failed")
    return ExportedImages(
        **part.words.plain(), k=part.k, votes=part.votes_ref, rows=rows, failed=failed
    )


def grouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Concatenate small tables until each has at least `rows` rows; the last may have fewer."""
    import pyarrow as pa

    kept: list[pa.Table] = []
    for table in tables:
        kept.append(table)
        if sum(each.num_rows for each in kept) >= rows:
            yield pa.concat_tables(kept)
            kept = []
    if kept:
        yield pa.concat_tables(kept)


@contextmanager
def _parquet(folder: Path, study: str, head: JsonObject) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow.parquet as pq

    schema = SCHEMA.with_metadata({"regroup": json.dumps(head)})
    with (
        _replaced(folder / f"{study}-samples.parquet") as path,
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        yield lambda table: writer.write_table(table.replace_schema_metadata(schema.metadata))


@contextmanager
def _csv(
    folder: Path,
    study: str,
    head: JsonObject,  # noqa: ARG001 - CSV files have no metadata
) -> Iterator[Callable[[pa.Table], None]]:
    import pyarrow as pa
    from pyarrow import csv

    plain = pa.schema([(f.name, pa.string() if f.type == WORD else f.type) for f in SCHEMA])
    with _replaced(folder / f"{study}-samples.csv") as path, csv.CSVWriter(path, plain) as writer:
        yield lambda table: writer.write_table(csv_table(table.cast(plain)))


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` on success and is removed otherwise."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


_FORMATS = {"parquet": _parquet, "csv": _csv}


def _results(store: Store, study: str) -> StudyResults:
    try:
        return read_results(store, study)
    except StoreUsageError as error:
        raise UsageError(f"--study {study}: {error}") from error


def main(config: ExportConfig) -> JsonObject:
    """Write the samples of a study and print what was written."""
    if not config.format:
        raise UsageError("--format names no format: give parquet, csv or both")
    store, formats = open_store(config.store, writable=False), tuple(dict.fromkeys(config.format))
    results = _results(store, config.study)
    folder = Path(config.output)
    images = export(store, results, folder, formats)
    files = [folder / f"{config.study}-samples.{format}" for format in formats]
    rows, failed = (sum(each.rows for each in images), sum(each.failed for each in images))
    not_run = {row.images: row.reason for row in results.attacks if isinstance(row, AttackNotRun)}
    for path in files:
        size = human_size(path.stat().st_size)
        print_line(f"{path}: {rows} rows, {failed} of them failed; {size}", config.json)
    for name, why in not_run.items():
        print_line(f"{name}: no rows, not run: {why}", config.json)
    return {
        "study": config.study,
        "files": [str(path) for path in files],
        "rows": rows,
        "failed": failed,
        "images": [each.plain() for each in images],
        "not_run": not_run,
    }
