"""What the tests of commands share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipelines.conftest import FinishedDemo


@pytest.fixture
def copied(finished_demo: FinishedDemo, tmp_path: Path) -> Path:
    """A copy of the demo's store to be damaged."""
    return shutil.copytree(finished_demo.store, tmp_path / "store")
