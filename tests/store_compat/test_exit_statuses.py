"""What is wrong with a store ends each command that reads it with one sentence and status 1.

Status 2 is for what a user typed. Here nothing is wrong but the store: a copy of that of ba43c66.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.manifests import element_fingerprint
from tests.store_compat.old_store import OldStore, copied

BANK = "digits-train-small_network.SmallNetwork-0916e959b53deb45"
MADE = "right-pgd-minimal-8cf303c8c27ebe1c"
# An element of each kind that the answers of the commands below are about.
OF = {
    "features": "right-pgd-minimal-3ced1e820c07f0b8",
    "adversarials": MADE,
    "banks": BANK,
    "votes": "right-pgd-minimal-eb6abcc04532762a",
    "indexes": "right-74ee84847f83ea5b",
}
COMMANDS = {
    "ls": ("ls",),
    "verify": ("verify",),
    "rescore": ("rescore", "--bank", BANK),
    "curve": ("curve", "--bank", BANK, "--adversarials", MADE),
    "export": ("export", "--study", "small", "--output", "out"),
}
READ_BY = {
    "features": "curve",
    "adversarials": "curve",
    "banks": "rescore",
    "votes": "export",
    "indexes": "ls",
}
Record = dict[str, Any]


@pytest.fixture
def old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> OldStore:
    return copied(tmp_path, monkeypatch, capfd)


def edited(path: Path) -> None:
    """By hand: neither fingerprint nor seal fits."""
    path.write_text(path.read_text().replace('"inputs": {', '"inputs": {"more": 1,', 1))


def of_a_later_release(path: Path) -> None:
    path.write_bytes(seal({**unseal(path.read_bytes(), ""), "schema_version": 9}))


def resealed(path: Path) -> None:
    record: Record = unseal(path.read_bytes(), "")
    path.write_bytes(seal({**record, "inputs": {**record["inputs"], "more": 1}}))


def no_json(path: Path) -> None:
    path.write_text("[1,")


HOWS: list[Callable[[Path], None]] = [edited, of_a_later_release, resealed, no_json]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", OF)
def test_a_manifest_that_cannot_be_used_is_a_failure(
    old: OldStore, kind: str, how: Callable[[Path], None]
) -> None:
    ref = f"{kind}/{OF[kind]}"
    how(old.store / ref / "manifest.json")
    status, _, err = old.ended("inspect", ref)
    assert (status, ref in err, err.count("\n")) == (1, True, 1), err
    status, _, err = old.ended(*COMMANDS[READ_BY[kind]])
    assert (status, ref in err, "Traceback" in err) == (1, True, False), err


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_names_what_is_of_a_later_release(old: OldStore, name: str) -> None:
    for kind in ("features", "votes", "banks"):
        of_a_later_release(old.store / kind / OF[kind] / "manifest.json")
    status, out, err = old.ended(*COMMANDS[name])
    assert status == 1, err
    assert "has schema version 9" in out + err
    assert "install a newer release" in out + err


def stated(store: Path, kind: str, change: Callable[[Record], object]) -> str:
    """Change an element's inputs as a stranger would: fingerprint, seal and folder fit."""
    folder = store / kind / OF[kind]
    record: Record = unseal((folder / "manifest.json").read_bytes(), "")
    change(record["inputs"])
    record["fingerprint"] = element_fingerprint(kind, record["inputs"])
    (folder / "manifest.json").write_bytes(seal(record))
    ref = f"{folder.name[:-16]}{record['fingerprint'][:16]}"
    folder.rename(folder.with_name(ref))
    return ref


LACKING = [("adversarials", "attack"), ("adversarials", "index"), ("features", "source")]


@pytest.mark.parametrize(("kind", "member"), LACKING)
def test_a_manifest_that_lacks_an_input_is_a_failure(old: OldStore, kind: str, member: str) -> None:
    ref = stated(old.store, kind, lambda inputs: inputs.pop(member))
    curve = ("curve", "--bank", BANK, "--adversarials", ref)
    plan = ("run", "small.toml", "--dry-run", "--gpus-per-worker", "0")
    status, _, err = old.ended(*(plan if kind == "features" else curve))
    assert status == 1, err
    assert f"{ref}/manifest.json" in err
    assert f"its inputs lack '{member}'" in err


@pytest.mark.parametrize("kind", ["votes", "features", "adversarials"])
def test_what_results_name_and_is_gone_is_a_failure(old: OldStore, kind: str) -> None:
    shutil.rmtree(old.store / kind / OF[kind])
    status, _, err = old.ended(*COMMANDS["export"])
    assert (status, kind in err) == (1, True), err


def test_what_a_user_misspells_is_wrong_usage(old: OldStore) -> None:
    for args in (("rescore", "--bank", "nobody"), ("inspect", "features/nobody")):
        assert old.ended(*args)[0] == 2
    assert old.ended("export", "--study", "nobody", "--output", "out")[0] == 2


def test_a_failure_of_another_element_is_named(old: OldStore) -> None:
    """The reason of a block is not told of another; records of before state no element."""
    (path,) = old.store.glob("adversarials/*/quarantine/*.json")
    before = old.say("ls")
    (torn,) = [each for each in before["elements"] if each["quarantined"]]
    assert old.ended("verify")[0] == 0
    path.write_bytes(seal({**unseal(path.read_bytes(), ""), "element": "f" * 64}))
    (now,) = [each for each in old.say("ls")["elements"] if each["quarantined"]]
    assert torn["quarantined"][0]["reason"] != now["quarantined"][0]["reason"]
    assert "is the record of another element" in now["quarantined"][0]["reason"]
    status, out, _ = old.ended("verify")
    assert (status, path.relative_to(old.store).as_posix() in out) == (1, True)
