"""Memory does not grow with the number of samples: benchmarks/memory.py on smaller sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.memory import LIMIT, compare, main
from tests.kept_workers import ENVIRONMENT

PRESTART = "RAY_prestart_worker_first_driver"
STEPS = {
    "driver",
    "workers, digest synthetic",
    "workers, extract synthetic-synthetic",
    "workers, bank synthetic-synthetic",
    "workers, score synthetic-synthetic",
}


@pytest.mark.timeout(600)
def test_peaks_do_not_depend_on_the_number_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No processes that do nothing; the limit on idle ones stays Ray's own, as for a user.
    monkeypatch.setenv(PRESTART, ENVIRONMENT[PRESTART])
    report = tmp_path / "memory.json"
    sizes = ["--few", "4000", "--many", "100000", "--block-rows", "2000", "--workers", "1"]
    status = main([*sizes, "--json", str(report), "--folder", str(tmp_path)])
    found = json.loads(report.read_text())
    assert {row["what"] for row in found["rows"]} == STEPS
    assert found["few"]["samples"] == 4000
    assert found["many"]["samples"] == 100_000
    assert found["many"]["accuracy"] > 0.9  # the study was a real one
    assert all(row["few"] > 50 * 2**20 for row in found["rows"])  # and so were the peaks
    assert max(row["ratio"] for row in found["rows"]) <= LIMIT, found["rows"]
    # Beside hundreds of MiB of libraries the ratio alone would let 500 bytes a sample pass here.
    grown = {row["what"]: row["many"] - row["few"] for row in found["rows"]}
    assert max(grown.values()) < 25 * 2**20, grown
    assert status == 0


def test_growth_is_seen() -> None:
    few = {"samples": 1000, "peaks": {"driver": 100_000_000, "workers": 100_000_000}}
    many = {"samples": 2000, "peaks": {"driver": 109_000_000, "workers": 111_000_000}}
    driver, workers = compare(few, many)
    assert (driver["ratio"], driver["met"], driver["bytes_per_sample"]) == (1.09, True, 9000)
    assert (workers["ratio"], workers["met"]) == (1.11, False)
