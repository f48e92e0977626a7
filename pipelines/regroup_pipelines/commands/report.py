"""Write a static report of the studies in a store: pages that work offline from a folder."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_pipelines.errors import DamageFoundError, UsageError
from regroup_pipelines.render.formatting import human_size
from regroup_pipelines.render.terminal import print_line
from regroup_pipelines.report_pages.cost import read_runs
from regroup_pipelines.report_pages.evaluation import ReportedStudy, damage_noted
from regroup_pipelines.report_pages.folder import check_output, replaced_folder
from regroup_pipelines.report_pages.pages import StudyPages
from regroup_pipelines.report_pages.provenance import command_line
from regroup_pipelines.report_pages.site import Site
from regroup_pipelines.results.stored import read_results
from regroup_pipelines.schema.spelling import suggestion
from regroup_pipelines.steps.run_record import public
from regroup_store.errors import StoreUsageError
from regroup_store.format.store import open_store
from regroup_store.kinds.studies import study_names
from regroup_store.sources import open_source

if TYPE_CHECKING:
    from regroup_pipelines.configs.stored import ReportConfig
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.format.store import Store

# Size limit of a complete report: the explorers share what the other pages leave of it. The spare
# bytes make up for estimates of a page's size that are slightly too low.
REPORT_BYTES, SPARE_BYTES = 15_000_000, 100_000


def main(config: ReportConfig) -> JsonObject:
    """Write the report.

    Raises:
        DamageFoundError: a page of it says that something is damaged.
    """
    if config.images < 0:
        raise UsageError(f"--images {config.images}: give 0 or more")
    started = time.perf_counter()
    store = open_store(config.store, writable=False)
    names, output = choose_studies(store, config), Path(config.output)
    check_output(output)
    with replaced_folder(output) as draft, damage_noted() as damage:
        write_site(store, names, config, draft)
    seconds, size = time.perf_counter() - started, size_of(output)
    pages = sum(path.suffix == ".html" for path in output.rglob("*"))
    print_line(f"{output / 'index.html'}: {pages} pages, {human_size(size)}", config.json)
    print_line(f"0 forward passes, {seconds:.1f} s", config.json)
    summary = {
        "output": str(output),
        "index": str(output / "index.html"),
        "studies": names,
        "pages": pages,
        "bytes": size,
        "forward_passes": 0,
        "seconds": seconds,
    }
    if damage:
        raise DamageFoundError(
            f"the report is written, but its pages lack what is damaged: {'; '.join(damage)}",
            {**summary, "damaged": [*damage]},
        )
    return summary


def choose_studies(store: Store, config: ReportConfig) -> list[str]:
    """Choose the studies to report on.

    Raises:
        UsageError: the store holds no study, or not the requested one.
    """
    names = study_names(store)
    if not names:
        raise UsageError(
            f"the store {config.store} holds no study's results: run one first, such as "
            f"`regroup run STUDY.toml --store {config.store}`"
        )
    if config.study and config.study not in names:
        raise UsageError(f"--study: the store has no study {suggestion(config.study, names)}")
    return [config.study] if config.study else names


def write_site(store: Store, names: list[str], config: ReportConfig, folder: Path) -> None:
    """Write all pages of the named studies into an empty folder."""
    site = Site(folder, str(public(config.store)), made_by(config))
    site.copy_scripts()
    datasets = named_datasets(config.dataset)
    found = [
        ReportedStudy.of(store, read_results(store, name), datasets, config.paper_values)
        for name in names
    ]
    runs = read_runs(store)
    site.write_root(found)
    pages = [StudyPages(site, study, runs, config.images, config.seed) for study in found]
    for each in pages:
        each.write()
    for number, each in enumerate(pages):
        left = REPORT_BYTES - SPARE_BYTES - size_of(folder)
        each.write_explorer(left // (len(pages) - number))


def named_datasets(specs: tuple[str, ...]) -> frozenset[str]:
    """Return where the named datasets are, as an index states it.

    Raises:
        UsageError: there is no such dataset.
    """
    try:
        return frozenset(open_source(spec).spec for spec in specs)
    except StoreUsageError as error:
        raise UsageError(f"--dataset: {error}") from error


def size_of(folder: Path) -> int:
    """Return the total size in bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def made_by(config: ReportConfig) -> str:
    """Return the command that makes this report again, with secrets masked."""
    return command_line({"command": "report", "options": asdict(config)})
