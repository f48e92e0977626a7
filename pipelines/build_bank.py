"""Build a bank: index, extract what is missing, reduce with dask (paper, eq. 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.options import BankOptions, ClusterOptions, GapOptions, ModelOptions

if TYPE_CHECKING:
    from cluster.reduction import Selection
    from pipelines.job import Job
    from pipelines.network import Network
    from store.banks import BankSpec, BankWriter
    from store.element import BlockElement
    from store.indexes import SampleIndex


@dataclass(frozen=True, kw_only=True)
class BuildBankConfig(ClusterOptions, ModelOptions, GapOptions, BankOptions):
    """Build the class-conditional mixtures of every voter from clean training images.

    Example: regroup build-bank --store runs --dataset digits:train --model digits-cnn
    --weights digits-cnn.safetensors --per-class 50
    """

    dataset: str
    """Training images: digits:train, imagenet:train:PATH, ... (see index-dataset)."""


def build_bank(
    job: Job, network: Network, index: SampleIndex, options: BankOptions, batch: int
) -> str:
    """The ref of the bank drawn from `index`; extracts and reduces only what is missing.

    Raises:
        UsageError: the dataset lacks classes of the model.
        ConfigurationError: a class has no correctly classified sample.
    """
    from pipelines.extract import extract_index
    from store.banks import create_bank

    _check_covered(index, network)
    features = extract_index(job, network, index, batch)
    started = time.perf_counter()
    step = f"bank {features.name}"
    writer = create_bank(job.store, _spec(network, index, features, options))
    if writer.finished:
        job.note(step, writer.ref, len(network.taps), started)
        return writer.ref
    selection, counts = _select(features, index, network.num_classes, options)
    _reduce(job, step, features, writer, selection, network, started)
    return writer.finish(counts.tolist())


def _spec(
    network: Network, index: SampleIndex, features: BlockElement, options: BankOptions
) -> BankSpec:
    from regroup.bank import DELTA
    from store.banks import BankSpec

    inputs = {
        "model": network.description,
        "policy": network.policy,
        "features": features.fingerprint,
        "per_class": options.per_class,
        "weighting": options.weighting,
        "seed": options.bank_seed,
        "delta": DELTA,
        **features.gap_inputs(),
    }
    return BankSpec(features.name, inputs, network.taps, index.class_names)


def _check_covered(index: SampleIndex, network: Network) -> None:
    """Refuse, before any work, a dataset without images of some class of the model."""
    if len(index.class_names) < network.num_classes:
        raise UsageError(
            f"the dataset {index.ref} has {len(index.class_names)} of the {network.num_classes} "
            f"classes of the model {network.spec.name}, and a bank needs samples of each: give "
            "--classes dataset, or a dataset with all of them"
        )


def _select(
    features: BlockElement, index: SampleIndex, num_classes: int, options: BankOptions
) -> tuple[Selection, Any]:
    """The bank's samples and how many each class has, (M,) int64."""
    import numpy as np

    from cluster.reduction import weigh
    from pipelines.samples import tables
    from regroup.bank_samples import BankSampler

    columns = ["sample_id", "label", "prediction", "confidence"]
    sampler = BankSampler(num_classes, options.per_class, options.bank_seed)
    for first_row, table in tables(features, columns):
        ids, *numbers = (table[name] for name in columns)
        sampler.update(first_row, ids.to_pylist(), *(n.to_numpy() for n in numbers))
    samples = sampler.finish(index.class_names)
    selection = weigh(samples, num_classes, options.weighting)
    return selection, np.bincount(samples.labels, minlength=num_classes)


def _reduce(
    job: Job,
    step: str,
    features: BlockElement,
    writer: BankWriter,
    selection: Selection,
    network: Network,
    started: float,
) -> None:
    from cluster.reduction import ReductionJob
    from pipelines.job import log_failures, refuse_failures
    from regroup.bank import DELTA

    taps = tuple(name for name, _ in network.taps)
    task = ReductionJob(
        store_uri=job.store.uri,
        features_ref=features.ref,
        writer=writer,
        taps=taps,
        selection=selection,
        num_classes=network.num_classes,
        delta=DELTA,
    )
    report = job.tasks(step, task, range(len(taps)), len(taps) * len(selection.rows))
    job.record(step, writer.ref, report, 0, started)
    log_failures(step, report)
    refuse_failures(step, report)


def main(config: BuildBankConfig) -> dict[str, Any]:
    """Index and extract what is missing, and build the bank."""
    from pipelines.index_dataset import index_dataset
    from pipelines.job import Job
    from pipelines.network import network_for, open_network

    network = open_network(config)
    with Job(config, allow_missing=config.allow_missing) as job:
        index = index_dataset(job, config.dataset)
        network = network_for(network, index, config.classes)
        bank = build_bank(job, network, index, config, config.batch)
        taps = [name for name, _ in network.taps]
        return {"index": index.ref, "bank": bank, "taps": taps, "steps": job.summary()}


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("build-bank")
