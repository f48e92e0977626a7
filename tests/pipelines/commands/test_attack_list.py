"""`regroup attack --list`: every attack and preset, without a store, a dataset or Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from regroup.attacks import ATTACKS
from regroup.attacks.presets import PRESETS
from regroup_pipelines.commands import attack_list
from tests.pipelines.conftest import Run


def test_every_attack_with_all_its_facts(run: Run) -> None:
    outcome = run("attack", "--list")
    assert outcome.status == 0
    names = [line.split()[0] for line in outcome.out.splitlines() if line[:1].strip()]
    assert names[: len(ATTACKS)] == list(ATTACKS)
    pgd = outcome.out[: outcome.out.index("deepfool")]
    for word in ("Madry et al. 2018", "own", "white-box", "linf", "minimal, budget", "targeted too",
                 "each sample alone", "1640 forward, 1640 backward"):  # fmt: skip
        assert word in pgd


def test_as_json_with_presets(run: Run) -> None:
    found: dict[str, Any] = run("attack", "--list", "--json").json
    pgd, *_ = found["attacks"]
    assert (pgd["name"], pgd["norms"], pgd["knowledge"]) == ("pgd", ["linf", "l2"], "white-box")
    # minimal, 40 tries: 40 steps each, and one more pass of either kind.
    assert (pgd["forward"], pgd["backward"], pgd["group"]) == (40 * 41, 40 * 41, None)
    rows = {row["name"]: row for row in found["presets"]}
    assert list(rows) == list(PRESETS)
    budget = rows["table2-pgd-4-budget"]
    assert (budget["attack"], budget["protocol"], budget["forward"]) == ("pgd", "budget", 41)
    shown = run("attack", "--list").out
    assert "table2-pgd-4-budget" in shown
    assert "epsilon 0.015686" in shown
    # Of the sweep its ends are enough for people.
    assert "figure2-pgd-40-budget" in shown
    assert "figure2-pgd-20" not in shown


def test_an_attack_whose_module_cannot_be_imported_is_listed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "lost", ("no_such_module", "Lost"))
    row = run("attack", "--list", "--json").json["attacks"][-1]
    assert row["name"] == "lost"
    assert "no_such_module" in row["problem"]


def test_coupling_is_said() -> None:
    assert attack_list.coupling(16) == "fixed groups of 16"


def test_nothing_of_a_job_is_loaded() -> None:
    code = (
        "import sys\nfrom regroup_pipelines.cli import main\n"
        "try:\n    main(['attack', '--list', '--json'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('ray', 'zarr', 'pyarrow', 'foolbox') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert len(json.loads(done.stdout)["attacks"]) == len(ATTACKS)
