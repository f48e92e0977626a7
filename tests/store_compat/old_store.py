"""A copy of the store that the code of ba43c66 made, and its commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regroup_pipelines.cli import main

FIXTURE = Path(__file__).parents[1] / "data" / "store-0.1.0.dev0-ba43c66"
EXPECTED = FIXTURE / "expected"
# What `regroup run` needs to find the whole study in the store.
OPTIONS: dict[str, tuple[str, ...]] = {"small": (), "gaps": ("--allow-missing",)}


def loaded(path: Path) -> Any:
    return json.loads(path.read_bytes())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@dataclass(frozen=True)
class OldStore:
    """A copy of the store and of its study; commands run in the copy's folder."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def ended(self, command: str, *args: object) -> tuple[int, str, str]:
        """How a command ends: its status, standard output (JSON), standard error."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([command, *map(str, args), "--store", "store", "--json"])
        return int(stop.value.code or 0), *self.capture.readouterr()

    def say(self, command: str, *args: object) -> Any:
        """What a command says as JSON; it must end well."""
        status, out, err = self.ended(command, *args)
        assert status == 0, err
        return json.loads(out)

    def run_study(self, name: str) -> dict[str, Any]:
        """Run a study again; its tables go to the folder `out/<name>`."""
        where = ("--output", f"out/{name}", "--gpus-per-worker", 0, "--workers", 1)
        results: dict[str, Any] = self.say("run", f"{name}.toml", *where, *OPTIONS[name])
        return results

    def elements(self) -> list[dict[str, Any]]:
        """What `regroup ls` says of every element, in the words that the old one had."""
        listed = self.say("ls")["elements"]
        return [
            {key: element[key] for key in loaded(EXPECTED / "ls.json")["elements"][0]}
            for element in listed
        ]

    def kept_results(self, name: str) -> dict[str, Any]:
        """What the old code left of a study in the store."""
        kept: dict[str, Any] = loaded(FIXTURE / "store" / "studies" / name / "results.json")
        results: dict[str, Any] = kept["results"]
        assert "schema_version" not in results
        return results


def copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> OldStore:
    """Copy the store and its study, and go to the copy's folder, where its own network is."""
    folder = Path(shutil.copytree(FIXTURE, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return OldStore(folder, capture)
