"""The wheel installs four packages under names of their own, which live beside a user's folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"regroup", "regroup_store", "regroup_cluster", "regroup_pipelines"}
DATA = (
    "regroup/imagenet_names.txt",
    "regroup/imagenet_wnids.txt",
    "regroup_store/sources/imagenet_wnids.txt",
    "regroup_pipelines/schema/paper_values.toml",
    "regroup_pipelines/studies/demo.toml",
    "regroup_pipelines/report_pages/templates/base.html",
    "regroup_pipelines/report_pages/static/report.css",
    *(f"{package}/py.typed" for package in PACKAGES),
)
PROGRAM = """
import sys, pipelines, store, cluster
import regroup, regroup_cluster, regroup_pipelines.cli, regroup_store
from regroup_pipelines.schema.loading import shipped_studies
assert pipelines.MINE and store.MINE and cluster.MINE
assert "demo" in shipped_studies()
for module in (regroup, regroup_store, regroup_cluster, regroup_pipelines):
    print(module.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy without leftovers of other builds."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "tests", "demo-*", "__pycache__")
    copy = shutil.copytree(ROOT, folder / "source", ignore=ignored)
    pip(["wheel", "--no-deps", "--wheel-dir", str(folder), str(copy)])
    (found,) = folder.glob("*.whl")
    return found


def pip(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_four_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert [name for name in DATA if name not in names] == []
    modules = {str(path.relative_to(ROOT / "regroup")) for path in (ROOT / "regroup").rglob("*.py")}
    assert {f"regroup/{module}" for module in modules} <= set(names)


def test_it_lives_beside_a_users_folders_of_the_commonest_names(
    wheel: Path, tmp_path: Path
) -> None:
    installed, project = tmp_path / "installed", tmp_path / "project"
    pip(["install", "--no-deps", "--no-compile", "--target", str(installed), str(wheel)])
    for name in ("pipelines", "store", "cluster"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("MINE = True\n")
    program = project / "program.py"
    program.write_text(f"import sys; sys.path.insert(1, {str(installed)!r})\n{PROGRAM}")
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, cwd=project, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(installed)) for line in done.stdout.splitlines())


def test_the_installed_command_is_the_pipelines(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "regroup = regroup_pipelines.cli:main" in archive.read(entry).decode()
