"""A project of a user's: files in a folder on Python's path, imported anew for each load."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

from regroup.models import Classifier, ModelSpec, load_classifier
from regroup.models.recorded import RecordedModel

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 3)
        {kept}

    def forward(self, x):
        {first}
        return self.head(self.act(self.conv(x)).mean((2, 3)))
"""


def net(kept: str = "pass", first: str = "pass", head: str = "") -> str:
    """The text of a module with one network: 8 x 8 px, three classes."""
    return head + NET.format(kept=kept, first=first)


@dataclass
class OwnProject:
    """Its folder; a load imports its modules as a new process would."""

    folder: Path

    def write(self, text: str, name: str = "mine.py") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def forget(self) -> None:
        """Have Python forget the project's modules."""
        for name, module in [*sys.modules.items()]:
            file = getattr(module, "__file__", None)
            places = [file] if file else [*getattr(module, "__path__", ())]
            if any(Path(place).is_relative_to(self.folder) for place in places if place):
                del sys.modules[name]
        importlib.invalidate_caches()

    def load(
        self,
        weights: str | None = None,
        recorded: RecordedModel | None = None,
        name: str = "mine:Net",
    ) -> Classifier:
        self.forget()
        return load_classifier(ModelSpec(name, weights, crop=8, recorded=recorded))

    def described(self, key: str, weights: str | None = None) -> object:
        return self.load(weights).describe()[key]
