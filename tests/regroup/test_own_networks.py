"""Networks of the user's own: they work as torch allows them, or one sentence says what to do."""

import sys
from pathlib import Path

import pytest
import torch

from regroup.accumulators import Extractor
from regroup.attacks.network import AttackedNetwork, cross_entropy
from regroup.errors import ConfigurationError, plain_line
from regroup.models import ModelSpec, load_classifier
from tests.regroup import own_networks

HERE = "tests.regroup.own_networks"
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def refused(name: str, num_classes: int | None = None) -> str:
    """The sentence by which a model is refused."""
    with pytest.raises(ConfigurationError) as caught:
        load_classifier(
            ModelSpec(name if ":" in name else f"{HERE}:{name}", num_classes=num_classes)
        )
    sentence = str(caught.value)
    assert caught.value.exit_status == 2
    assert sentence.isprintable()
    assert "weights_only" not in sentence
    return sentence


def extracted(name: str) -> torch.Tensor:
    """The logits of a network through extraction, which are those of the classifier."""
    found = load_classifier(ModelSpec(f"{HERE}:{name}"))
    extractor = Extractor(found, "preactivation", IMAGES, root_module=found.network)
    with found.without_gradients():
        logits = extractor(IMAGES).logits
        torch.testing.assert_close(logits, found(IMAGES))
    assert [tap.name for tap in extractor.taps] == ["relu", "logits"], "as without wrappers"
    return logits


PLAIN = ["sparse_buffers", "sparse_weight", "compiled_in_place", "under_inference_mode",
         "in_training", "Optional", "nothing_said", "instance", "chosen", "double", "Pair",
         "Tupled"]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_network_made_another_way_gives_the_logits_of_the_plain_one(name: str) -> None:
    expected = own_networks.Net().eval()(IMAGES)
    if name == "chosen":  # whose head is its own
        expected = own_networks.chosen().eval()(IMAGES)
    torch.testing.assert_close(extracted(name), expected.detach())


@pytest.mark.parametrize("name", ["compiled", "data_parallel"])
def test_what_was_said_on_a_wrapper_holds_for_the_network_inside(name: str) -> None:
    expected = own_networks.Net().eval()(IMAGES - 0.5)
    torch.testing.assert_close(extracted(name), expected.detach())


