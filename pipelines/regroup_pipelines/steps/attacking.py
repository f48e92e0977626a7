"""Attack the correctly classified samples of a dataset and store the adversarials."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import fields, replace
from functools import cache
from heapq import nsmallest
from typing import TYPE_CHECKING

from regroup_cluster.workers.attack import AttackWork
from regroup_cluster.workers.extraction import example_pixels
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_pipelines.errors import UnreliableError, UsageError
from regroup_pipelines.log import log
from regroup_pipelines.results.attack_summary import stored_summary, summarise_attack
from regroup_pipelines.results.attack_warnings import attack_warnings, useless_gradients
from regroup_pipelines.results.blocks import tables
from regroup_pipelines.steps.attack_blocks import automatic_rows, whole_groups
from regroup_pipelines.steps.extraction import index_images
from regroup_pipelines.steps.labels import labels_for, log_made_anew
from regroup_pipelines.steps.recorded_logits import recorded_of, require_same_logits
from regroup_store.format.element import BlockElement
from regroup_store.kinds.adversarials import adversarials_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup.attacks import AttackSpec
    from regroup.models import ModelSpec
    from regroup_pipelines.steps.labels import Labels
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.indexes import SampleIndex


def correct_samples(
    session: Session, index: SampleIndex, features: BlockElement, limit: int | None, seed: int
) -> SampleIndex:
    """Return a derived index of correctly classified samples.

    Memory: 8 bytes per correct sample, or `limit` draw keys.

    Args:
        session: store and workers.
        index: the dataset.
        features: its features.
        limit: number of samples to draw; None: all.
        seed: seed of the draw.

    Raises:
        UsageError: the limit is not positive, or no sample is classified correctly.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} is not positive: leave it out to attack every sample")
    if limit is None:
        drawn = array("q", (row for row, _ in correct_rows(features)))
    else:
        first = nsmallest(
            limit, ((draw_key(seed, name), row) for row, name in correct_rows(features))
        )
        drawn = array("q", sorted(row for _, row in first))
    if not drawn:
        raise UsageError(
            f"the model classifies no sample of {index.ref} correctly: nothing to attack"
        )
    selection = {
        "correct_under": features.fingerprint,
        "limit": limit,
        "seed": seed,
        **features.gap_inputs(),
    }
    return index.derive(session.store, f"{features.name}-correct", drawn, selection)


def correct_rows(features: BlockElement) -> Iterator[tuple[int, str]]:
    """Yield the row and the id of every correctly classified sample, in order."""
    for first_row, table in tables(features, ["sample_id", "status", "label", "prediction"]):
        right = table["label"].to_numpy() == table["prediction"].to_numpy()
        right &= table["status"].to_numpy() == "ok"
        for row in right.nonzero()[0].tolist():
            yield first_row + row, table["sample_id"][row].as_py()


def draw_key(seed: int, sample_id: str) -> bytes:
    """Return the key by which samples are ordered for a draw, the same on any machine."""
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()


def attack_index(
    session: Session,
    network: Network,
    index: SampleIndex,
    spec: AttackSpec,
    batch: int,
    block_rows: int | None = None,
) -> BlockElement:
    """Attack every sample of `index`; computes only missing blocks.

    Args:
        session: store and workers.
        network: the classifier.
        index: the samples, all correctly classified.
        spec: the attack.
        batch: samples attacked at once.
        block_rows: samples per block of a new element; None: from the attack's cost. An existing
            element keeps its blocks.

    Raises:
        UsageError: the network cannot be attacked with this attack.
        UnreliableError: see `check_reliable`.
    """
    check_attackable(network, spec)
    labels, name = labels_for(index, network), element_name(index, spec)
    element = _element(session, network, index, spec, labels, block_rows)
    work = AttackWork(
        store_uri=session.store.uri,
        adversarials_ref=element.ref,
        images=index_images(session, index, labels.classes),
        model=network.spec,
        attack=spec.pinned(),
        batch=batch,
    )
    session.fill_on_actors(f"attack {name}", element, work)
    element.clear_checkpoints()
    session.finish(f"attack {name}", element, summarise_attack)
    check_reliable(session, element)
    return element


