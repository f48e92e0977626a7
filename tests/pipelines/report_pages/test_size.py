"""The report stays below 15 MB."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regroup_pipelines.commands import report
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.report_pages import voters
from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
from regroup_pipelines.report_pages.outcomes import Outcomes
from regroup_store.format.store import open_store
from regroup_store.kinds.studies import write_study
from tests.pipelines.reported import Reported, embedded

COUNT, TAPS, SIDE = 10_000, 54, 224


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of 10 000 attacked samples, 54 taps and large noisy images, all made up."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {name: rng.integers(0, 3, COUNT) for name in (
        "label", "adversarial", "clean_softmax", "attacked_softmax", "clean_regroup",
        "attacked_regroup", "clean_rank", "attacked_rank", "clean_row", "attacked_row", "image_row",
    )}  # fmt: skip
    columns |= {
        "success": rng.random(COUNT) < 0.9,
        "l2": rng.random(COUNT),
        "linf": rng.random(COUNT),
    }
    names = [f"n01440764/ILSVRC2012_val_{i:08d}.JPEG" for i in range(COUNT)]
    noise = rng.random((8, 3, SIDE, SIDE)).astype(np.float32)

    def ranks(
        evaluation: ReportedEvaluation, images: str, rows: Any, *classes: Any
    ) -> voters.Ranks:
        shape = (len(rows), TAPS, 2)
        true, other = rng.integers(1, 1000, (2, *shape))
        points = 100 * rng.random((2, *shape[:2]))
        return voters.Ranks(true, other, rng.integers(0, 3, shape[:2]), *points)

    for user in ("explorer", "pages", "curves"):
        path = f"regroup_pipelines.report_pages.{user}.outcomes_of"
        monkeypatch.setattr(path, lambda *_: Outcomes(names, columns))
    monkeypatch.setattr(ReportedEvaluation, "taps", [f"layer4.2.relu-{i}" for i in range(TAPS)])
    monkeypatch.setattr("regroup_pipelines.report_pages.explorer.read_ranks", ranks)
    for kind in ("CleanPictures", "AttackedPictures"):
        path = f"regroup_pipelines.report_pages.pictures.{kind}.read"
        monkeypatch.setattr(path, lambda *_: noise[rng.integers(8)])


def shown_of(page: Path) -> tuple[int, int, str]:
    """How many samples the page says it shows, of how many, and the whole line."""
    line = html.unescape(page.read_text().split('id="shown">')[1].split("</p>")[0])
    found = re.match(r"([\d,]+) of ([\d,]+) attacked samples", line)
    assert found
    shown, every = (int(each.replace(",", "")) for each in found.groups())
    return shown, every, line


def test_ten_thousand_samples_stay_below_15_mb(
    reported: Reported, tmp_path: Path, many: None
) -> None:
    config = ReportConfig(
        store=reported.store.uri, output=str(tmp_path / "r"), json=True, dataset=reported.dataset
    )
    summary = report.main(config)
    page = tmp_path / "r" / "colours" / "explorer.html"
    data = embedded(page, "explorer-data")
    assert len(data["evaluations"][0]["attacks"][0]["samples"]) == 10_000
    assert 8_000_000 < summary["bytes"] <= 15_000_000
    assert shown_of(page)[:2] == (count_shown(page), 20_000)


def count_shown(page: Path) -> int:
    """Samples with pictures, which have to be those with ranks, and files that are there."""
    data = embedded(page, "explorer-data")
    counts = {name: len(each) for name, each in data["pictures"].items()}
    for evaluation in data["evaluations"]:
        for attack in evaluation["attacks"]:
            ranked = len(attack["ranks"]["clean"]["true"]) if attack["ranks"] else 0
            assert ranked == counts[attack["name"]]
            assert set(attack["samples"][:ranked]) == set(data["pictures"][attack["name"]])
    for shown in data["pictures"].values():
        for each in shown.values():
            assert all((page.parent / "pictures" / f).is_file() for f in each["files"].values())
    return sum(counts.values())


def test_many_studies_together_stay_below_15_mb_and_say_what_they_show(
    reported: Reported, tmp_path: Path, many: None
) -> None:
    copied = tmp_path / "store"
    shutil.copytree(Path(reported.store.uri), copied)
    store, names = open_store(str(copied)), [f"study-{n}" for n in range(11)]
    for name in names:
        write_study(store, name, {**reported.results.plain(), "study": name})
    config = ReportConfig(
        store=str(copied), output=str(tmp_path / "r"), json=True, dataset=reported.dataset
    )
    summary = report.main(config)
    assert len(summary["studies"]) == 12
    assert 12_000_000 < summary["bytes"] <= 15_000_000
    counts = []
    for name in ("colours", *names):
        shown, every, line = shown_of(tmp_path / "r" / name / "explorer.html")
        assert shown == count_shown(tmp_path / "r" / name / "explorer.html")
        assert every == 20_000
        assert "would not fit into the report's 15 MB" in line
        counts.append(shown)
    assert 2 <= min(counts) <= max(counts) < 60
    # The last has as much room as the first.
    assert max(counts) <= 2 * min(counts)


def test_a_small_study_shows_all_and_says_so(reported: Reported) -> None:
    shown, every, line = shown_of(reported.page("explorer.html"))
    assert shown == every == count_shown(reported.page("explorer.html")) == 15
    assert "would not fit" not in line
