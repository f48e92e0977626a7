"""The network as the driver knows it: its name, where it lies, and what the log says of it."""

from pathlib import Path

import pytest

from regroup.models import ModelSpec
from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.schema.study import Model
from regroup_pipelines.steps.network import Network, open_network
from tests.pipelines.conftest import Run

NETWORKS = "tests.regroup.own_networks"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("resnet50", "resnet50"),
        ("package.module:factory", "package.module.factory"),
        ("timm:resnet18.a1_in1k", "timm.resnet18.a1_in1k"),
        ("timm:hf-hub:someone/net@main", "timm.hf-hub.someone-net-main"),
        ("mine:Né t\x1b[31m", "mine.N--t--31m"),
        ("m:" + "x" * 300, "m." + "x" * 98),
    ],
)
def test_a_name_of_an_element_is_safe_whatever_the_models(name: str, label: str) -> None:
    assert Network(ModelSpec(name), {"name": name}, "linear", (), 2, 8).label == label


def test_what_is_to_be_known_of_a_network_is_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ModelOptions(model=f"{NETWORKS}:LogSoftmax")
    for _ in range(2):
        open_network(options)
    line = f"model {NETWORKS}:LogSoftmax: returns probabilities rather than logits"
    assert capsys.readouterr().err.count(line) == 1


def test_the_number_of_classes_is_an_option_of_commands_and_studies() -> None:
    options = Model(name=f"{NETWORKS}:chosen", num_classes=7).options("preactivation")
    assert options == ModelOptions(model=f"{NETWORKS}:chosen", num_classes=7)
    network = open_network(options)
    assert (network.num_classes, network.description["num_classes"]) == (7, 7)


def test_a_folder_of_timm_is_located_for_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path)
    found: list[str] = []

    def stop(spec: ModelSpec) -> None:
        found.append(spec.name)
        raise InterruptedError

    monkeypatch.setattr("regroup_pipelines.steps.network.fetch_classifier", stop)
    for name in ("timm:local-dir:net", "timm:local-dir:./net/", "timm:resnet18"):
        with pytest.raises(InterruptedError):
            open_network(ModelOptions(model=name))
    assert found == [*[f"timm:local-dir:{tmp_path}/net"] * 2, "timm:resnet18"]


def test_json_is_alone_on_standard_output_whatever_a_module_prints(
    run: Run, tmp_path: Path
) -> None:
    outcome = run(
        "extract", "--json", "--store", tmp_path / "s", "--dataset", "digits:val",
        "--model", f"{NETWORKS}:Prints", "--num-classes", 7,
    )  # fmt: skip
    assert (outcome.status, outcome.out) == (2, "")
    assert "here is forward" in outcome.err
    assert "has 3 classes, num_classes says 7" in outcome.err.splitlines()[-1]
