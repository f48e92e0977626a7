"""A local Ray for the whole test session, with a home of its own for the token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regroup_cluster.session import SessionConfig, ray_session
from tests.kept_workers import ENVIRONMENT


@pytest.fixture(scope="session")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that the session's Ray keeps its token in."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def local_ray(ray_home: Path) -> Iterator[None]:
    """A Ray on two CPUs of this machine, shared by all tests of the folder and of `faults`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(ray_home))
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with ray_session(SessionConfig(num_cpus=2)):
            yield
