from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import ray

from regroup_cluster.errors import ClusterError, ClusterUsageError
from regroup_cluster.session import LOOPBACK, SessionConfig, _join_error, ray_session
from tests.cluster.listening import address, family, listening

JOIN = """
    import sys
    from regroup_cluster.errors import ClusterUsageError
    from regroup_cluster.session import SessionConfig, ray_session
    for address in sys.argv[1:] or [None]:
        try:
            with ray_session(SessionConfig(address)):
                import ray
                print("joined", ray.get_runtime_context().gcs_address)
        except ClusterUsageError as error:
            print(error)
"""


def python(code: str, home: Path, *arguments: str, **extra: str) -> str:
    """Standard output of a Python process with a home of its own and no RAY_* but `extra`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), **extra}
    command = [sys.executable, "-c", dedent(code), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def gcs_address() -> str:
    return str(ray.get_runtime_context().gcs_address)


@pytest.mark.usefixtures("local_ray")
def test_a_local_ray_keeps_to_this_machine_and_asks_for_a_token(ray_home: Path) -> None:
    assert gcs_address().startswith(LOOPBACK + ":")
    token = ray_home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    assert list(token.parent.iterdir()) == [token]
    mode = ray.remote(lambda: os.environ["RAY_AUTH_MODE"])
    assert ray.get(mode.remote()) == "token"


@pytest.mark.usefixtures("local_ray")
def test_every_port_of_a_local_ray_is_on_loopback() -> None:
    """Of the driver, of Ray's services and of a worker that is at work."""
    node: Any = ray._private.worker._global_node
    services = [info.process.pid for infos in node.all_processes.values() for info in infos]
    worker = ray.get(ray.remote(lambda: os.getpid()).remote())
    ours = family(services) | {os.getpid(), worker}
    found = sorted(listening(ours))
    assert len(found) > 5, "each of driver, gcs_server, raylet, its agents and workers has some"
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    open_ones = [(name, where) for name, where in found if not where.split()[1].startswith("127.")]
    assert open_ones == []


def test_addresses_are_read_as_the_kernel_writes_them() -> None:
    assert address("0100007F:1F90") == "127.0.0.1 port 8080"
    assert address("00000000:0016") == "0.0.0.0 port 22"
    assert address("0" * 24 + "01000000:0050") == "::1 port 80"
    assert address("0" * 16 + "FFFF0000" + "0100007F:0050") == "127.0.0.1 port 80"
    assert address("0" * 32 + ":0050") == ":: port 80"


