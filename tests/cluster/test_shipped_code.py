"""Which code runs where: a clone's on every node, or the installed one, but never a mixture."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import ANY

import pytest

import regroup
from regroup_cluster.code_version import PACKAGES, digest, find_folder, other_code
from tests.cluster.nodes import environment, family, send, wait_for

pytestmark = pytest.mark.timeout(300)
BIN = Path(sys.executable).parent
ROOT = Path(regroup.__file__).parents[1]
HEAD, SECOND = "127.0.9.1", "127.0.9.2"
JOB_S = 120

# Appended to a clone: every attempt leaves which code its process has. The first attempts at an
# extraction wait until as many nodes as wanted have one, so that none does all the work.
TELL = """
_attempt = attempt


def attempt(opened, block, number, label):
    import importlib.util
    import json
    import time
    from pathlib import Path

    import ray
    import regroup
    import regroup_pipelines
    from regroup_cluster.code_version import PACKAGES, digest, find_folder

    folder, node = Path(FOLDER), ray.util.get_node_ip_address()
    data = [Path(regroup.__file__).with_name("imagenet_wnids.txt")]
    data += [Path(regroup_pipelines.__file__).with_name("studies") / "demo.toml"]
    told = {name: digest(find_folder(name)) for name in PACKAGES}
    told["data"] = all(path.is_file() for path in data)
    told["own"] = importlib.util.find_spec("own_module") is not None
    (folder / "-".join([node, *label.step.split(" ")[:1], str(block)])).write_text(json.dumps(told))
    until, wanted = time.monotonic() + 60, int((folder / "wanted").read_text())
    while label.step.startswith("extract") and time.monotonic() < until:
        if len({path.name.split("-")[0] for path in folder.glob("*-extract-*")}) >= wanted:
            break
        time.sleep(0.05)
    return _attempt(opened, block, number, label)
"""

# A driver whose nodes have other code: tasks are refused as actors are.
TASKS = """
import sys
from regroup_cluster.dispatch.blocks import BlockWork, RetryPolicy
from regroup_cluster.dispatch.progress import make_progress
from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.resources import WorkerResources
from regroup_cluster.session import SessionConfig, ray_session


class Nothing(BlockWork):
    pass  # is never opened


with ray_session(SessionConfig(sys.argv[1])):
    try:
        progress = make_progress("x", 1, 0)
        dispatch_as_tasks(Nothing(), [0], WorkerResources(), RetryPolicy(), progress)
    except ClusterUsageError as error:
        sys.exit(str(error))
"""

# A user's script, beside packages of the user's own that have the names of our folders.
SCRIPT = """
import sys
import cluster, pipelines, store
import regroup_cluster, regroup_store
from regroup_pipelines.cli import main

assert cluster.MINE and pipelines.MINE and store.MINE
main(["extract", "--model", "pipelines.network:tiny", *sys.argv[1:]])
"""

NETWORK = """
import store
import torch
from torch import nn


def tiny():
    assert store.MINE
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
"""


BOTH = """
python script.py "$@" && regroup extract --model pipelines.network:tiny "$@"
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str


def call(command: list[object], variables: dict[str, str], cwd: Path) -> Done:
    done = subprocess.run(
        [str(word) for word in command],
        env=variables,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=JOB_S,
        check=False,
    )
    return Done(done.returncode, re.sub(r"\x1b\[\d*m", "", done.stdout))


