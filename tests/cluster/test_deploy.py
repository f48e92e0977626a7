"""The deployment files, offline: against KubeRay's schema, Ray's own validation, our options."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tyro
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from regroup_cluster.resources import WorkerResources, resolve
from regroup_pipelines.configs.options import ClusterOptions
from regroup_pipelines.configs.table import CONFIGS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
PROGRAMS = {f"pipelines/{name.replace('-', '_')}.py": kind for name, kind in CONFIGS.items()}
UNITS = {"Mi": 2**20, "Gi": 2**30}


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.fixture
def rayjob() -> Any:
    return read("rayjob.yaml")


@pytest.fixture(scope="session")
def schema(shared_data: Path) -> Any:
    """KubeRay's openAPIV3Schema as a strict JSON schema."""
    path = shared_data / "kuberay" / "rayjob-v1.schema.json"
    if not path.is_file():
        pytest.skip(
            "KubeRay's schema is not there: no ../shared/data/kuberay/rayjob-v1.schema.json"
        )
    return strict(json.loads(path.read_text()))


def strict(node: Any) -> Any:
    """Turn OpenAPI's own words into JSON schema's, and refuse unknown fields.

    Kubernetes drops unknown fields without a word: here a misspelt one is an error.
    """
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items() if not key.startswith("x-")}
    if node.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    elif node.get("nullable") is True and "type" in made:
        made["type"] = [made["type"], "null"]
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        open_ended = node.get("x-kubernetes-preserve-unknown-fields", False)
        made.setdefault("additionalProperties", bool(open_ended))
    return made


