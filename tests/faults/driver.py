"""A driver in a process of its own, forked from one that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import ray
import torch  # noqa: F401  (preloaded)

from regroup_cluster.workers import attack as attacking  # noqa: F401  (preloaded)
from regroup_pipelines.cli import main
from regroup_pipelines.steps import attacking as attack  # noqa: F401  (preloaded)
from tests.faults.disturbed import Disturbance, disturb

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


def start_driver(disturbance: Disturbance, log: Path, *args: object) -> BaseProcess:
    """Start a command that joins the Ray of this process; its exit status is the command's."""
    address = ray.get_runtime_context().gcs_address
    command = [str(arg) for arg in (*args, "--address", address, "--json")]
    driver = _PROCESSES.Process(target=_drive, args=(command, disturbance, log, dict(os.environ)))
    driver.start()
    return driver


def _drive(
    command: list[str], disturbance: Disturbance, log: Path, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for stream, end in ((sys.stdout, ".json"), (sys.stderr, ".log")):
        file = os.open(log.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
    with pytest.MonkeyPatch.context() as patch:
        disturb(patch, disturbance)
        main(command)
