"""Growth of memory with the number of samples: `python -m benchmarks.memory [--json FILE]`.

Runs the same study on few and on many synthetic samples, each in a separate process: the index
of a Parquet dataset, features through the real dispatch and store, a bank by the real reduction,
votes, and the accuracies. Prints the peak memory of the driver and of the workers of each step.
Exit status 1 if the larger run needs more memory than the smaller one by more than the limit.

Peaks are those of complete processes, so they include Python, Ray and torch; blocks have the same
size in both runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.synthetic import fill_features, synthetic_network, write_dataset
from regroup_cluster.dispatch.stopwatch import peak_rss_bytes
from regroup_pipelines.banks.build import build_bank
from regroup_pipelines.configs.options import BankOptions, ClusterOptions, VotingOptions
from regroup_pipelines.results.accuracy import accuracy_row, rule_of_k
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.indexing import index_dataset
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import Session
from regroup_store.kinds.banks import read_bank

LIMIT = 1.10
MIB = 2**20


def study(folder: Path, block_rows: int, workers: int) -> dict[str, Any]:
    """Run the study over the dataset in `folder`, in this process and its workers."""
    started = time.perf_counter()
    options = ClusterOptions(store=str(folder / "store"), block_rows=block_rows, workers=workers)
    network = synthetic_network()
    with Session(options) as session:
        index = index_dataset(session, f"parquet:{folder}/images/*.parquet", "synthetic")
        features = fill_features(session, index, network)
        ref = build_bank(session, network, index, BankOptions(), 64)
        votes = score(session, features, read_bank(session.store, ref), VotingOptions())
        summary = VoteSummary.of(votes)
        row = accuracy_row("synthetic", summary, rule_of_k(summary, 0.75).k, "both")
        peaks = {
            "driver": peak_rss_bytes(),
            **{f"workers, {e.step}": e.peak_rss_bytes for e in session.ledger if e.peak_rss_bytes},
        }
    seconds = time.perf_counter() - started
    accuracy = row.over_all.regroup_top1.accuracy
    return {"samples": row.attempted, "seconds": seconds, "accuracy": accuracy, "peaks": peaks}


def measure(samples: int, block_rows: int, workers: int, folder: Path) -> dict[str, Any]:
    """Run the study over `samples` samples in a new process, with all its files below `folder`."""
    place = folder / str(samples)
    write_dataset(place / "images", samples)
    code = "import sys; from benchmarks.memory import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(block_rows), str(workers), str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def child(block_rows: str, workers: str, folder: str) -> None:
    """Run the study in a process that `measure` started, and print its result."""
    print(json.dumps(study(Path(folder), int(block_rows), int(workers))))


def compare(few: dict[str, Any], many: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per process or step: peaks in bytes, growth per additional sample, ratio."""
    rows = []
    for what, small in few["peaks"].items():
        large = many["peaks"][what]
        grown = (large - small) / (many["samples"] - few["samples"])
        numbers = {"few": small, "many": large, "bytes_per_sample": round(grown, 2)}
        ratio = large / small
        rows.append({"what": what, **numbers, "ratio": round(ratio, 3), "met": ratio <= LIMIT})
    return rows


def show(few: dict[str, Any], many: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    heads = [f"{result['samples']:,}".replace(",", " ") for result in (few, many)]
    columns = f"{heads[0]:>11} {heads[1]:>11} {'B/sample':>11} {'ratio':>7}"
    print(f"{'peak memory, MiB':40} {columns}  <= {LIMIT:.2f}")
    for row in rows:
        sizes = f"{row['few'] / MIB:11.1f} {row['many'] / MIB:11.1f}"
        grown = f"{row['bytes_per_sample']:11.2f} {row['ratio']:7.3f}"
        print(f"{row['what']:40} {sizes} {grown}  {'met' if row['met'] else 'NOT MET'}")
    print(f"{'seconds of the study':40} {few['seconds']:11.1f} {many['seconds']:11.1f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both sizes, compare them, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--few", type=int, default=10_000, help="samples of the smaller run")
    parser.add_argument("--many", type=int, default=1_000_000, help="samples of the larger run")
    parser.add_argument("--block-rows", type=int, default=4096, help="samples per block, in both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="folder of the stores (default: a temporary one)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        few, many = (
            measure(samples, options.block_rows, options.workers, Path(folder))
            for samples in (options.few, options.many)
        )
    rows = compare(few, many)
    show(few, many, rows)
    if options.json:
        content = {"few": few, "many": many, "block_rows": options.block_rows, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