def templates(rayjob: Any) -> dict[str, Any]:
    """Pod specs by role."""
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    workers = {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
    head = cluster["headGroupSpec"]["template"]["spec"]
    return {"submitter": spec["submitterPodTemplate"]["spec"], "head": head, **workers}


def containers(rayjob: Any) -> list[Any]:
    return [c for pod in templates(rayjob).values() for c in pod["containers"]]


def quantity(text: str) -> float:
    """Bytes of "16Gi", CPUs of "8" or "500m"."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", text).groups()  # type: ignore[union-attr]
    return float(number) / 1000 if unit == "m" else float(number) * UNITS.get(unit, 1)


def parsed(entrypoint: str) -> ClusterOptions:
    """The config that our program makes of `entrypoint`."""
    python, program, *options = shlex.split(entrypoint)
    assert python == "python"
    found = [known for path, known in PROGRAMS.items() if program.endswith(f"/{path}")]
    assert found, f"{program} is not one of our programs"
    config: ClusterOptions = tyro.cli(found[0], args=options)
    return config


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, str(node)


def test_the_rayjob_is_one_to_kuberay(rayjob: Any, schema: Any) -> None:
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(rayjob)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/backoffLimit", "3"),
        ("spec/backofLimit", 3),
        ("spec/rayClusterSpec/authOptions/mode", "tokens"),
        ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0),
        ("spec/rayClusterSpec/headGroupSpec/template/spec/tolerance", []),
        ("spec/rayClusterSpec/workerGroupSpecs", {}),
    ],
)
def test_a_mistake_is_found_by_the_schema(
    rayjob: Any, schema: Any, path: str, value: object
) -> None:
    *parents, last = path.split("/")
    node = wrong = deepcopy(rayjob)
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(wrong)


def test_quantities_may_be_numbers_and_text(rayjob: Any, schema: Any) -> None:
    resources = containers(rayjob)[0]["resources"]["limits"]
    for amount in (1, "1", "500m"):
        resources["cpu"] = amount
        jsonschema.Draft202012Validator(schema).validate(rayjob)
    resources["cpu"] = [1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(rayjob)


def test_the_head_has_no_work_and_no_spot_node(rayjob: Any) -> None:
    params = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")
    for role in ("head", "submitter"):
        pod = templates(rayjob)[role]
        assert "SPOT" not in json.dumps(pod)
        assert "nvidia.com/gpu" not in json.dumps(pod)


def test_workers_are_on_spot_nodes_with_gpus(rayjob: Any) -> None:
    pod = templates(rayjob)["spot-gpu"]
    assert pod["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}
    assert {t["key"] for t in pod["tolerations"]} == {"nvidia.com/gpu", "spot"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_tokens_are_asked_for_everywhere_and_written_nowhere(rayjob: Any) -> None:
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
    for container in containers(rayjob):
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        for variable in container["env"]:
            secret = re.search("TOKEN|SECRET|PASSWORD|KEY", variable["name"])
            assert "value" not in variable or not secret


@pytest.mark.parametrize("name", ["rayjob.yaml", "cluster.yaml"])
def test_no_secret_is_in_plain_text(name: str) -> None:
    text = (DEPLOY / name).read_text()
    # An AWS key id, a private key, and anything as long and random as a token or a secret key.
    assert not re.search(r"AKIA[0-9A-Z]{16}|PRIVATE KEY|AWS_SECRET|\b[0-9a-fA-F]{32,}\b", text)
    for path, value in leaves(read(name)):
        assert not re.search(r"(?i)(token|secret|password)=", value), path


def test_memory_is_bounded_and_shared_memory_counted(rayjob: Any) -> None:
    for container in containers(rayjob):
        resources = container["resources"]
        assert quantity(resources["requests"]["memory"]) <= quantity(resources["limits"]["memory"])
    cluster = rayjob["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (shm,) = (v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm")
        assert shm["medium"] == "Memory"
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        store = int(group["rayStartParams"]["object-store-memory"])
        memory = pod["containers"][0]["resources"]["limits"]["memory"]
        assert store < quantity(shm["sizeLimit"]) < quantity(memory) / 4


def test_s3_rights_come_from_a_service_account(rayjob: Any) -> None:
    pods = templates(rayjob)
    assert pods["head"]["serviceAccountName"] == pods["spot-gpu"]["serviceAccountName"] == "regroup"


def test_a_failed_run_is_resumed_from_an_s3_store(rayjob: Any) -> None:
    spec = rayjob["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True
    # The retry has a new cluster: the store must outlive the pods.
    assert parsed(spec["entrypoint"]).store.startswith("s3://")


def test_the_entrypoint_fits_the_workers(rayjob: Any) -> None:
    config = parsed(rayjob["spec"]["entrypoint"])
    (group,) = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert config.workers == group["replicas"] == group["minReplicas"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = {"CPU": quantity(limits["cpu"]), "GPU": quantity(limits["nvidia.com/gpu"])}
    wanted = WorkerResources("auto", config.cpus_per_worker, config.gpus_per_worker)
    assert resolve(wanted, [{}, node]).workers == 1


def test_an_entrypoint_that_our_programs_refuse_is_found(rayjob: Any) -> None:
    entrypoint = rayjob["spec"]["entrypoint"]
    refused = io.StringIO()
    with contextlib.redirect_stderr(refused), pytest.raises(SystemExit):
        parsed(entrypoint.replace("--attempts", "--atempts"))
    assert "--atempts" in refused.getvalue()
    with pytest.raises(AssertionError, match="is not one of our programs"):
        parsed(entrypoint.replace("build_bank", "build_banks"))


@pytest.fixture
def prepared() -> Any:
    """The cluster file as `ray up` completes it."""
    return prepare_config(read("cluster.yaml"))


def test_ray_up_takes_the_cluster_file(prepared: Any) -> None:
    validate_config(prepared)


@pytest.mark.parametrize("key", ["max_worker", "dockers"])
def test_ray_up_refuses_a_misspelt_key(key: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=key):
        validate_config(prepare_config({**read("cluster.yaml"), key: 1}))


def test_ray_up_starts_a_head_without_work_and_spot_workers(prepared: Any) -> None:
    types = prepared["available_node_types"]
    head = types[prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    worker = types["spot-gpu"]
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert resolve(WorkerResources(), [head["resources"], worker["resources"]]).gpus == 1
    assert worker["min_workers"] >= 1


def test_ray_up_asks_for_tokens_and_installs_nothing(prepared: Any) -> None:
    assert "--env RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
    assert prepared["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for kind in ("head", "worker"):
        commands = " ".join(prepared[f"{kind}_setup_commands"])
        assert commands == "chmod 600 ~/.ray/auth_token"
    (start,) = (c for c in prepared["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start


def test_both_files_name_one_image(rayjob: Any) -> None:
    images = {container["image"] for container in containers(rayjob)}
    assert images == {read("cluster.yaml")["docker"]["image"]}
