"""The benchmark of inner loops at a size that says nothing about speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.attack_comparisons import EPSILON
from benchmarks.attack_subject import on_digits
from benchmarks.kernels import main, searched
from regroup.attacks import run_attack
from regroup.attacks.pgd.attack import PGD
from regroup.voting import ELECTIONS


def test_every_loop_has_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    assert main(["--sizes", "tiny", "--rounds", "2", "--json", str(path)]) == 0
    rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
    assert [what for what in rows if what.startswith("votes by")] == [
        f"votes by {rule}, 3 taps, 20 classes" for rule in ELECTIONS
    ]
    for name in ("channels-last", "contiguous"):
        ratio = rows[f"sign sums, {name} 16 x 8 x 8"]
        assert ratio["baseline"] == "two clamps, two sums"
        assert ratio["processor"] > 0
        speeds = [
            row["value"] for what, row in rows.items() if what.endswith(f"{name} 16 x 8 x 8: GB/s")
        ]
        assert len(speeds) == 2
        assert min(speeds) > 0
    for way in ("ranking", "torch's argsort", "NumPy's argsort", "adding to a bank"):
        assert 0 < rows[f"{way}: ns a value"]["value"] < 1e5


def test_passes_are_whole_batches_and_queries_those_of_the_attack() -> None:
    subject = on_digits(20, "cpu", epochs=1)
    spec = PGD(epsilon=EPSILON, steps=2, bisections=1)
    together, queries = searched(spec, subject, 20)
    apart, the_same = searched(spec, subject, 5)
    names = tuple(f"image-{row}" for row in range(20))
    result = run_attack(spec, subject.model, subject.pixels, subject.labels, names)
    assert queries == the_same
    assert abs(int(result.queries.sum()) - queries) <= 2 * 20  # and looks at each image
    assert together % subject.rows == apart % subject.rows == 0
    assert queries <= together < apart


@pytest.mark.parametrize("words", [["--weights", "w.safetensors"], ["--images", "digits:val"]])
def test_a_network_needs_images_and_images_a_network(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--sizes", "tiny"])
    assert stop.value.code == 2
