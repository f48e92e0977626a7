"""The programs of examples/ run, each in a process of its own, and print what they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kept_workers import ENVIRONMENT

pytestmark = pytest.mark.timeout(600)
EXAMPLES = Path(__file__).parents[2] / "examples"

# Runs a program where the libraries of the store and of the cluster cannot be imported.
WITHOUT_STORE_OR_RAY = """
import runpy, sys

BLOCKED = {"ray", "zarr", "pyarrow", "fsspec", "dask", "obstore",
           "regroup_store", "regroup_cluster", "regroup_pipelines"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, which holds nothing of the repository; the home is the tests' own."""
    command = [sys.executable, *map(str, words)]
    environment = {**os.environ, **ENVIRONMENT}
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, str]:
    """The folder of the attacked digits, and what `attack_and_evaluate.py` printed.

    The weights that the program would train are there already.
    """
    folder = tmp_path_factory.mktemp("attacked")
    shutil.copy(weights, folder / "digits-cnn.safetensors")
    return folder, run(folder, EXAMPLES / "attack_and_evaluate.py", folder).stdout


def shares(text: str) -> list[float]:
    """The percentages before an interval."""
    return [float(share) for share in re.findall(r"([\d.]+) % \[", text)]


def test_every_program_is_listed_and_run_here() -> None:
    listed = re.findall(r"\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    here = Path(__file__).read_text()
    assert [name for name in listed if here.count(f'"{name}"') == 0] == []


def test_a_bank_in_memory_without_store_or_ray(tmp_path: Path) -> None:
    found = run(tmp_path, "-c", WITHOUT_STORE_OR_RAY, EXAMPLES / "in_memory.py").stdout
    taps, reaching, k = map(
        int, re.findall(r"(\d+) taps, (\d+) reach 75% alone: k = (\d+)", found)[0]
    )
    assert taps == 8
    assert 1 <= k <= taps
    assert 1 <= reaching <= taps
    accuracies = dict(re.findall(r"(\w+): ([\d.]+)% of 497 clean images", found))
    assert float(accuracies["softmax"]) > 90
    assert float(accuracies["REGroup"]) > 85
    assert list(tmp_path.iterdir()) == []


def test_an_attacker_who_knows_regroup_leaves_less_of_it(tmp_path: Path) -> None:
    found = run(tmp_path, "-c", WITHOUT_STORE_OR_RAY, EXAMPLES / "knowing_attacker.py").stdout
    lines = re.findall(r"softmax right on (\d+) of 100, REGroup on (\d+)", found)
    clean, unaware, aware = ((int(a), int(b)) for a, b in lines)
    assert clean[0] == 100
    assert clean[1] > 90
    assert unaware[0] < unaware[1] < clean[1]  # a transfer: the network is fooled more often
    assert aware[1] < unaware[1] - 5
    assert aware[1] < unaware[0] + 5  # no more is left of REGroup than of the network
    assert list(tmp_path.iterdir()) == []


def test_attacked_and_evaluated(attacked: tuple[Path, str]) -> None:
    lines = attacked[1].splitlines()
    regroup = {p: shares(line) for p in ("minimal", "budget") for line in lines
               if line.startswith(f"digits-val-digits-cnn-pgd-{p}: REGroup over S")}  # fmt: skip
    assert len(regroup["minimal"]) == len(regroup["budget"]) == 1
    assert regroup["minimal"][0] > regroup["budget"][0]


def test_rescored_without_a_forward_pass(attacked: tuple[Path, str]) -> None:
    found = run(attacked[0], EXAMPLES / "rescore.py", attacked[0]).stdout
    borda, copeland = re.split(r"^(?=copeland)", found, flags=re.MULTILINE)
    for rule, text in (("borda", borda), ("copeland", copeland)):
        assert f"{rule}: 0 forward passes, 663 samples" in text
        assert re.findall(r"k = (\d+):", text) == [str(k) for k in range(1, 9)]
        assert len(shares(text)) == 8 * 3
    assert shares(borda) != shares(copeland)


def test_own_images_and_network(tmp_path: Path) -> None:
    found = run(tmp_path, EXAMPLES / "own_dataset_and_model.py", tmp_path).stdout
    assert "taps 1, 3, logits; samples per class" in found
    # Folders are sorted, eight first; the bank's classes are in the order of the network's outputs.
    assert re.findall(r"'(\w+)': 20", found)[:3] == ["zero", "one", "two"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir())[0] == "eight"


def test_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    finished = run(tmp_path, EXAMPLES / "ray_cluster.py", tmp_path)
    first, second = finished.stderr.split("extract digits-val-digits-cnn: ")[1:]
    assert first.startswith("599 samples, 599 forward passes")
    assert second.startswith("already in the store")
    assert [line for line in command_lines() if "127.0.7." in line] == []


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return lines
