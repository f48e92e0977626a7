"""Build a bank: index, extract what is missing, reduce with dask (paper, eq. 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.options import BankOptions, ClusterOptions, ModelOptions

if TYPE_CHECKING:
    from cluster.reduction import Selection
    from pipelines.job import Job
    from pipelines.network import Network
    from store.element import BlockElement
    from store.indexes import SampleIndex


@dataclass(frozen=True, kw_only=True)
class BuildBankConfig(ClusterOptions, ModelOptions, BankOptions):
    """Build the class-conditional mixtures of every voter from clean training images.

    Example: regroup build-bank --store runs --dataset digits:train --model digits-cnn
    --weights digits-cnn.safetensors --per-class 50
    """

    dataset: str
    """Training images: digits:train, imagefolder:PATH or parquet:GLOB."""


def build_bank(
    job: Job, network: Network, index: SampleIndex, options: BankOptions, batch: int
) -> str:
    """The ref of the bank drawn from `index`; extracts and reduces only what is missing.

    Raises:
        ConfigurationError: a class has no correctly classified sample.
    """
    from pipelines.extract import extract_index
    from pipelines.provenance import recorded
    from store.banks import bank_spec, create_bank

    features = extract_index(job, network, index, batch)
    started = time.perf_counter()
    step = f"bank {features.name}"
    spec = bank_spec(
        name=features.name,
        features_fingerprint=features.fingerprint,
        model=network.description,
        policy=network.policy,
        taps=network.taps,
        num_classes=network.num_classes,
        per_class=options.per_class,
        weighting=options.weighting,
        seed=options.bank_seed,
        delta=_delta(),
    )
    if (found := find_bank(job, spec)) is not None:
        job.note(step, found, 1, started)
        return found
    selection, counts = _select(features, index, network.num_classes, options)
    writer = create_bank(job.store, spec, recorded())
    _reduce(job, step, features, writer.ref, selection, network, started)
    writer.finish(counts.tolist(), list(index.class_names))
    return str(writer.ref)


def _delta() -> float:
    from regroup.bank import DELTA

    return DELTA


def find_bank(job: Job, spec: Any) -> str | None:
    """The ref of a finished bank with the fingerprint of `spec`, or None."""
    from store.banks import bank_exists

    return spec.ref if bank_exists(job.store, spec.ref) else None


def _select(
    features: BlockElement, index: SampleIndex, num_classes: int, options: BankOptions
) -> tuple[Selection, Any]:
    """The bank's samples and how many each class has, (M,) int64."""
    import numpy as np

    from cluster.reduction import weigh
    from regroup.bank import select_bank_samples

    columns = ["sample_id", "status", "label", "prediction", "confidence"]
    table = features.samples(columns).to_pydict()
    labels = np.array(table["label"], np.int64)
    rows = select_bank_samples(
        table["sample_id"],
        labels,
        np.array(table["prediction"], np.int64),
        num_classes,
        options.per_class,
        options.bank_seed,
        list(index.class_names),
    )
    confidences = np.array(table["confidence"], np.float32)
    selection = weigh(rows, labels, confidences, num_classes, options.weighting)
    return selection, np.bincount(labels[rows], minlength=num_classes)


def _reduce(
    job: Job,
    step: str,
    features: BlockElement,
    bank_ref: str,
    selection: Selection,
    network: Network,
    started: float,
) -> None:
    from cluster.reduction import ReductionJob
    from pipelines.job import refuse_failures

    taps = tuple(name for name, _ in network.taps)
    task = ReductionJob(
        store_uri=job.store.uri,
        features_ref=features.ref,
        bank_ref=bank_ref,
        taps=taps,
        selection=selection,
        num_classes=network.num_classes,
        delta=_delta(),
    )
    report = job.tasks(step, task, range(len(taps)), len(taps) * len(selection.rows))
    job.record(step, bank_ref, report, 0, started)
    refuse_failures(step, report)


def main(config: BuildBankConfig) -> dict[str, Any]:
    """Index and extract what is missing, and build the bank."""
    from pipelines.index_dataset import index_dataset
    from pipelines.job import Job
    from pipelines.network import open_network

    with Job(config) as job:
        network = open_network(config)
        index = index_dataset(job, config.dataset)
        bank = build_bank(job, network, index, config, config.batch)
        taps = [name for name, _ in network.taps]
        return {"index": index.ref, "bank": bank, "taps": taps, "steps": job.summary()}


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("build-bank")
