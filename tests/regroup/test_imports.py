"""The method imports and runs where neither Ray nor any storage library is installed."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import regroup

# Blocks the libraries, and the packages of ours that the method may not know.
PROLOGUE = """
import importlib, json, pkgutil, sys

BLOCKED = {"ray", "zarr", "pyarrow", "fsspec", "dask", "obstore", "foolbox", "numba",
           "regroup_store", "regroup_cluster", "regroup_pipelines"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""

IMPORT_EVERYTHING = """
import regroup
names = [m.name for m in pkgutil.walk_packages(regroup.__path__, "regroup.", onerror=print)]
for name in set(names) - {"regroup.kernels.sign_kernels"}:  # needs Numba
    importlib.import_module(name)
print(json.dumps(names))
"""

END_TO_END = """
import numpy as np, torch
from torch import nn
from regroup.accumulators import Extractor
from regroup.bank import BankStatistics
from regroup.choose_k import choose_k
from regroup.classifier import REGroupClassifier
from regroup.scoring import Scorer

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
pixels, labels = torch.rand(12, 3, 8, 8), np.arange(12) % 3
extractor = Extractor(model, "preactivation", pixels[:2])
with torch.no_grad():
    accumulators = extractor(pixels).accumulators
statistics = BankStatistics.zeros([(tap.name, tap.channels) for tap in extractor.taps], 3)
statistics.update([a.numpy() for a in accumulators], labels, np.ones(12))
bank = statistics.finalise()
votes = Scorer(bank).votes(accumulators, labels)
k = choose_k((votes.tap_true_rank[:, 0] == 1).mean(0), 0.05).k
prediction = REGroupClassifier(model, bank, k, example=pixels[:2])(pixels).argmax(1)
assert prediction.tolist() == votes.prediction[:, 0, k - 1].tolist()
print(json.dumps(sorted(BLOCKED & set(sys.modules))))
"""


def run(script: str) -> list[str]:
    root = Path(regroup.__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    names: list[str] = json.loads(finished.stdout)
    return names


def test_the_blocker_blocks() -> None:
    script = "try:\n    import pyarrow.parquet\nexcept ModuleNotFoundError:\n    print('[]')\n"
    assert run(PROLOGUE + script) == []


def test_every_module_imports() -> None:
    names = run(PROLOGUE + IMPORT_EVERYTHING)
    root = Path(regroup.__file__).parent
    files = {path.relative_to(root).with_suffix("") for path in root.rglob("*.py")}
    modules = {".".join(("regroup", *path.parts)).removesuffix(".__init__") for path in files}
    assert set(names) == modules - {"regroup"}


def test_the_method_runs() -> None:
    assert run(PROLOGUE + END_TO_END) == []
