"""What the programs here share: they run the code of their own clone, also on the workers.

`python pipelines/build_bank.py`, also within `ray job submit --working-dir .`, runs where another
version may be installed. So the names of the four packages, and no others, lead to this clone: a
folder on `sys.path` would offer `evaluate.py` and its neighbours under their bare names as well.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

HERE = Path(__file__).resolve().parent
CLONE = HERE.parent
FOLDERS = {
    "regroup": CLONE / "regroup",
    "regroup_store": CLONE / "store" / "regroup_store",
    "regroup_cluster": CLONE / "cluster" / "regroup_cluster",
    "regroup_pipelines": CLONE / "pipelines" / "regroup_pipelines",
}


class CloneFinder(MetaPathFinder):
    """Finds the four packages in this clone; their modules are then found as of any package."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the interface's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Where the package lies, or None for everything else."""
        folder = FOLDERS.get(fullname)
        return PathFinder.find_spec(fullname, [str(folder.parent)]) if folder else None


def launch(command: str) -> None:
    """Run `regroup COMMAND` with the program's arguments, and ship this clone's code to workers."""
    _check_clone()
    _put_first()
    _note_commit()
    from regroup_cluster.code_version import ship
    from regroup_pipelines.cli import run_command

    ship(tuple(FOLDERS.values()))
    run_command(command)


def _check_clone() -> None:
    missing = [str(folder) for folder in FOLDERS.values() if not (folder / "__init__.py").is_file()]
    if missing:
        print(
            f"{sys.argv[0]}: this program runs the code of the clone around it, and there is no "
            f"{missing[0]}: start it in a whole clone (`ray job submit --working-dir` is the "
            "clone's root), or use the installed `regroup` command",
            file=sys.stderr,
        )
        sys.exit(2)


def _note_commit() -> None:
    """Say that nothing tells which commit this clone is of: a job's copy has no .git."""
    if not (CLONE / ".git").exists() and not os.environ.get("REGROUP_COMMIT"):
        print(
            f"{sys.argv[0]}: this copy of the clone has no .git: manifests name the digests of "
            "its code, but no commit: set REGROUP_COMMIT for the job (docs/cluster.md)",
            file=sys.stderr,
        )


def _put_first() -> None:
    """Make imports of the four packages end in this clone, and none at its programs."""
    # Python puts the program's folder here, and Ray would hand it on to every worker.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    # What a .pth file or sitecustomize imported is another version's.
    for name in [name for name in sys.modules if name.partition(".")[0] in FOLDERS]:
        del sys.modules[name]
    sys.meta_path.insert(0, CloneFinder())
