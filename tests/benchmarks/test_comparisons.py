"""Every benchmark of `make bench` at sizes of seconds; its ratios are not judged here."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.banks import random_accumulators, random_bank
from benchmarks.extraction import relative_error
from benchmarks.lower_bounds import ORDERS, PRODUCTS
from benchmarks.networks import build, noise
from benchmarks.released_demo import SIDE, bank_of, batched, demo
from benchmarks.scoring import differences, inversions
from regroup import reference
from regroup.accumulators import Extractor
from regroup.scoring import Scorer
from regroup.voting import ELECTIONS
from tests.kept_workers import ENVIRONMENT

pytestmark = pytest.mark.timeout(600)
POLICIES = ("preactivation", "linear")
MAKEFILE = Path(__file__).parents[2] / "Makefile"
OTHERS = ("torchvision", "scipy", "sklearn", "safetensors", "pydantic", "tyro")
SORTS = (
    "ranking",
    "torch's argsort",
    "NumPy's argsort",
    "NumPy's stable argsort",
    "torch's stable argsort",
)
HEAPS = ("kept", "given back")
OUTSIDE = "share of time that the worker is outside blocks"
ROWS = {
    "allocator": [
        f"resnet50, batch 2, 32 px{gradient}: {what}"
        for gradient in ("", ", gradient")
        for what in ("freed memory kept", *(f"page faults a pass, {way}" for way in HEAPS))
    ],
    "extraction": [
        f"resnet50, {memory}, {policy}{end}"
        for memory in ("channels-last", "contiguous")
        for policy in POLICIES
        for end in ("", ", former", ": relative error")
    ]
    + [f"resnet50, channels-last, one thread, {policy}" for policy in POLICIES],
    "scoring": [
        f"{what}, {policy}" for what in ("votes", "every k and choice") for policy in POLICIES
    ]
    + [f"{policy}: samples off by more than ties" for policy in POLICIES],
    "kernels": [
        *(
            f"{way}, {memory} 16 x 8 x 8{end}"
            for way, end in (
                ("sign sums", ""),
                ("sign sums", ": GB/s"),
                ("two clamps, two sums", ": GB/s"),
            )
            for memory in ("channels-last", "contiguous")
        ),
        "products by oneDNN, 256 x 16 by 16 x 20",
        *(f"products by {name}: GFLOP/s" for name in PRODUCTS),
        *(f"{way}, 20 classes" for way in SORTS[:-1]),
        *(f"{way}: ns a value" for way in SORTS),
        "adding to a bank, 16 channels",
        "adding to a bank: ns a value",
        "PMFs and np.add.at: ns a value",
        *(f"votes by {rule}, 3 taps, 20 classes" for rule in ELECTIONS),
        "passes, search of 3 images, 3 at once",
        "queries, search of 3 images",
    ],
    "rescoring": [
        f"re-score, {what}, {policy}{threads}"
        for what in ("all taps", "k = 5")
        for policy in POLICIES
        for threads in ("", ", one thread")
    ],
    "released_demo": ["Extractor and Scorer", "predictions that differ"],
    "classifier_latency": [f"k = 5, batch {n}, {policy}" for n in (1, 2) for policy in POLICIES],
    "overhead": [
        "regroup --help",
        "regroup ls",
        "extract job, 1 worker of 2 threads",
        OUTSIDE,
        "extract job, 2 workers of 1 thread",
        "extract job, its worker's start included",
    ],
    "workers": [
        "2 plain processes",
        "extract job, 1 worker",
        "extract job, 2 workers",
        *(f"extract job, {workers}, decoding beside" for workers in ("1 worker", "2 workers")),
        "share of time busy, 1 workers",
        "share of time busy, an actor called by Ray alone",
    ],
}


def test_make_bench_runs_these() -> None:
    (line,) = [s for s in MAKEFILE.read_text().splitlines() if s.startswith("BENCHMARKS :=")]
    assert line.split()[2:] == list(ROWS)


# Each of several runs one after the other: importing torch takes longer than most of them. Those
# whose rows depend on what their process did before have one of their own.
IN_TURN = """
import sys
from importlib import import_module

folder, *names = sys.argv[1:]
for name in names:
    print("\\f" + name)
    words = ["--sizes", "tiny", "--rounds", "1", "--json", f"{folder}/{name}.json"]
    status = import_module(f"benchmarks.{name}").main(words)
    assert status in (0, 1), f"{name} ended with {status}"
"""
OF_THEIR_OWN = ("allocator", "overhead", "workers")
ANYWHERE = ("extraction", "scoring", "released_demo", "classifier_latency")


def run_in_turn(folder: Path, names: Sequence[str], before: str = "") -> dict[str, str]:
    """Run benchmarks in one process; return what each printed. JSON is in `folder`/NAME.json."""
    command = [sys.executable, "-c", before + IN_TURN, str(folder), *names]
    home = {**os.environ, **ENVIRONMENT, "HOME": str(folder)}  # Ray's token
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=home)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = dict(part.split("\n", 1) for part in done.stdout.split("\f")[1:])
    assert list(printed) == list(names)
    return {**printed, "stderr": done.stderr}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder and the outputs of those that share a process."""
    folder = tmp_path_factory.mktemp("together")
    return folder, run_in_turn(folder, [name for name in ROWS if name not in OF_THEIR_OWN])


