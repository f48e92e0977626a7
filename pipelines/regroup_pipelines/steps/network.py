"""The classifier as the driver knows it: its description and its taps."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regroup.models import Compute, ModelSpec
from regroup_cluster.workers.extraction import build_extractor
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from regroup.taps import TapPolicy
    from regroup_pipelines.configs.options import ClassesName, ModelOptions
    from regroup_pipelines.json_types import JsonObject
    from regroup_store.kinds.indexes import SampleIndex

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Network:
    """A classifier and a tap policy, with all that the fingerprints of features need.

    Attributes:
        spec: how workers build the classifier.
        description: plain JSON of all that determines its outputs.
        policy: the tap policy.
        taps: (name, channels) of every tap, in execution order.
        num_classes: M, the number of outputs.
        side: side of its input images in px.
        class_names: names of the M classes, if the model has them (wnids for ImageNet).
    """

    spec: ModelSpec
    description: JsonObject
    policy: TapPolicy
    taps: tuple[tuple[str, int], ...]
    num_classes: int
    side: int
    class_names: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """Short name of the model in elements and tables."""
        return self.spec.name.replace(":", ".").replace("/", "-")


def open_network(options: ModelOptions) -> Network:
    """Build the classifier with all of its classes on the CPU and trace its taps."""
    spec = ModelSpec(
        name=options.model,
        weights=_located(options.weights),
        resize=options.resize,
        crop=options.crop,
        compute=Compute(options.dtype, options.channels_last, options.tf32),
        decoder=options.decoder,
    )
    return _trace(spec, options.taps)


def _trace(spec: ModelSpec, policy: TapPolicy) -> Network:
    classifier = fetch_classifier(spec)
    taps = build_extractor(classifier, policy, "cpu").taps
    return Network(
        spec=spec,
        description=classifier.describe(),
        policy=policy,
        taps=tuple((tap.name, tap.channels) for tap in taps),
        num_classes=classifier.num_classes,
        side=classifier.preprocessing.crop,
        class_names=classifier.class_names,
    )


def _located(weights: str | None) -> str | None:
    """Return the absolute path of a weights file: workers may have other working directories."""
    if weights is not None and Path(weights).is_file():
        return str(Path(weights).resolve())
    return weights


def network_for(network: Network, index: SampleIndex, classes: ClassesName) -> Network:
    """Apply --classes: return `network`, or restrict it to the classes of `index`.

    A restricted network has only the dataset's classes, in the dataset's order. Softmax and all
    later ranking and scoring range over these classes.

    Raises:
        UsageError: the dataset has a class that the model does not know.
    """
    labels = label_map(index, network) or tuple(range(len(index.class_names)))
    if classes == "all" or labels == tuple(range(network.num_classes)):
        return network
    return restricted(network, labels)


def restricted(network: Network, classes: tuple[int, ...]) -> Network:
    """Restrict `network` to the outputs `classes`, given as its class indices, in that order."""
    return _trace(replace(network.spec, classes=classes), network.policy)


def label_map(index: SampleIndex, network: Network) -> tuple[int, ...] | None:
    """Return the model's class of every label of the dataset, or None where they are equal.

    Classes are matched by name where the model names its classes and the dataset's folders are
    wnids or include one of these names; otherwise label 0 is class 0, and so on.

    Raises:
        UsageError: the model does not know a class, or has fewer classes than the dataset.
    """
    known = network.class_names
    named = all(_WNID.fullmatch(name) for name in index.class_names)
    if known is None or not (named or set(known) & set(index.class_names)):
        _check_positions(index, network, named)
        return None
    positions = {name: position for position, name in enumerate(known)}
    if unknown := [name for name in index.class_names if name not in positions]:
        raise UsageError(
            f"the dataset {index.ref} has {_few(unknown)}, not among the {len(known)} classes of "
            f"the model {network.spec.name} ({known[0]} to {known[-1]}): remove the class or "
            "choose a model that knows it"
        )
    labels = tuple(positions[name] for name in index.class_names)
    return None if labels == tuple(range(len(labels))) else labels


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    several = f"the classes {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"the class {names[0]}" if len(names) == 1 else several


def _check_positions(index: SampleIndex, network: Network, named: bool) -> None:
    """Check that the dataset's labels can be the model's class indices.

    Raises:
        UsageError: they cannot.
    """
    classes = len(index.class_names)
    if classes > network.num_classes:
        raise UsageError(
            f"the dataset {index.ref} has {classes} classes but the model {network.spec.name} "
            f"has {network.num_classes}: choose a model trained on these classes"
        )
    if named and classes < network.num_classes:
        raise UsageError(
            f"the dataset {index.ref} has {classes} wnids as classes, and the model "
            f"{network.spec.name} does not say which of its {network.num_classes} classes they "
            "are: set `class_names` on the module that the factory returns"
        )
