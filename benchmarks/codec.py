"""Comparison of codecs for accumulators: `python -m benchmarks.codec [--store URI] [--json]`.

Writes and reads the same arrays with several codecs and prints MB/s and compression ratio. With
--store the arrays are the accumulators of the features in that store, otherwise lognormal float32,
which compresses worse than real accumulators: choose a codec on real ones.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, ZstdCodec

from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.arrays import codecs as store_codecs
from regroup_store.format.chunk_codec import ZarrArray
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store

Array = NDArray[np.generic]
MB = 1e6


@dataclass(frozen=True)
class CodecResult:
    """Medians over the rounds: MB/s of uncompressed data, and uncompressed over stored bytes."""

    codec: str
    write_mb_s: float
    read_mb_s: float
    ratio: float


def candidates() -> dict[str, Sequence[BytesBytesCodec]]:
    """Return the compared codecs, by name; "store" is the one that the store uses."""
    return {
        "store": store_codecs(),
        "none": [],
        "zstd-0 (zarr's default)": [ZstdCodec(level=0)],
        "blosc-lz4-5 shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")],
        "blosc-lz4-5 bitshuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")],
        "blosc-zstd-1 shuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")],
        "blosc-zstd-3 bitshuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
    }


def synthetic_arrays(rows: int) -> list[Array]:
    """Return lognormal float32 blocks with ResNet-50's channel counts, (rows, 2, C)."""
    random = np.random.default_rng(0)
    channels = (64, 256, 512, 1024, 2048)
    return [random.lognormal(size=(rows, 2, c)).astype(np.float32) for c in channels]


def stored_arrays(uri: str, rows: int) -> list[Array]:
    """Return block 0 (at most `rows` rows) of every accumulators array of the store's features.

    Raises:
        StoreUsageError: the store has no features with a committed block 0.
    """
    store = open_store(uri, writable=False)
    arrays: list[Array] = []
    for info in store.elements("features"):
        element = BlockElement.open(store, "features", info.ref)
        if element.committed_among([0]):
            paths = [spec.path for spec in element.arrays if spec.path.startswith("accumulators")]
            arrays += [element.read_array(path, 0)[:rows] for path in paths]
    if not arrays:
        raise StoreUsageError(f"the store {uri} holds no committed features: extract some first")
    return arrays


def measure(
    name: str, codecs: Sequence[BytesBytesCodec], arrays: Sequence[Array], rounds: int
) -> CodecResult:
    """Write and read `arrays`, each as one chunk, `rounds` times in a new folder."""
    writes, reads, stored = [], [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            handles = [
                zarr.create_array(
                    str(Path(folder, str(i))), shape=a.shape, chunks=a.shape, dtype=a.dtype,
                    compressors=codecs, config={"write_empty_chunks": True},
                )
                for i, a in enumerate(arrays)
            ]  # fmt: skip
            writes.append(_seconds(partial(_write, handles, arrays)))
            reads.append(_seconds(partial(_read, handles)))
            stored = sum(p.stat().st_size for p in Path(folder).glob("*/c/**/*") if p.is_file())
    size = sum(array.nbytes for array in arrays)
    speeds = [size / MB / statistics.median(seconds) for seconds in (writes, reads)]
    return CodecResult(name, round(speeds[0], 1), round(speeds[1], 1), round(size / stored, 3))


def _write(handles: Sequence[ZarrArray], arrays: Sequence[Array]) -> None:
    for handle, array in zip(handles, arrays, strict=True):
        handle[:] = array


def _read(handles: Sequence[ZarrArray]) -> None:
    for handle in handles:
        _ = handle[:]


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--store", help="use the accumulators of the features in this store")
    parser.add_argument("--rows", type=int, default=1024, help="rows per block (default 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the table shows medians")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        arrays = stored_arrays(options.store, options.rows) if options.store else None
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    arrays = arrays or synthetic_arrays(options.rows)
    measure("warm-up", [], arrays, 1)
    results = [measure(name, codec, arrays, options.rounds) for name, codec in candidates().items()]
    _print(results, arrays, options.store or "lognormal float32", as_json=options.json)
    return 0


def _print(
    results: Sequence[CodecResult], arrays: Sequence[Array], what: str, *, as_json: bool
) -> None:
    size = sum(array.nbytes for array in arrays) / MB
    if as_json:
        rows = [asdict(result) for result in results]
        print(json.dumps({"data": what, "size_mb": round(size, 1), "codecs": rows}))
        return
    print(f"{what}: {len(arrays)} arrays, {size:.0f} MB")
    print(f"{'codec':32} {'write MB/s':>11} {'read MB/s':>10} {'ratio':>6}")
    for each in results:
        print(f"{each.codec:32} {each.write_mb_s:11.0f} {each.read_mb_s:10.0f} {each.ratio:6.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
