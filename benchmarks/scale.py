"""Scaling estimates: `python -m benchmarks.scale RESULTS.json [--ASSUMPTION VALUE]`.

From the numbers of `benchmarks.v50k --json`, and assumptions that options replace, it estimates the
time, storage and cost of V50K under twelve attacks on 1, 8 and 64 GPUs, and of the complete
training set. docs/scale.md explains it and gives the source of every assumption.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

GB, HOUR = 1e9, 3600.0
GPUS = (1, 8, 64)
IMAGE_BYTES = 3 * 224 * 224 * 4
VAL, TRAIN = 50_000, 1_281_167
# The number of such attacks among the twelve, and the most gradient steps per image of one.
ATTACKS = {
    "PGD budget, 40 steps": (4, 40),
    "PGD minimal, 40 tries of 40": (4, 1600),
    "DeepFool, 50 of 10 classes": (2, 500),
    "C&W, 5 x 1000 steps": (2, 5000),
}


@dataclass(frozen=True)
class Assumptions:
    """Quantities that the rehearsal did not measure."""

    forward: float = 3300.0
    """Images per second and GPU, forward with accumulation, float32 without TF32."""
    gradient: float = 1600.0
    """Gradient steps per second and GPU: forward, and backward to the image."""
    gpu_hour: float = 4.0
    """Price of a GPU with its CPUs, in $ per hour."""
    cores: float = 16.0
    """CPU cores beside a GPU, each as fast as one of the rehearsal."""
    correct: float = 0.80
    """Share of the images that are classified correctly and therefore attacked."""
    gb_month: float = 0.023
    """Price of storage, in $ per GB and month."""
    put: float = 5e-6
    """Price of a PUT, in $."""
    attack_rows: float = 256.0
    """Samples per block of an attack."""


@dataclass(frozen=True)
class Measured:
    """Measurements of the rehearsal with one policy, per sample or per process."""

    policy: str
    sample_bytes: float
    stored_bytes: float
    write_bytes_s: float
    read_bytes_s: float
    verify_bytes_s: float
    bank_bytes_s: float
    score_core_s: float
    objects: float

    @classmethod
    def of(cls, run: dict[str, Any]) -> Measured:
        """Read a run of the JSON; speeds are those of one process or core."""
        steps = {step["name"]: step for step in run["steps"]}
        samples, workers = run["samples"], run["workers"]
        write = steps["write bank features"]

        def speed(name: str, processes: int) -> float:
            """Return the bytes per second of one process in a step."""
            return float(steps[name]["data_bytes"] / steps[name]["counted"] / processes)

        return cls(
            policy=run["policy"],
            sample_bytes=write["data_bytes"] / samples,
            stored_bytes=write["stored_bytes"] / samples,
            write_bytes_s=speed("write bank features", workers),
            read_bytes_s=speed("read", workers),
            verify_bytes_s=speed("verify, 1 process", 1),
            bank_bytes_s=speed("build bank", workers),
            score_core_s=steps["score, every k"]["counted"] * workers / samples,
            # Per block: one chunk per tap, the logits, the samples' part, the commit record.
            objects=(len(run["taps"]) + 3) / run["block_rows"],
        )


def table(runs: Sequence[dict[str, Any]], assumed: Assumptions | None = None) -> str:
    """Return the tables of docs/scale.md as text."""
    given = assumed or Assumptions()
    return "\n".join([*_attacks(given), *(line for r in runs for line in _store(r, given))])


def _attacks(a: Assumptions) -> list[str]:
    """Return the hours and $ of each attack and of all twelve."""
    lines = [f"{'one attack on V50K':30} {'gradient steps':>14} " + _heads("h") + f"{'$':>8}"]
    total = 0.0
    for name, (count, steps) in ATTACKS.items():
        alone = VAL * a.correct * steps / a.gradient / HOUR
        total += count * alone
        lines.append(f"{count} x {name:26} {steps:14} {_hours(alone, a)}{alone * a.gpu_hour:8.0f}")
    lines.append(f"{'all twelve':30} {'':14} {_hours(total, a)}{total * a.gpu_hour:8.0f}")
    blocks = ceil(VAL * a.correct / a.attack_rows)
    rounds = {gpus: ceil(blocks / gpus) for gpus in GPUS}
    busy = ", ".join(f"{100 * blocks / (n * gpus):.0f} % of {gpus}" for gpus, n in rounds.items())
    lines.append(f"{blocks} blocks per attack keep busy: {busy}")
    return lines


def _heads(unit: str) -> str:
    return "".join(f"{f'{unit} on {gpus}':>9} " for gpus in GPUS)


def _hours(alone: float, a: Assumptions) -> str:
    """Return the hours on each number of GPUs; GPUs may be idle in the last round of blocks."""
    blocks = ceil(VAL * a.correct / a.attack_rows)
    return "".join(f"{alone * ceil(blocks / gpus) / blocks:9.2f} " for gpus in GPUS)


def _store(run: dict[str, Any], a: Assumptions) -> list[str]:
    """Return time, storage and cost of everything except the attacks, with one tap policy."""
    m, attacked = Measured.of(run), sum(n for n, _ in ATTACKS.values()) * VAL * a.correct
    samples = 2 * VAL + attacked
    stored, images = samples * m.stored_bytes / GB, attacked * IMAGE_BYTES / GB
    objects = samples * m.objects + attacked * 3 / a.attack_rows
    needed = a.forward * m.sample_bytes / m.write_bytes_s
    lines = {
        "features per sample, kB raw": m.sample_bytes / 1e3,
        "features per sample, kB stored": m.stored_bytes / 1e3,
        "samples extracted": samples,
        "features stored, GB": stored,
        "adversarials, GB": images,
        "objects": objects,
        "their PUTs, $": objects * a.put,
        "storage per month, $": (stored + images) * a.gb_month,
        "processes that write as fast as one GPU extracts": needed,
        "training set: features stored, GB": TRAIN * m.stored_bytes / GB,
        "training set: storage per month, $": TRAIN * m.stored_bytes / GB * a.gb_month,
        "training set: objects": TRAIN * m.objects,
        "training set: verify in one process, min": TRAIN * m.sample_bytes / m.verify_bytes_s / 60,
    }
    head = [f"\n{m.policy}, whatever the number of GPUs"]
    return head + [f"{name:50} {value:12,.1f}" for name, value in lines.items()] + _times(m, a)


def _times(m: Measured, a: Assumptions) -> list[str]:
    attacked = sum(n for n, _ in ATTACKS.values()) * VAL * a.correct
    samples = 2 * VAL + attacked
    per_gpu = {
        "extract clean and attacked, GPU": samples / a.forward,
        "write their features, CPU": samples * m.sample_bytes / m.write_bytes_s / a.cores,
        "bank, CPU": VAL * m.sample_bytes / m.bank_bytes_s / a.cores,
        "score every k, CPU": (VAL + attacked) * m.score_core_s / a.cores,
        "training set: extract, GPU": TRAIN / a.forward,
        "training set: write, CPU": TRAIN * m.sample_bytes / m.write_bytes_s / a.cores,
        "training set: read for a bank, CPU": TRAIN * m.sample_bytes / m.bank_bytes_s / a.cores,
    }
    head = f"{m.policy + ', minutes':50} {_heads('min')}{'$':>8}"
    rows = [
        f"{name:50} "
        + "".join(f"{seconds / 60 / gpus:9.1f} " for gpus in GPUS)
        + f"{seconds / HOUR * a.gpu_hour:8.2f}"
        for name, seconds in per_gpu.items()
    ]
    return [head, *rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("results", type=Path, help="the JSON of benchmarks.v50k")
    for field in fields(Assumptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=float, default=field.default)
    options = vars(parser.parse_args(arguments))
    runs = json.loads(options.pop("results").read_text())
    print(table(runs, Assumptions(**options)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