@pytest.mark.parametrize("name", ROWS)
def test_a_benchmark_measures_all_its_rows(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name in OF_THEIR_OWN:
        folder, printed = tmp_path, run_in_turn(tmp_path, [name])
    else:
        folder, printed = request.getfixturevalue("together")
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())["rows"]
    assert sorted(row["what"] for row in rows) == sorted(ROWS[name])
    # Blocks that last milliseconds leave a worker outside them for longer than blocks of 1024.
    assert all(row["met"] for row in rows if row["kind"] == "fact" and row["what"] != OUTSIDE)
    for row in rows:
        if row["kind"] == "row":
            assert row["ours_s"] > 0
            assert row["what"] in printed[name]


def test_a_gpu_machine_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    blocked = ("ray", "zarr", "pyarrow", "fsspec", "dask", "obstore", "foolbox", "numba", *OTHERS)
    blocker = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""
    printed = run_in_turn(tmp_path, ANYWHERE, blocker)
    assert not printed["stderr"]
    for name in ANYWHERE:
        assert ("Numba is not installed" in printed[name]) == (name == "extraction")


@pytest.mark.parametrize("name", ["allocator", "rescoring", "kernels", "overhead", "workers"])
def test_what_is_of_the_cpu_alone_says_so(name: str) -> None:
    from benchmarks.paired import Setting, Skipped

    module = importlib.import_module(f"benchmarks.{name}")
    (item,) = module.items(Setting("cuda", "tiny", 1))
    assert isinstance(item, Skipped)


# ---- what the numbers rest on


def test_the_demos_way_is_the_reference_and_ours() -> None:
    network, pixels = build("vgg19-32", 10), noise(3, SIDE, "cpu")
    extractor = Extractor(network, "linear", pixels)
    bank = bank_of(extractor, "cpu")
    theirs = [demo(network, bank, image) for image in pixels[:, None]]
    with torch.no_grad():
        accumulators = [a.numpy() for a in extractor(pixels).accumulators]
    for sample, prediction in enumerate(theirs):
        own = [a[sample] for a in accumulators]
        k = len(bank.taps)
        assert prediction == reference.predict(own, bank.mixtures, k, "both")
    assert batched(extractor, Scorer(bank), pixels).tolist() == theirs


def test_every_way_of_the_floor_ranks_all_rows() -> None:
    values = torch.rand(7, 50)
    for name, order in ORDERS.items():
        found: Any = order(values)
        ranks = np.concatenate(found) if name == "numpy" else found.numpy()
        assert np.array_equal(ranks, np.argsort(values.numpy(), axis=1)), name


def test_every_way_of_the_floor_multiplies() -> None:
    values, weights = torch.rand(7, 50), torch.rand(9, 50)
    for name, prepare in PRODUCTS.items():
        torch.testing.assert_close(prepare(weights)(values), values @ weights.T, msg=name)


def test_an_error_of_the_sums_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    response = torch.randn(2, 5, 4, 4)
    assert relative_error(response, 1) < 1e-6
    wrong = "benchmarks.extraction.sign_sums"
    monkeypatch.setattr(wrong, lambda phi, axis: reference_sums(phi) * 1.001)
    assert relative_error(response, 1) == pytest.approx(1e-3, rel=1e-3)
    monkeypatch.setattr(wrong, lambda phi, axis: reference_sums(phi) + 1e-6)
    assert relative_error(response.abs(), 1) == float("inf")


def reference_sums(phi: torch.Tensor) -> torch.Tensor:
    return torch.stack((phi.clamp(min=0), (-phi).clamp(min=0)), 1).sum((3, 4))


def test_an_inversion_is_as_large_as_the_gap_that_was_turned_round() -> None:
    exact = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 2.0, 2.5]]], dtype=torch.float64)
    assert inversions([exact.float()], [exact]) == 0
    turned = exact.clone()
    turned[0, 1, 1:] = torch.tensor([2.5, 2.0])
    assert inversions([turned.float()], [exact]) == pytest.approx([0.2])


def test_predictions_of_another_bank_differ_by_more_than_ties() -> None:
    bank = random_bank((("a", 8), ("b", 9)), 6)
    accumulators, labels = random_accumulators(bank, 20, "cpu")
    same = differences(bank, Scorer(bank), accumulators, labels, 20, "linear")
    assert same.value == 0
    other = random_bank((("c", 8), ("d", 9)), 6)
    shuffled = type(bank)(other.taps, tuple(m[:, ::-1].copy() for m in other.mixtures), bank.counts)
    off = differences(bank, Scorer(shuffled), accumulators, labels, 20, "linear")
    assert off.value > 0
    assert not off.met
