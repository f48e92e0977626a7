"""Weights in the files that training programs write: found, or one sentence says what to do."""

import argparse
import pickle
import shlex
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regroup.errors import ConfigurationError
from regroup.models import ModelSpec, load_classifier, save_weights
from regroup.models.digits import DigitsCNN
from regroup.models.state_names import head_classes, matched
from regroup.models.weights import Weights, build_seeded, load_into, read_weights

NET = build_seeded(DigitsCNN, 1)
STATE = NET.state_dict()
OTHER = build_seeded(DigitsCNN, 2).state_dict()
State = dict[str, Any]


class Settings:
    """What Lightning pickles beside the weights; not known to the reader."""

    rate = 0.1


def behind(prefix: str, state: State | None = None) -> State:
    return {prefix + key: tensor for key, tensor in (STATE if state is None else state).items()}


def spec_of(path: Path, num_classes: int | None = None) -> ModelSpec:
    return ModelSpec("digits-cnn", str(path), num_classes=num_classes)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path, num_classes: int | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_classifier(spec_of(path, num_classes))
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert "weights_only" not in sentence
    assert caught.value.exit_status == 2
    return sentence


FILES: dict[str, Callable[[], object]] = {
    "bare": lambda: STATE,
    "DataParallel": lambda: behind("module."),
    "torch.compile": lambda: behind("_orig_mod."),
    "both": lambda: behind("_orig_mod.module."),
    "both the other way": lambda: behind("module._orig_mod."),
    "a compiled part": lambda: {k.replace("blocks.0.", "blocks.0._orig_mod."): STATE[k]
                                for k in STATE},
    "FSDP's": lambda: {f"_fsdp_wrapped_module.{key}": tensor for key, tensor in STATE.items()},
    "model": lambda: behind("model."),
    "net and wrapper": lambda: behind("net.module."),
    "a prefix of one's own": lambda: behind("my_very_own.encoder."),
    "AveragedModel": lambda: {"n_averaged": torch.tensor(7), **behind("module.")},
    "state_dict": lambda: {"state_dict": STATE, "epoch": 3, "optimizer": {"state": {}}},
    "model and args": lambda: {"model": STATE, "args": argparse.Namespace(lr=0.1, path=Path("x"))},
    "model_state_dict": lambda: {"model_state_dict": STATE, "loss": np.float64(0.5)},
    "nested": lambda: {"model": {"state_dict": behind("module.")}, "best": np.float32(1)},
    "params": lambda: {"params": STATE},
    "Lightning": lambda: {
        "state_dict": {**behind("model."), "loss.weight": torch.rand(10)},
        "hyper_parameters": {"rate": 0.1}, "pytorch-lightning_version": "2.0.0",
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}],
    },
    "averaged beside": lambda: {"state_dict": OTHER, "state_dict_ema": STATE},
    "averaged behind": lambda: {**behind("model.", OTHER), **behind("ema_model.")},
    "torchvision's": lambda: {
        "model": OTHER, "model_ema": {"n_averaged": torch.tensor(7), **behind("module.")},
    },
    "double": lambda: {key: t.double() if t.is_floating_point() else t for key, t in STATE.items()},
    "with other things": lambda: {**STATE, "_extra_state": None, "version": 3},
    "before torch 0.4.1": lambda: {k: t for k, t in STATE.items() if "tracked" not in k},
    "sparse": lambda: {**STATE, "linear.weight": STATE["linear.weight"].to_sparse()},
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_checkpoint_gives_the_weights_that_are_in_it(kind: str, tmp_path: Path) -> None:
    model = load_classifier(spec_of(saved(FILES[kind](), tmp_path / "net.pth")))
    found = model.network.state_dict()
    for key, tensor in NET.named_parameters():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_a_checkpoint_in_half_precision_is_computed_in_float32(kind: str, tmp_path: Path) -> None:
    state = {key: getattr(tensor, kind)() for key, tensor in STATE.items()}
    model = load_classifier(spec_of(saved(state, tmp_path / "net.pth")))
    weight = model.network.get_parameter("linear.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["linear.weight"].float())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("averaged beside", "state_dict_ema is used, not state_dict"),
        ("torchvision's", "model_ema is used, not model"),
        ("averaged behind", "behind ema_model.* are used, not model.blocks"),
        ("Lightning", "behind model.* are used, not loss.weight"),
    ],
)
def test_which_of_several_is_used_is_said(kind: str, words: str, tmp_path: Path) -> None:
    notes = load_classifier(spec_of(saved(FILES[kind](), tmp_path / "net.pth"))).notes
    assert any(words in note for note in notes)


