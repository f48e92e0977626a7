"""A local Ray for all tests of the folder, with a home of its own for the token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.session import SessionConfig, ray_session


@pytest.fixture(scope="session")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that the session's Ray keeps its token in."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="package")
def local_ray(ray_home: Path) -> Iterator[None]:
    """A Ray on two CPUs of this machine, shared by all tests of the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(ray_home))
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        with ray_session(SessionConfig(num_cpus=2)):
            yield
