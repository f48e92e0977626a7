"""A Ray session: a private local Ray by default, or a cluster that the user names.

Importing this module does not import ray, so that the commands start quickly.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regroup_cluster.code_version import check_one_source, shipped_folders
from regroup_cluster.errors import ClusterError, ClusterUsageError
from regroup_cluster.head_watch import watched_head
from regroup_cluster.printable import printable
from regroup_cluster.session_folder import session_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = (LOOPBACK, "localhost", "::1")
CLIENT_PORT = 10001
# Of a reason of Ray's, which may hold pages of its logs.
SENTENCE_CHARACTERS = 300
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class SessionConfig:
    """Which Ray to use.

    Attributes:
        address: "auto", "host:port" or "ray://host:port" joins that cluster; None joins the one
            that RAY_ADDRESS names (as inside `ray job submit`), else starts Ray on this machine.
        num_cpus: CPUs of a Ray started here; None takes what the machine has.
        ships: folders of packages that the workers run, in place of what their nodes have
            installed; by default those of the clone whose launcher was started, else none.
    """

    address: str | None = None
    num_cpus: int | None = None
    ships: tuple[Path, ...] = field(default_factory=shipped_folders)


def say(sentence: str) -> int:
    """Print a sentence on standard error; return the status of a failure."""
    print(printable(sentence), file=sys.stderr, flush=True)
    return 1


@contextmanager
def ray_session(config: SessionConfig, on_loss: Callable[[str], int] = say) -> Iterator[None]:
    """Start or join Ray for the duration of the context; one that is already in use stays running.

    Args:
        config: which Ray.
        on_loss: called, in another thread, with a sentence where Ray's head is lost meanwhile; the
            process is ended then, with the status that this returns.

    Raises:
        ClusterUsageError: no cluster answers at the address, the token is missing or wrong, or
            `num_cpus` is given for an existing cluster, or two copies of our packages are mixed in
            this process.
        ClusterError: Ray does not start, or fails.
    """
    _prepare_environment()
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    check_one_source()
    _send_messages_to_stderr()
    _connect(address, config)
    try:
        with watched_head(address, on_loss):
            yield
    except RayError as error:
        raise ClusterError(
            f"Ray failed ({_one_line(error)}): what was committed is kept: run the same command "
            "again"
        ) from error
    finally:
        ray.shutdown()


def _prepare_environment() -> None:
    """Turn token authentication on and usage statistics off, unless the user decided otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it Ray warns at every start that it will stop hiding GPUs from CPU-only workers.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:
        # Ray read its configuration when it was imported: read it again, as Ray itself does.
        from ray._raylet import Config  # type: ignore[attr-defined]

        Config.initialize("")


def _send_messages_to_stderr() -> None:
    """Send the cluster's messages (a worker died) to standard error, the first line of each.

    Ray prints them on standard output, where our JSON goes, with pages of its logs, and no option
    turns that off, not even `log_to_driver=False`.
    """
    from ray._private import worker

    worker.print_to_stdstream = _say_message


def _say_message(data: Any, ignore_prefix: bool = False) -> None:  # noqa: ARG001 - Ray's
    line = _one_line(" ".join(str(each) for each in data["lines"]).partition("\n")[0])
    say(printable(f"Ray: {line}"))


def _connect(address: str, config: SessionConfig) -> None:
    num_cpus = config.num_cpus
    # Until Ray runs, its errors are told in our sentence alone.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    quiet |= _shipment(config.ships)
    if address == "local":
        if os.environ["RAY_AUTH_MODE"] == "token":
            _ensure_token()
        here = {"_node_ip_address": LOOPBACK, "include_dashboard": False}
        with _loopback_kept():
            _init(address, num_cpus=num_cpus, _temp_dir=str(session_folder()), **here, **quiet)
        return
    if num_cpus is not None:
        raise ClusterUsageError(
            f"num_cpus={num_cpus} cannot be set for the existing cluster at {address!r}: leave it "
            "out"
        )
    host = _probe(address)
    with _loopback_kept() if host in LOCAL_NAMES else nullcontext():
        _init(address, **quiet)


