"""What this release makes anew of a store of ba43c66, and the sentence in which a dry run says why.

docs/upgrading.md is the table; each of its kinds of change that this store can show stands here.
"""

from __future__ import annotations

import importlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from regroup.models import ModelSpec, load_classifier
from regroup_pipelines.results.attack_summary import attack_summary
from regroup_pipelines.results.attack_warnings import gradients_line
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import encoded_digest, seal, unseal
from regroup_store.format.store import Store, open_store
from regroup_store.kinds.features import features_spec
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from regroup_store.sources import open_source
from tests.store.elements import memory_store
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


def heard(now: OldStore, *options: str, study: str = "small.toml") -> tuple[dict[str, Any], str]:
    """What a dry run plans, and its log."""
    before = contents(now.store)
    status, out, err = now.ended("run", study, "--dry-run", "--gpus-per-worker", 0, *options)
    assert (status, contents(now.store) == before) == (0, True), err
    return json.loads(out), err


def planned(now: OldStore, *options: str) -> dict[str, Any]:
    return heard(now, *options)[0]


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


# ---- labels by name

DIGITS = [str(digit) for digit in range(10)]
REVERSED = DIGITS[::-1]


def call_classes(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """The study's network names its outputs."""
    described_as_then(monkeypatch)
    network = importlib.import_module("small_network").SmallNetwork
    monkeypatch.setattr(network, "class_names", names, raising=False)


@pytest.mark.parametrize("options", [[], ["--set=model.labels=position"]])
def test_labels_that_were_right_keep_all(
    now: OldStore, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    call_classes(monkeypatch, DIGITS)
    assert kinds(planned(now, *RATIO, *options), done=False) == set()


@pytest.mark.parametrize("names", [REVERSED, [*DIGITS[1:], "0"], ["1", "0", *DIGITS[2:]]])
def test_the_same_names_in_another_order_are_made_anew(
    now: OldStore, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """Labels were positions; what knows no model stays."""
    call_classes(monkeypatch, names)
    plan, log = heard(now, *RATIO)
    assert kinds(plan, done=True) == {"digest", "index"}
    assert "labels of digits-val" in log
    assert "by name, all 10 found among those of the model small_network:SmallNetwork" in log
    refs = "|".join(path.name for path in (now.store / "features").iterdir())
    told = rf"made anew, since the labels of (?:{refs}) go by position without a word"
    assert re.search(told, log), log


def test_labels_by_position_are_asked_for_and_made_anew_once(
    now: OldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are taken for the model's classes, unless the study says otherwise."""
    call_classes(monkeypatch, REVERSED)
    plan, log = heard(now, *RATIO, "--set=model.labels=position")
    assert kinds(plan, done=True) == {"digest", "index"}
    assert "by position, as --labels says" in log


# ---- datasets: fingerprints that the code of ba43c66 printed for indexes of these folders

PLAIN = ("cat/1.bmp", "cat/22.bmp", "doggy/1.bmp")
HIDDEN = (".ipynb_checkpoints/1.bmp", "cat/._1.bmp")
PLAIN_THEN = "bb1abb242a3306b46c1b60fe3781671af84b9dc4f4f9b84a93198c539176f00b"
HIDDEN_THEN = "4afe7c717a82838f12fbc5748246b507d9570acfd2b65b4edfa291a31e0d1bf1"
FOLDERS = """name = "folders"
store = "store"

[model]
name = "small_network:SmallNetwork"
weights = "small_network.safetensors"
resize = 8
crop = 8
classes = "dataset"

[datasets]
train = "imagefolder:folder"
val = "imagefolder:folder"

[banks.few]
per_class = 1
"""


def bitmap(value: int) -> bytes:
    """A BMP file of 8 x 8 px."""
    head = struct.pack("<2sIHHI", b"BM", 246, 0, 0, 54)
    return (
        head + struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 0, 192, *[0] * 4) + b"%c" % value * 192
    )


def folder_of(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bitmap(len(path)))
    return root


def indexed(store: Store, rows: list[tuple[str, int, str, bytes]], names: list[str]) -> SampleIndex:
    """Write an index of samples: name, label, locator and bytes."""
    columns = [*zip(*rows, strict=True)]
    digests = [encoded_digest(data) for data in columns[3]]
    table = pa.table([*map(list, columns[:3]), digests], schema=COLUMNS)
    return SampleIndex.write(store, "folder", [table], names, "imagefolder:folder")


def indexed_now(folder: Path) -> tuple[SampleIndex, dict[str, int]]:
    """The index of a folder, and how many files are left out, by the reason."""
    source = open_source(f"imagefolder:{folder}")
    rows = list(source.rows())
    data = [each for each in source.read([r.locator for r in rows]) if isinstance(each, bytes)]
    named = [(r.sample_id, r.label, r.locator, d) for r, d in zip(rows, data, strict=True)]
    return indexed(memory_store(), named, list(source.class_names)), dict(source.left_out.counts)


def test_a_dataset_whose_samples_are_the_same_keeps_its_index(tmp_path: Path) -> None:
    """With a file beside its images, which is counted now."""
    plain = indexed_now(folder_of(tmp_path / "plain", *PLAIN))
    assert (plain[0].fingerprint, plain[1]) == (PLAIN_THEN, {})
    folder = folder_of(tmp_path / "more", *PLAIN)
    (folder / "cat" / "notes.txt").write_text("no image")
    more = indexed_now(folder)
    assert (more[0].fingerprint, sum(more[1].values())) == (PLAIN_THEN, 1)
    hidden = indexed_now(folder_of(tmp_path / "hidden", *PLAIN, *HIDDEN))
    assert (hidden[0].fingerprint, sum(hidden[1].values())) == (PLAIN_THEN, 2)


@pytest.mark.parametrize("others", [("cat/1.gif",), ("doggy/2.jp2", *HIDDEN)])
def test_a_dataset_that_gains_samples_is_indexed_anew(
    tmp_path: Path, others: tuple[str, ...]
) -> None:
    index, _ = indexed_now(folder_of(tmp_path / "folder", *PLAIN, *others))
    assert (index.rows_count, index.class_names) == (len(PLAIN) + 1, ("cat", "doggy"))
    assert index.fingerprint not in (PLAIN_THEN, HIDDEN_THEN)


def test_a_hidden_folder_that_was_a_class_is_left_out_and_said(
    now: OldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    described_as_then(monkeypatch)
    folder = folder_of(now.folder / "folder", *PLAIN, *HIDDEN)
    (now.folder / "folders.toml").write_text(FOLDERS)
    labels = dict.fromkeys(HIDDEN[:1], 0) | dict.fromkeys((*HIDDEN[1:], *PLAIN[:2]), 1)
    rows = [
        (path, labels.get(path, 2), path, (folder / path).read_bytes())
        for path in sorted((*PLAIN, *HIDDEN))
    ]
    held = indexed(open_store(str(now.store)), rows, [".ipynb_checkpoints", "cat", "doggy"])
    assert held.fingerprint == HIDDEN_THEN
    plan, log = heard(now, study="folders.toml")
    assert held.ref not in {line["ref"] for line in plan["plan"]}
    assert "digest" in kinds(plan, done=False)
    assert re.search(r"left out: 2 .*hidden.*\.ipynb_checkpoints", log), log


# ---- attacks and stores


def test_columns_of_later_releases_are_not_measured(now: OldStore) -> None:
    store = open_store(str(now.store), writable=False)
    infos = store.elements("adversarials")
    assert len(infos) > 3
    for info in infos:
        if info.finalised:
            summary = attack_summary(BlockElement.open(store, "adversarials", info.ref))
            assert gradients_line(summary) == "gradients not measured"
            assert summary.flags is None


def test_a_summary_of_before_is_compared_with_its_blocks(
    now: OldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It states no element, and its counts are those that its blocks hold, or damage."""
    described_as_then(monkeypatch)
    path = next(now.store.glob("features/whole-pgd-budget-*/summary.json"))
    record = unseal(path.read_bytes(), "")
    path.write_bytes(seal({**record, "failed": 5}))
    status, out, _ = now.ended("verify")
    (found,) = [each for each in json.loads(out)["findings"] if each["level"] == "damaged"]
    assert (status, found["path"]) == (1, path.relative_to(now.store).as_posix())
    assert "states failed 5, but its blocks hold 0" in found["problem"]
    now.say("repair")
    assert not path.exists()
    assert kinds(planned(now, *RATIO), done=False) == set()


@pytest.mark.parametrize("command", [("ls",), ("report", "--output", "out")])
def test_a_link_in_a_store_of_before_is_refused(now: OldStore, command: tuple[str, ...]) -> None:
    path = next(now.store.glob("features/whole-pgd-budget-*/manifest.json"))
    path.rename(now.folder / "elsewhere.json")
    path.symlink_to(now.folder / "elsewhere.json")
    status, _, err = now.ended(*command)
    assert status == 1
    assert "is a link, which is never followed" in err
