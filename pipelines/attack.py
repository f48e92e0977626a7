"""Attack the correctly classified samples of a dataset and keep what the attack made."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.options import AttackOptions, ClusterOptions, GapOptions, ModelOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Images to attack: digits:val, imagenet:val:PATH, ... (see index-dataset)."""


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

    Memory: 8 bytes a correct sample, or of `limit` samples where that is given.

    Raises:
        UsageError: the limit is not positive, or the model gets no sample right.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} is not positive: leave it out to attack every sample")
    if limit is None:
        drawn = array("q", (row for row, _ in _correct(features)))
    else:
        first = nsmallest(limit, ((_draw(seed, name), row) for row, name in _correct(features)))
        drawn = array("q", sorted(row for _, row in first))
    if not drawn:
        raise UsageError(f"the model gets no sample of {index.ref} right: nothing to attack")
    selection = {
        "correct_under": features.fingerprint,
        "limit": limit,
        "seed": seed,
        **features.gap_inputs(),
    }
    return index.derive(job.store, f"{features.name}-correct", drawn, selection)


def _correct(features: BlockElement) -> Iterator[tuple[int, str]]:
    """Row and id of every correctly classified sample, in order."""
    from pipelines.samples import tables

    for first_row, table in tables(features, ["sample_id", "status", "label", "prediction"]):
        right = table["label"].to_numpy() == table["prediction"].to_numpy()
        right &= table["status"].to_numpy() == "ok"
        for row in right.nonzero()[0].tolist():
            yield first_row + row, table["sample_id"][row].as_py()


def _draw(seed: int, sample_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()


def attack_index(
    job: Job,
    network: Network,
    index: SampleIndex,
    spec: AttackSpec,
    batch: int,
) -> BlockElement:
    """Adversarials of every sample of `index` (all correct); attacks only what is missing.

    Raises:
        UsageError: the network computes in fp16.
    """
    from cluster.attacking import AttackJob
    from pipelines.network import label_map
    from store.adversarials import adversarials_spec
    from store.element import BlockElement

    check_gradients(network)
    labels = label_map(index, network)
    name = f"{index.name.removesuffix('-correct')}-{spec.name}-{spec.protocol}"
    element_spec = adversarials_spec(
        name=name,
        model=network.description,
        attack=spec.describe(),
        index_fingerprint=index.fingerprint,
        image_shape=(3, network.side, network.side),
        rows=index.rows_count,
        block_rows=job.options.block_rows,
        labels=labels,
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
        labels=labels,
        decode_workers=job.options.decode_workers,
    )
    job.fill(f"attack {name}", element, factory_on)
    job.finish(f"attack {name}", element, _attack_summary)
    return element


def check_gradients(network: Network) -> None:
    """Refuse a precision in which gradients vanish: the model would only seem robust."""
    if network.spec.compute.dtype == "fp16":
        raise UsageError(
            "--dtype fp16: gradients underflow to zero in fp16, which hides what an attack could "
            "do: attack in fp32 or bf16, then evaluate the adversarials in fp16"
        )


def _attack_summary(element: BlockElement) -> dict[str, Any]:
    from pipelines.samples import tables

    total = dict.fromkeys(("attempted", "failed", "success", "queries"), 0)
    sums = dict.fromkeys(("linf", "l2"), 0.0)
    for _, table in tables(element, ["status", "success", "linf", "l2", "queries"]):
        ok = table["status"].to_numpy() == "ok"
        success = table["success"].fill_null(False).to_numpy().astype(bool)
        total["attempted"] += int(ok.sum())
        total["failed"] += int((~ok).sum())
        total["success"] += int(success.sum())
        total["queries"] += int(table["queries"].to_numpy().sum())
        for name in sums:
            sums[name] += float(table[name].to_numpy()[success].sum(dtype="float64"))
    means = {
        f"mean_{n}": s / total["success"] if total["success"] else None for n, s in sums.items()
    }
    return {**total, **means}


def main(config: AttackConfig) -> dict[str, Any]:
    """Index and extract what is missing, attack, and summarise."""
    from pipelines.extract import extract_index
    from pipelines.index_dataset import index_dataset
    from pipelines.job import Job
    from pipelines.network import network_for, open_network

    spec = attack_spec(config)
    network = open_network(config)
    check_gradients(network)
    with Job(config, allow_missing=config.allow_missing) as job:
        index = index_dataset(job, config.dataset)
        network = network_for(network, index, config.classes)
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