@pytest.mark.parametrize("name", ["quantised", "half", "brain_float", "CastsItself"])
def test_lower_precision_is_close(name: str) -> None:
    expected = own_networks.Net().eval()(IMAGES)
    torch.testing.assert_close(extracted(name), expected.detach(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["tied", "parametrised", "hooked", "InPlace"])
def test_logits_are_the_modules_own(name: str) -> None:
    network = getattr(own_networks, name)().eval()
    with torch.no_grad():
        torch.testing.assert_close(extracted(name), network(IMAGES.clone()))


@pytest.mark.parametrize("name", ["half", "double"])
def test_another_precision_is_said(name: str) -> None:
    notes = load_classifier(ModelSpec(f"{HERE}:{name}")).notes
    assert any("computed in float32" in note for note in notes)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_probabilities_are_said_not_to_be_logits(name: str) -> None:
    notes = load_classifier(ModelSpec(f"{HERE}:{name}")).notes
    assert any("probabilities rather than logits" in note for note in notes)
    assert not load_classifier(ModelSpec(f"{HERE}:Net")).notes


def test_of_two_outputs_it_is_said_which_is_taken() -> None:
    notes = load_classifier(ModelSpec(f"{HERE}:Features")).notes
    assert any("(1, 3), (1, 4)): the first is taken" in note for note in notes)


@pytest.mark.parametrize("name", ["under_inference_mode", "sparse_buffers", "InPlace", "half"])
def test_attacks_get_gradients(name: str) -> None:
    attacked = AttackedNetwork(load_classifier(ModelSpec(f"{HERE}:{name}")))
    _, gradient = attacked.gradient(IMAGES, cross_entropy, torch.tensor([0, 1, 2]))
    assert gradient.abs().sum() > 0


def test_an_attack_on_a_quantised_network_says_that_it_has_no_gradient() -> None:
    attacked = AttackedNetwork(load_classifier(ModelSpec(f"{HERE}:quantised")))
    with pytest.raises(ConfigurationError, match="gives no gradient"):
        attacked.gradient(IMAGES, cross_entropy, torch.tensor([0, 1, 2]))


def test_quantised_weights_are_told_apart_by_their_hash() -> None:
    first = load_classifier(ModelSpec(f"{HERE}:quantised")).weights_sha256
    assert first == load_classifier(ModelSpec(f"{HERE}:quantised")).weights_sha256
    assert first != load_classifier(ModelSpec(f"{HERE}:Net")).weights_sha256


def test_a_quantised_layer_is_no_missing_tap() -> None:
    found = load_classifier(ModelSpec(f"{HERE}:quantised"))
    with pytest.raises(ConfigurationError, match=r"layer .*head' is quantised"):
        Extractor(found, "linear", IMAGES, root_module=found.network)


@pytest.mark.parametrize(
    "name",
    ["mean_in_tensors", "mean_in_arrays", "mean_in_lists", "mean_in_one_number", "mean_in_buffers"],
)
def test_normalisation_is_read_in_any_form(name: str) -> None:
    found = load_classifier(ModelSpec(f"{HERE}:{name}"))
    assert found.normalisation.mean == (0.5, 0.5, 0.5)
    assert found.normalisation.std == (0.25, 0.25, 0.25)
    assert any("buffer" in note for note in found.notes) == (name == "mean_in_buffers")


def test_stages_with_the_names_of_attributes_are_the_networks_own() -> None:
    found = load_classifier(ModelSpec(f"{HERE}:OwnStages", crop=8))
    assert found.normalisation.mean == (0.0, 0.0, 0.0)
    assert [note for note in found.notes if "a stage of its own" in note] != []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("StageCalledPreprocessing", "does not say which image size it takes: give crop"),
        ("preprocessing_number", "preprocessing is 8: give a regroup.images.preprocessing"),
        ("preprocessing_function", "preprocessing is type: give a"),
        ("std_zero", "the std 1, 0, 1: each value must be positive"),
        ("std_nan", "the std nan, nan, nan: each value must be finite"),
        ("mean_of_255", "the mean 123.7, 116.3, 103.5, and pixels are in [0, 1] here: divide"),
        ("std_of_255", "the std 58.4, 57.1, 57.4, and pixels are in [0, 1]"),
        ("two_means", "normalize_mean has 2 values: give three numbers, or one"),
        ("mean_in_words", "normalize_mean is str"),
        ("lazy", "lazy layers without a shape (head.weight)"),
        ("on_meta", "conv.weight is on the meta device"),
        ("with_transform", "returned tuple, not a torch.nn.Module: return the network alone"),
        ("needs_arguments", "takes arguments (missing a required argument: 'width')"),
        ("exits", "it calls sys.exit (no GPU)"),
        ("colourful", "failed: ValueError: red and more (own_networks.py, line "),
        ("recursive", "failed: RecursionError: maximum recursion depth exceeded"),
        ("exported", "NotImplementedError: Calling eval() is not supported"),
        ("nested", "the network's tensor ragged (Tensor) cannot be read"),
        ("unpickles", "failed: UnpicklingError: torch.load refuses what is pickled beside tensors"),
        ("OneAtATime", "fails on 2 images at once of 3 x 8 x 8: RuntimeError"),
        ("FixedBatch", "fails on one image of 3 x 8 x 8: RuntimeError"),
        ("FixedSize", "give --crop and --resize"),
        ("BatchStatistics", "other logits beside another image than alone"),
        ("Decides", "returns (1,): expected logits (N, classes)"),
        ("OneOutput", "returns (1, 1): expected logits (N, classes)"),
        ("TwoAnswers", "coarse, fine could each be the logits"),
        ("gnihton", "its module has nothing called 'gnihton'"),
        ("Net()", "nothing called 'Net()': did you mean Net?"),
    ],
)
def test_a_network_that_cannot_be_used_is_one_sentence(name: str, words: str) -> None:
    assert words in refused(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py:Net", "names a file where a module is needed: write mine:Net"),
        ("./nets/mine.py:Net", "write nets.mine:Net"),
        ("/somewhere/mine.py:Net", "write mine:Net and start the command in /somewhere"),
        ("nets/mine:Net", "write nets.mine:Net"),
        ("mine:", "write package.module:factory"),
        (":Net", "write package.module:factory"),
        (".mine:Net", "write package.module:factory"),
    ],
)
def test_a_name_of_a_model_that_is_spelt_otherwise(name: str, words: str) -> None:
    assert words in refused(name)


