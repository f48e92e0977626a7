"""Environment and fixtures of the whole suite."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Folders whose tests start Rays and servers: on ports that another's may take meanwhile, and some
# against the clock. They run one after the other, in one process.
ONE_BY_ONE = ("benchmarks", "cluster", "faults", "objectstore", "pipelines")
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's home out of the tests; before collection, since imports read these too."""
    home = tempfile.mkdtemp(prefix="regroup-tests-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ.update(HOME=home, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run in several processes, keep those that start Rays in one."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            path = item.path.relative_to(Path(__file__).parent)
            group = "ray" if path.parts[0] in ONE_BY_ONE else path.as_posix()
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository (see the marker `shared_data`)."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data is not there: no folder ../shared/data beside the repository")
    return SHARED_DATA
