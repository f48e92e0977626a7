"""Logits of the probe: recorded with what a network makes, compared wherever that is used again.

What a network reads beside its source, and a library's release, are in no fingerprint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup.models.probe import TOLERANCE, logit_difference
from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.steps.network import Network


def recorded_of(network: Network) -> JsonObject:
    """Return what the manifest of an element of `network` records, unhashed."""
    recorded = network.spec.recorded
    return {} if recorded is None else dict(recorded.as_json())


def probe_of(manifest: Mapping[str, Any]) -> JsonObject:
    """Return what a manifest records of the network, as `recorded_of` does; {} of older ones."""
    recorded = manifest.get("recorded", {})
    return {"probe": recorded["probe"]} if "probe" in recorded else {}


def require_same_logits(network: Network, manifest: Mapping[str, Any], what: str) -> None:
    """Check that `network` still gives the logits that were recorded with an element.

    Args:
        network: the classifier.
        manifest: of the element; one of an earlier release has none, and is not compared.
        what: the element in words.

    Raises:
        UsageError: they differ by more than the tolerance.
    """
    then = probe_of(manifest).get("probe", {}).get("logits")
    now = network.spec.recorded.logits if network.spec.recorded else None
    if then is None or now is None or (found := logit_difference(now, then)) <= TOLERANCE:
        return
    raise UsageError(
        f"the model {network.spec.name} gives other logits than when {what} was made (by "
        f"{found:.1g} of the largest), with the same description: {_advice(network)}"
    )


def _advice(network: Network) -> str:
    if "source_sha256" in network.description:
        return (
            "a file or variable that it reads, or a library, has changed: restore that, or tell "
            "the two apart by an attribute of the network (self.version = 2), so that all is made "
            "anew"
        )
    return (
        "the release of torch or of the network's library has changed what it computes: install "
        "those that the element's manifest names, or give another --store"
    )
