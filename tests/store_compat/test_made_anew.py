"""What this release makes anew of a store of ba43c66, and the sentence in which a dry run says why.

docs/upgrading.md is the table; each of its kinds of change that this store can show stands here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from regroup.models import ModelSpec, load_classifier
from regroup_store.kinds.features import features_spec
from tests.store_compat.old_store import OldStore, contents, copied

NETWORK = "small_network.py"
RATIO = [f"--set={key}.parameters.step_ratio=1/30" for key in ("attacks.least", "attacks.strong")]
RATIO.append("--set=sweeps.levels.parameters.step_ratio=1/30")


@pytest.fixture
def now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> OldStore:
    """A copy of the store, with digits of the scikit-learn that its listings are of."""
    copy = copied(tmp_path, monkeypatch, capfd)
    (part,) = copy.store.glob("listings/digits-val-*/part-00000.parquet")
    (stamp,) = set(pq.read_table(part, columns=["stamp"])["stamp"].to_pylist())
    monkeypatch.setattr("sklearn.__version__", stamp.removeprefix("scikit-learn "))
    return copy


def described_as_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of one's own are described without what they compute."""
    monkeypatch.setattr("regroup.models.custom.describe_own", lambda *_: {})


def planned(now: OldStore, *options: str) -> dict[str, Any]:
    before = contents(now.store)
    plan: dict[str, Any] = now.say(
        "run", "small.toml", "--dry-run", "--gpus-per-worker", 0, *options
    )
    assert contents(now.store) == before
    return plan


def kinds(plan: dict[str, Any], done: bool) -> set[str]:
    """What the steps make, by the first word, that are done or are not."""
    return {str(line["what"]).split()[0] for line in plan["plan"] if line["done"] is done}


def test_a_network_of_ones_own_is_made_anew_once(now: OldStore) -> None:
    """Indexes, listings and digests know no network; features and all that follows from them do."""
    plan = planned(now, *RATIO)
    assert kinds(plan, done=True) == {"digest", "index"}
    (sentence,) = plan["made_anew"]
    assert sentence.startswith("features/digits-")
    assert "and 3 more will be made anew, with all that follows from it" in sentence
    assert "what a network of one's own computes is part of the fingerprint" in sentence


def test_nothing_is_made_anew_where_nothing_changed(
    now: OldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    described_as_then(monkeypatch)
    plan = planned(now, *RATIO)
    assert kinds(plan, done=False) == set()
    assert plan["made_anew"] == []


def test_steps_of_pgd_are_said(now: OldStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of clean images and the banks stay; the attacks by the default do not."""
    described_as_then(monkeypatch)
    plan = planned(now)
    assert "attack" in kinds(plan, done=False)
    assert "attack" not in kinds(plan, done=True)
    assert {"digest", "extract", "bank"} <= kinds(plan, done=True)
    told = " ".join(plan["made_anew"])
    assert "the step ratio is 0.25, and was 0.03333" in told
    assert "the step ratio is 0.6375, and was 0.03333" in told


def test_replaced_weights_are_said(now: OldStore, monkeypatch: pytest.MonkeyPatch) -> None:
    described_as_then(monkeypatch)
    weights = now.folder / "small_network.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    (sentence,) = planned(now)["made_anew"]
    assert "but the weights were replaced since" in sentence


def test_the_overview_has_a_row_for_each_kind_of_change() -> None:
    text = (Path(__file__).parents[2] / "docs" / "upgrading.md").read_text()
    overview, _, sections = text.partition("\n## ")
    heads = [
        line.removeprefix("## ") for line in f"## {sections}".splitlines() if line[:3] == "## "
    ]
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\)", overview, re.MULTILINE)
    assert [head for head, _ in rows] == heads
    for head, anchor in rows:
        assert anchor == head.lower().replace("'", "").replace(" ", "-")


# ---- networks of ours

# Fingerprints that commit ba43c66 gave features of these networks, of an index "0...0" with one tap
# and weights whose sha256 is "0...0": printed by its code.
THEN = {
    "digits-cnn": "293acfc2a0db391e91ea1f99012ed214d30ea263c9def97c9baafa736022fbb3",
    "cifar-resnet20": "b1298b1988a682c8edc2410b0e27134569a61884bd2bf78864cea7cc21d9265c",
    "squeezenet1_1": "4595b60cd956d89a3b7832c7ab6daefb77a44dc56246d712b5f277a8a68727f0",
    "timm:mobilenetv3_small_050": (
        "0bb21681b6ad9aaf9623a341bdb7597c901434d736afb36049286bc5ac2df8a2"
    ),
    "efficientnet-lite0": "511871f69219e331334e9eafd076768e9c294281591c8dade347523724bf8620",
}


@pytest.mark.parametrize("name", THEN)
def test_networks_of_ours_keep_their_fingerprints(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    if name.startswith("efficientnet"):
        pytest.importorskip("efficientnet_lite_pytorch")
    described = load_classifier(ModelSpec(name, "random")).describe()
    spec = features_spec(
        "f",
        model={**described, "weights_sha256": "0" * 64},
        taps=[("tap", 3)],
        policy="preactivation",
        source={"index": "0" * 64},
        num_classes=10,
        rows=1,
        block_rows=1,
    )
    assert spec.fingerprint == THEN[name]