@contextmanager
def _loopback_kept() -> Iterator[None]:
    """Have Ray take 127.0.0.1 as it is: every port of a node with that address is on loopback.

    Ray replaces it by the machine's external address, and listens on all interfaces then, except
    where it does not support clusters (Windows, macOS): this switches to what it does there.
    """
    from ray._private import ray_constants

    enabled = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled


def _shipment(folders: tuple[Path, ...]) -> dict[str, Any]:
    """The option of `ray.init` by which workers get the packages in `folders`.

    Ray refuses two lists of modules, so those that the job was submitted with are named again.
    """
    if not folders:
        return {}
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    submitted = (job.get("runtime_env") or {}).get("py_modules", [])
    if submitted:
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    return {"runtime_env": {"py_modules": [*map(str, folders), *submitted]}}


def _init(address: str, **options: Any) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **options)
        logging.getLogger("ray").setLevel(logging.WARNING)
        _restore(handler)
    except AuthenticationError as error:
        raise ClusterUsageError(
            f"the Ray cluster at {address!r} refused the token: put the cluster's token into "
            "~/.ray/auth_token or RAY_AUTH_TOKEN, or set RAY_AUTH_MODE=disabled if that cluster "
            "runs without tokens"
        ) from error
    except Exception as error:  # Ray raises bare ones, where its processes do not answer in time
        _restore(handler)
        raise (_start_error if address == "local" else _join_error)(address, error) from error


def _start_error(address: str, error: Exception) -> Exception:  # noqa: ARG001
    """Why Ray did not start here; a failure, unless Ray refused what it was told."""
    kind = ClusterUsageError if isinstance(error, ValueError) else ClusterError
    return kind(
        f"Ray could not be started on this machine ({_one_line(error)}): check the free memory, "
        "the limits of `ulimit -a` and the load, and try again, or join a running cluster with "
        "--address"
    )


def _join_error(address: str, error: Exception) -> Exception:
    return ClusterUsageError(
        f"the Ray cluster at {address!r} could not be joined ({_one_line(error)}): check the "
        "address (--address, RAY_ADDRESS), that the cluster runs, and that ~/.ray/auth_token or "
        "RAY_AUTH_TOKEN holds its token"
    )


def _restore(handler: Any) -> None:
    """Restore the program's SIGTERM handler: Ray's own prints a stack trace, and may abort."""
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _probe(address: str) -> str:
    """Return the host; refuse one where nothing listens: Ray would retry for a minute or abort."""
    if address == "auto":
        return ""
    host, port = _split(address)
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
        return host
    except OSError as error:
        raise ClusterUsageError(
            f"no Ray cluster answers at {address!r} ({_one_line(error)}): check the address "
            "(--address, RAY_ADDRESS) and that the cluster runs"
        ) from error


def _split(address: str) -> tuple[str, int]:
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if scheme == "ray" and not port:
        port = str(CLIENT_PORT)
    if scheme not in ("", "ray") or not host or not port.isdecimal() or int(port) > 65535:
        raise ClusterUsageError(
            f"{address!r} is not a Ray address: use auto, host:port or ray://host:port"
        )
    return host.strip("[]"), int(port)


def _ensure_token() -> None:
    """Create ~/.ray/auth_token as Ray would, but readable by its owner only."""
    path = Path.home() / ".ray" / "auth_token"
    known = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if known or path.exists():
        return
    draft = path.with_name(f"auth_token.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(0o600)
        draft.write_text(secrets.token_hex(32))
        _link(draft, path)
    except OSError as error:
        raise ClusterUsageError(
            f"the token of the local Ray cannot be written ({_one_line(error)}): make {path} "
            "writable, or put a token into RAY_AUTH_TOKEN"
        ) from error


def _link(draft: Path, path: Path) -> None:
    """Publish `draft` as `path` unless another process was first, and remove the draft."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _one_line(error: BaseException | str) -> str:
    """Return what an error says on one line; of a traceback in it the last line alone."""
    said, found, trace = _TERMINAL_CODES.sub("", str(error)).strip().partition("Traceback (most")
    text = " ".join(f"{said} {trace.splitlines()[-1] if found else ''}".split())
    return text[:SENTENCE_CHARACTERS].rstrip(".") or type(error).__name__