def check_reliable(session: Session, element: BlockElement) -> None:
    """Log what makes an attack's success say little about the network.

    Raises:
        UnreliableError: its gradients could not lead it, and the command is strict.
    """
    if element.summary() is None:  # in a dry run
        return
    summary = stored_summary(element)
    for warning in attack_warnings(summary):
        log(f"warning: attack {element.name}: {warning}")
    if session.strict and summary.gradients_useless:
        raise UnreliableError(
            f"attack {element.name}: {useless_gradients(summary)}: --strict refuses such an attack "
            "(its adversarials are in the store)"
        )


def _element(
    session: Session,
    network: Network,
    index: SampleIndex,
    spec: AttackSpec,
    labels: Labels,
    block_rows: int | None,
) -> BlockElement:
    """Open the adversarials, or create them where the store has none."""
    element_spec = adversarials_spec(
        name=element_name(index, spec),
        model=network.description,
        attack=spec.describe(),
        index_fingerprint=index.fingerprint,
        image_shape=(3, network.side, network.side),
        rows=index.rows_count,
        block_rows=1,
        labels=labels.classes,
        label_order=labels.by if labels.forced else None,
    )
    log_made_anew(session.store, element_spec)
    if session.store.find("adversarials", element_spec.fingerprint) is None:
        rows = planned_rows(session, network, spec, block_rows)
        element_spec = replace(element_spec, block_rows=rows)
    recorded = {"labels": labels.by, **recorded_of(network)}
    element = BlockElement.create(session.store, element_spec, recorded)
    require_same_logits(network, element.manifest, f"adversarials/{element.ref}")
    return element


def element_name(index: SampleIndex, spec: AttackSpec) -> str:
    """Return `<index>-<attack>-<protocol>`, with the norm if not the default, and "targeted"."""
    (norm,) = (field.default for field in fields(spec) if field.name == "norm")
    parts = [index.name.removesuffix("-correct"), spec.name, spec.protocol]
    parts += [spec.norm] if spec.norm != norm else []
    parts += ["targeted"] if spec.targeted else []
    return "-".join(parts)


def planned_rows(
    session: Session, network: Network, spec: AttackSpec, block_rows: int | None
) -> int:
    """Return the rows per block of new adversarials; logs a difference from `block_rows`."""
    if block_rows is None:
        return automatic_rows(spec, network.side, "gpu" if session.on_gpus else "cpu")
    rows = whole_groups(spec, block_rows)
    if rows != block_rows:
        log(
            f"attack {spec.name}: blocks of {rows} rows instead of {block_rows}: it runs on fixed "
            f"groups of {spec.facts.group} samples"
        )
    return rows


def check_attackable(network: Network, spec: AttackSpec) -> None:
    """Check that a network has the gradients that a white-box attack needs.

    Raises:
        UsageError: gradients vanish, so that the model would only seem robust, or there are none.
    """
    if spec.facts.knowledge != "white-box":
        return
    if network.spec.compute.dtype == "fp16":
        raise UsageError(
            "--dtype fp16: gradients underflow to zero in fp16, which hides what an attack could "
            "do: attack in fp32 or bf16, then evaluate the adversarials in fp16"
        )
    if not gives_gradient(network.spec):
        raise UsageError(
            f"the model {network.spec.name} gives no gradient with respect to its input (is its "
            f"forward under torch.no_grad, or its input cut off?), and {spec.name} is a white-box "
            "attack: choose a black-box one, see `regroup attack --list`"
        )


@cache
def gives_gradient(spec: ModelSpec) -> bool:
    """Return whether autograd connects the classifier's logits to its input, on a grey image."""
    import torch

    classifier = fetch_classifier(spec)
    with torch.enable_grad():
        pixels = example_pixels(classifier, "cpu").requires_grad_()
        logits = classifier(pixels)
        if not logits.requires_grad:
            return False
        # A network may give its parameters gradients and cut its input off.
        (gradient,) = torch.autograd.grad(logits.sum(), pixels, allow_unused=True)
    return gradient is not None
