"""The files of a report: pages from templates, tables as downloads, one copy of the scripts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regroup_cluster.printable import printable
from regroup_pipelines.report_pages.tables import headline_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment

    from regroup_pipelines.json_types import FlatRow, JsonObject
    from regroup_pipelines.render.table import Table
    from regroup_pipelines.report_pages.evaluation import ReportedStudy
    from regroup_pipelines.report_pages.figures import Figure

HERE = Path(__file__).parent
PAGES = [
    ("index.html", "Overview"),
    ("tables.html", "Tables"),
    ("curves.html", "Robustness curves"),
    ("explorer.html", "Vote explorer"),
    ("failures.html", "Where it fails"),
    ("cost.html", "Cost"),
]


@dataclass
class Site:
    """Writes the files of a report.

    Attributes:
        folder: where they go.
        store: the store as the user named it, with secrets masked.
        made_by: the command that makes the report.
    """

    folder: Path
    store: str
    made_by: str
    _tables: dict[Path, set[str]] = field(default_factory=dict)

    @cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=lambda value: printable(value) if type(value) is str else value,
        )
        # No spaces in JSON: the explorer's numbers make up most of its page.
        environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
        return environment

    def copy_scripts(self) -> None:
        """Copy style sheet and scripts, and the plotting library from its package."""
        import plotly

        target = self.folder / "static"
        target.mkdir()
        for path in sorted((HERE / "static").iterdir()):
            if path.suffix in (".css", ".js"):
                shutil.copyfile(path, target / path.name)
        bundle = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        shutil.copyfile(bundle, target / bundle.name)

    def write_root(self, studies: list[ReportedStudy]) -> None:
        """Write the first page: every study with its headline numbers."""
        rows = [
            {
                "name": study.name,
                "line": one_line(study),
                "headline": _keyed(headline_table(study.evaluations), study.name),
            }
            for study in studies
        ]
        self._write("index.html", "root.html", study=None, page_title="Studies", studies=rows)

    def write_page(
        self, study: ReportedStudy, page: str, figures: Iterable[Figure], **content: Any
    ) -> None:
        """Write one page of a study; its script draws the `figures`."""
        name = dict(PAGES)[page]
        template = "overview.html" if page == "index.html" else page
        titled = {"page_title": name, "current": page, "study": study.name, **content}
        titled["figures"] = [figure.plain() for figure in figures]
        self._write(f"{study.name}/{page}", template, **titled)

    def write_tables(self, study: ReportedStudy, tables: Iterable[Table]) -> None:
        """Write the downloads of tables: CSV, JSON, and LaTeX where a table has it."""
        folder = self.folder / study.name / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables:
            if table.download:
                _text(folder / f"{table.key}.json", table.json)
                _script(folder / f"{table.key}.json", _columns(table.download))
                _text(folder / f"{table.key}.csv", table.csv)
            if table.latex:
                _text(folder / f"{table.key}.tex", table.latex)
                _script(folder / f"{table.key}.tex", table.latex)

    def _write(self, name: str, template: str, **content: Any) -> None:
        root = "../" * name.count("/")
        common = {"root": root, "pages": PAGES, "store": self.store, "made_by": self.made_by}
        given = {"figures": [], "current": "", **common, **content}
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _text(path, self._templates.get_template(template).render(given))


def one_line(study: ReportedStudy) -> str:
    """Describe a study in one line: network, datasets, attacks, taps and banks."""
    settings, attacks = study.settings, len(study.attacks)
    datasets = ", ".join(dict.fromkeys(row.dataset for row in study.results.images))
    plural = "attack" if attacks == 1 else "attacks"
    return (
        f"{settings.model.name} on {datasets}: {attacks} {plural}, taps "
        f"{', '.join(settings.taps)}; banks {', '.join(settings.banks)}"
    )


def _keyed(table: Table, study: str) -> Table:
    """Return `table` with a key that is unique among all studies."""
    return replace(table, key=f"{table.key}-{study}", title=f"{table.title} of {study}")


def _columns(rows: list[FlatRow]) -> JsonObject:
    """Return rows as columns' heads and lists of values, without repeating the keys."""
    return {"heads": list(rows[0]), "rows": [list(row.values()) for row in rows]}


def _script(path: Path, content: Any) -> None:
    """Write the content of a download as a script that the page can load.

    From a folder (file://), browsers show JSON and LaTeX as a page instead of downloading them, and
    scripts may not read them.
    """
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    _text(path.with_name(f"{path.name}.js"), f"Report.arrived({json.dumps(path.name)},{data});\n")


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
