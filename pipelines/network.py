"""The classifier of a job as the driver knows it: described, traced, not yet at work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.options import ModelOptions
    from regroup.models import ModelSpec
    from regroup.taps import TapPolicy
    from store.indexes import SampleIndex


@dataclass(frozen=True)
class Network:
    """A model spec with what its features' fingerprints need.

    Attributes:
        spec: how workers build the classifier.
        description: plain JSON of all that determines its outputs.
        policy: the tap policy.
        taps: (name, channels) of every tap, in execution order.
        num_classes: M.
        side: side of the images that it sees, px.
    """

    spec: ModelSpec
    description: dict[str, Any]
    policy: TapPolicy
    taps: tuple[tuple[str, int], ...]
    num_classes: int
    side: int

    @property
    def label(self) -> str:
        """Short name for elements and tables."""
        return self.spec.name.replace(":", ".").replace("/", "-")


def open_network(options: ModelOptions) -> Network:
    """Build the classifier once on the CPU and trace its taps."""
    from cluster.extraction import build_extractor
    from cluster.weights import fetch_classifier
    from regroup.models import ModelSpec

    spec = ModelSpec(
        name=options.model,
        weights=_located(options.weights),
        resize=options.resize,
        crop=options.crop,
    )
    classifier = fetch_classifier(spec)
    taps = build_extractor(classifier, options.taps, "cpu").taps
    return Network(
        spec=spec,
        description=classifier.describe(),
        policy=options.taps,
        taps=tuple((tap.name, tap.channels) for tap in taps),
        num_classes=classifier.num_classes,
        side=classifier.preprocessing.crop,
    )


def _located(weights: str | None) -> str | None:
    """A weights file by its absolute path: a worker's working folder may be another."""
    if weights is not None and Path(weights).is_file():
        return str(Path(weights).resolve())
    return weights


def check_classes(index: SampleIndex, network: Network) -> None:
    """Refuse a dataset with more classes than the model can tell apart."""
    classes = len(index.class_names)
    if classes > network.num_classes:
        raise UsageError(
            f"the dataset {index.ref} has {classes} classes but the model {network.spec.name} "
            f"tells {network.num_classes} apart: choose a model trained on these classes"
        )
