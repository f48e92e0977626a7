"""A user's classifier of colours that names its six classes by wnid; exact by construction."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from regroup.images.preprocessing import Preprocessing

MODEL = "tests.pipelines.colours:Colours"
CLASS_NAMES = ("n00000002", "n00000009", "n00000008", "n00000003", "n00000007", "n00000001")
# The dataset's classes in its own order, and what the model calls them.
RED, GREEN, BLUE = "n00000001", "n00000002", "n00000003"
CLASSES = [5, 0, 3]
SIDE = 8


STRONG = """
[attacks.strong]
epsilon = "200/255"
steps = 4
parameters = { step_ratio = "1/30" }
limit = 9
block_rows = 4
"""
LATER = """
[attacks.later]
epsilon = "1/255"
skip = true
"""


def least(of: str) -> str:
    """An attack that looks for the smallest perturbation of some images, such as `limit = 6`."""
    return f"""
[attacks.least]
protocol = "minimal"
epsilon = "4/255"
steps = 4
bisections = 2
{of}
"""


def study_text(*more: str, model: str = MODEL, taps: tuple[str, ...] = ("preactivation",)) -> str:
    """A study of coloured squares: its head, and the sections `more`."""
    head = f"""name = "colours"
store = "runs"
taps = {list(taps)}

[model]
name = "{model}"
classes = "dataset"

[datasets]
train = "imagefolder:{{data}}/train"
val = "imagefolder:{{data}}/val"

[banks.four]
per_class = 4
"""
    return "".join([head, *more])


def paper_values(defense: str, network: str = MODEL) -> str:
    """A file of the paper's values: one of `network`, and one quoted of a `defense`."""
    return f"""
[[values]]
table = "table-2"
row = "table2-pgd-4"
network = "{network}"
measure = "regroup_top1"
percent = 12.5
place = "made up for this test"

[[quoted]]
defense = "{defense}"
row = "table1-pgd-16"
measure = "top1"
percent = 33.0
place = "made up for this test"
"""


class Colours(nn.Module):
    """Class 5 is red, 0 green, 3 blue; class 1, unknown to the dataset, takes the bright reds."""

    preprocessing = Preprocessing(SIDE)
    class_names = CLASS_NAMES

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(3, 6)
        weight = torch.zeros(6, 3)
        weight[[5, 0, 3], [0, 1, 2]] = 10.0
        weight[1, 0] = 10.5
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:, :, None, None])
            self.conv.bias.zero_()  # type: ignore[union-attr]
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(torch.tensor([0.0, -0.3, -9.0, 0.0, -9.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.relu(self.conv(x)).mean(dim=(2, 3)))
        return logits


class Nameless(Colours):
    class_names = None  # type: ignore[assignment]


def colour_folder(root: Path, images: int = 4) -> Path:
    """Four images a class, from dim to bright: class 1 is likelier for the two brightest reds."""
    for channel, name in enumerate((RED, GREEN, BLUE)):
        (root / name).mkdir(parents=True)
        for number in range(images):
            colour = [10, 10, 10]
            colour[channel] = 40 + 60 * number
            Image.new("RGB", (SIDE, SIDE), tuple(colour)).save(root / name / f"{number}.png")
    return root
