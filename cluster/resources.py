"""What each worker gets, validated, and how many workers a cluster can hold."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

from cluster.errors import ClusterUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ray shares GPUs in ten-thousandths; 1 / 0.1 must give ten workers.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class WorkerResources:
    """What the user asks for.

    Attributes:
        workers: how many; None: as many as the cluster can run at once.
        cpus: CPUs, and so threads, of each worker.
        gpus: GPU share of each worker; None: one if the cluster has GPUs, else none.

    Raises:
        ClusterUsageError: a number that cannot be meant.
    """

    workers: int | None = None
    cpus: float = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ClusterUsageError(f"workers is {self.workers}: at least one is needed")
        if not 0 < self.cpus < float("inf"):
            raise ClusterUsageError(f"{self.cpus:g} CPUs per worker: the share must be above zero")
        if self.cpus > 1 and self.cpus % 1:
            raise ClusterUsageError(
                f"{self.cpus:g} CPUs per worker: Ray shares CPUs as a fraction below one or as a "
                "whole number"
            )
        if self.gpus is not None:
            _check_gpus(self.gpus)


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
    """What a cluster will give: number of workers, CPUs and GPUs of each."""

    workers: int
    cpus: float
    gpus: float

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

    Without `workers`: one per GPU share where there are GPUs, else one per CPU share. More
    workers than fit is allowed: nodes may join later.

    Raises:
        ClusterUsageError: no node can hold even one such worker.
    """
    gpu_nodes = [node for node in nodes if node.get("GPU", 0) > 0]
    gpus = wanted.gpus if wanted.gpus is not None else float(bool(gpu_nodes))
    if gpus and not gpu_nodes:
        raise ClusterUsageError(
            f"{gpus:g} GPUs per worker: the cluster has no GPU; leave the option out to run on CPUs"
        )
    room = sum(_room(node, wanted.cpus, gpus) for node in nodes)
    share = ResolvedResources(wanted.workers or room, wanted.cpus, gpus)
    if not room:
        raise ClusterUsageError(
            f"{share.describe()} per worker: no node of the cluster has that much (the largest has "
            f"{_largest(nodes, 'CPU'):g} CPUs, {_largest(nodes, 'GPU'):g} GPUs); ask for less"
        )
    return share


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    fits = floor(node.get("CPU", 0) / cpus + _TOLERANCE)
    return min(fits, floor(node.get("GPU", 0) / gpus + _TOLERANCE)) if gpus else fits


def _largest(nodes: Sequence[Mapping[str, float]], name: str) -> float:
    return max((node.get(name, 0) for node in nodes), default=0)


def resolve_on_cluster(wanted: WorkerResources) -> ResolvedResources:
    """Fit `wanted` to the Ray that this process is connected to; raises as `resolve`."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return resolve(wanted, [node["Resources"] for node in nodes if node["Alive"]])
