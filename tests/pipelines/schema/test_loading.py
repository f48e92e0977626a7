"""Study files: what is shipped loads, and every mistake is one sentence that says where it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from regroup.attacks.pgd.attack import PGD
from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.loading import find_study, load_study, shipped_studies
from regroup_pipelines.schema.study import SOURCES, Study
from regroup_store.sources import LOCATED
from tests.pipelines.conftest import Run

PLAIN = """name = "plain"
store = "runs/plain"
taps = [
  "preactivation",
]

[model]
name = "digits-cnn"

[datasets]
train = "digits:train"
val = "digits:val"

[banks.small]
seed = 2

[attacks.pgd]
limit = 9
"""


def study_of(folder: Path, old: str = "", new: str = "", *changes: str, data: str = "") -> Study:
    """PLAIN with `old` replaced by `new`, loaded."""
    assert old in PLAIN
    path = folder / "plain.toml"
    path.write_text(PLAIN.replace(old, new, 1) if old else PLAIN)
    return load_study(path, changes, data).study


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_study_loads_and_its_attacks_can_be_made(name: str) -> None:
    study = load_study(find_study(name)).study
    assert study.name == name
    assert all((attack.spec().epsilon or 1) > 0 for attack in study.attacks.values())
    assert {"train", "val"} == set(study.used)


def test_the_real_studies_are_shipped() -> None:
    assert {
        "cifar10",
        "demo",
        "imagenette",
        "mini-imagenet",
        "paper-resnet50",
        "paper-vgg19",
    } <= set(shipped_studies())


def test_shipped_file_is_found_by_its_path_too() -> None:
    shipped = shipped_studies()["mini-imagenet"]
    assert find_study(str(shipped)) == find_study("mini-imagenet") == shipped


def test_defaults_are_those_of_the_commands(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    attack, bank = study.attacks["pgd"], study.banks["small"]
    assert attack.spec() == PGD(epsilon=4 / 255, steps=40, protocol="budget")
    assert attack.title == "PGD, protocol budget, epsilon 4/255, 40 steps, seed 0"
    assert (bank.per_class, bank.weighting, bank.bank_seed) == (50, "softmax", 2)
    options = study.model_options("linear")
    assert (options.model, options.taps, options.batch) == ("digits-cnn", "linear", 64)
    assert asdict(study.voting) == {
        "labels": "name",
        "rule": "borda",
        "tie_break": "class",
        "delta": 1e-20,
        "voting_taps": (),
    }


def test_kinds_of_datasets_are_those_of_the_store() -> None:
    assert set(SOURCES) == {"digits", *LOCATED}


def test_data_and_set_change_where_things_are(tmp_path: Path) -> None:
    changes = (
        "datasets.train=imagefolder:{data}/train",
        "model.weights={data}/w.safetensors",
        "attacks.pgd.limit=3",
        "attacks.pgd.epsilon=2/255",
        "scoring.tie_break=divergence",
        "report.tables=['k']",
    )
    study = study_of(tmp_path, "", "", *changes, data="/else")
    assert study.source("train") == "imagefolder:/else/train"
    assert study.model_options("linear").weights == "/else/w.safetensors"
    assert (study.attacks["pgd"].limit, study.attacks["pgd"].epsilon) == (3, "2/255")
    assert (study.scoring.tie_break, study.report.tables) == ("divergence", ("k",))


def test_a_number_is_an_epsilon_too(tmp_path: Path) -> None:
    study = study_of(tmp_path, "limit = 9", "epsilon = 0.03")
    assert study.attacks["pgd"].spec().epsilon == 0.03


def test_an_attacks_own_parameters_are_a_table(tmp_path: Path) -> None:
    table = "limit = 9\n[attacks.pgd.parameters]\nstep_ratio = 1\nrandom_start = false"
    spec = study_of(tmp_path, "limit = 9", table).attacks["pgd"].spec()
    assert spec == PGD(protocol="budget", step_ratio=1.0, random_start=False)
    changed = study_of(tmp_path, "", "", "attacks.pgd.parameters.step_ratio=0.5")
    assert changed.attacks["pgd"].spec() == PGD(protocol="budget", step_ratio=0.5)


def test_attacks_of_another_dataset_get_its_clean_images(tmp_path: Path) -> None:
    study = study_of(tmp_path, "limit = 9", 'dataset = "train"')
    assert study.clean == {"clean": "val", "clean train": "train"}


def test_a_sweep_is_an_attack_a_level(tmp_path: Path) -> None:
    table = 'limit = 9\n[sweeps.s]\nlevels = [1, 40]\nprotocol = "minimal"\nlimit = 3\nseed = 4'
    attacks = study_of(tmp_path, "limit = 9", table).attacks
    assert list(attacks) == ["pgd", "s-1", "s-40"]
    assert attacks["s-40"].spec() == PGD(protocol="minimal", epsilon=40 / 255, seed=4)
    assert attacks["s-1"].limit == 3


def test_levels_may_be_a_range(tmp_path: Path) -> None:
    study = study_of(tmp_path, "limit = 9", '[sweeps.s]\nlevels = "3-5"')
    assert study.sweeps["s"].levels == (3, 4, 5)
    assert list(study.attacks) == ["pgd", "s-3", "s-4", "s-5"]
    again = study_of(tmp_path, "limit = 9", "[sweeps.s]\nlevels = [1]", "sweeps.s.levels=1-255")
    assert again.sweeps["s"].levels == tuple(range(1, 256))
    assert study_of(tmp_path, "limit = 9", '[sweeps.s]\nlevels = "7 - 7"').sweeps["s"].levels == (
        7,
    )


def test_the_papers_sweeps_have_every_level() -> None:
    for name in ("paper-resnet50", "paper-vgg19"):
        study = load_study(find_study(name)).study
        assert {sweep.levels for sweep in study.sweeps.values()} == {tuple(range(1, 41))}


MISTAKES = [
    ("limit = 9", "limi = 9", ("line 18", "attacks.pgd.limi", "did you mean limit?")),
    ("[model]", "[modle]", ("modle", "did you mean model?")),
    ('name = "digits-cnn"', 'nmae = "digits-cnn"', ("line 8", "model.nmae", "mean name?")),
    ('name = "digits-cnn"', "", ("line 7", "model", "name is missing")),
    ("limit = 9", 'limit = "9"', ("line 18", "attacks.pgd.limit", "a whole number", '"9"')),
    ("limit = 9", 'subset = "V1"', ("line 18", "attacks.pgd.subset", "'V1'", "there is none")),
    (
        "limit = 9",
        'limit = 9\nsubset = "V1"\n[subsets.V1]',
        ("line 18", "attacks.pgd.limit", "subset 'V1'"),
    ),
    (
        "limit = 9",
        'dataset = "val"\nsubset = "V1"\n[subsets.V1]',
        ("line 18", "attacks.pgd.dataset", "subset 'V1'"),
    ),
    ("limit = 9", "[subsets.V1]\nper_clas = 1", ("line 19", "subsets.V1", "mean per_class?")),
    ("limit = 9", '[subsets.V1]\ndataset = "vl"', ("subsets.V1.dataset", "did you mean val?")),
    (
        "limit = 9",
        '[subsets.V1]\nclasses = 1\nclass_names = ["a"]',
        ("subsets.V1.classes", "class_names"),
    ),
    ("limit = 9", "[sweeps.s]", ("line 18", "sweeps.s", "levels is missing")),
    ("limit = 9", "[sweeps.s]\nlevels = [0]", ("line 19", "sweeps.s.levels.0", "0")),
    ("limit = 9", '[sweeps.s]\nlevels = "0-4"', ("line 19", "sweeps.s.levels: '0-4'", "1 to 255")),
    ("limit = 9", '[sweeps.s]\nlevels = "9-4"', ("line 19", "sweeps.s.levels: '9-4'", "lower")),
    ("limit = 9", '[sweeps.s]\nlevels = "1-256"', ("line 19", "sweeps.s.levels", "1 to 255")),
    ("limit = 9", '[sweeps.s]\nlevels = "all"', ("line 19", "sweeps.s.levels", "such as '1-40'")),
    ("limit = 9", "[sweeps.s]\nlevels = 4", ("line 19", "sweeps.s.levels", "an array", "found 4")),
    ("limit = 9", "[sweeps.s]\nlevels = [1.5]", ("line 19", "sweeps.s.levels.0", "whole number")),
    ("limit = 9", "[sweeps.s]\nepsilons = [2]", ("sweeps.s.epsilons", "levels", "choose from")),
    ("limit = 9", "[sweeps.s]\nlevels = [2, 2]", ("line 19", "sweeps.s.levels", "twice")),
    ("limit = 9", "[sweeps.s]\nlevel = [2]", ("line 19", "sweeps.s.level", "mean levels?")),
    (
        "limit = 9",
        '[sweeps.s]\nlevels = [2]\nepsilon = "1/255"',
        ("line 20", "sweeps.s.epsilon", "leave epsilon out"),
    ),
    ("limit = 9", '[sweeps.s]\nlevels = [2]\nattack = "pdg"', ("sweeps.s", "did you mean pgd?")),
    ("limit = 9", "[sweeps.s]\nlevels = [2]\n[attacks.s-2]", ("sweeps.s", "attack s-2")),
    ("limit = 9", '[report]\ntables = ["table-9"]', ("report.tables", "did you mean table-")),
    ("[model]", 'paper_values = "no.toml"\n[model]', ("line 7", "paper_values", "no.toml")),
    ("limit = 9", "limit = 0", ("attacks.pgd.limit", "at least 1")),
    ("limit = 9", "skip = 1", ("attacks.pgd.skip", "true or false")),
    ("limit = 9", 'protocol = "budgt"', ("attacks.pgd.protocol", "'budgt'", "mean budget?")),
    ("limit = 9", 'dataset = "vall"', ("line 18", "attacks.pgd.dataset", "mean val?")),
    ("limit = 9", 'epsilon = "4/25x"', ("attacks.pgd.epsilon", "such as 4/255")),
    (
        "limit = 9",
        "epsilon = 4",
        ("line 18", "attacks.pgd.epsilon", "[0,1]", "did you mean 4/255?"),
    ),
    ("limit = 9", 'epsilon = "-1/255"', ("attacks.pgd.epsilon", "not positive")),
    ("limit = 9", "epsilon = nan", ("attacks.pgd.epsilon", "not a number")),
    ("limit = 9", 'attack = "pdg"', ("line 18", "attacks.pgd.attack", "did you mean pgd?")),
    ("limit = 9", 'norm = "l3"', ("line 18", "attacks.pgd.norm", "'l3'", "linf")),
    ("limit = 9", 'attack = "square"\ntargeted = true', ("line 17", "attacks.pgd", "untargeted")),
    (
        "limit = 9",
        'attack = "spsa"\nconfidence = 0.9',
        ("attacks.pgd.confidence", "does not support"),
    ),
    ("limit = 9", 'preset = "x"', ("attacks.pgd.preset", "'x'")),
    ("limit = 9", "parameters = {step_ratoi = 1}", ("attacks.pgd", "did you mean step_ratio?")),
    ("limit = 9", "parameters = {random_start = 1}", ("random_start", "true or false", "1")),
    ("limit = 9", "parameters = {steps = 1}", ("parameter steps", "its own option")),
    ("limit = 9", "bisections = -1", ("attacks.pgd.bisections", "at least 0")),
    ("seed = 2", 'dataset = "tarin"', ("banks.small.dataset", "mean train?")),
    ("seed = 2", "seeds = 2", ("line 15", "banks.small.seeds", "mean seed?")),
    ("seed = 2", "expected_accuracy = 1.5", ("banks.small.expected_accuracy", "1.5")),
    ("limit = 9", "limit = 9\n[model2]", ("model2", "mean model?")),
    ('name = "digits-cnn"', 'name = "digits-cnn"\ndecoder = "gpu"', ("model.decoder", "'gpu'")),
    ("seed = 2", "bank_seed = 2", ("banks.small.bank_seed", "mean seed?")),
    ("[banks.small]\nseed = 2", "[banks]", ("banks", "at least 1")),
    ('  "preactivation",', '  "preactivatoin",', ("line 3", "taps.0", "mean preactivation?")),
    ('  "preactivation",', '  "linear", "linear"', ("line 3", "taps", "twice")),
    ('"digits:val"', '"imagefoldr:x"', ("line 12", "datasets.val", "mean imagefolder?")),
    ('"digits:val"', '"parquet:"', ("datasets.val", "parquet:LOCATION")),
    ("[attacks.pgd]", '[attacks."p/q"]', ("line 17", "p/q", "not a valid name")),
    ("[attacks.pgd]", "[[attacks]]", ("line 17", "attacks", "a table")),
    ("[datasets]", "[scoring]\nthreshold = 1.5\n[datasets]", ("line 11", "scoring.threshold", "1")),
    ("[datasets]", '[scoring]\ndataset = "x"\n[datasets]', ("scoring.dataset", "train, val")),
    ("[model]", "[model", ("not a TOML file", "line 7")),
]


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES, ids=[new for _, new, _ in MISTAKES])
def test_mistake(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as told:
        study_of(tmp_path, old, new)
    sentence = str(told.value)
    assert sentence.startswith(str(tmp_path / "plain.toml"))
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("attacks.pdg.limit=3", ("attacks.pdg.limit", "did you mean pgd?")),
        ("datasets.trian=digits:val", ("datasets.trian", "did you mean train?")),
        ("atacks.pgd.limit=3", ("atacks", "did you mean attacks?")),
        ("attacks.pgd.limit=-3", ("attacks.pgd.limit", "at least 1")),
        ("attacks.pgd.limit.x=3", ("attacks.pgd.limit", "not a table")),
        ("attacks.pgd.limit", ("key.path=VALUE",)),
        ("model.weights=3", ("model.weights", "a string")),
        ("report.tables=['kk']", ("report.tables", "did you mean k?")),
    ],
)
def test_mistake_on_the_command_line(tmp_path: Path, change: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as told:
        study_of(tmp_path, "", "", change)
    assert str(told.value).startswith("--set ")
    for word in words:
        assert word in str(told.value)


def test_a_mistake_leaves_nothing_and_exits_with_2(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(PLAIN.replace("limit", "limi"))
    told = run("run", path, "--store", tmp_path / "s", "--output", tmp_path / "o")
    assert told.status == 2
    assert told.err.strip() == (
        f"regroup run: {path}, line 18: attacks.pgd.limi: there is no key 'limi': did you mean "
        "limit?"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["bad.toml"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("datasets.val=imagefolder:/nowhere", ("--set datasets.val", "/nowhere")),
        ("model.weights=no.safetensors", ("model", "no.safetensors")),
        ("model.name=resnet5o", ("model", "resnet50")),
        ("model.dtype=fp16", ("fp16",)),
    ],
)
def test_what_cannot_be_opened_is_refused_before_any_work(
    run: Run, tmp_path: Path, change: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(PLAIN)
    keys = ("--set", "model.weights=random", "--set", change)
    told = run("run", path, "--store", tmp_path / "s", "--output", tmp_path / "o", *keys)
    assert told.status == 2
    assert "Traceback" not in told.err
    for word in words:
        assert word in told.err.strip().splitlines()[-1]
    assert [each.name for each in tmp_path.iterdir()] == ["plain.toml"]


def test_unknown_study(run: Run) -> None:
    told = run("run", "mini-imagnet")
    assert told.status == 2
    assert "did you mean mini-imagenet?" in told.err


PARQUET = """[datasets]
train = "parquet:{data}/train-*.parquet"
"""
NAMED = """[label_columns]
%s = "fine_label"

"""


def test_a_label_column_is_part_of_the_dataset_where_it_is_named(tmp_path: Path) -> None:
    text = PLAIN.replace('[datasets]\ntrain = "digits:train"\n', NAMED % "train" + PARQUET)
    (tmp_path / "plain.toml").write_text(text)
    study = load_study(tmp_path / "plain.toml", (), "/d").study
    assert study.source("train") == "parquet[fine_label]:/d/train-*.parquet"
    assert study.source("val") == "digits:val"


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("vla", "label_columns.vla: there is no dataset 'vla'"),
        ("val", "only datasets of the kinds parquet and webdataset have columns: leave it out"),
    ],
)
def test_a_label_column_of_no_such_dataset_is_refused(
    dataset: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        study_of(tmp_path, "[datasets]", f"{NAMED % dataset}[datasets]")
    assert said in str(refused.value)
