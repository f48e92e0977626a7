"""Extract features: accumulators, logits and softmax's outcome of every image of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regroup_cluster.workers.extraction import ExtractionWork
from regroup_cluster.workers.images import AdversarialsSpec, IndexSpec
from regroup_pipelines.results.outcome_summary import outcome_summary
from regroup_pipelines.steps.bank_labels import recorded_labels
from regroup_pipelines.steps.indexing import largest_sample
from regroup_pipelines.steps.labels import labels_for, log_made_anew
from regroup_pipelines.steps.recorded_logits import recorded_of, require_same_logits
from regroup_store.format.element import BlockElement
from regroup_store.kinds.features import features_spec

if TYPE_CHECKING:
    from regroup_cluster.workers.images import ImagesSpec
    from regroup_pipelines.steps.labels import Labels
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.format.element_spec import ElementSpec
    from regroup_store.kinds.indexes import SampleIndex


def index_images(session: Session, index: SampleIndex, labels: tuple[int, ...] | None) -> IndexSpec:
    """Return where workers find the images of an index, and how they read them."""
    options = session.options
    return IndexSpec(index.ref, labels, options.decode_workers, largest_sample(options))


def index_features_spec(network: Network, index: SampleIndex, block_rows: int) -> ElementSpec:
    """Return the spec of the features of an index under `network`."""
    source = {"index": index.fingerprint}
    name, labels = f"{index.name}-{network.label}", labels_for(index, network)
    return _spec(network, name, source, {}, index.rows_count, block_rows, labels)


def extract_index(
    session: Session, network: Network, index: SampleIndex, batch: int
) -> BlockElement:
    """Extract the features of an index under `network`; computes only missing blocks."""
    spec = index_features_spec(network, index, session.options.block_rows)
    labels = labels_for(index, network)
    images = index_images(session, index, labels.classes)
    return _extract(session, network, spec, images, batch, {"labels": labels.by})


def extract_adversarials(
    session: Session, network: Network, adversarials: BlockElement, batch: int
) -> BlockElement:
    """Extract the features of adversarials under `network`, in the blocks of the adversarials."""
    source = {"adversarials": adversarials.fingerprint}
    rows, block_rows = adversarials.plan.rows, adversarials.plan.block_rows
    gaps = adversarials.gap_inputs()
    spec = _spec(network, adversarials.name, source, gaps, rows, block_rows, None)
    images = AdversarialsSpec(adversarials.ref)
    return _extract(session, network, spec, images, batch, recorded_labels(adversarials.manifest))


def _spec(
    network: Network,
    name: str,
    source: dict[str, str],
    gaps: dict[str, object],
    rows: int,
    block_rows: int,
    labels: Labels | None,
) -> ElementSpec:
    return features_spec(
        name=name,
        model=network.description,
        policy=network.policy,
        taps=network.taps,
        num_classes=network.num_classes,
        source=source,
        gaps=gaps,
        labels=labels.classes if labels else None,
        label_order=labels.by if labels and labels.forced else None,
        dtype=network.spec.compute.dtype_name,
        rows=rows,
        block_rows=block_rows,
    )


def _extract(
    session: Session,
    network: Network,
    spec: ElementSpec,
    images: ImagesSpec,
    batch: int,
    recorded: dict[str, object],
) -> BlockElement:
    log_made_anew(session.store, spec)
    element = BlockElement.create(session.store, spec, {**recorded, **recorded_of(network)})
    require_same_logits(network, element.manifest, f"features/{element.ref}")
    work = ExtractionWork(
        store_uri=session.store.uri,
        features_ref=element.ref,
        images=images,
        model=network.spec,
        policy=network.policy,
        batch=batch,
    )
    session.fill_on_actors(f"extract {spec.name}", element, work)
    session.finish(f"extract {spec.name}", element, outcome_summary)
    return element