@dataclass
class Machines:
    """Two nodes, `ray start` each, on which other code than the clone's is installed."""

    variables: dict[str, str]
    folder: Path
    processes: list[subprocess.Popen[bytes]]
    address: str = ""

    def start(self, node: str, *options: str) -> None:
        command: list[str | Path] = [BIN / "ray", "start", "--block", "--num-cpus=1"]
        (agent,) = free_ports(1, node)
        command += [f"--node-ip-address={node}", f"--dashboard-agent-listen-port={agent}"]
        with (self.folder / f"{node}.log").open("wb") as log:
            started = subprocess.Popen(
                [*command, *options],
                env=self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(started)
        wait_for(lambda: started.poll() is None and listens(node, agent), node)

    def submit(self, folder: Path, *command: object, modules: tuple[Path, ...] = ()) -> Done:
        """Submit a job with `folder` as its working directory, and modules of the user's."""
        words: list[object] = [BIN / "ray", "job", "submit", "--working-dir", "."]
        if modules:
            environment = {"py_modules": [str(module) for module in modules]}
            words += ["--runtime-env-json", json.dumps(environment)]
        return call([*words, "--", *command], self.variables, folder)


def free_ports(count: int, address: str) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind((address, 0))
        return [each.getsockname()[1] for each in found]


def listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


def copy(package: str, to: Path) -> Path:
    source = find_folder(package)
    assert source is not None
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def install(folder: Path, mark: str) -> Path:
    """Packages as a wheel leaves them, side by side, but different from all others."""
    for name in PACKAGES:
        init = copy(name, folder / name) / "__init__.py"
        init.write_text(f"{init.read_text()}# {mark}\n")
    return folder


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts of the clone's code leave what they ran."""
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, seen: Path) -> Path:
    """A clone with a change that no installed copy has."""
    folder = tmp_path_factory.mktemp("clone")
    copy("regroup", folder / "regroup")
    for name in PACKAGES[1:]:
        copy(name, folder / name.removeprefix("regroup_") / name)
    for program in (ROOT / "pipelines").glob("*.py"):
        shutil.copy(program, folder / "pipelines")
    attempts = folder / "cluster" / "regroup_cluster" / "dispatch" / "attempt.py"
    attempts.write_text(attempts.read_text() + TELL.replace("FOLDER", repr(str(seen))))
    return folder


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    gcs, dashboard, client = free_ports(3, HEAD)
    variables = environment(folder / "home") | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(install(folder / "installed", "on the nodes")),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    found = Machines(variables, folder, [], f"{HEAD}:{gcs}")
    # Ray's sockets lie below: their paths must be short. A job's driver joins the Ray that was last
    # started in the head's folder.
    short = [tempfile.mkdtemp(prefix="n") for _ in (HEAD, SECOND)]
    try:
        head = ("--head", f"--port={gcs}", f"--ray-client-server-port={client}")
        shown = ("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}")
        found.start(HEAD, *head, *shown, f"--temp-dir={short[0]}")
        found.start(SECOND, f"--address={found.address}", f"--temp-dir={short[1]}")
        yield found
    finally:
        for each in reversed(found.processes):
            send(family(each.pid), signal.SIGKILL)
            each.wait(20)
        for each_folder in short:
            shutil.rmtree(each_folder, ignore_errors=True)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a machine whose version is not that of the nodes."""
    return install(tmp_path_factory.mktemp("elsewhere"), "on the driver's machine")


@pytest.fixture(scope="module")
def options(weights: Path) -> tuple[object, ...]:
    model = ("--model", "digits-cnn", "--weights", weights, "--per-class", 10)
    return (*model, "--dataset", "digits:val", "--block-rows", 20)


def shipped(clone: Path, seen: Path, *, own: bool) -> set[str]:
    """The nodes that made attempts, which all had the clone's code and data; forget them."""
    told = {path.name: json.loads(path.read_text()) for path in seen.glob("*-*")}
    folders = {name: clone / name.removeprefix("regroup_") / name for name in PACKAGES[1:]}
    folders["regroup"] = clone / "regroup"
    digests = {name: digest(folder) for name, folder in folders.items()}
    assert all(code == {**digests, "data": True, "own": own} for code in told.values())
    assert len([name for name in told if "-extract-" in name]) > 1
    for name in told:
        (seen / name).unlink()
    return {name.split("-")[0] for name in told}


def test_a_job_runs_its_clones_code_on_every_node(
    machines: Machines, clone: Path, seen: Path, options: tuple[object, ...], tmp_path: Path
) -> None:
    (seen / "wanted").write_text("2")
    program = ("python", "pipelines/build_bank.py", *options, "--store", tmp_path / "store")
    (tmp_path / "own_module").mkdir()
    (tmp_path / "own_module" / "__init__.py").touch()
    done = machines.submit(clone, *program, modules=(tmp_path / "own_module",))
    assert done.status == 0, done.out
    assert "160 samples, 160 forward passes" in done.out
    assert shipped(clone, seen, own=True) == {HEAD, SECOND}


def test_without_a_cluster_too(
    clone: Path, seen: Path, elsewhere: Path, options: tuple[object, ...], tmp_path: Path
) -> None:
    (seen / "wanted").write_text("1")
    # Ray puts the folder that a driver was started in before what it ships.
    variables = environment(tmp_path / "home") | {"PYTHONPATH": str(elsewhere)}
    program = (sys.executable, clone / "pipelines" / "build_bank.py")
    share = ("--workers", 1, "--store", tmp_path / "store")
    done = call([*program, *options, *share], variables, elsewhere)
    assert done.status == 0, done.out
    assert len(shipped(clone, seen, own=False)) == 1


def test_workers_with_other_code_are_refused(
    machines: Machines, elsewhere: Path, options: tuple[object, ...], tmp_path: Path
) -> None:
    variables = machines.variables | {"PYTHONPATH": str(elsewhere)}
    store = ("--store", tmp_path / "store", "--address", machines.address)
    done = call([BIN / "regroup", "build-bank", *options, *store], variables, tmp_path)
    check_refusal(done, 2, machines, elsewhere)
    assert not list(tmp_path.glob("store/*/*/commits/*"))


