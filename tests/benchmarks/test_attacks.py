"""The benchmark of the attacks at sizes of seconds; its verdicts are not judged here."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attack_comparisons import SIZES, WITHIN_5_PERCENT, Comparison
from benchmarks.attack_subject import Subject, on_digits
from benchmarks.attacks import Row, Skipped, main, measure, ratios, rotated
from benchmarks.baselines import full_batch
from regroup.attacks import run_attack
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.pgd.attack import PGD


@pytest.fixture(scope="module")
def subject() -> Subject:
    return on_digits(4, "cpu", epochs=1)


def row(ratio: float, target: float | None) -> Row:
    return Row("PGD", "foolbox", 1, 1.0, 1.0, ratio, ratio, ratio, target, 1.0, 1.0)


def test_a_ratio_is_their_time_over_ours_round_by_round() -> None:
    # 2 / 1, 2 / 2, 2 / 4; the ratio of the medians would be 1 too, of the sums 6 / 7.
    assert ratios([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == (1.0, 0.5, 2.0)
    assert ratios([2.0, 1.0], [3.0, 3.0]) == (2.25, 1.5, 3.0)


def test_a_ratio_is_judged_by_its_target() -> None:
    assert row(1.0, 1.0).met
    assert not row(0.999, 1.0).met
    assert row(0.01, None).met
    # 5 % slower is 1.05 times their seconds.
    assert row(ratios([1.049], [1.0])[0], WITHIN_5_PERCENT).met
    assert not row(ratios([1.051], [1.0])[0], WITHIN_5_PERCENT).met


def test_what_is_compared_takes_turns_at_being_first() -> None:
    orders = [rotated(["ours", "one", "other"], by) for by in range(3)]
    assert [order[0] for order in orders] == ["ours", "one", "other"]
    assert all(sorted(order) == ["one", "other", "ours"] for order in orders)


def test_the_full_batch_makes_the_same_images_with_more_passes(subject: Subject) -> None:
    spec = PGD(epsilon=4 / 255, steps=6, growth_limit=12, bisections=3)
    network = AttackedNetwork(subject.model, subject.rows)
    names = [f"image-{i}" for i in range(4)]
    ours = run_attack(spec, subject.model, subject.pixels, subject.labels, names)
    before = subject.model.samples_forwarded
    theirs = full_batch(spec, 12, network, subject.batch)
    taken = (subject.model.samples_forwarded - before) // subject.rows
    np.testing.assert_array_equal(theirs.numpy(), ours.images)
    assert ours.claimed.any()
    assert taken >= ours.queries.max() - 1  # steps of the whole batch
    assert len(set(ours.queries.tolist())) > 1


def test_a_rival_that_breaks_down_is_named_and_the_others_are_measured(subject: Subject) -> None:
    calls: list[str] = []

    def attack(name: str) -> torch.Tensor:
        calls.append(name)
        if name == "broken":
            raise ValueError("no start")
        return subject.pixels if name == "harmless" else 1 - subject.pixels

    rivals: dict[str, Callable[[], torch.Tensor]] = {
        name: partial(attack, name) for name in ("harmless", "broken")
    }
    comparison = Comparison(
        "X", 1.0, subject, lambda: attack("ours"), rivals, {"absent": "not installed"}
    )
    measured, *skipped = measure(comparison, 5)
    assert isinstance(measured, Row)
    assert (measured.what, measured.rival, measured.samples) == ("X", "harmless", 4)
    assert measured.fooled_by_theirs == 0
    assert measured.fooled > 0
    assert set(skipped) == {
        Skipped("X", "absent", "not installed"),
        Skipped("X", "broken", "ValueError: no start"),
    }
    assert calls.count("ours") == calls.count("harmless") == 6  # and one to warm up
    assert calls.count("broken") == 1


def test_every_comparison_is_measured_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "attacks.json"
    what = ["--model", "digits-cnn", "--weights", "random", "--images", "digits:val"]
    sizes = ["--device", "cpu", "--sizes", "tiny", "--rounds", "2"]
    status = main([*what, *sizes, "--json", str(report)])
    found = json.loads(report.read_text())
    rows = found["rows"]
    assert {"PGD budget", "PGD minimal"} <= {each["what"] for each in rows}
    assert len({each["what"] for each in rows + found["skipped"]}) >= 6
    for each in rows:
        assert 0 < each["lowest"] <= each["ratio"] <= each["highest"]
        assert each["ours"] > 0
        assert each["theirs"] > 0
        assert 0 < each["samples"] <= SIZES["tiny"].most_images
    assert all(each["reason"] for each in found["skipped"])
    assert found["machine"]["torch"] == torch.__version__
    shown = capsys.readouterr().out
    assert shown.count("NOT MET") == sum(not each["met"] for each in rows)
    assert status == int(any(not each["met"] for each in rows))


def test_what_cannot_be_meant_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--weights", "random"])
    assert "--weights and --images belong together" in capsys.readouterr().err
    where = ["--device", "cpu", "--sizes", "tiny", "--weights", "random", "--model", "digits-cnn"]
    assert main([*where, "--images", "nonsense"]) == 2
    assert "is not a dataset" in capsys.readouterr().err
