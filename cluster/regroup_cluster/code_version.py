"""Which code a process runs, so that driver and workers never run different versions.

The version number of a development state stays the same from commit to commit, so versions are
compared by a digest of the packages' sources. A driver that was started from a clone ships its
packages; any other expects the nodes to have the same ones installed.

`other_code` and what it calls also run, sent whole, in workers that have other code or none of ours
(`regroup_cluster.dispatch.worker_host`): they use the standard library alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from functools import cache
from hashlib import blake2b
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the order of their dependence: each imports only those before it.
PACKAGES = ("regroup", "regroup_store", "regroup_cluster", "regroup_pipelines")

# Of a worker: a package, the folder ("": none) and the release ("": none) that it has of it.
OtherCode = tuple[str, str, str]

_shipped: tuple[Path, ...] = ()


def ship(folders: tuple[Path, ...]) -> None:
    """Have the sessions of this process send the packages in `folders` to their workers."""
    global _shipped
    _shipped = folders


def shipped_folders() -> tuple[Path, ...]:
    """The packages that `ship` named; none where the nodes' own are to be used."""
    return _shipped


@cache
def code_digests() -> dict[str, str]:
    """Package -> digest of its sources, "" where there is none; of this process, read once."""
    return {name: digest(find_folder(name)) for name in PACKAGES}


def check_one_source() -> None:
    """Refuse packages that belong to different copies of the project.

    Such a mixture is what a working directory gives that holds one of them.

    Raises:
        ClusterUsageError: not all were found in one clone, or in one folder of installed packages.
    """
    folders = {name: folder for name in PACKAGES if (folder := find_folder(name)) is not None}
    home = folders["regroup"].resolve().parent
    name = next((name for name in folders if home not in _homes(folders[name])), None)
    if name is not None:
        raise ClusterUsageError(
            f"two copies of this project are mixed: regroup is imported from "
            f"{folders['regroup']}, but {name} from {folders[name]}: start the command in another "
            "folder (or submit another as --working-dir), or run a clone's own code with `python "
            "pipelines/<command>.py`"
        )


def _homes(folder: Path) -> list[Path]:
    """Where the package `regroup` lies that belongs to the one in `folder`.

    Beside it where both are installed; a clone keeps regroup_store in store/, and so on.
    """
    above = folder.resolve().parent
    in_clone = f"regroup_{above.name}" == folder.name
    return [above, above.parent] if in_clone else [above]


def refusal(other: OtherCode, place: str) -> str:
    """Why a worker at `place` is refused that has `other` code, and what to do, in one sentence."""
    name, folder, release = other
    ours = find_folder(name)
    if folder == str(ours):
        return (
            f"the worker on {place} has other sources of {name} in {folder} than this command "
            f"began with: they were edited meanwhile, or differ per node: {_advice(same=True)}"
        )
    has = f"imports {name} from {folder} (regroup-ray {release})" if folder else f"lacks {name}"
    return (
        f"the worker on {place} {has}, which is not the code of this command, {ours} "
        f"(regroup-ray {installed_release()}): {_advice()}"
    )


def _advice(same: bool = False) -> str:
    """What to do; `same`: the worker's folder has the same path as ours."""
    if _shipped and not same:
        return (
            "what was shipped did not arrive complete, or something on that node (sitecustomize, a "
            ".pth file) imports the other copy first; remove that"
        )
    return (
        f"{'start the command again, ' if same else ''}install the same code on every node, or run "
        "`python pipelines/<command>.py` of a clone, which ships its code to the workers"
    )


def other_code(driver: dict[str, str]) -> OtherCode | None:
    """What this process has in place of the driver's code (`code_digests` there); None: the same.

    Of several copies on the import path the driver's is imported, wherever it stands: Ray puts the
    driver's working directory before what it shipped.
    """
    for name, wanted in driver.items():
        if name not in sys.modules:
            _import_copy(name, wanted)
        folder = find_folder(name)
        if digest(folder) != wanted:
            return name, str(folder or ""), installed_release()
    return None


def _import_copy(name: str, wanted: str) -> None:
    """Import the copy of package `name` that has the digest `wanted`, if there is one."""
    for spec in _copies(name):
        if spec.loader is not None and digest(_folder_of(spec)) == wanted:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
            return


def _copies(name: str) -> Iterator[ModuleSpec]:
    """Every package of that name that could be imported here, editable installs among them."""
    on_path = (PathFinder.find_spec(name, [entry]) for entry in sys.path)
    elsewhere = (finder.find_spec(name, None) for finder in sys.meta_path)
    for found in (on_path, elsewhere):
        yield from (spec for spec in found if spec is not None)


def find_folder(name: str) -> Path | None:
    """The folder of a package, which need not be imported; None where there is none."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else _folder_of(spec)


def _folder_of(spec: ModuleSpec) -> Path | None:
    """The folder of a package with an `__init__.py`; other folders of that name do not count."""
    return Path(spec.origin).parent if spec.origin and spec.submodule_search_locations else None


def digest(folder: Path | None) -> str:
    """A digest of the names and contents of all Python sources in `folder`; "" without one."""
    if folder is None:
        return ""
    known = blake2b(digest_size=16)
    for path in sorted(folder.rglob("*.py")):
        source = path.read_bytes()
        known.update(f"{path.relative_to(folder).as_posix()}\0{len(source)}\0".encode())
        known.update(source)
    return known.hexdigest()


def installed_release() -> str:
    """The version of the installed distribution, "" without one; a clone's own may be another."""
    try:
        return importlib.metadata.version("regroup-ray")
    except importlib.metadata.PackageNotFoundError:
        return ""