def test_tasks_on_nodes_with_other_code_are_refused(
    machines: Machines, elsewhere: Path, tmp_path: Path
) -> None:
    variables = machines.variables | {"PYTHONPATH": str(elsewhere)}
    done = call([sys.executable, "-c", TASKS, machines.address], variables, tmp_path)
    check_refusal(done, 1, machines, elsewhere)


def check_refusal(done: Done, status: int, machines: Machines, driver: Path) -> None:
    """One sentence says what is wrong, where, and what to do."""
    assert done.status == status, done.out
    (line,) = [line for line in done.out.splitlines() if "the worker on" in line]
    installed = machines.folder / "installed" / "regroup"
    assert f"the worker on 127.0.9.{line.partition('127.0.9.')[2][0]} imports regroup" in line
    assert f"from {installed} (regroup-ray " in line
    assert f"not the code of this command, {driver / 'regroup'} " in line
    assert "install the same code on every node, or run `python pipelines/<command>.py`" in line
    assert "Traceback" not in done.out


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder, whose packages have the names of our folders."""
    folder = tmp_path / "own"
    for name in ("cluster", "pipelines", "store"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("MINE = True\n")
    (folder / "pipelines" / "network.py").write_text(NETWORK)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "both.sh").write_text(BOTH)
    return folder


DIGITS = ("--dataset", "digits:val", "--workers", 1, "--resize", 8, "--crop", 8)


def test_a_users_folder_with_packages_of_these_names(own: Path, tmp_path: Path) -> None:
    command: list[object] = [sys.executable, "script.py", "--help"]
    done = call(command, environment(tmp_path / "home"), own)
    assert done.status == 0, done.out
    assert "usage: regroup extract" in done.out


def test_it_is_a_jobs_working_directory(machines: Machines, own: Path, tmp_path: Path) -> None:
    done = machines.submit(own, "sh", "both.sh", "--store", tmp_path / "store", *DIGITS)
    assert done.status == 0, done.out
    # The script had the network run on a worker, then the command found all of it done.
    assert "599 samples, 599 forward passes" in done.out
    assert "nothing to do" in done.out


def test_two_copies_are_not_mixed(clone: Path, elsewhere: Path, tmp_path: Path) -> None:
    """As in a job whose working directory is a clone, and whose command is the installed one."""
    variables = environment(tmp_path / "home") | {"PYTHONPATH": f"{clone}:{elsewhere}"}
    check = "from regroup_cluster.code_version import check_one_source as c; c()"
    done = call([sys.executable, "-c", check], variables, tmp_path)
    (line,) = [line for line in done.out.splitlines() if "two copies" in line]
    assert f"regroup is imported from {clone / 'regroup'}, but regroup_store from " in line
    for whole in (elsewhere, f"{clone}:{clone}/store:{clone}/cluster:{clone}/pipelines"):
        variables["PYTHONPATH"] = str(whole)
        assert call([sys.executable, "-c", check], variables, tmp_path) == Done(0, "")


def test_programs_of_a_clone_are_no_modules(clone: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Nor do packages win that a .pth file or sitecustomize has imported."""
    (clone / "pipelines" / "probe.py").write_text(
        "import regroup, regroup_store.errors, importlib.util as util\n"
        "from launcher import _put_first\n"
        "_put_first()\n"
        "import regroup, regroup_store.errors\n"
        "print(regroup.__file__, regroup_store.errors.__file__)\n"
        "print(util.find_spec('build_bank'), util.find_spec('probe'), util.find_spec('store'))\n"
    )
    variables = environment(tmp_path / "home") | {"PYTHONPATH": str(elsewhere)}
    done = call([sys.executable, clone / "pipelines" / "probe.py"], variables, tmp_path)
    packages = clone / "regroup/__init__.py", clone / "store/regroup_store/errors.py"
    assert done == Done(0, f"{packages[0]} {packages[1]}\nNone None None\n")


def test_a_program_without_its_clone_says_so(tmp_path: Path) -> None:
    for name in ("launcher.py", "build_bank.py"):
        shutil.copy(ROOT / "pipelines" / name, tmp_path)
    done = call([sys.executable, "build_bank.py"], environment(tmp_path / "home"), tmp_path)
    assert done.status == 2
    assert "there is no" in done.out
    assert done.out.count("\n") == 1


def test_a_package_that_is_missing_is_named() -> None:
    assert other_code({"regroup_elsewhere": "00"}) == ("regroup_elsewhere", "", ANY)
