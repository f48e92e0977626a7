"""A user's own network is described by what it computes: its source, and all that it keeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, load_classifier, save_weights
from regroup.models.digits import DigitsCNN
from regroup.models.own.source_code import Project
from regroup.models.recorded import RecordedModel
from tests.regroup.own_project import OwnProject, net

SOURCE, ATTRIBUTES = "source_sha256", "attributes_sha256"


def test_an_edited_forward_is_another_network(own: OwnProject) -> None:
    before = own.load().describe()
    own.write(net(first="x = 1 - x"))
    after = own.load().describe()
    assert {key for key in before if before[key] != after[key]} == {SOURCE}


# What another file does, how `mine.py` gets at it, and which file that is.
REACHED = {
    "a helper": ("from helper import first", "helper.py"),
    "a helper's helper": ("from between import first", "helper.py"),
    "a module's attribute": (
        "import pkg.deep.helper\nfirst = pkg.deep.helper.first", "pkg/deep/helper.py"
    ),
    "a relative import": ("from pkg import first", "pkg/inner.py"),
    "a package's own file": ("import pkg.deep.helper\nfirst = pkg.first", "pkg/__init__.py"),
    "an import in a function": (
        "def first(x):\n    from helper import first\n    return first(x)", "helper.py"
    ),
    "a name that is imported": (
        "from importlib import import_module\nfirst = import_module('helper').first", "helper.py"
    ),
}  # fmt: skip
HELPER = "def first(x):\n    return x * {factor}\n"


def write_helpers(own: OwnProject) -> None:
    for name in ("helper.py", "pkg/deep/helper.py", "pkg/inner.py"):
        own.write(HELPER.format(factor=1), name)
    own.write("from helper import *\n", "between.py")
    own.write("from .inner import first\n", "pkg/__init__.py")
    own.write("", "pkg/deep/__init__.py")


@pytest.mark.parametrize("reached", REACHED)
def test_what_is_imported_of_the_project_counts(own: OwnProject, reached: str) -> None:
    how, file = REACHED[reached]
    write_helpers(own)
    own.write(net(head=how + "\n", first="x = first(x)"))
    before, digest = own.load(), own.described(SOURCE)
    assert digest == before.describe()[SOURCE]
    own.write(HELPER.format(factor=2), file)
    assert own.described(SOURCE) != digest


def test_a_part_whose_module_is_chosen_when_it_runs_counts(own: OwnProject) -> None:
    """No import statement names it: its class does."""
    chosen = "import importlib\nkind = importlib.import_module('par' + 'ts').Kind\n"
    part = "from torch import nn\nclass Kind(nn.ReLU):\n    scale = {scale}\n"
    own.write(net(head=chosen, kept="self.act = kind()"))
    own.write(part.format(scale=1), "parts.py")
    before = own.described(SOURCE)
    own.write(part.format(scale=2), "parts.py")
    assert own.described(SOURCE) != before


def test_what_changes_nothing_does_not_count(own: OwnProject) -> None:
    own.write(net(head="def helper(a, b=2):\n    return {**a, 1: b}\n"))
    before = own.described(SOURCE)
    own.write("not imported", "other.py")
    own.write(
        "'''A docstring.'''\n# A comment.\n\n\n"
        + net(head='def helper( a,b = 2 ) :  # more\n    """Help."""\n    return {** a, 1:(b)}\n')
    )
    assert own.described(SOURCE) == before
    own.write(net(head="def helper(a, b=2):\n    return {1: b, **a}\n"))
    assert own.described(SOURCE) != before, "the order of a dict's parts"


def test_neither_python_nor_installed_packages_nor_ours_count(own: OwnProject) -> None:
    """Hashing them would make everything anew with each release of anything."""
    own.write(net(head="import json, numpy, regroup.models, helper\n"))
    own.write("", "helper.py")
    own.load()
    project = Project("mine")
    assert [each.name for each in project.sources(["mine"])] == ["helper", "mine"]
    assert not any(map(project.has, ("json", "numpy.linalg", "torch", "regroup.models", "gone")))


# An attribute by an expression of `v`, which comes from outside the source.
KEPT = {
    "a number": "self.scale = v",
    "a tensor": "self.act.scale = torch.tensor([1.0, v])",
    "a buffer that is not saved": "self.register_buffer('scale', torch.tensor(v), False)",
    "a dict of lists": "self.settings = {'layers': [{'scale': (1, v)}]}",
    "an array": "import numpy; self.table = numpy.array([v])",
    "a record": "import types; self.config = types.SimpleNamespace(scale=v)",
    "what a function closes over": "self.act.pre = lambda x: x * v",
    "part of a function": "import functools; self.pre = functools.partial(torch.mul, other=v)",
    "a list of modules": "self.parts = [nn.Linear(2, 2)]; nn.init.constant_(self.parts[0].bias, v)",
    "a layer's own number": "self.act = nn.LeakyReLU(v)",
    "a hook": "self.register_forward_pre_hook(lambda _, x: (x[0] * v,))",
    "a sparse tensor": "self.few = torch.tensor([0.0, v]).to_sparse()",
}  # fmt: skip
OUTSIDE = "from pathlib import Path\nv = float(Path(__file__).with_name('v.txt').read_text())\n"


@pytest.mark.parametrize("kept", KEPT)
def test_what_a_network_keeps_counts(own: OwnProject, kept: str) -> None:
    own.write(net(head=OUTSIDE, kept=f"self.keep(v)\n    def keep(self, v):\n        {KEPT[kept]}"))
    found = []
    for value in ("1", "2", "2"):
        own.write(value, "v.txt")
        found.append(own.load().describe())
    assert found[0][SOURCE] == found[1][SOURCE]
    assert found[0][ATTRIBUTES] != found[1][ATTRIBUTES] == found[2][ATTRIBUTES]


# ---- two builds


def test_random_weights_are_noticed(own: OwnProject, tmp_path: Path) -> None:
    own.write(net().replace("torch.manual_seed(0)", ""))
    with pytest.raises(ConfigurationError, match=r"other weights each .*conv\.weight.*--weights r"):
        own.load()
    first = own.load("random")
    assert first.describe() == own.load("random").describe()
    save_weights(first.network, tmp_path / "w.safetensors", {})
    own.load(str(tmp_path / "w.safetensors"))  # what is random is written over


@pytest.mark.parametrize(
    ("kept", "weights", "message"),
    [
        ("import os; nn.init.constant_(self.head.bias, os.urandom(1)[0])", "random", "own: seed"),
        ("import random; self.head.bias.data[0] = random.random()", None, r"head\.bias"),
        ("import numpy as np; self.table = np.random.rand(3)", None, "keeps another table"),
        ("import uuid; self.act.key = str(uuid.uuid4())", "random", r"keeps another act\.key"),
    ],
)
def test_builds_that_differ_are_refused(
    own: OwnProject, kept: str, weights: str | None, message: str
) -> None:
    own.write(net(kept=kept))
    with pytest.raises(ConfigurationError, match=message) as caught:
        own.load(weights)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_numpys_random_weights_are_seeded_where_that_is_declared(own: OwnProject) -> None:
    drawn = "import numpy as np; self.head.bias.data[:] = torch.from_numpy(np.random.rand(3))"
    own.write(net(kept=drawn))
    np.random.seed(5)
    biases = [own.load("random").network.get_parameter("head.bias") for _ in range(2)]
    assert torch.equal(*biases)
    after = np.random.rand()
    np.random.seed(5)
    assert np.random.rand() == after, "the caller's own generator is left as it was"


def test_a_file_edited_after_its_import_is_refused(own: OwnProject) -> None:
    """What runs is the old text: the new one must not be what is recorded."""
    own.load()
    own.write("# moved by a line\n" + net())
    load_classifier(ModelSpec("mine:Net", crop=8))
    own.write(net(first="x = 1 - x"))
    with pytest.raises(
        ConfigurationError, match=r"mine\.py is not what this process runs \(Net\.f"
    ):
        load_classifier(ModelSpec("mine:Net", crop=8))


# ---- two passes

NOT_ALIKE = {
    "dropout in eval": ("pass", "x = nn.functional.dropout(x, 0.1)", "in a second pass"),
    "noise": ("pass", "x = x + 1e-3 * torch.randn_like(x)", "in a second pass"),
    "a part that stays in training": (
        "self.act = nn.Dropout(0.2); self.act.train = lambda mode: self.act", "x = x", "a second"
    ),
    "a count of calls": (
        "self.calls = 0", "self.calls += 1; x = x * self.calls", "in a second pass"
    ),
    "numpy's noise": (
        "pass", "import numpy as np; x = x * (1 + 1e-3 * np.random.rand())", "in a second pass"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_ALIKE)
def test_logits_that_differ_in_a_second_pass_are_refused_or_declared(
    own: OwnProject, case: str
) -> None:
    kept, first, message = NOT_ALIKE[case]
    own.write(net(kept=kept, first=first))
    with pytest.raises(ConfigurationError, match=message) as caught:
        own.load()
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    own.write(net(kept=f"self.stochastic = True; {kept}", first=first))
    declared = own.load()
    assert declared.stochastic
    assert declared.describe()["stochastic"] is True
    assert RecordedModel.of(declared).logits is None


def test_a_network_that_gives_the_same_is_not_stochastic(own: OwnProject) -> None:
    assert "stochastic" not in own.load().describe()


# ---- what was recorded


def test_the_recorded_logits_are_those_of_the_definition(own: OwnProject) -> None:
    """Mean of each channel, by weights and a bias: computed by NumPy."""
    own.write(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    normalize_mean, normalize_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)\n"
        "    def forward(self, x):\n"
        "        return x.mean((2, 3)) * torch.tensor([1.0, 2.0, -4.0])\n"
    )
    pixels = np.random.RandomState(0).random_sample((2, 3, 8, 8))
    expected = (pixels.mean((2, 3)) - 0.5) / 0.25 * np.array([1, 2, -4])
    recorded = RecordedModel.of(own.load())
    np.testing.assert_allclose(np.array(recorded.logits), expected, rtol=1e-5, atol=1e-6)


def test_a_load_that_is_not_what_was_recorded_is_refused(own: OwnProject) -> None:
    """As on a node whose files differ, or that are replaced while a run goes on."""
    recorded = RecordedModel.of(own.load())
    own.load(recorded=recorded)
    own.write(net(first="x = 1 - x"))
    with pytest.raises(ConfigurationError, match=r"source_sha256 is .*the same sources") as caught:
        own.load(recorded=recorded)
    assert getattr(caught.value, "fatal", False), "every other attempt would fail as well"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (net(head=OUTSIDE, kept="self.scale = v"), "attributes_sha256 is .*build the same"),
        (net(head=OUTSIDE, first="x = x * v"), r"gives other logits than where .*by 0\.\d"),
        (
            net(head=OUTSIDE, kept="type(self).class_names = ['a', 'b', str(v)]"),
            "names its classes",
        ),
        (net(head=OUTSIDE, kept="self.head.weight.data *= v"), "weights_sha256 is .*weights file"),
    ],
)
def test_what_differs_on_another_node_is_named(own: OwnProject, text: str, message: str) -> None:
    own.write(text)
    own.write("1", "v.txt")
    recorded = RecordedModel.of(own.load())
    own.load(recorded=recorded)
    own.write("1.5", "v.txt")
    with pytest.raises(ConfigurationError, match=message) as caught:
        own.load(recorded=recorded)
    assert "\n" not in str(caught.value)


def test_a_weights_file_that_was_replaced_is_refused(tmp_path: Path) -> None:
    """Also of a network of ours."""
    path = tmp_path / "w.safetensors"
    save_weights(DigitsCNN(), path, {})
    spec = ModelSpec("digits-cnn", str(path))
    spec = replace(spec, recorded=RecordedModel.of(load_classifier(spec)))
    load_classifier(spec)
    save_weights(DigitsCNN(), path, {})
    with pytest.raises(ConfigurationError, match=r"weights_sha256 is .*leave it as it is during"):
        load_classifier(spec)


def test_logits_of_another_processor_are_accepted(own: OwnProject) -> None:
    recorded = RecordedModel.of(own.load())
    assert recorded.logits is not None
    for share, accepted in ((5e-5, True), (2e-4, False)):
        largest = max(abs(value or 0) for row in recorded.logits for value in row)
        moved = [[(value or 0) + share * largest for value in row] for row in recorded.logits]
        if accepted:
            own.load(recorded=replace(recorded, logits=moved))
        else:
            with pytest.raises(ConfigurationError, match="other logits"):
                own.load(recorded=replace(recorded, logits=moved))


def test_logits_that_are_not_finite_are_recorded_as_such(own: OwnProject) -> None:
    own.write(net(first="x = x * float('inf')"))
    recorded = RecordedModel.of(own.load())
    assert recorded.logits is not None
    assert None in recorded.logits[0]
    own.load(recorded=recorded)
