"""A store on each backend."""

from pathlib import Path

import pytest

from regroup_store.format.store import Store, open_store
from tests.store.elements import memory_store


@pytest.fixture(params=["local", "object"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: in a folder, and in an object store."""
    if request.param == "object":
        return memory_store()
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return open_store(str(tmp_path / "store"), create=True)
