"""The network's share of the wall time: `python -m benchmarks.pipeline --images FOLDER`.

Extracts the features of real images (class folders, in torchvision's layout) in two ways that
alternate for several rounds: (a) the extractor alone over batches that are decoded in memory, (b)
the worker of `regroup extract`, which reads, decodes, runs the network, accumulates, and writes to
a store in a temporary folder. The network's share is (a) / (b) per round; the median counts. No
Ray: one worker, in this process, with all threads that torch uses (OMP_NUM_THREADS). Weights are
random; they do not change the time.

--photos repeats it with the images enlarged to 500 x 375 px, JPEG quality 90, about the size of
ImageNet's: small images decode faster than photographs. Exit status 1 if the share with the default
number of decode workers is below the limit; 2 for invalid options.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from PIL import Image

from regroup.accumulators import Extractor
from regroup.kernels.allocator import keep_freed_memory
from regroup_cluster.dispatch.attempt import measured
from regroup_cluster.workers.extraction import ExtractionWork, build_extractor
from regroup_cluster.workers.images import IndexImages, IndexSpec
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_pipelines.configs.options import DecoderOption, ModelOptions
from regroup_pipelines.steps.extraction import index_features_spec
from regroup_pipelines.steps.network import Network, open_network
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from regroup_store.sources import open_source

LIMIT = 0.90
PHOTO = (500, 375)
Workers = int | Literal["auto"]
Place = tuple[int, Workers]


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        network: the classifier and its taps.
        batch: samples per forward pass.
        block_rows: samples per block.
        device: torch device of the network.
        rounds: number of runs of (a) and of every (b).
        workers: numbers of decode workers; the limit applies to the first.
    """

    network: Network
    batch: int
    block_rows: int
    device: str
    rounds: int
    workers: tuple[Workers, ...]


@dataclass(frozen=True)
class Row:
    """Medians over the rounds: seconds of the pipeline and of its phases, and the share.

    Attributes:
        images: name of the set of images.
        decode_workers: decode workers of the pipeline.
        samples: number of images.
        network_s: seconds of (a).
        pipeline_s: seconds of (b).
        share: median of (a) / (b) over the rounds.
        lowest: lowest share of a round.
        highest: highest share of a round.
        phases: seconds of (b): waiting for pixels (read), network, write.
    """

    images: str
    decode_workers: Workers
    samples: int
    network_s: float
    pipeline_s: float
    share: float
    lowest: float
    highest: float
    phases: dict[str, float]

    @property
    def met(self) -> bool:
        """Whether the share reaches the limit."""
        return self.share >= LIMIT


def write_index(store: Store, spec: str, samples: int) -> SampleIndex:
    """Write an index of `samples` images, spread evenly over the source, or all if it has fewer."""
    source = open_source(spec)
    rows = list(source.rows())
    rows = [rows[i * len(rows) // samples] for i in range(samples)] if samples < len(rows) else rows
    data = source.read([row.locator for row in rows])
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "label": [row.label for row in rows],
        "locator": [row.locator for row in rows],
        "digest": [encoded_digest(item) for item in data if isinstance(item, bytes)],
    }
    table = pa.table(columns, schema=COLUMNS)
    return SampleIndex.write(store, "images", [table], list(source.class_names), source.spec)


def write_photos(index: SampleIndex, folder: Path) -> str:
    """Write the images of `index` at the size of photographs; return the source of the files."""
    source = open_source(index.source_spec)
    table = index.rows(slice(0, index.rows_count), ["label", "locator"]).to_pydict()
    for number, label in enumerate(table["label"]):
        (data,) = source.read(table["locator"][number : number + 1])
        path = folder / index.class_names[label] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else b"")
        with Image.open(path) as image:
            photo = image.convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC)
        photo.save(path, quality=90)
    return f"imagefolder:{folder}"


def measure(name: str, store: Store, index: SampleIndex, setting: Setting) -> list[Row]:
    """Time (a) and every (b) alternately; return one row per number of decode workers."""
    classifier = fetch_classifier(setting.network.spec).to(setting.device)
    extractor = build_extractor(classifier, setting.network.policy, setting.device)
    images = IndexImages(
        store.uri, index.ref, index.rows_count, classifier.preprocessing, setting.device
    )
    batches = [batch.pixels for batch in images.block(0).batches(setting.batch)]
    run_network(extractor, batches[:1], setting.device)  # to warm up
    alone: list[float] = []
    whole: list[list[tuple[float, dict[str, float]]]] = [[] for _ in setting.workers]
    for round_number in range(setting.rounds):
        alone.append(run_network(extractor, batches, setting.device))
        for place, workers in rotated(list(enumerate(setting.workers)), round_number):
            element = f"{name}-{workers}-{round_number}"
            whole[place].append(run_pipeline(store, index, setting, workers, element))
    return [
        _row(name, workers, index.rows_count, alone, runs)
        for workers, runs in zip(setting.workers, whole, strict=True)
    ]


def rotated(items: list[Place], by: int) -> list[Place]:
    """Rotate `items`, so that none always runs after the same one."""
    by %= len(items)
    return items[by:] + items[:by]


