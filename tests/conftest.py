"""Environment and fixtures of the whole suite."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.regroup.own_project import OwnProject

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


# Here, not in a hook: the conftest files of the folders are imported next, and Ray, which some of
# their imports load, reads its configuration then. Keeps the user's home out of the tests.
_HOME = tempfile.mkdtemp(prefix="regroup-tests-home-")
for _name in [name for name in os.environ if name.startswith("XDG_")]:
    del os.environ[_name]
# A shell without job control ignores it for `pytest &`: nothing could be interrupted then.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update(HOME=_HOME, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token")


def pytest_configure(config: pytest.Config) -> None:
    """Remove the home of the tests at their end."""
    config.add_cleanup(lambda: shutil.rmtree(_HOME, ignore_errors=True))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository (see the marker `shared_data`)."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data is not there: no folder ../shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a digits-cnn trained here, once for all folders."""
    from regroup_pipelines.steps.demo_model import train_demo_model  # torch

    path = tmp_path_factory.mktemp("weights") / "digits-cnn.safetensors"
    train_demo_model(path, seed=0)
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnProject]:
    """A user's project with a network of its own, `mine:Net`, on Python's path."""
    from tests.regroup.own_project import OwnProject, net  # torch

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = OwnProject(tmp_path)
    project.write(net())
    yield project
    project.forget()
