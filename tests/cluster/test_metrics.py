"""Prometheus metrics, scraped from where Ray exports them; and no noise where it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

# Four blocks (one is tried twice, one fails for good), in a process with a Ray of its own.
PROGRAM = """
import sys, time, urllib.request
import ray
from regroup_cluster.dispatch.blocks import BlockOutcome, BlockWork, RetryPolicy
from regroup_cluster.dispatch.task_slots import dispatch_as_tasks
from regroup_cluster.dispatch.metrics import MetricsProgress
from regroup_cluster.resources import WorkerResources
from regroup_cluster.session import SessionConfig, ray_session

class Work(BlockWork):
    def open(self):
        return self

    def process(self, block, clock):
        if block == 3:
            raise ValueError("bad luck")
        clock._started = time.perf_counter() - 0.5
        clock.phases.update(read=0.25, write=2.0)
        return BlockOutcome(True, 10, block)

def scrape(node):
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()

def whole(text):
    lines = [line.partition("{")[::2] for line in text.splitlines()]
    last = {name.removeprefix("ray_regroup_"): rest.rpartition(" ")[2] for name, rest in lines}
    return last.get("blocks_total") == last.get("block_seconds_count") == "3.0" and (
        {"failed_blocks_total", "retries_total", "phase_seconds_total"} <= set(last))

with ray_session(SessionConfig(num_cpus=1)):
    policy, step = RetryPolicy(attempts=2), MetricsProgress("extract digits")
    dispatch_as_tasks(Work(), range(4), WorkerResources(), policy, step)
    if "scrape" in sys.argv:
        (node,), deadline = ray.nodes(), time.monotonic() + 60
        while not whole(text := scrape(node)):  # Ray exports one metric after the other.
            assert time.monotonic() < deadline, text
            time.sleep(0.5)
        print("\\n".join(line for line in text.splitlines() if line.startswith("ray_regroup_")))
"""


def run(home: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *args],
        env={**kept, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", **environment},
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip


def test_counters_and_histograms_are_exported(tmp_path: Path) -> None:
    text = run(tmp_path, "scrape", RAY_metrics_report_interval_ms="500").stdout
    found = {}
    for line in text.splitlines():
        tags = dict(re.findall(r'(\w+)="([^"]*)"', line))
        name, value = line.partition("{")[0], float(line.rpartition(" ")[2])
        assert (tags["kind"], tags["step"]) == ("extract", "extract digits")
        found[name, tags.get("phase") or tags.get("le", "")] = value
    assert found["ray_regroup_blocks_total", ""] == 3
    assert found["ray_regroup_samples_total", ""] == 30
    assert found["ray_regroup_failed_samples_total", ""] == 3
    assert found["ray_regroup_retries_total", ""] == 1
    assert found["ray_regroup_failed_blocks_total", ""] == 1
    assert found["ray_regroup_phase_seconds_total", "read"] == 0.75
    assert found["ray_regroup_phase_seconds_total", "write"] == 6
    assert found["ray_regroup_block_seconds_count", ""] == 3
    assert found["ray_regroup_block_seconds_bucket", "0.3"] == 0
    assert found["ray_regroup_block_seconds_bucket", "1.0"] == 3


def test_without_an_agent_they_are_silent(tmp_path: Path) -> None:
    done = run(tmp_path, RAY_enable_metrics_collection="false")
    assert (done.stdout, done.stderr) == ("", "")
