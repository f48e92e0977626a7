"""The report in a real Chromium, from file:// and without a network."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.pipelines.report_pages.browser import DESKTOP, PHONE, Visit, visit
from tests.pipelines.reported import IMAGE, Reported, embedded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = (
    "../index.html", "index.html", "tables.html", "curves.html", "explorer.html", "failures.html",
    "cost.html",
)  # fmt: skip
DRAWN = """[...document.querySelectorAll('.plot')].every(
    plot => plot.querySelector('.main-svg .trace, .main-svg .hm'))"""


@pytest.fixture
def open_page(browser: Browser, reported: Reported) -> Iterator[Any]:
    with visit(browser) as visited:

        def go(name: str, fragment: str = "") -> Page:
            visited.go(reported.page(name), fragment)
            return visited.page

        yield go
        assert visited.complaints == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_every_page_is_quiet_fits_and_is_accessible(
    browser: Browser, reported: Reported, size: tuple[int, int]
) -> None:
    """Light and dark: every other page is opened dark, and drawn again in the other scheme."""
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    with visit(browser, size) as visited:
        for name in PAGES:
            visited.go(reported.page(name))
            for scheme in schemes:
                visited.page.emulate_media(color_scheme=scheme)
                visited.page.evaluate("new Promise(requestAnimationFrame)")  # it has heard of it
                visited.page.wait_for_function(DRAWN)
                assert width(visited) <= size[0]
                assert (name, scheme, visited.violations()) == (name, scheme, [])
                assert visited.page.evaluate("window.owned") is None
            schemes.reverse()
        assert visited.complaints == []


def width(visited: Visit) -> int:
    found: int = visited.page.evaluate("document.documentElement.scrollWidth")
    return found


def test_the_dark_page_is_dark(browser: Browser, reported: Reported) -> None:
    for scheme, colour in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
        with visit(browser, scheme=scheme) as visited:
            visited.go(reported.page("tables.html"))
            script = "getComputedStyle(document.documentElement).backgroundColor"
            assert visited.page.evaluate(script) == colour


def cells(page: Page, table: str, column: int) -> list[str]:
    return page.locator(f"#{table} tbody tr :nth-child({column})").all_inner_texts()


def test_tables_are_sorted_by_mouse_and_by_keyboard(open_page: Any, reported: Reported) -> None:
    page = open_page("tables.html")
    table = f"{reported.results.evaluations[0].taps}-four-k"
    head = page.locator(f"#{table} thead th").nth(2)
    start = cells(page, table, 3)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = cells(page, table, 3)
    assert rising != start
    assert rising == sorted(start, key=lambda text: float(text.split()[0]))
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert cells(page, table, 3) == sorted(
        start, key=lambda text: float(text.split()[0]), reverse=True
    )
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert page.locator(f"#{table} thead th").nth(1).get_attribute("aria-sort") == "ascending"
    assert cells(page, table, 2) == sorted(cells(page, table, 2))


def test_what_was_not_run_comes_last_both_ways(open_page: Any) -> None:
    page = open_page("tables.html")
    table = "preactivation-four-accuracy"
    for _ in range(2):
        page.locator(f"#{table} thead th").nth(6).locator("button").click()
        assert cells(page, table, 7)[-2:] == ["not run", "not run"]


def test_a_table_and_a_figure_are_downloaded(open_page: Any, reported: Reported) -> None:
    page = open_page("tables.html")
    key = "preactivation-four-accuracy"
    with page.expect_download() as found:
        page.locator(f'a[download="{key}.csv"]').first.click()
    assert found.value.suggested_filename == f"{key}.csv"
    stored = (reported.page("data") / f"{key}.csv").read_bytes()
    assert Path(found.value.path()).read_bytes() == stored
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
        button = page.locator(f'button[data-save="{kind}"]').first
        with page.expect_download() as found:
            button.click()
        assert found.value.suggested_filename == f"{button.get_attribute('data-of')}.{kind}"
        assert Path(found.value.path()).read_bytes().startswith(start)


def test_json_is_saved_and_not_opened(open_page: Any, reported: Reported) -> None:
    page, key = open_page("tables.html"), "preactivation-four-accuracy"
    stored = json.loads((reported.page("data") / f"{key}.json").read_text())
    for _ in range(2):
        with page.expect_download() as found:
            page.locator(f'a[download="{key}.json"]').click()
        assert found.value.suggested_filename == f"{key}.json"
        assert json.loads(Path(found.value.path()).read_text()) == stored
        assert page.url.endswith("tables.html")


def test_every_download_link_says_so(open_page: Any, reported: Reported) -> None:
    seen = 0
    for name in PAGES[1:]:
        page = open_page(name)
        for link in page.locator('a[href^="data/"]').all():
            href, script = (link.get_attribute(each) for each in ("href", "data-script"))
            assert link.get_attribute("download") == href.removeprefix("data/")
            assert (script == f"{href}.js") == (not href.endswith(".csv"))
            assert script is None or (reported.page(name).parent / script).is_file()
            seen += 1
    assert seen > 20


@pytest.fixture
def data(reported: Reported) -> Any:
    return embedded(reported.page("explorer.html"), "explorer-data")


def expected(data: Any, attack: int, **wanted: Any) -> list[str]:
    """The samples of an attack that the filters leave."""
    found = data["evaluations"][0]["attacks"][attack]
    columns, kept = found["columns"], []
    for i, name in enumerate(found["samples"]):
        right = {
            each: columns[f"attacked_{each}"][i] == columns["label"][i]
            for each in ("softmax", "regroup")
        }
        truth = {**right, "label": columns["label"][i]}
        if all(truth[key] == value for key, value in wanted.items()):
            kept.append(name)
    return kept


def listed(page: Page) -> list[str]:
    texts = page.locator("#samples option").all_inner_texts()
    return [text.split(" ", 1)[1].rsplit(" (", 1)[0] for text in texts]


def test_the_filters_leave_what_they_say(open_page: Any, data: Any) -> None:
    page = open_page("explorer.html")
    assert listed(page) == expected(data, 0)
    page.select_option("#f-softmax", "wrong")
    assert listed(page) == expected(data, 0, softmax=False)
    assert 0 < len(listed(page)) < len(expected(data, 0))
    assert page.locator("#count").inner_text().startswith(f"{len(listed(page))} of 9 samples")
    page.select_option("#f-regroup", "wrong")
    assert listed(page) == expected(data, 0, softmax=False, regroup=False)
    page.select_option("#f-softmax", "")
    page.select_option("#f-regroup", "")
    page.select_option("#f-attack", label="least")
    assert listed(page) == expected(data, 1)
    page.select_option("#f-class", label=IMAGE)
    label = data["evaluations"][0]["classes"].index(IMAGE)
    assert listed(page) == expected(data, 1, label=label)
    page.select_option("#f-softmax", "right")
    assert listed(page) == expected(data, 1, label=label, softmax=True) == []
    assert page.locator("#sample-title").inner_text() == "No sample matches"


def test_a_sample_is_chosen_by_keyboard_and_shown(open_page: Any, data: Any) -> None:
    page = open_page("explorer.html")
    attack = data["evaluations"][0]["attacks"][0]
    page.locator("#samples").focus()
    page.keyboard.press("ArrowDown")
    second = attack["samples"][1]
    assert page.locator("#sample-title").inner_text() == second
    pictures = page.locator("#pictures img")
    assert pictures.count() == 3
    assert all(pictures.nth(i).evaluate("img => img.naturalWidth") == 8 for i in range(3))
    winners = page.locator("#winners tbody tr").nth(1).locator("td").all_inner_texts()
    classes = data["evaluations"][0]["classes"]
    told = [classes[label] for label in attack["ranks"]["attacked"]["winners"][1]]
    assert [text.split(" ", 1)[1] for text in winners] == told
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#sample-title").inner_text() == attack["samples"][2]
    page.locator("#previous").click()
    assert page.locator("#sample-title").inner_text() == second
    assert "sample=" in page.url


def test_the_charts_hold_the_ranks(open_page: Any, data: Any) -> None:
    page = open_page("explorer.html")
    ranks = data["evaluations"][0]["attacks"][0]["ranks"]
    traces = page.evaluate(
        "document.getElementById('ranks-negative').data.map(t => [t.name, Array.from(t.y)])"
    )
    lines = dict(traces)
    assert lines["true class, clean"] == [tap[1] for tap in ranks["clean"]["true"][0]]
    assert lines["true class, attacked"] == [tap[1] for tap in ranks["attacked"]["true"][0]]
    assert page.locator("#points-title").inner_text() == "Borda points as k grows"
    points = dict(page.evaluate(
        "document.getElementById('points').data.map(t => [t.name, Array.from(t.y)])"
    ))["true class, attacked"]  # fmt: skip
    classes = len(data["evaluations"][0]["classes"])
    last = [classes - tap[0] for tap in reversed(ranks["attacked"]["true"][0])]
    shares = [100 * sum(last[:k]) / (k * (classes - 1)) for k in range(1, len(last) + 1)]
    assert points == pytest.approx(shares, abs=0.01)


def test_the_list_is_downloaded_and_a_sample_linked_to(open_page: Any, data: Any) -> None:
    page = open_page("failures.html")
    from playwright.sync_api import expect

    link = page.locator("section[id$=samples] tbody a").first
    name = link.inner_text()
    link.click()
    expect(page.locator("#sample-title")).to_have_text(name)
    with page.expect_download() as found:
        page.locator("#save-list").click()
    rows = list(csv.DictReader(io.StringIO(Path(found.value.path()).read_text())))
    assert [row["sample_id"] for row in rows] == listed(page)


def test_names_of_the_store_run_nothing(open_page: Any, reported: Reported) -> None:
    page = open_page("explorer.html")
    page.hover("#winners tbody td")
    assert page.evaluate("window.owned") is None
    assert page.locator("img[src=x]").count() == 0
    assert IMAGE in page.locator("#f-class").inner_text()
    assert "window.owned" in json.dumps(embedded(reported.page("tables.html"), "figures"))
