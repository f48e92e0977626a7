"""The benchmark of the whole pipeline, on a few small images; its verdict is not judged here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pipeline import LIMIT, Row, main


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / "images" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.JPEG")
    return tmp_path / "images"


def test_both_sizes_and_every_number_of_workers_are_measured(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "pipeline.json"
    sizes = ["--samples", "5", "--batch", "2", "--block-rows", "3", "--rounds", "2"]
    what = ["--images", str(images), "--model", "digits-cnn", "--photos", "--device", "cpu"]
    status = main([*what, *sizes, "--decode-workers", "auto", "0", "--json", str(report)])
    found = json.loads(report.read_text())
    rows = found["rows"]
    assert [(row["images"], row["decode_workers"]) for row in rows] == [
        ("original", "auto"), ("original", 0), ("500x375", "auto"), ("500x375", 0),
    ]  # fmt: skip
    for row in rows:
        assert row["samples"] == 5
        assert 0 < row["lowest"] <= row["share"] <= row["highest"]
        assert set(row["phases"]) == {"read", "network", "write"}
        # Medians of two rounds are means, so the parts add up to less than the whole.
        assert 0 < sum(row["phases"].values()) < row["pipeline_s"] * 1.001
    shown = capsys.readouterr().out
    assert shown.count(f"share >= {LIMIT:.2f}") == 2
    assert status == int(not (rows[0]["met"] and rows[2]["met"]))


def test_a_folder_that_is_none_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--images", str(tmp_path / "none"), "--model", "digits-cnn"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_share_is_judged() -> None:
    def row(share: float) -> Row:
        return Row("original", "auto", 1, 1.0, 1.0, share, share, share, {})

    assert row(LIMIT).met
    assert not row(LIMIT - 0.001).met