BAD = {
    "bad_syntax": ("def make(:", "SyntaxError: invalid syntax (bad_syntax.py, line 1)"),
    "bad_name": ("x = undefined", "NameError: name 'undefined' is not defined (bad_name.py, line"),
    "bad_file": ("open('no-such-file')", "FileNotFoundError: [Errno 2] No such file"),
    "bad_exit": ("raise SystemExit(3)", "it calls sys.exit (3)"),
    "bad_base": ("class E(BaseException): 0\nraise E('x')", "E: x (bad_base.py, line 2)"),
    "bad_depth": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    "bad_circle": ("from bad_circle import Net", "cannot import name 'Net' from partially"),
    "bad_need": ("import no_such_package_at_all", "No module named 'no_such_package_at_all' (bad_"),
    "bad_codes": ("raise OSError('\\x1b[2J\\x9b31mred\\r')", "OSError: red (bad_codes.py"),
    "bad_bytes": ("x = '\\0'".replace("\\0", "\0"), "bad_bytes:Net cannot be imported: "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_module_that_raises_when_it_is_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, words = BAD[name]
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert words in refused(f"{name}:Net")


@pytest.mark.parametrize("stop", ["raise KeyboardInterrupt", "raise SystemExit(143)"])
def test_an_interruption_is_passed_on(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"stopped_{len(stop)}"
    (tmp_path / f"{module}.py").write_text(stop)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        load_classifier(ModelSpec(f"{module}:Net"))


def test_the_working_folder_is_importable_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.py").write_text(
        "import here_alone\nfrom tests.regroup.own_networks import Net\n"
    )
    (tmp_path / "here_alone.py").touch()
    path = [entry for entry in sys.path if entry not in ("", str(Path.cwd()))]
    monkeypatch.setattr(sys, "path", [*path, str(Path.cwd())])
    monkeypatch.chdir(tmp_path)
    assert load_classifier(ModelSpec("nets.small:Net")).num_classes == 3
    assert sys.path[-1] == str(tmp_path)


def test_what_a_factory_does_to_the_process_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["regroup", "extract", "--model", "x"])
    found = load_classifier(ModelSpec(f"{HERE}:sets_torch_up"))
    assert found.num_classes == 3
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.empty(0).device.type == "cpu"
    assert sys.argv == ["regroup", "extract", "--model", "x"]
    shown = capsys.readouterr()
    assert (shown.out, "made" in shown.err) == ("", True)


def test_a_factory_that_takes_a_number_of_classes_gets_it() -> None:
    assert load_classifier(ModelSpec(f"{HERE}:chosen", num_classes=7)).num_classes == 7
    assert "has 3 classes, num_classes says 7" in refused("Net", num_classes=7)


def test_text_from_elsewhere_is_one_printable_line() -> None:
    hostile = "a\x1b[1;31mb\x1b[0m\n\tc\x9b2Kd\x1b]8;;http://x\x1b\\e\u202ef\x00g."
    assert plain_line(hostile) == "ab cde f g"
    assert len(plain_line("x" * 1000)) == 300