def run_network(extractor: Extractor, batches: Sequence[torch.Tensor], device: str) -> float:
    """Time the extractor alone."""
    started = time.perf_counter()
    with torch.inference_mode():
        for pixels in batches:
            extractor(pixels.to(device))
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run_pipeline(
    store: Store, index: SampleIndex, setting: Setting, workers: Workers, name: str
) -> tuple[float, dict[str, float]]:
    """Time a worker over all blocks of new features, in total and by phase."""
    network = setting.network
    # Otherwise the second run would find the features of the first.
    described = replace(network, description=network.description | {"run": name})
    spec = index_features_spec(described, index, setting.block_rows)
    element = BlockElement.create(store, spec, {})
    worker = ExtractionWork(
        store_uri=store.uri,
        features_ref=element.ref,
        images=IndexSpec(index.ref, decode_workers=workers),
        model=network.spec,
        policy=network.policy,
        batch=setting.batch,
        device=setting.device,
    ).open()
    started = time.perf_counter()
    reports = [measured(worker, block) for block in range(element.plan.blocks)]
    seconds = time.perf_counter() - started
    assert all(r.committed and not r.failed for r in reports), (
        f"some blocks were not extracted: {reports}"
    )
    phases = ("read", "network", "write")
    return seconds, {phase: sum(r.phases[phase] for r in reports) for phase in phases}


def _row(
    images: str,
    workers: Workers,
    samples: int,
    alone: list[float],
    whole: list[tuple[float, dict[str, float]]],
) -> Row:
    shares = [a / b for a, (b, _) in zip(alone, whole, strict=True)]
    return Row(
        images=images,
        decode_workers=workers,
        samples=samples,
        network_s=statistics.median(alone),
        pipeline_s=statistics.median(seconds for seconds, _ in whole),
        share=statistics.median(shares),
        lowest=min(shares),
        highest=max(shares),
        phases={p: statistics.median(phases[p] for _, phases in whole) for p in whole[0][1]},
    )


def show(rows: Sequence[Row], setting: Setting) -> None:
    """Print the table."""
    print(
        f"{setting.network.label} on {setting.device}, {torch.get_num_threads()} threads, batches "
        f"of {setting.batch}, blocks of {setting.block_rows}, {setting.rounds} rounds"
    )
    heads = ("network s", "samples/s", "pipeline s", "samples/s", "read s", "write s", "share")
    print(f"{'images':12} {'workers':>7} " + " ".join(f"{head:>10}" for head in heads))
    for row in rows:
        numbers = [
            *(f"{n:10.2f}" for s in (row.network_s, row.pipeline_s) for n in (s, row.samples / s)),
            *(f"{row.phases[phase]:10.2f}" for phase in ("read", "write")),
            f"{row.share:10.3f} ({row.lowest:.3f} to {row.highest:.3f})",
        ]
        print(f"{row.images:12} {row.decode_workers!s:>7} {' '.join(numbers)}")
    for row in _first_rows(rows):
        print(f"{row.images}: share >= {LIMIT:.2f} {'met' if row.met else 'NOT MET'}")


def _first_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the first row of each set of images, to which the limit applies."""
    seen: set[str] = set()
    for row in rows:
        if row.images not in seen:
            seen.add(row.images)
            yield row


def _workers(text: str) -> Workers:
    return "auto" if text == "auto" else int(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder with class folders")
    parser.add_argument("--photos", action="store_true", help="also enlarged to 500 x 375 px")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--decoder", choices=("pil", "cuda"), default="pil")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block-rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--decode-workers", type=_workers, nargs="+", default=["auto", 0, 2], metavar="N",
        help="numbers to compare (default: auto 0 2); the limit applies to the first",
    )  # fmt: skip
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"default here: {default}")
    parser.add_argument(
        "--folder", type=Path, help="folder of the store (default: a temporary one)"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(arguments)


def _setting(options: argparse.Namespace) -> Setting:
    decoder: DecoderOption = options.decoder
    model = ModelOptions(
        model=options.model,
        weights=options.weights,
        decoder=decoder,
        dtype=options.dtype,
        channels_last=options.channels_last,
        tf32=options.tf32,
    )
    return Setting(
        network=open_network(model),
        batch=options.batch,
        block_rows=options.block_rows,
        device=options.device,
        rounds=options.rounds,
        workers=tuple(options.decode_workers),
    )


def run(options: argparse.Namespace, setting: Setting) -> list[Row]:
    """Measure the images, and with --photos also at the size of photographs."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = open_store(str(Path(folder) / "store"), create=True)
        index = write_index(store, f"imagefolder:{options.images}", options.samples)
        rows = measure("original", store, index, setting)
        if options.photos:
            photos = write_photos(index, Path(folder) / "photos")
            index = write_index(store, photos, options.samples)
            rows += measure("500x375", store, index, setting)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print the table."""
    options = _options(arguments)
    keep_freed_memory()  # as in a worker
    try:
        setting = _setting(options)
        rows = run(options, setting)
    except Exception as error:
        if getattr(error, "exit_status", None) is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_status)  # type: ignore[attr-defined]
    show(rows, setting)
    if options.json:
        content = {
            "model": setting.network.label,
            "device": setting.device,
            "threads": torch.get_num_threads(),
            "batch": setting.batch,
            "block_rows": setting.block_rows,
            "rows": [asdict(row) | {"met": row.met} for row in rows],
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(row.met for row in _first_rows(rows)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
