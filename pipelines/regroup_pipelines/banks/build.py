"""Build a bank: choose its samples, extract what that takes, reduce them (paper, eq. 1)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from regroup.bank_samples import weigh_samples
from regroup_cluster.workers.bank import BankWork
from regroup_pipelines.banks.recipe import BankRecipe
from regroup_pipelines.banks.rounds import class_names, draw_bank, log_short_classes
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.labels import labels_for
from regroup_pipelines.steps.recorded_logits import recorded_of
from regroup_pipelines.steps.session import refuse_failures
from regroup_store.kinds.banks import BankSpec, create_bank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.banks.rounds import BankDraw
    from regroup_pipelines.configs.options import BankOptions
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import BankWriter
    from regroup_store.kinds.indexes import SampleIndex


def build_bank(
    session: Session,
    network: Network,
    index: SampleIndex,
    options: BankOptions,
    batch: int,
    draw: BankDraw | None = None,
) -> str:
    """Build the bank of `index`, extracting and reducing what the store lacks; return its ref.

    Classes that run out of images are logged with the number of samples they have.

    Args:
        session: store and workers.
        network: classifier and tap policy.
        index: the training images.
        options: how the bank is drawn.
        batch: samples per forward pass.
        draw: its samples, where `draw_bank` has chosen them already.

    Raises:
        UsageError: the dataset lacks classes of the model.
        ConfigurationError: a class has no correctly classified sample.
    """
    check_covered(index, network)
    draw = draw or draw_bank(session, network, index, options, batch)
    recipe, described = BankRecipe.of(options), {"model": network.description}
    inputs = {**described, "policy": network.policy, **recipe.inputs(), **draw.inputs()}
    labels = labels_for(index, network)
    if labels.forced:
        inputs["label_order"] = labels.by
    name = f"{index.name}-{network.label}"
    spec = BankSpec(name, inputs, network.taps, class_names(network, index))
    recorded = {"labels": labels.by, **recorded_of(network)}
    return reduce_bank(session, spec, draw, recipe, recorded)


def reduce_bank(
    session: Session,
    spec: BankSpec,
    draw: BankDraw,
    recipe: BankRecipe,
    recorded: Mapping[str, object],
) -> str:
    """Reduce the samples of `draw` to the bank of `spec`, without a forward pass; return its ref.

    `recorded` goes into its manifest, see `steps.recorded_logits`.

    Raises:
        IncompleteError: a tap could not be reduced.
    """
    started = time.perf_counter()
    writer, step = create_bank(session.store, spec), f"bank {spec.name}"
    if writer.finished:
        session.record_found(step, writer.ref, len(spec.taps), started)
    else:
        _reduce(session, step, writer, draw, recipe, started)
        writer.finish(draw.counts.tolist(), recorded)
    log_short_classes(draw, spec.class_names, recipe.per_class)
    return writer.ref


def check_covered(index: SampleIndex, network: Network) -> None:
    """Check, before any work, that a dataset has the classes of the model.

    Raises:
        UsageError: it has fewer.
    """
    if len(index.class_names) < network.num_classes:
        raise UsageError(
            f"the dataset {index.ref} has {len(index.class_names)} of the {network.num_classes} "
            f"classes of the model {network.spec.name}, and a bank needs samples of each: give "
            "--classes dataset, or a dataset with all of them"
        )


def _reduce(
    session: Session,
    step: str,
    writer: BankWriter,
    draw: BankDraw,
    recipe: BankRecipe,
    started: float,
) -> None:
    taps, classes = writer.spec.taps, len(writer.spec.class_names)
    work = BankWork(
        store_uri=session.store.uri,
        features_refs=tuple(element.ref for element in draw.features),
        writer=writer,
        taps=tuple(name for name, _ in taps),
        selections=weigh_samples(draw.samples, draw.starts, classes, recipe.weighting),
        num_classes=classes,
        delta=recipe.delta,
    )
    # The widest taps first: started last, one would keep a worker busy while the others are idle.
    order = sorted(range(len(taps)), key=lambda tap: -taps[tap][1])
    report = session.run_tasks(step, work, order, len(draw.samples.rows))
    session.record(step, writer.ref, report, 0, started)
    refuse_failures(step, report)
