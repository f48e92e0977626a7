from __future__ import annotations

import re

import pytest

from regroup_cluster.errors import ClusterUsageError
from regroup_cluster.resources import ResolvedResources, WorkerResources, resolve

CPU_NODES = [{"CPU": 4.0}, {"CPU": 3.0}, {"memory": 1e9}]
GPU_NODES = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 64.0}, {"CPU": 2.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("wanted", "nodes", "expected"),
    [
        (WorkerResources(), CPU_NODES, ResolvedResources(7, 1, 0, auto=True)),
        # A share cannot span two nodes: 4 // 2 + 3 // 2, not 7 // 2.
        (WorkerResources(cpus=2), CPU_NODES, ResolvedResources(3, 2, 0, auto=True)),
        (WorkerResources(cpus=0.1), [{"CPU": 1.0}], ResolvedResources(10, 0.1, 0, auto=True)),
        (WorkerResources(cpus=1), GPU_NODES, ResolvedResources(6, 1, 1, auto=True)),
        (WorkerResources(cpus=1, gpus=0.5), GPU_NODES, ResolvedResources(10, 1, 0.5, auto=True)),
        (WorkerResources(gpus=0), GPU_NODES, ResolvedResources(74, 1, 0, auto=True)),
        (WorkerResources(gpus=2, cpus=4), GPU_NODES, ResolvedResources(2, 4, 2, auto=True)),
        # No GPU stays idle for want of CPUs: 2 CPUs beside 4 GPUs are half a CPU each.
        (WorkerResources(), GPU_NODES, ResolvedResources(8, 0.5, 1, auto=True)),
        (WorkerResources(), GPU_NODES[:2], ResolvedResources(4, 2, 1, auto=True)),
        (WorkerResources(gpus=0.5), GPU_NODES[:2], ResolvedResources(8, 1, 0.5, auto=True)),
        (WorkerResources(), [{"CPU": 1.0, "GPU": 3.0}], ResolvedResources(3, 0.3333, 1, auto=True)),
        (WorkerResources(), [{"CPU": 64.0, "GPU": 1.0}], ResolvedResources(1, 8, 1, auto=True)),
        # A node whose GPUs are too few for a share has no say.
        (
            WorkerResources(gpus=2),
            [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}],
            ResolvedResources(1, 8, 2, auto=True),
        ),
        # More than fit now: nodes may join.
        (WorkerResources(workers=9), CPU_NODES, ResolvedResources(9, 1, 0)),
    ],
)
def test_resolve(
    wanted: WorkerResources, nodes: list[dict[str, float]], expected: ResolvedResources
) -> None:
    assert resolve(wanted, nodes) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"cpus": 0}, "0 CPUs per worker"),
        ({"cpus": -2}, "-2 CPUs per worker"),
        ({"cpus": float("nan")}, "nan CPUs per worker"),
        ({"cpus": 1.5}, "1.5 CPUs per worker"),
        ({"gpus": -1}, "-1 GPUs per worker"),
        ({"gpus": 1.5}, "1.5 GPUs per worker"),
    ],
)
def test_meaningless_numbers_are_refused(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ClusterUsageError, match=re.escape(sentence)):
        WorkerResources(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "nodes", "sentence"),
    [
        (WorkerResources(cpus=5), CPU_NODES, "5 CPUs per worker: no node of the cluster"),
        (WorkerResources(gpus=1), CPU_NODES, "the cluster has no GPU"),
        (WorkerResources(gpus=8), GPU_NODES, "1 CPU and 8 GPUs per worker: no node"),
        (WorkerResources(workers=2, cpus=9, gpus=1), GPU_NODES, "9 CPUs and 1 GPU per worker"),
        (WorkerResources(), [], "no node of the cluster"),
    ],
)
def test_shares_that_fit_no_node_are_refused(
    wanted: WorkerResources, nodes: list[dict[str, float]], sentence: str
) -> None:
    with pytest.raises(ClusterUsageError, match=re.escape(sentence)):
        resolve(wanted, nodes)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, "1"), (1, "1"), (3, "3")])
def test_threads_of_a_worker_are_its_cpus(cpus: float, threads: str) -> None:
    assert ResolvedResources(1, cpus, 0).thread_environment() == {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