@pytest.mark.usefixtures("local_ray")
def test_nobody_else_can_read_a_sessions_folder_or_reach_its_sockets() -> None:
    node: Any = ray._private.worker._global_node
    session = Path(node.get_session_dir_path())
    sockets = [node.plasma_store_socket_name, node.raylet_socket_name]
    for path in (session, *map(Path, sockets)):
        private = [f for f in path.parents if stat.S_IMODE(f.stat().st_mode) & 0o077 == 0]
        assert private, path
        assert all(folder.stat().st_uid == os.getuid() for folder in private)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (Exception("The current node timed out during startup."), "timed out during startup"),
        (
            RuntimeError("Failed to start GCS.\n\x1b[31mLast 10 lines:\x1b[0m\nx"),
            "Last 10 lines: x",
        ),
        (RuntimeError("Traceback\n" + "line of a log\n" * 1000), "Traceback line of a log"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_ray_that_does_not_start_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", fail)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused = pytest.raises(ClusterError, match="Ray could not be started on this machine")
    with refused as told, ray_session(SessionConfig()):
        pass
    sentence = str(told.value)
    assert said in sentence
    assert len(sentence) < 700
    assert not set(sentence) & {"\n", "\x1b"}
    assert told.value.exit_status == 1


def test_an_error_of_ray_in_the_midst_of_a_run_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.init", lambda *_, **__: None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    said = r"Ray failed \(.*the raylet is gone.*\): what was committed"
    with pytest.raises(ClusterError, match=said), ray_session(SessionConfig()):
        raise ray.exceptions.RayError("the raylet\nis gone")


@pytest.mark.usefixtures("local_ray")
def test_a_running_ray_is_reused_and_left_running() -> None:
    before = gcs_address()
    with ray_session(SessionConfig()):
        assert gcs_address() == before
    assert ray.is_initialized()


@pytest.mark.usefixtures("local_ray")
def test_joining_needs_the_token(ray_home: Path, tmp_path: Path) -> None:
    address = gcs_address()
    assert python(JOIN, ray_home, address) == f"joined {address}\n"
    refused = python(JOIN, tmp_path, address)
    assert "refused the token: put the cluster's token into" in refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("local_ray")
def test_the_environment_names_the_cluster(ray_home: Path) -> None:
    address = gcs_address()
    assert python(JOIN, ray_home, RAY_ADDRESS=address) == f"joined {address}\n"
    # Ray may have been imported, and have read its configuration, before.
    late = "import ray" + JOIN.replace("\n    ", "\n")
    assert python(late, ray_home, RAY_ADDRESS=address) == f"joined {address}\n"


@pytest.mark.usefixtures("local_ray")
def test_messages_of_the_cluster_stay_off_standard_output(ray_home: Path) -> None:
    code = """
        import sys, time
        from regroup_cluster.dispatch.blocks import BlockWork, RetryPolicy
        from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
        from regroup_cluster.dispatch.progress import make_progress
        from regroup_cluster.resources import WorkerResources
        from regroup_cluster.session import SessionConfig, ray_session
        from tests.cluster.workers import crash
        class Work(BlockWork):
            def open(self):
                return self
            def process(self, block, clock):
                print("loud", flush=True)
                crash()
        with ray_session(SessionConfig(sys.argv[1])):
            progress, policy = make_progress("x", 1, 0), RetryPolicy(attempts=1)
            failures = dispatch_as_tasks(Work(), [0], WorkerResources(), policy, progress).failures
            time.sleep(1)
        print(len(failures))
    """
    assert python(code, ray_home, gcs_address()) == "1\n"


def test_bad_addresses_are_one_sentence_each(tmp_path: Path) -> None:
    addresses = ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "http://x:1", "x:99999"]
    told = python(JOIN, tmp_path, *addresses).splitlines()
    assert len(told) == len(addresses)
    for given, sentence in zip(addresses, told, strict=True):
        assert repr(given) in sentence
    assert all("no Ray cluster answers at" in sentence for sentence in told[:2])
    assert all("is not a Ray address: use auto, host:port" in sentence for sentence in told[2:])


def test_cpus_cannot_be_set_for_a_cluster_that_is_joined(tmp_path: Path) -> None:
    code = JOIN.replace("SessionConfig(address)", "SessionConfig(address, 4)")
    assert "num_cpus=4 cannot be set" in python(code, tmp_path, "127.0.0.1:1")


def test_a_token_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    told = python(JOIN, home)
    assert "the token of the local Ray cannot be written" in told
    assert told.count("\n") == 1


def test_importing_the_cluster_package_does_not_import_ray(tmp_path: Path) -> None:
    code = """
        import sys
        import regroup_cluster.dispatch.blocks, regroup_cluster.dispatch.progress
        import regroup_cluster.errors, regroup_cluster.resources
        import regroup_cluster.session
        print("ray" in sys.modules)
    """
    assert python(code, tmp_path) == "False\n"


def test_errors_carry_the_exit_status() -> None:
    assert ClusterUsageError("x").exit_status == 2


def test_of_a_traceback_in_an_error_of_rays_the_last_line_is_told() -> None:
    error = ConnectionAbortedError(
        "Initialization failure from server:\nTraceback (most recent call last):\n"
        '  File "proxier.py", line 772, in Datapath\n    raise RuntimeError(\n'
        "RuntimeError: Starting Ray client server failed. See x.err for detailed log.\n"
    )
    said = str(_join_error("ray://10.0.0.1:10001", error))
    assert said.startswith(
        "the Ray cluster at 'ray://10.0.0.1:10001' could not be joined (Initialization failure "
        "from server: RuntimeError: Starting Ray client server failed. See x.err for detailed "
        "log): check"
    )
