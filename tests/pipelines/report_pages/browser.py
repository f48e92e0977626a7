"""A real Chromium for the pages of the report, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1280, 900), (360, 740)


def find_chromium() -> str:
    """The path of a Chromium; the test is skipped where there is none."""
    for program in PROGRAMS:
        if path := shutil.which(program):
            return path
    pytest.skip("no Chromium: install Debian's package `chromium` to test the report's pages")


@contextmanager
def chromium() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = find_chromium()
    with sync_api.sync_playwright() as playwright:
        # In a container root has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """An open page, and what its console said that is no good."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._miss)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _miss(self, request: Any) -> None:
        # A request that becomes a download is aborted as a page.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    def go(self, path: Path, fragment: str = "") -> None:
        self.page.goto(path.as_uri() + fragment)

    def violations(self) -> list[tuple[str, str, Any]]:
        """What axe-core calls serious or critical: rule, impact, places."""
        import axe_playwright_python

        script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
        self.page.evaluate(script.read_text(encoding="utf-8"))
        # It would fetch the style sheet, which no page from file:// can, and take three times as
        # long to name all places where nothing is wrong.
        options = "{preload: false, resultTypes: ['violations']}"
        found = self.page.evaluate(f"axe.run(document, {options})")
        return [
            (each["id"], each["impact"], [node["target"] for node in each["nodes"]])
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]


@contextmanager
def visit(
    browser: Browser, size: tuple[int, int] = DESKTOP, scheme: str = "light"
) -> Iterator[Visit]:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        offline=True,
        accept_downloads=True,
    )
    context.set_default_timeout(10_000)
    yield Visit(context.new_page())
    context.close()
