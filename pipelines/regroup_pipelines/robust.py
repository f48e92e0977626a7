"""The robust classifier as one nn.Module: a network with a stored bank."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from regroup.classifier import REGroupClassifier
from regroup_cluster.workers.extraction import example_pixels
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_cluster.workers.scoring import load_bank
from regroup_pipelines.steps.bank_labels import check_bank_names
from regroup_pipelines.steps.network import open_network, restricted
from regroup_pipelines.steps.scoring import check_network
from regroup_store.format.store import open_store
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import ModelOptions
    from regroup_pipelines.json_types import JsonObject


def load_robust_classifier(
    store: str, bank: str, model: ModelOptions, k: int, signs: str = "both"
) -> REGroupClassifier:
    """Return REGroup on `model` with a bank of a store.

    The module maps pixels (N, 3, H, W) in [0, 1] to Borda sums (N, M) float32, whose first maximum
    is the prediction (paper, eq. 7). If `model.classes` is "dataset", the M classes are those of
    the bank's dataset, in its order.

    Args:
        store: a folder or an s3:// URI.
        bank: name, name-fingerprint or the start of the fingerprint of the bank.
        model: the network that the bank was built with.
        k: how many of the last taps vote.
        signs: which voters of a tap count: "both", "positive" or "negative".

    Raises:
        UsageError: the bank belongs to another model or tap policy, or names its classes
            differently.
        StoreError: the store or the bank is missing or damaged.
        ConfigurationError: `k` is out of range, `signs` is unknown, or the model cannot be built.
    """
    stored = read_bank(open_store(store, writable=False), bank)
    network = open_network(model)
    description = cast("JsonObject", stored.inputs["model"])
    if model.classes == "dataset" and "classes" in description:
        network = restricted(network, tuple(description["classes"]))
    check_network(stored, network)
    check_bank_names(stored, network)
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
