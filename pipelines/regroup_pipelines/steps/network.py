"""The classifier as the driver knows it: its description and its taps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regroup.models import Compute, ModelSpec
from regroup_cluster.workers.extraction import build_extractor
from regroup_cluster.workers.remote_weights import fetch_classifier

if TYPE_CHECKING:
    from regroup.taps import TapPolicy
    from regroup_pipelines.configs.options import LabelsName, ModelOptions
    from regroup_pipelines.json_types import JsonObject


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
        class_names: names of the M classes, if the model has them (wnids for ImageNet), or else
            those of its bank's dataset.
        names_of: what has these names, in words, where it is not the model.
        labels: whether a dataset's labels go by name or by position (--labels).
    """

    spec: ModelSpec
    description: JsonObject
    policy: TapPolicy
    taps: tuple[tuple[str, int], ...]
    num_classes: int
    side: int
    class_names: tuple[str, ...] | None = None
    names_of: str = ""
    labels: LabelsName = "name"

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
    return replace(_trace(spec, options.taps), labels=options.labels)


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


def restricted(network: Network, classes: tuple[int, ...]) -> Network:
    """Restrict `network` to the outputs `classes`, given as its class indices, in that order."""
    found = _trace(replace(network.spec, classes=classes), network.policy)
    return replace(found, labels=network.labels)
