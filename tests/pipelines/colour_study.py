"""A study of coloured squares: two tap policies, a bank, a subset, three attacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.results.records import StudyResults
from tests.pipelines.colours import LATER, STRONG, colour_folder, least, study_text
from tests.pipelines.records import study_results

STUDY = study_text(
    "\n[subsets.V6]\nper_class = 2\n", STRONG, least('subset = "V6"'), LATER,
    taps=("preactivation", "linear"),
)  # fmt: skip


@dataclass(frozen=True)
class Finished:
    config: RunConfig
    planned: dict[str, Any]
    fresh: bool
    results: StudyResults

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    def args(self, *more: str) -> list[str]:
        c = self.config
        where = ["--store", c.store, "--output", c.output, "--data", c.data]
        return ["run", c.study, *where, "--workers", "1", *more]


def plan_and_run(folder: Path) -> Finished:
    """Plan the study over a store that is not there, in `folder`, and then run it."""
    colour_folder(folder / "train", images=3)
    colour_folder(folder / "val", images=4)
    (folder / "colours.toml").write_text(STUDY)
    where = {"store": str(folder / "store"), "output": str(folder / "out"), "data": str(folder)}
    study = str(folder / "colours.toml")
    planned = main(RunConfig(study=study, json=True, dry_run=True, **where))  # type: ignore[arg-type]
    fresh = not (folder / "store").exists() and not (folder / "out").exists()
    config = RunConfig(study=study, json=True, workers=1, **where)  # type: ignore[arg-type]
    return Finished(config, planned, fresh, study_results(main(config)))
