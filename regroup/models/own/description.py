"""What a user's own network computes, described: its source and all that it keeps."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from regroup.errors import ConfigurationError
from regroup.models.own.kept import Attributes
from regroup.models.own.source_code import Project, source_sha256
from regroup.models.spec import RANDOM_WEIGHTS
from regroup.models.weights import member_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from regroup.models.spec import ModelSpec


def describe_own(
    spec: ModelSpec, network: nn.Module, again: Callable[[int], nn.Module]
) -> dict[str, object]:
    """Describe a user's network beyond its weights, as plain JSON for fingerprints.

    Args:
        spec: which network; without `recorded` it is built a second time and compared.
        network: as built, its weights loaded, before any forward pass.
        again: builds it once more, from another seed, without loading weights.

    Raises:
        ConfigurationError: two builds differ, or its source is not what this process runs.
    """
    project = Project(spec.name.partition(":")[0])
    kept = Attributes(network, project.has)
    if spec.recorded is None:
        _require_same_builds(spec, network, kept, project, again)
    found: dict[str, object] = {
        "source_sha256": source_sha256(project, kept.modules),
        "attributes_sha256": kept.sha256,
    }
    if getattr(network, "stochastic", False):
        found["stochastic"] = True
    return found


def _require_same_builds(
    spec: ModelSpec,
    network: nn.Module,
    kept: Attributes,
    project: Project,
    again: Callable[[int], nn.Module],
) -> None:
    declared = spec.weights == RANDOM_WEIGHTS
    second = again(spec.seed if declared else spec.seed + 1)
    loaded = spec.weights is not None and not declared
    if not loaded and (name := _first_difference(_weights(network), _weights(second))):
        raise ConfigurationError(
            f"model {spec.name} has other weights each time it is built (first in {name}): "
            f"{_advice(declared)}"
        )
    if name := _first_difference(kept.digests, Attributes(second, project.has).digests):
        raise ConfigurationError(
            f"model {spec.name} keeps another {name} each time it is built, which would change its "
            "results without a word: seed it in the factory, or load it from a file"
        )


def _advice(declared: bool) -> str:
    if declared:
        return "its factory draws from a generator of its own: seed that"
    return (
        "give its trained weights (--weights FILE), load them in the factory, or say that random "
        "ones are meant (--weights random, which seeds them)"
    )


def _weights(network: nn.Module) -> dict[str, str]:
    """Return the digest of each member of the state dict."""
    members = {name: map(bytes, member_bytes(name, v)) for name, v in network.state_dict().items()}
    return {name: hashlib.sha256(b"".join(found)).hexdigest() for name, found in members.items()}


def _first_difference(one: dict[str, str], two: dict[str, str]) -> str | None:
    names = [*one, *(name for name in two if name not in one)]
    return next((name for name in names if one.get(name) != two.get(name)), None)
