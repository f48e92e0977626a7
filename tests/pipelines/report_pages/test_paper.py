"""The paper's tables and figures on the report's pages."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from regroup_pipelines.commands import report
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.json_types import JsonObject
from regroup_pipelines.render.study_files import TABLES
from regroup_pipelines.results.records import StudyResults
from regroup_store.format.store import open_store
from regroup_store.kinds.studies import write_study
from tests.pipelines.colours import paper_values
from tests.pipelines.records import measured
from tests.pipelines.report_pages.browser import DESKTOP, PHONE, Visit, visit
from tests.pipelines.reported import MODEL, Reported, embedded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAPER = [f"table-{number}" for number in range(1, 7)]
FIGURES = ["figure-2", "figure-3", "figure-4"]
KEY = "preactivation-four"
VALUES = paper_values("<b>A defense</b>", MODEL)
TIMED = {name: {"median": 0.25, "low": 0.125, "high": 0.5} for name in ("softmax", "regroup")}
TIMES = [
    {
        "kind": "measured",
        "device": "cpu",
        "machine": {"device": "cpu"},
        "words": "a slow machine",
        "rounds": 5,
        "times": [
            {"batch": size, "images": 8, **TIMED, "ratio": {"median": 1.5, "low": 1, "high": 2}}
            for size in (1, 12)
        ],
    },
    {"kind": "not run", "device": "cuda", "reason": "no worker had a GPU"},
]
LEVELS = [4, 200]


def papered(reported: StudyResults, values: Path) -> JsonObject:
    """The results as if the study had asked for all of it, `strong` being an attack of table 2 and
    every level of a sweep.
    """
    results = reported.plain()
    settings = results["settings"]
    settings["report"] = {"tables": ["accuracy", *PAPER], "figures": FIGURES}
    settings["paper_values"] = str(values)
    settings["attacks"]["strong"]["preset"] = "table2-pgd-4"
    settings["sweeps"] = {"rising": {"levels": LEVELS, "protocol": "budget"}}
    settings["sweeps"]["none"] = {"levels": [1], "protocol": "minimal"}
    strong = next(row for row in results["images"] if row["images"] == "strong")
    for level in LEVELS:
        name = f"rising-{level}"
        settings["attacks"][name] = {**settings["attacks"]["strong"], "preset": None}
        results["images"].append({**strong, "images": name})
        for evaluation in results["evaluations"]:
            evaluation["votes"][name] = evaluation["votes"]["strong"]
            row = next(each for each in evaluation["accuracy"] if each["images"] == "strong")
            evaluation["accuracy"].append({**row, "images": name})
            for each in evaluation["accuracy_against_k"]:
                each["accuracy"][name] = each["accuracy"]["strong"]
    why = {"kind": "not run", "images": "none-1", "reason": "the study skips it"}
    settings["attacks"]["none-1"] = {**settings["attacks"]["later"], "preset": None}
    results["images"].append({**why, "dataset": "val", "title": "PGD"})
    for evaluation in results["evaluations"]:
        evaluation["inference_time"] = TIMES
        evaluation["accuracy"].append(why)
    return results


@pytest.fixture(scope="module")
def paper(reported: Reported, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp("paper-pages")
    (folder / "values.toml").write_text(VALUES)
    store = open_store(str(shutil.copytree(Path(reported.store.uri), folder / "store")))
    write_study(store, "colours", papered(reported.results, folder / "values.toml"))
    config = ReportConfig(
        store=store.uri, output=str(folder / "report"), json=True,
        paper_values=str(folder / "values.toml"),
    )  # fmt: skip
    return Reported(store, reported.data, folder / "report", report.main(config))


@pytest.fixture(scope="module")
def opened(browser: Browser, paper: Reported) -> Iterator[Visit]:
    with visit(browser) as visited:
        visited.go(paper.page("tables.html"))
        yield visited


@pytest.fixture
def tables(opened: Visit) -> Iterator[Visit]:
    """The page, opened once for the tests that leave it as it is."""
    yield opened
    assert opened.complaints == []


def test_downloads_are_the_files_of_the_study(paper: Reported) -> None:
    results = paper.results
    for evaluation in results.evaluations:
        for name in PAPER:
            table = TABLES[name](results, evaluation)
            base = paper.page("data") / f"{evaluation.taps}-four-{name}"
            rows = json.loads(base.with_suffix(".json").read_text())
            assert rows == table.download
            assert rows
            with base.with_suffix(".csv").open() as file:
                assert len(list(csv.DictReader(file))) == len(rows)
            assert base.with_suffix(".csv").read_text() == table.csv
            assert base.with_suffix(".tex").read_text() == table.latex


def test_cells_stand_beside_the_papers(tables: Visit, paper: Reported) -> None:
    page = tables.page
    text = page.locator(f"#{KEY}-table-2").inner_text()
    assert "12.5 %" in text
    assert "not available" in text
    assert page.locator(f"#{KEY}-quoted tbody th").inner_text() == "<b>A defense</b> (quoted)"
    times = page.locator(f"#{KEY}-table-6")
    assert "250 ms [125, 500]" in times.inner_text()
    assert "GPU: not run, no worker had a GPU" in times.inner_text()
    assert "a slow machine" in times.inner_text()


def test_they_are_sorted_by_the_number(browser: Browser, paper: Reported) -> None:
    with visit(browser) as visited:
        visited.go(paper.page("tables.html"))
        assert_sorted(visited.page)
        assert visited.complaints == []


def assert_sorted(page: Page) -> None:
    head = page.locator(f"#{KEY}-table-6 thead th").nth(3)
    head.locator("button").click()
    cells = page.locator(f"#{KEY}-table-6 tbody tr td:nth-child(4)").all_inner_texts()
    assert cells[:4] == ["250 ms [125, 500]"] * 4
    assert [text.split()[0] for text in cells[4:6]] == ["1.5"] * 2
    assert cells[6:] == ["not run"] * 6
    head = page.locator(f"#{KEY}-table-2 thead th").nth(6)
    for _ in range(2):
        head.locator("button").click()
        first = page.locator(f"#{KEY}-table-2 tbody tr td:nth-child(7)").first
        assert first.inner_text() == "12.5 %", "what is not available comes last both ways"


@pytest.fixture(scope="module", params=["csv", "json", "tex"])
def downloading(
    browser: Browser, paper: Reported, request: pytest.FixtureRequest
) -> Iterator[tuple[Visit, str]]:
    """The page once for each kind of file: of one page Chromium allows ten downloads."""
    with visit(browser) as visited:
        visited.go(paper.page("tables.html"))
        yield visited, request.param


@pytest.mark.parametrize("name", PAPER)
def test_every_table_is_downloaded(
    downloading: tuple[Visit, str], paper: Reported, name: str
) -> None:
    tables, suffix = downloading
    file = f"{KEY}-{name}.{suffix}"
    with tables.page.expect_download() as found:
        tables.page.locator(f'a[download="{file}"]').click()
    assert found.value.suggested_filename == file
    saved, stored = Path(found.value.path()).read_text(), (paper.page("data") / file).read_text()
    if suffix == "json":
        assert json.loads(saved) == json.loads(stored)
    else:
        assert saved == stored


def test_figures_are_drawn_from_the_numbers_and_downloaded(tables: Visit, paper: Reported) -> None:
    specs = {each["key"]: each for each in embedded(paper.page("tables.html"), "figures")}
    evaluation = paper.results.evaluations[0]
    rows = measured(evaluation)
    sweep = specs[f"{KEY}-figure-2-rising"]
    assert [each["name"] for each in sweep["series"]] == [
        "softmax top-1", "softmax top-5", "REGroup top-1", "REGroup top-5"
    ]  # fmt: skip
    assert sweep["series"][2]["x"] == LEVELS
    assert sweep["series"][2]["y"] == pytest.approx(
        [100 * (rows[f"rising-{n}"].over_all.regroup_top1.accuracy or 0) for n in LEVELS],
        abs=1e-3,
    )
    signs = specs[f"{KEY}-figure-3"]
    at_k = {r.signs: r.accuracy for r in evaluation.accuracy_against_k if r.k == evaluation.k}
    for each in signs["series"]:
        assert each["x"] == ["clean", "strong", "least"]
        assert each["y"] == pytest.approx(
            [100 * (at_k[each["role"]][name].accuracy or 0) for name in each["x"]], abs=1e-3
        )
    drawn = "id => document.getElementById(id).data.map(t => [t.type, t.name, t.x.length])"
    bars = tables.page.evaluate(drawn, f"{KEY}-figure-3")
    assert bars == [["bar", name, 3] for name in ("both", "positive", "negative")]
    last = tables.page.evaluate(drawn, f"{KEY}-figure-4")
    assert last[0][0] == "bar"
    assert {"clean", "strong", "least"} <= {name for _, name, _ in last[1:]}
    for key in (f"{KEY}-figure-2-rising", f"{KEY}-figure-3", f"{KEY}-figure-4"):
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
            with tables.page.expect_download() as found:
                tables.page.locator(f'button[data-save="{kind}"][data-of="{key}"]').click()
            saved = Path(found.value.path()).read_bytes()
            assert saved.startswith(start)
            if (key, kind) == (f"{KEY}-figure-3", "svg"):
                assert b"rgb(0, 114, 178)" in saved, "bars with a pattern keep their colour"


def test_what_was_not_run_is_told(tables: Visit) -> None:
    notes = tables.page.locator(".notes").first.inner_text()
    assert "Figure 2: none: not run" in notes
    assert "Figure 3: no number of later" in notes


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")])
def test_the_page_fits_and_is_accessible(
    browser: Browser, paper: Reported, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, size, scheme) as visited:
        visited.go(paper.page("tables.html"))
        assert visited.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert visited.violations() == []
        assert visited.complaints == []


def test_values_that_are_gone_are_told(paper: Reported, tmp_path: Path) -> None:
    values = Path(str(paper.results.settings.paper_values))
    values.rename(values.with_suffix(".away"))
    options = {"output": str(tmp_path / "r"), "paper_values": str(values), "json": True}
    try:
        report.main(ReportConfig(store=paper.store.uri, **options))  # type: ignore[arg-type]
    finally:
        values.with_suffix(".away").rename(values)
    text = (tmp_path / "r" / "colours" / "tables.html").read_text()
    assert "table-2: " in text
    assert "values.toml cannot be read" in text


def test_a_file_of_values_that_only_the_store_names_is_not_read(
    paper: Reported, tmp_path: Path
) -> None:
    report.main(ReportConfig(store=paper.store.uri, output=str(tmp_path / "r"), json=True))
    text = (tmp_path / "r" / "colours" / "tables.html").read_text()
    declared = paper.results.settings.paper_values
    assert f"a report reads no file that is not named: give --paper-values {declared}" in text
    assert "<b>A defense</b>" not in text
    assert "A defense" not in text
    assert str(declared) in (tmp_path / "r" / "colours" / "index.html").read_text()


def test_a_study_that_asks_for_none_has_none(reported: Reported) -> None:
    text = reported.page("tables.html").read_text()
    assert "The paper's tables" not in text
    assert "Figure 2" not in text
