"""Defenses by name, users' own, their facts and descriptions."""

import sys
from pathlib import Path

import pytest

from regroup.defenses.registry import DEFENSES, defense_class, describe_defense, make_defense
from regroup.defenses.regroup import REGroup
from regroup.errors import ConfigurationError

OWN = """
from dataclasses import dataclass
from regroup.defenses.spec import Defense, DefenseFacts

@dataclass(frozen=True, kw_only=True)
class Mine(Defense):
    name = "mine"
    facts = DefenseFacts("Mine", "nobody", "exact")
    strength: float = 1.0
    def defend(self, model, material):
        raise NotImplementedError

def number():
    return 3

def broken():
    raise OSError("no such shield")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "my_defenses.py"
    path.write_text(OWN)
    monkeypatch.delitem(sys.modules, "my_defenses", raising=False)
    return path


@pytest.mark.parametrize("name", DEFENSES)
def test_every_entry_is_a_defense_with_facts(name: str) -> None:
    kind = defense_class(name)
    assert kind.name == name
    assert kind.facts.title
    assert kind.facts.source


def test_a_defense_is_described_by_its_parameters() -> None:
    described = make_defense("regroup", k=3, rule="crossmax").describe()
    assert described["name"] == "regroup"
    assert (described["k"], described["rule"], described["defense_version"]) == (3, "crossmax", 1)
    assert "seed" not in described  # nothing is drawn
    assert isinstance(make_defense("regroup"), REGroup)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("regruop", {}, "unknown defense 'regruop': did you mean regroup"),
        ("shield", {}, "unknown defense 'shield': choose from"),
        ("regroup", {"kk": 3}, "regroup has no parameter 'kk': did you mean k?"),
        ("my_defenses:Nobody", {}, "defense my_defenses:Nobody cannot be imported"),
        ("my_defenses:number", {}, "returned int: return a regroup.defenses.spec.Defense"),
        ("my_defenses:broken", {}, r"defense my_defenses:broken failed: .*no such shield"),
        ("my_defenses:Mine", {"k": 1}, "takes other parameters"),
        ("my_defenses.py:Mine", {}, "names a file where a module is needed"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_is_no_defense_is_named(name: str, parameters: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_defense(name, **parameters)


def test_a_users_defense_is_described_by_its_source_too(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "my_defenses:Mine"
    first = describe_defense(name, make_defense(name, strength=2.0))
    assert (first["factory"], first["strength"]) == (name, 2.0)
    own.write_text(OWN.replace("nobody", "somebody"))
    monkeypatch.delitem(sys.modules, "my_defenses")
    second = describe_defense(name, make_defense(name, strength=2.0))
    assert first["source_sha256"] != second["source_sha256"]
