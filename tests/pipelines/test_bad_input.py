"""Every mistake of a user is one clear sentence with the right exit status, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.pipelines.conftest import FinishedDemo, Outcome, Run

MODEL = ("--model", "digits-cnn", "--weights")


def sentence(outcome: Outcome) -> str:
    """The one line that a failed command says last; no traceback anywhere."""
    assert "Traceback" not in outcome.err
    return outcome.err.strip().splitlines()[-1]


def image_folder(root: Path, classes: int = 2, images: int = 2) -> Path:
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (16, 16), (40 * label, 90, 10 * number)).save(folder / f"{number}.png")
    return root


def test_missing_dataset(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "index-dataset", "--store", tmp_path / "s", "--dataset", f"imagefolder:{tmp_path}/no"
    )
    assert outcome.status == 2
    assert f"{tmp_path}/no" in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"


def test_empty_dataset(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = run(
        "index-dataset", "--store", tmp_path / "s", "--dataset", f"imagefolder:{tmp_path}/empty"
    )
    assert outcome.status == 2
    assert "class" in sentence(outcome)


def test_class_without_images(run: Run, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos")
    (root / "lonely").mkdir()
    outcome = run("index-dataset", "--store", tmp_path / "s", "--dataset", f"imagefolder:{root}")
    assert outcome.status == 2
    assert "lonely" in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"


def test_unknown_dataset_kind(run: Run, tmp_path: Path) -> None:
    outcome = run("index-dataset", "--store", tmp_path / "s", "--dataset", "imagefoldr:x")
    assert outcome.status == 2
    assert "imagefolder" in sentence(outcome)


def test_corrupt_image_is_a_failed_row_and_counted(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    root = image_folder(tmp_path / "photos")
    (root / "class1" / "1.png").write_bytes(b"not an image")
    outcome = run(
        "extract", "--store", tmp_path / "s", "--dataset", f"imagefolder:{root}", *MODEL, weights,
        "--json",
    )  # fmt: skip
    assert outcome.status == 0
    assert (outcome.json["samples"], outcome.json["failed"]) == (4, 1)
    assert "1 FAILED" in outcome.err
    told = "1 of 4 samples failed: .*not an image.*the first: class1/1.png"
    assert len(re.findall(told, outcome.err)) == 1, outcome.err


def test_when_no_image_can_be_decoded_the_command_fails_and_says_why(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    root = image_folder(tmp_path / "photos", images=3)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.write_bytes(path.read_bytes()[:60] if number else b"not an image")
    command = ("extract", "--store", tmp_path / "s", "--dataset", f"imagefolder:{root}", *MODEL)
    for _ in range(2):  # also where the store holds the failed rows already
        outcome = run(*command, weights)
        assert outcome.status == 1
        assert "all 6 samples failed: " in sentence(outcome)
        assert re.search(r"\(5, the first: class0/1.png\); .*\(1, the first", sentence(outcome))


def test_weights_of_another_architecture(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    outcome = run(
        "extract", "--store", tmp_path / "s", "--dataset", "digits:val",
        "--model", "cifar-resnet20", "--weights", weights,
    )  # fmt: skip
    assert outcome.status == 2
    assert str(weights) in sentence(outcome)


def test_missing_weights_file(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "extract", "--store", tmp_path / "s", "--dataset", "digits:val",
        *MODEL, tmp_path / "no.safetensors",
    )  # fmt: skip
    assert outcome.status == 2
    assert "no.safetensors" in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"


def test_unknown_model(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "extract", "--store", tmp_path / "s", "--dataset", "digits:val", "--model", "resnet5o",
        "--weights", "random",
    )  # fmt: skip
    assert outcome.status == 2
    assert "resnet50" in sentence(outcome)


def test_bank_of_another_model(run: Run, finished_demo: FinishedDemo, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    run("train-demo-model", "--output", other, "--seed", "1")
    outcome = run(
        "evaluate", "--store", finished_demo.store, "--dataset", "digits:val", *MODEL, other,
        "--bank", "digits-train-digits-cnn",
    )  # fmt: skip
    assert outcome.status == 2
    assert "another model" in sentence(outcome)
    assert "build-bank" in sentence(outcome)


def test_bank_of_another_tap_policy(run: Run, finished_demo: FinishedDemo) -> None:
    outcome = run(
        "evaluate", "--store", finished_demo.store, "--dataset", "digits:val",
        *MODEL, finished_demo.weights, "--taps", "linear", "--bank", "digits-train-digits-cnn",
    )  # fmt: skip
    assert outcome.status == 2
    assert "another tap policy" in sentence(outcome)


@pytest.mark.parametrize("k", [0, 99])
def test_k_out_of_range(run: Run, finished_demo: FinishedDemo, k: int) -> None:
    outcome = run(
        "rescore", "--store", finished_demo.store, "--bank", "digits-train-digits-cnn", "--k", k
    )
    assert outcome.status == 2
    taps = len(finished_demo.taps)
    assert f"from 1 to {taps}" in sentence(outcome)


def test_unknown_tap(run: Run, finished_demo: FinishedDemo) -> None:
    outcome = run(
        "rescore", "--store", finished_demo.store, "--bank", "digits-train-digits-cnn",
        "--voting-taps", "logit",
    )  # fmt: skip
    assert outcome.status == 2
    assert "did you mean logits" in sentence(outcome)


def test_unknown_bank(run: Run, finished_demo: FinishedDemo) -> None:
    outcome = run("rescore", "--store", finished_demo.store, "--bank", "digits-trane")
    assert outcome.status == 2
    assert "digits-train-digits-cnn" in sentence(outcome)


@pytest.mark.parametrize("command", [("ls",), ("rescore", "--bank", "b")])
def test_not_a_store(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "photo.txt").write_text("hello")
    outcome = run(*command, "--store", tmp_path)
    assert outcome.status == 2
    assert "store" in sentence(outcome)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.txt"], "nothing was written"


def test_folder_with_other_things_is_not_made_a_store(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_text("hello")
    outcome = run("index-dataset", "--store", tmp_path, "--dataset", "digits")
    assert outcome.status == 2
    assert [p.name for p in tmp_path.iterdir()] == ["photo.txt"]


def test_read_only_store(run: Run) -> None:
    outcome = run("index-dataset", "--store", "/sys/regroup-store", "--dataset", "digits")
    assert outcome.status in (1, 2)
    assert "/sys/regroup-store" in sentence(outcome)


def test_epsilon_that_is_no_number(run: Run, tmp_path: Path, weights: Path) -> None:
    outcome = run(
        "attack", "--store", tmp_path / "s", "--dataset", "digits:val", *MODEL, weights,
        "--epsilon", "four",
    )  # fmt: skip
    assert outcome.status == 2
    assert "4/255" in sentence(outcome)


def test_epsilon_in_grey_levels(run: Run, tmp_path: Path, weights: Path) -> None:
    outcome = run(
        "attack", "--store", tmp_path / "s", "--dataset", "digits:val", *MODEL, weights,
        "--epsilon", "4",
    )  # fmt: skip
    assert outcome.status == 2
    assert "4/255" in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"


@pytest.mark.parametrize(
    "args", [["ls", "--stroe", "x"], ["lss"], ["ls"], ["rescore", "--signs", "minus"]]
)
def test_unknown_options_have_status_2(args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "regroup_pipelines.cli", *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["build_bank", "attack", "demo", "ls", "train_demo_model"])
def test_every_job_is_a_program_of_its_own(program: str, tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "pipelines" / f"{program}.py"
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Example: regroup" in done.stdout


@pytest.mark.parametrize(
    ("words", "first"),
    [("--help", "usage: regroup"), ("attack --list", "pgd"), ("attack --list --json", "{")],
)
def test_a_reader_that_goes_away_is_no_error(words: str, first: str) -> None:
    command = (
        f"{sys.executable} -m regroup_pipelines.cli {words} | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(first)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_damaged_features_fail_loudly_and_the_rest_is_kept(
    run: Run, finished_demo: FinishedDemo, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished_demo.store, store)
    chunk = next(store.glob("features/digits-val-digits-cnn-pgd-budget-*/logits.zarr/..")) / (
        f"accumulators.zarr/{finished_demo.taps[-1]}/c/0/0/0"
    )
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))
    outcome = run(
        "rescore", "--store", store, "--bank", "digits-train-digits-cnn", "--delta", "1e-10",
        "--attempts", "1",
    )  # fmt: skip
    assert outcome.status == 1
    last = outcome.err.strip().splitlines()[-1]
    assert "score digits-val-digits-cnn-pgd-budget: 1 of 1 blocks failed (block 0)" in last
    assert "accumulators.zarr" in last
    again = run("rescore", "--store", store, "--bank", "digits-train-digits-cnn", "--json")
    assert again.status == 0, "what was scored before the damage stays readable"


def test_demo_weights_beside_the_elements_of_a_store(run: Run, tmp_path: Path) -> None:
    done = run("train-demo-model", "--store", tmp_path / "s", "--json")
    assert (done.status, done.json["accuracy"] >= 0.97) == (0, True)
    assert done.json["weights"] == str(tmp_path / "s" / "weights" / "digits-cnn.safetensors")
    assert run("ls", "--store", tmp_path / "s", "--json").json["elements"] == []
    assert run("verify", "--store", tmp_path / "s").status == 0
    neither = run("train-demo-model")
    assert neither.status == 2
    assert "--output" in sentence(neither)


def test_more_classes_than_the_model(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    root = image_folder(tmp_path / "photos", classes=11, images=1)
    outcome = run(
        "extract", "--store", tmp_path / "s", "--dataset", f"imagefolder:{root}", *MODEL, weights
    )
    assert outcome.status == 2
    assert "11 classes" in sentence(outcome)


def test_class_that_the_model_never_gets_right(
    run: Run, local_ray: None, tmp_path: Path, weights: Path
) -> None:
    root = image_folder(tmp_path / "photos", classes=10, images=1)
    store = tmp_path / "s"
    outcome = run(
        "build-bank", "--store", store, "--dataset", f"imagefolder:{root}", *MODEL, weights
    )
    assert outcome.status == 2
    assert "class" in sentence(outcome)
    assert not list(store.glob("banks/*/manifest.json")), "no half-made bank"
    shutil.rmtree(store)


ATTACKS_REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--attack", "pdg"), "unknown attack 'pdg': did you mean pgd?"),
    (("--preset", "no-such"), "there is no preset 'no-such'"),
    (("--attack", "spsa", "--norm", "l2"), "unknown norm of spsa 'l2': choose from linf"),
    (("--attack", "square", "--targeted"), "square supports only untargeted attacks"),
    (("--attack", "spsa", "--confidence", "0.9"), "spsa does not support a confidence"),
    (("--epsilon", "4%"), "epsilon is in [0,1] pixel units: did you mean 4/255?"),
    (("--epsilon=-1/255",), "is not positive"),
    (("--parameters", "step_ratoi=1"), "did you mean step_ratio?"),
    (("--steps", "0"), "steps is 0: give at least 1"),
]


@pytest.mark.parametrize(("options", "words"), ATTACKS_REFUSED)
def test_an_attack_that_cannot_be_meant(
    run: Run, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    """Before anything is opened: neither the dataset nor the weights are there."""
    outcome = run(
        "attack", "--store", tmp_path / "s", "--dataset", "digits:vall", *MODEL, "no.safetensors",
        *options,
    )  # fmt: skip
    assert outcome.status == 2
    assert words in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"


def test_a_white_box_attack_on_a_model_without_gradients(run: Run, tmp_path: Path) -> None:
    model = "tests.pipelines.steps.test_attacking:no_gradient"
    outcome = run(
        "attack", "--store", tmp_path / "s", "--dataset", "digits:val", "--model", model,
        "--weights", "random", "--crop", 8, "--taps", "linear",
    )  # fmt: skip
    assert outcome.status == 2
    assert "gives no gradient" in sentence(outcome)
    assert not (tmp_path / "s").exists(), "nothing was written"
