"""What each worker gets, validated, and how many workers a cluster can hold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Literal

from regroup_cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ray shares GPUs in ten-thousandths; 1 / 0.1 must give ten workers.
_TOLERANCE = 1e-6
# Beside a GPU all CPUs of a worker but one decode images; who needs more asks for more.
CPUS_BESIDE_GPU = 8
# Nodes join and go in minutes; a look costs milliseconds.
LOOK_AGAIN_S = 3.0


@dataclass(frozen=True)
class WorkerResources:
    """What the user asks for.

    Attributes:
        workers: how many; "auto": as many as the cluster can hold, also when it changes.
        cpus: CPUs, and so threads, of each worker; None: one, and with a GPU its part of the
            node's CPUs, at most `CPUS_BESIDE_GPU`.
        gpus: GPU share of each worker; None: one if the cluster has GPUs, else none.

    Raises:
        ClusterUsageError: a number that cannot be meant.
    """

    workers: int | Literal["auto"] = "auto"
    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.workers != "auto" and self.workers < 1:
            raise ClusterUsageError(f"workers is {self.workers}: at least one is needed")
        if self.cpus is not None:
            _check_cpus(self.cpus)
        if self.gpus is not None:
            _check_gpus(self.gpus)


def _check_cpus(cpus: float) -> None:
    if not 0 < cpus < float("inf"):
        raise ClusterUsageError(f"{cpus:g} CPUs per worker: the share must be above zero")
    if cpus > 1 and cpus % 1:
        raise ClusterUsageError(
            f"{cpus:g} CPUs per worker: Ray shares CPUs as a fraction below one or as a whole "
            "number"
        )


def _check_gpus(gpus: float) -> None:
    if not 0 <= gpus < float("inf"):
        raise ClusterUsageError(f"{gpus:g} GPUs per worker: the share cannot be negative")
    if gpus > 1 and gpus % 1:
        raise ClusterUsageError(
            f"{gpus:g} GPUs per worker: Ray shares GPUs as a fraction below one or as a whole "
            "number"
        )


@dataclass(frozen=True)
class ResolvedResources:
    """What a cluster will give.

    Attributes:
        workers: how many; of an automatic number what fits now.
        cpus: CPUs of each.
        gpus: GPU share of each.
        auto: whether their number follows the cluster.
    """

    workers: int
    cpus: float
    gpus: float
    auto: bool = False

    def describe(self) -> str:
        """The share of one worker in words, such as "2 CPUs and 1 GPU"."""
        cpus = f"{self.cpus:g} CPU" + ("s" if self.cpus != 1 else "")
        gpus = f" and {self.gpus:g} GPU" + ("s" if self.gpus > 1 else "")
        return cpus + (gpus if self.gpus else "")

    def thread_environment(self) -> dict[str, str]:
        """Environment variables that hold a worker's libraries to its own CPUs."""
        threads = str(max(1, floor(self.cpus)))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict.fromkeys(names, threads)


def resolve(wanted: WorkerResources, nodes: Sequence[Mapping[str, float]]) -> ResolvedResources:
    """Fit `wanted` to a cluster whose living nodes hold `nodes` ("CPU", "GPU" -> amount).

    "auto" is one per GPU share where there are GPUs, else one per CPU share. More workers than fit
    is allowed: nodes may join later.

    Raises:
        ClusterUsageError: no node can hold even one such worker.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) > 0]
    gpus = wanted.gpus if wanted.gpus is not None else float(bool(gpu_nodes))
    if gpus and not gpu_nodes:
        raise ClusterUsageError(
            f"{gpus:g} GPUs per worker: the cluster has no GPU; leave the option out to run on CPUs"
        )
    cpus = _cpus_beside(gpus, gpu_nodes) if wanted.cpus is None else wanted.cpus
    room = sum(_room(node, cpus, gpus) for node in nodes)
    auto = wanted.workers == "auto"
    share = ResolvedResources(
        room if wanted.workers == "auto" else wanted.workers, cpus, gpus, auto
    )
    if not room:
        raise ClusterUsageError(
            f"{share.describe()} per worker: no node of the cluster has that much (the largest has "
            f"{_largest(nodes, 'CPU'):g} CPUs, {_largest(nodes, 'GPU'):g} GPUs); ask for less"
        )
    return share


def _cpus_beside(gpus: float, gpu_nodes: Sequence[Mapping[str, float]]) -> float:
    """CPUs that every worker with `gpus` can have without leaving a GPU idle."""
    holders = [node for node in gpu_nodes if gpus and node["GPU"] >= gpus and node.get("CPU", 0)]
    if not holders:
        return 1
    parts = [node["CPU"] * gpus / node["GPU"] for node in holders]
    part = min(CPUS_BESIDE_GPU, *parts)
    # Ray's CPUs are whole, or ten-thousandths of one.
    return float(floor(part)) if part >= 1 else floor(part * 1e4) / 1e4


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    fits = floor(node.get("CPU", 0) / cpus + _TOLERANCE)
    return min(fits, floor(node.get("GPU", 0) / gpus + _TOLERANCE)) if gpus else fits


def _largest(nodes: Sequence[Mapping[str, float]], name: str) -> float:
    return max((node.get(name, 0) for node in nodes), default=0)


def resolve_on_cluster(wanted: WorkerResources) -> ResolvedResources:
    """Fit `wanted` to the Ray that this process is connected to; raises as `resolve`."""
    return resolve(wanted, list(_living_nodes().values()))


def _living_nodes() -> dict[str, Mapping[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


class Room:
    """Where the workers of one share may run; looked up again every `LOOK_AGAIN_S` seconds.

    Attributes:
        share: what each worker gets.
    """

    def __init__(self, share: ResolvedResources) -> None:
        self.share = share
        self._places: dict[str, int] = {}
        self._looked = -LOOK_AGAIN_S

    def places(self) -> dict[str, int]:
        """Id of each living node -> how many workers it holds, other users' not counted."""
        if time.monotonic() - self._looked >= LOOK_AGAIN_S:
            cpus, gpus = self.share.cpus, self.share.gpus
            nodes = _living_nodes()
            self._places = {name: _room(node, cpus, gpus) for name, node in nodes.items()}
            self._looked = time.monotonic()
        return self._places

    def workers(self) -> int:
        """How many there should be: the number asked for, or as many as there are places.

        At least one: where all nodes went, one worker waits for a place, up to its deadline.
        """
        return max(1, sum(self.places().values())) if self.share.auto else self.share.workers
