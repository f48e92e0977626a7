"""Looking at a store runs no code that it names, whoever wrote it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from regroup_pipelines.schema.study import Model
from regroup_store.format.store import open_store
from tests.pipelines import small_study
from tests.pipelines.conftest import Run
from tests.pipelines.small_study import write_small_study

TRAP = "a_trap_for_regroup"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose elements, bank and study name a network in a module that must not be run."""
    (tmp_path / f"{TRAP}.py").write_text("raise SystemExit('the trap was imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(small_study.MODEL, "name", f"{TRAP}:make")
    monkeypatch.setitem(small_study.MODEL, "preprocessing", {"crop": 2})
    monkeypatch.setitem(small_study.ATTACK, "protocol", "budget")
    monkeypatch.setitem(small_study.ATTACK, "norm", "linf")
    settings = replace(small_study.SETTINGS, model=Model(name=f"{TRAP}:make"))
    monkeypatch.setattr(small_study, "SETTINGS", settings)
    store = open_store(str(tmp_path / "store"), create=True)
    write_small_study(store)
    return tmp_path / "store"


@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("verify",),
        ("inspect", "features/pets-tiny"),
        ("repair",),
        ("gc",),
        ("report", "--output", "OUT"),
        ("export", "--study", "small", "--output", "OUT"),
        ("diff", "features/pets-tiny", "features/pets-tiny"),
    ],
    ids=lambda words: words[0],
)
def test_the_network_that_a_store_names_is_not_imported(
    run: Run, trap: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    assert TRAP in (next(trap.glob("features/*/manifest.json"))).read_text()
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    done = run(*words, "--store", trap)
    assert "the trap" not in done.err + done.out
    assert TRAP not in sys.modules
    assert done.status == 0, done.err
