"""Environment and fixtures of the whole suite."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's home out of the tests; before collection, since imports read these too."""
    home = tempfile.mkdtemp(prefix="regroup-tests-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ.update(HOME=home, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository (see the marker `shared_data`)."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data is not there: no folder ../shared/data beside the repository")
    return SHARED_DATA
