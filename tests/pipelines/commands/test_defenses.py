"""`regroup defenses --list`: every defense of the registry with its facts."""

import json

import pytest

from regroup.defenses.registry import DEFENSES
from regroup_pipelines import cli


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["defenses", *words])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_every_defense_is_listed_with_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "--list")
    assert [line.split()[0] for line in found.splitlines()[::3]] == list(DEFENSES)
    assert "REGroup (Tiwari et al. 2022)" in found
    assert "gradient: surrogate; needs a bank; decides without draws" in found
    assert "options: k, signs, rule, weights, delta, policy\n" in found
    assert listed(capsys) == found


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    (first, *_) = json.loads(listed(capsys, "--list", "--json"))["defenses"]
    assert (first["name"], first["gradient"], first["needs"]) == ("regroup", "surrogate", "a bank")
    assert (first["stochastic"], first["trained"]) == (False, False)
