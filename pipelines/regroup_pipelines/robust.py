"""The robust predictor: a classifier of yours with a stored bank, as one nn.Module."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from regroup.classifier import REGroupClassifier
from regroup_cluster.workers.extraction import example_pixels
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_cluster.workers.scoring import load_bank
from regroup_pipelines.steps.network import open_network, restricted
from regroup_pipelines.steps.scoring import check_network
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import ModelOptions
    from regroup_pipelines.json_types import JsonObject


def robust_classifier(
    store: str, bank: str, model: ModelOptions, k: int, signs: str = "both"
) -> REGroupClassifier:
    """REGroup on `model` with the bank that `store` holds: pixels (N, 3, H, W) in [0, 1] to Borda
    sums (N, M) float32, whose first maximum is the prediction (paper, eq. 7).

    Where `model.classes` is "dataset", M are the classes of the bank's dataset, in its order.

    Raises:
        UsageError: the bank is of another model or tap policy.
        StoreError: no such store or bank, or it is damaged.
        ConfigurationError: k out of range, unknown signs, or a model that cannot be built.
    """
    stored = read_bank(open_store(store, writable=False), bank)
    network = open_network(model)
    description = cast("JsonObject", stored.inputs["model"])
    if model.classes == "dataset" and "classes" in description:
        network = restricted(network, tuple(description["classes"]))
    check_network(stored, network)
    classifier = fetch_classifier(network.spec)
    return REGroupClassifier(
        classifier,
        load_bank(store, stored.ref, stored.taps),
        k,
        signs,
        network.policy,
        example=example_pixels(classifier, "cpu"),
        root_module=classifier.network,
    )
