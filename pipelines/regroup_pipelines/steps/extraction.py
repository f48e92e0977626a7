"""Extract features: the accumulators, logits and outcome of every image of a split."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from regroup_cluster.workers.extraction import ExtractionJob
from regroup_pipelines.results.blocks import tables
from regroup_pipelines.steps.network import label_map
from regroup_store.format.element import BlockElement
from regroup_store.kinds.features import features_spec

if TYPE_CHECKING:
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element import ElementSpec
    from regroup_store.kinds.indexes import SampleIndex


def index_features_spec(network: Network, index: SampleIndex, block_rows: int) -> ElementSpec:
    """What the features of an index under `network` are to be."""
    source = {"index": index.fingerprint}
    name, labels = f"{index.name}-{network.label}", label_map(index, network)
    return _spec(network, name, source, {}, index.rows_count, block_rows, labels)


def extract_index(
    session: Session, network: Network, index: SampleIndex, batch: int
) -> BlockElement:
    """Features of an index under `network`; computes only the blocks that are missing."""
    spec = index_features_spec(network, index, session.options.block_rows)
    return _extract(session, network, spec, "index", index.ref, batch, label_map(index, network))


def extract_adversarials(
    session: Session, network: Network, adversarials: BlockElement, batch: int
) -> BlockElement:
    """Features of stored adversarials under `network`, in the same blocks as the adversarials."""
    source = {"adversarials": adversarials.fingerprint}
    rows, block_rows = adversarials.plan.rows, adversarials.plan.block_rows
    gaps = adversarials.gap_inputs()
    spec = _spec(network, adversarials.name, source, gaps, rows, block_rows, None)
    return _extract(session, network, spec, "adversarials", adversarials.ref, batch, None)


def _spec(
    network: Network,
    name: str,
    source: dict[str, str],
    gaps: dict[str, object],
    rows: int,
    block_rows: int,
    labels: tuple[int, ...] | None,
) -> ElementSpec:
    return features_spec(
        name=name,
        model=network.description,
        policy=network.policy,
        taps=network.taps,
        num_classes=network.num_classes,
        source=source,
        gaps=gaps,
        labels=labels,
        dtype=network.spec.compute.dtype_name,
        rows=rows,
        block_rows=block_rows,
    )


def _extract(
    session: Session,
    network: Network,
    spec: ElementSpec,
    images_kind: str,
    images_ref: str,
    batch: int,
    labels: tuple[int, ...] | None,
) -> BlockElement:
    element = BlockElement.create(session.store, spec, {})
    factory_on = partial(
        ExtractionJob,
        store_uri=session.store.uri,
        features_ref=element.ref,
        images_kind=images_kind,
        images_ref=images_ref,
        model=network.spec,
        policy=network.policy,
        batch=batch,
        labels=labels,
        decode_workers=session.options.decode_workers,
    )
    session.fill(f"extract {spec.name}", element, factory_on)
    session.finish(f"extract {spec.name}", element, _outcome_summary)
    return element


def _outcome_summary(element: BlockElement) -> dict[str, Any]:
    counts = {"samples": 0, "failed": 0, "softmax_correct": 0}
    for _, table in tables(element, ["status", "label", "prediction"]):
        ok = table["status"].to_numpy() == "ok"
        correct = table["label"].to_numpy() == table["prediction"].to_numpy()
        counts["samples"] += len(ok)
        counts["failed"] += int((~ok).sum())
        counts["softmax_correct"] += int((ok & correct).sum())
    return counts
