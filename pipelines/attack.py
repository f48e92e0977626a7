"""Attack the correctly classified samples of a dataset and keep what the attack made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.options import AttackOptions, ClusterOptions, GapOptions, ModelOptions

if TYPE_CHECKING:
    from pipelines.job import Job
    from pipelines.network import Network
    from regroup.attacks import AttackSpec
    from store.element import BlockElement
    from store.indexes import SampleIndex


@dataclass(frozen=True, kw_only=True)
class AttackConfig(ClusterOptions, ModelOptions, GapOptions, AttackOptions):
    """Attack a dataset's correctly classified images and store the adversarials.

    Example: regroup attack --store runs --dataset digits:val --model digits-cnn
    --weights digits-cnn.safetensors --protocol minimal --epsilon 4/255 --limit 200
    """

    dataset: str
    """Images to attack: digits:val, imagefolder:PATH or parquet:GLOB."""


def parse_epsilon(text: str) -> float:
    """A budget in [0, 1] pixel units from "4/255" or "0.0157"; `UsageError` otherwise."""
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--epsilon {text!r} is not a number: give a fraction such as 4/255 or a decimal"
        ) from None


def attack_spec(options: AttackOptions) -> AttackSpec:
    """The attack that the options describe."""
    from regroup.attacks import AttackSpec

    return AttackSpec(
        name=options.attack,
        epsilon=parse_epsilon(options.epsilon),
        steps=options.steps,
        protocol=options.protocol,
        growth_limit=options.growth_limit,
        bisections=options.bisections,
        seed=options.seed,
    )


def correct_samples(
    job: Job, index: SampleIndex, features: BlockElement, limit: int | None, seed: int
) -> SampleIndex:
    """The derived index of correctly classified samples, `limit` of them drawn by `seed`.

    Raises:
        UsageError: the limit is not positive, or the model gets no sample right.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} is not positive: leave it out to attack every sample")
    table = features.samples(["sample_id", "status", "label", "prediction"]).to_pydict()
    columns = (table["status"], table["label"], table["prediction"])
    correct = [
        row
        for row, (status, label, prediction) in enumerate(zip(*columns, strict=True))
        if status == "ok" and label == prediction
    ]
    if not correct:
        raise UsageError(f"the model gets no sample of {index.ref} right: nothing to attack")
    drawn = sorted(correct, key=lambda row: _draw(seed, table["sample_id"][row]))[:limit]
    selection = {
        "correct_under": features.fingerprint,
        "limit": limit,
        "seed": seed,
        **features.gap_inputs(),
    }
    return index.derive(job.store, f"{features.name}-correct", sorted(drawn), selection)


def _draw(seed: int, sample_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()


def attack_index(
    job: Job,
    network: Network,
    index: SampleIndex,
    spec: AttackSpec,
    batch: int,
) -> BlockElement:
    """Adversarials of every sample of `index` (all correct); attacks only what is missing."""
    from cluster.attacking import AttackJob
    from store.adversarials import adversarials_spec
    from store.element import BlockElement

    name = f"{index.name.removesuffix('-correct')}-{spec.name}-{spec.protocol}"
    element_spec = adversarials_spec(
        name=name,
        model=network.description,
        attack=spec.describe(),
        index_fingerprint=index.fingerprint,
        image_shape=(3, network.side, network.side),
        rows=index.rows_count,
        block_rows=job.options.block_rows,
    )
    element = BlockElement.create(job.store, element_spec, {})
    factory_on = partial(
        AttackJob,
        store_uri=job.store.uri,
        adversarials_ref=element.ref,
        index_ref=index.ref,
        model=network.spec,
        attack=spec,
        batch=batch,
    )
    job.fill(f"attack {name}", element, factory_on)
    job.finish(f"attack {name}", element, _attack_summary)
    return element


def _attack_summary(element: BlockElement) -> dict[str, Any]:
    import numpy as np

    table = element.samples(["status", "success", "linf", "l2", "queries"]).to_pydict()
    success = np.array(table["success"], bool)
    linf, l2 = (np.array(table[name], np.float64)[success] for name in ("linf", "l2"))
    return {
        "attempted": sum(status == "ok" for status in table["status"]),
        "failed": sum(status != "ok" for status in table["status"]),
        "success": int(success.sum()),
        "mean_linf": float(linf.mean()) if len(linf) else None,
        "mean_l2": float(l2.mean()) if len(l2) else None,
        "queries": int(sum(table["queries"])),
    }


def main(config: AttackConfig) -> dict[str, Any]:
    """Index and extract what is missing, attack, and summarise."""
    from pipelines.extract import extract_index
    from pipelines.index_dataset import index_dataset
    from pipelines.job import Job
    from pipelines.network import open_network

    spec = attack_spec(config)
    network = open_network(config)
    with Job(config, allow_missing=config.allow_missing) as job:
        index = index_dataset(job, config.dataset)
        features = extract_index(job, network, index, config.batch)
        subset = correct_samples(job, index, features, config.limit, config.seed)
        element = attack_index(job, network, subset, spec, config.batch)
        return {
            "attack": repr(spec),
            "adversarials": element.ref,
            **(element.summary() or {}),
            "steps": job.summary(),
        }


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("attack")