def test_an_ordinary_file_gives_nothing_to_say(tmp_path: Path) -> None:
    for kind in ("bare", "AveragedModel", "state_dict", "net and wrapper"):
        assert not load_classifier(spec_of(saved(FILES[kind](), tmp_path / "net.pth"))).notes


def test_a_network_that_is_wrapped_itself_takes_plain_names_and_wrapped_ones() -> None:
    expected = behind("module.")
    for given in (STATE, behind("_orig_mod."), behind("module.")):
        found, notes = matched(expected, given, "w")
        assert (found.keys(), notes) == (expected.keys(), ())


NO_WEIGHTS: dict[str, tuple[object, str]] = {
    "student and teacher": ({**behind("student."), **behind("teacher.")},
                            "several times, behind student.*, teacher.*: save the one"),
    "two containers": ({"model": STATE, "net": STATE}, "several state dicts (model, net): save"),
    "settings": ({"state_dict": STATE, "hyper_parameters": Settings()}, "convert it where"),
    "module": (NET, "convert it where its classes can be imported: python -c "),
    "no tensors": ({"epoch": 3}, "holds dict, not a state dict of tensors"),
    "a tensor": (torch.rand(3), "holds Tensor, not a state dict of tensors"),
    "a list": ([STATE], "holds list, not a state dict"),
    "complex": ({**STATE, "linear.bias": torch.zeros(10, dtype=torch.complex64)},
                "linear.bias is torch.complex64 instead of torch.float32"),
    "integers": ({**STATE, "linear.bias": torch.zeros(10, dtype=torch.int8)},
                 "linear.bias is torch.int8 instead of torch.float32"),
    "meta": ({**STATE, "linear.bias": torch.empty(10, device="meta")}, "has no values"),
    "parts": (behind("module.", dict(list(STATE.items())[5:])),
              "missing: blocks.0.0.weight, blocks.0.1.weight, blocks.0.1.bias and 2 more. Give"),
    "more": ({**STATE, "extra.weight": torch.rand(2)}, "unexpected: extra.weight. Give"),
    "wider": ({**STATE, "blocks.0.0.weight": torch.rand(17, 3, 3, 3)}, "is (17, 3, 3, 3) instead"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_checkpoint_without_the_weights_is_one_sentence(kind: str, tmp_path: Path) -> None:
    content, words = NO_WEIGHTS[kind]
    assert words in refused(saved(content, tmp_path / "net.pth"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is damaged or no file that torch.save wrote"),
        (b"not weights at all", "no program that is known here wrote it"),
        (b"\x80\x02garbage", "not a plain state dict of tensors"),
        (b"PK\x03\x04 half of a zip", "is damaged or no file that torch.save wrote"),
        (pickle.dumps(np.zeros(3)), "objects of other kinds are pickled"),
        ((1 << 40).to_bytes(8, "little") + b"{", "not a plain state dict of tensors"),
    ],
)
def test_a_file_of_other_bytes_is_one_sentence(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "net.ckpt").write_bytes(data)
    assert words in refused(tmp_path / "net.ckpt")


@pytest.mark.parametrize("damage", ["cut", "header", "longer"])
def test_a_damaged_safetensors_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(NET, path, {})
    data = path.read_bytes()
    changed = {
        "cut": data[:-100],
        "header": data[:8] + b"x" + data[9:],
        "longer": b"\xff" * 8 + data[8:],
    }
    path.write_bytes(changed[damage])
    assert "cannot be read" in refused(path)


def test_a_file_with_another_suffix_than_its_kind_is_read(tmp_path: Path) -> None:
    save_weights(NET, tmp_path / "net.bin", {})
    saved(STATE, tmp_path / "net.safetensors")
    saved(STATE, tmp_path / "net.pth.tar")
    for path in tmp_path.iterdir():
        assert read_weights(path).tensors.keys() == STATE.keys()


def test_other_archives_and_folders_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as archive:
        archive.writestr("a.txt", "x")
    assert "is a zip of another kind" in refused(tmp_path / "photos.pt")
    np.savez(tmp_path / "arrays.npz", *[np.zeros(3)])
    assert "expected one of" in refused(tmp_path / "arrays.npz")
    (tmp_path / "hub").mkdir()
    assert "is a folder: give a file in it, with one of" in refused(tmp_path / "hub")
    (tmp_path / "hub" / "model.safetensors").touch()
    assert f"such as {tmp_path}/hub/model.safetensors" in refused(tmp_path / "hub")
    index = tmp_path / "hub" / "model.safetensors.index.json"
    index.write_text("{}")
    for path in (index, index.parent):
        assert "these weights are in several files; join them into one" in refused(path)


def test_tensors_that_no_network_takes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch's DTensor: copying one raises a RuntimeError of its own."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("mixed torch.Tensor and DTensor")

    network = torch.nn.Linear(2, 2)
    weights = Weights("sharded.pth", dict(network.state_dict()), "0" * 64)
    monkeypatch.setattr(network, "load_state_dict", refuse)
    with pytest.raises(ConfigurationError, match=r"tensors that tiny cannot take .*plain tensors"):
        load_into(network, weights, "tiny")


class Small(nn.Module):
    """Scripted, exported, pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x)
        return out


def script(path: Path) -> None:
    traced = torch.jit.trace(Small(), torch.rand(1, 2))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path))


def lightning(path: Path) -> None:
    torch.save({"state_dict": Small().state_dict(), "hyper_parameters": Settings()}, path)


@pytest.mark.parametrize(
    ("write", "what"), [(script, "a TorchScript archive"), (lightning, "objects of other kinds")]
)
def test_the_command_that_converts_a_file_does_it(
    write: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "it's a $net.pt"
    write(path)
    with pytest.raises(ConfigurationError, match=what) as caught:
        read_weights(path)
    _, command, code = shlex.split(str(caught.value)[str(caught.value).index("python -c") :])
    assert command == "-c"
    exec(code, {})
    assert read_weights(path.with_suffix(".safetensors")).tensors.keys() == {
        "head.weight", "head.bias",
    }  # fmt: skip


def test_an_exported_program_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:  # as torch.export.save writes
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/data/weights/weight_0", "x")
    assert "is an exported program" in refused(tmp_path / "net.pt")
    assert 'torch.export.load("' in refused(tmp_path / "net.pt")


# ---- other numbers of classes


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_number_of_classes_comes_from_the_file(prefix: str, tmp_path: Path) -> None:
    network = build_seeded(lambda: DigitsCNN(7), 3)
    path = saved(behind(prefix, network.state_dict()), tmp_path / "net.pth")
    model = load_classifier(spec_of(path))
    assert model.num_classes == model.describe()["num_classes"] == 7
    assert torch.equal(
        model.network.get_parameter("linear.bias"), network.get_parameter("linear.bias")
    )
    assert any("is of 7 classes, not the usual 10" in note for note in model.notes)
    assert load_classifier(spec_of(path, 7)).describe() == model.describe()
    assert "number of classes: give --num-classes 7" in refused(path, 5)


def test_torchvisions_heads_of_every_kind_are_known(tmp_path: Path) -> None:
    import torchvision

    for name in ("squeezenet1_1", "mobilenet_v3_small"):  # a convolution, a linear layer
        state = torchvision.models.get_model(name, num_classes=7).state_dict()
        path = saved({"model": state}, tmp_path / f"{name}.pth")
        assert load_classifier(ModelSpec(name, str(path))).num_classes == 7


def test_a_file_that_differs_in_more_than_the_head_is_of_no_number_of_classes() -> None:
    expected = {"a": torch.rand(4, 3), "head": torch.rand(10, 4), "bias": torch.rand(10)}
    fits = {**expected, "head": torch.rand(7, 4), "bias": torch.rand(7)}
    assert head_classes(expected, fits, 10) == 7
    assert head_classes(expected, fits, 4) is None
    assert head_classes(expected, expected, 10) is None
    for other in ({"head": torch.rand(7, 5)}, {"bias": torch.rand(8)}, {"a": torch.rand(7, 3)}):
        assert head_classes(expected, OrderedDict(fits, **other), 10) is None
