"""The robust predictor: a classifier of yours with a stored bank, as one nn.Module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.options import ModelOptions
    from regroup.classifier import REGroupClassifier


def robust_classifier(
    store: str, bank: str, model: ModelOptions, k: int, signs: str = "both"
) -> REGroupClassifier:
    """REGroup on `model` with the bank that `store` holds: pixels (N, 3, H, W) in [0, 1] to Borda
    sums (N, M) float32, whose first maximum is the prediction (paper, eq. 7).

    Raises:
        UsageError: the bank is of another model or tap policy.
        StoreError: no such store or bank, or it is damaged.
        ConfigurationError: k out of range, unknown signs, or a model that cannot be built.
    """
    from cluster.extraction import example_pixels
    from cluster.scoring import load_bank
    from cluster.weights import fetch_classifier
    from pipelines.evaluate import check_same_model
    from pipelines.network import open_network
    from regroup.classifier import REGroupClassifier
    from store.banks import read_bank
    from store.stores import open_store

    stored = read_bank(open_store(store, writable=False), bank)
    network = open_network(model)
    described = {"model": network.description, "policy": network.policy}
    check_same_model(stored, described, f"the model {model.model}")
    classifier = fetch_classifier(network.spec)
    return REGroupClassifier(
        classifier,
        load_bank(store, stored.ref, stored.taps),
        k,
        signs,
        network.policy,
        example=example_pixels(classifier, "cpu"),
        names_from=classifier.network,
    )
