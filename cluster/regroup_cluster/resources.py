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
# The most CPUs that a GPU worker gets by default; all of them but one decode images.
CPUS_BESIDE_GPU = 8
# Nodes join and leave within minutes; asking Ray for them takes milliseconds.
REFRESH_S = 3.0


@dataclass(frozen=True)
class WorkerResources:
    """What the user requests.

    Attributes:
        workers: how many; "auto": as many as the cluster can hold, followed as it changes.
        cpus: CPUs, and therefore threads, per worker; None: one, or with a GPU its share of the
            node's CPUs, at most `CPUS_BESIDE_GPU`.
        gpus: GPU share per worker; None: one if the cluster has GPUs, else none.

    Raises:
        ClusterUsageError: an invalid number.
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
            f"{cpus:g} CPUs per worker: Ray shares CPUs as a fraction below one or as an integer"
        )


def _check_gpus(gpus: float) -> None:
    if not 0 <= gpus < float("inf"):
        raise ClusterUsageError(f"{gpus:g} GPUs per worker: the share cannot be negative")
    if gpus > 1 and gpus % 1:
        raise ClusterUsageError(
            f"{gpus:g} GPUs per worker: Ray shares GPUs as a fraction below one or as an integer"
        )


@dataclass(frozen=True)
class ResolvedResources:
    """What each worker gets on a cluster.

    Attributes:
        workers: how many; where the number is automatic, as many as fit now.
        cpus: CPUs per worker.
        gpus: GPU share per worker.
        auto: whether the number of workers follows the cluster.
    """

    workers: int
    cpus: float
    gpus: float
    auto: bool = False

    def describe(self) -> str:
        """Return the share of one worker in words, such as "2 CPUs and 1 GPU"."""
        cpus = f"{self.cpus:g} CPU" + ("s" if self.cpus != 1 else "")
        gpus = f" and {self.gpus:g} GPU" + ("s" if self.gpus > 1 else "")
        return cpus + (gpus if self.gpus else "")

    def thread_environment(self) -> dict[str, str]:
        """Return environment variables that limit a worker's libraries to its own CPUs."""
        threads = str(max(1, floor(self.cpus)))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return dict.fromkeys(names, threads)


def resolve(wanted: WorkerResources, nodes: Sequence[Mapping[str, float]]) -> ResolvedResources:
    """Fit `wanted` to a cluster.

    "auto" is one worker per GPU share where there are GPUs, else one per CPU share. More workers
    than fit may be requested: nodes may join later.

    Args:
        wanted: the request.
        nodes: resources of each living node, "CPU" and "GPU" -> amount.

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
    fitting = sum(_slots(node, cpus, gpus) for node in nodes)
    auto = wanted.workers == "auto"
    share = ResolvedResources(
        fitting if wanted.workers == "auto" else wanted.workers, cpus, gpus, auto
    )
    if not fitting:
        raise ClusterUsageError(
            f"{share.describe()} per worker: no node of the cluster has that much (the largest has "
            f"{_largest(nodes, 'CPU'):g} CPUs, {_largest(nodes, 'GPU'):g} GPUs); ask for less"
        )
    return share


def _cpus_beside(gpus: float, gpu_nodes: Sequence[Mapping[str, float]]) -> float:
    """Return the CPUs that every worker with `gpus` can have without leaving a GPU idle."""
    holders = [node for node in gpu_nodes if gpus and node["GPU"] >= gpus and node.get("CPU", 0)]
    if not holders:
        return 1
    parts = [node["CPU"] * gpus / node["GPU"] for node in holders]
    part = min(CPUS_BESIDE_GPU, *parts)
    # Ray counts CPUs in integers, or in ten-thousandths of one.
    return float(floor(part)) if part >= 1 else floor(part * 1e4) / 1e4


def _slots(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    fits = floor(node.get("CPU", 0) / cpus + _TOLERANCE)
    return min(fits, floor(node.get("GPU", 0) / gpus + _TOLERANCE)) if gpus else fits


def _largest(nodes: Sequence[Mapping[str, float]], name: str) -> float:
    return max((node.get(name, 0) for node in nodes), default=0)


def resolve_on_cluster(wanted: WorkerResources) -> ResolvedResources:
    """Fit `wanted` to the cluster that this process is connected to.

    Raises:
        ClusterUsageError: see `resolve`.
    """
    return resolve(wanted, list(_living_nodes().values()))


def _living_nodes() -> dict[str, Mapping[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


class Capacity:
    """How many workers of one share a cluster holds; updated every `REFRESH_S` seconds.

    Attributes:
        share: what each worker gets.
    """

    def __init__(self, share: ResolvedResources) -> None:
        self.share = share
        self._per_node: dict[str, int] = {}
        self._refreshed = -REFRESH_S

    def per_node(self) -> dict[str, int]:
        """Return id of each living node -> workers that it holds, whoever else uses it."""
        if time.monotonic() - self._refreshed >= REFRESH_S:
            cpus, gpus = self.share.cpus, self.share.gpus
            nodes = _living_nodes()
            self._per_node = {name: _slots(node, cpus, gpus) for name, node in nodes.items()}
            self._refreshed = time.monotonic()
        return self._per_node

    def workers(self) -> int:
        """Return how many workers there should be: the number requested, or as many as fit.

        At least one: where all nodes are lost, one worker waits for a node, up to its deadline.
        """
        return max(1, sum(self.per_node().values())) if self.share.auto else self.share.workers
