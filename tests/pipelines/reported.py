"""A small study whose names are markup, and the report of it: made once for all tests."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regroup_pipelines.commands import report
from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.report_pages.evaluation import ReportedEvaluation, ReportedStudy
from regroup_pipelines.results.records import StudyResults
from regroup_pipelines.results.stored import read_results
from regroup_store.format.element import BlockElement
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.studies import write_study
from regroup_store.kinds.votes import SIGN_CHOICES
from tests.pipelines.colours import (
    BLUE,
    CLASS_NAMES,
    GREEN,
    LATER,
    RED,
    STRONG,
    Colours,
    colour_folder,
    least,
    study_text,
)  # fmt: skip

MODEL = "tests.pipelines.reported:Marked"
# Of two classes and of an attack: as markup each would set a global of the page.
IMAGE = "<img src=x onerror=window.owned=1>"
BOLD = "<b onmouseover='window.owned=1'>green&"
TITLE = "PGD </script><script>window.owned = 1</script>"
NAMES = {RED: IMAGE, GREEN: BOLD, BLUE: BLUE}

STUDY = study_text(
    '\n[scoring]\nsigns = "positive"\n', STRONG, least("limit = 6"), LATER,
    model=MODEL, taps=("preactivation", "linear"),
)  # fmt: skip


class Marked(Colours):
    class_names = tuple(NAMES.get(name, name) for name in CLASS_NAMES)  # type: ignore[assignment]


# The sign choice that the study votes with.
POSITIVE = SIGN_CHOICES.index("positive")


@dataclass(frozen=True)
class Reported:
    """A store with the study, where its images are, and its report."""

    store: Store
    data: Path
    output: Path
    summary: dict[str, Any]

    @property
    def dataset(self) -> tuple[str, ...]:
        """Whose clean images a report may show."""
        return (f"imagefolder:{self.data}/val",)

    @property
    def results(self) -> StudyResults:
        return read_results(self.store, "colours")

    def page(self, name: str) -> Path:
        return self.output / "colours" / name


def make_report(folder: Path) -> Reported:
    """Run the study and write its report below `folder`; needs Ray."""
    for split, images in (("train", 3), ("val", 4)):
        colour_folder(folder / split, images)
        for plain, marked in NAMES.items():
            (folder / split / plain).rename(folder / split / marked)
    (folder / "colours.toml").write_text(STUDY)
    where = {"store": str(folder / "store"), "output": str(folder / "out"), "data": str(folder)}
    main(RunConfig(study=str(folder / "colours.toml"), json=True, workers=1, **where))  # type: ignore[arg-type]
    store = open_store(where["store"])
    results = read_results(store, "colours").plain()
    results["images"][1]["title"] = TITLE
    write_study(store, "colours", results)
    config = ReportConfig(
        store=where["store"], output=str(folder / "report"), json=True,
        dataset=(f"imagefolder:{folder}/val",),
    )  # fmt: skip
    return Reported(store, folder, folder / "report", report.main(config))


def embedded(page: Path, name: str) -> Any:
    """The JSON that a page's script reads."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.S
    )
    assert found
    data = json.loads(found[1])
    for evaluation in data["evaluations"] if name == "explorer-data" else ():
        for attack in evaluation["attacks"]:
            attack["samples"] = [data["ids"][place] for place in attack["samples"]]
    return data


def column(element: BlockElement, path: str) -> np.ndarray[Any, Any]:
    return np.concatenate([element.read_array(path, b) for b in range(element.plan.blocks)])


def study_of(reported: Reported) -> ReportedStudy:
    return ReportedStudy(reported.store, reported.results)


def evaluation_of(reported: Reported) -> ReportedEvaluation:
    """The first of them."""
    return study_of(reported).evaluations[0]
