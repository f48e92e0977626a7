"""The classifier as the driver knows it: its description and its taps."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from regroup.models import Compute, ModelSpec
from regroup.models.own.factory import refused_failures
from regroup.models.recorded import RecordedModel
from regroup_cluster.workers.extraction import build_extractor
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_pipelines.log import log

if TYPE_CHECKING:
    from regroup.taps import TapPolicy
    from regroup_pipelines.configs.options import LabelsName, ModelOptions
    from regroup_pipelines.json_types import JsonObject

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_LABEL = 100


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
        name = str(self.description.get("name", self.spec.name))
        return _UNSAFE.sub("-", name.replace(":", "."))[:_LONGEST_LABEL]


def open_network(options: ModelOptions) -> Network:
    """Build the classifier with all of its classes on the CPU and trace its taps."""
    spec = ModelSpec(
        name=_located_model(options.model),
        weights=_located(options.weights),
        resize=options.resize,
        crop=options.crop,
        compute=Compute(options.dtype, options.channels_last, options.tf32),
        decoder=options.decoder,
        num_classes=options.num_classes,
    )
    network = _trace(spec, options.taps)
    if "stochastic" in network.description:
        log(
            f"the model {spec.name} declares itself stochastic: what is made of it is one draw, "
            "which only the same blocks, batches and devices repeat"
        )
    return replace(network, labels=options.labels)


def _trace(spec: ModelSpec, policy: TapPolicy) -> Network:
    classifier = fetch_classifier(replace(spec, recorded=None))
    spec = replace(spec, recorded=RecordedModel.of(classifier))
    _announce(f"model {classifier.name}", classifier.notes)
    with refused_failures(f"model {spec.name} fails while its taps are sought"):
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


@cache
def _announce(what: str, notes: tuple[str, ...]) -> None:
    """Log what is to be known of a network, once per process."""
    for note in notes:
        log(f"{what}: {note}")


def _located_model(name: str) -> str:
    """Return a model's name with the absolute path of its folder, if it names one."""
    prefix, found, folder = name.partition("local-dir:")
    return f"{prefix}{found}{Path(folder).resolve()}" if found and prefix == "timm:" else name


def _located(weights: str | None) -> str | None:
    """Return the absolute path of a weights file: workers may have other working directories."""
    if weights is not None and Path(weights).is_file():
        return str(Path(weights).resolve())
    return weights


def restricted(network: Network, classes: tuple[int, ...]) -> Network:
    """Restrict `network` to the outputs `classes`, given as its class indices, in that order."""
    found = _trace(replace(network.spec, classes=classes), network.policy)
    return replace(found, labels=network.labels)
