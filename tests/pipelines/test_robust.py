"""The robust predictor decides as the stored votes do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regroup.errors import ConfigurationError
from regroup_pipelines.configs.options import ModelOptions
from regroup_pipelines.robust import load_robust_classifier
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.votes import PREDICTION, SIGN_CHOICES
from tests.pipelines.conftest import FinishedDemo


def model(demo: FinishedDemo) -> ModelOptions:
    return ModelOptions(model="digits-cnn", weights=str(demo.weights))


@pytest.mark.parametrize("signs", SIGN_CHOICES)
def test_predictions_are_the_votes(finished_demo: FinishedDemo, signs: str) -> None:
    store, name = finished_demo.store, "digits-val-digits-cnn-pgd-minimal"
    robust = load_robust_classifier(
        store, "digits-train-digits-cnn", model(finished_demo), 3, signs
    )
    adversarials = BlockElement.open(open_store(store), "adversarials", name)
    sums = robust(torch.from_numpy(adversarials.read_array("images.zarr", 0)))
    assert sums.shape == (48, 10)
    votes = BlockElement.open(open_store(store), "votes", name).read_array(PREDICTION, 0)
    stored = votes[:, SIGN_CHOICES.index(signs), 2]
    # Batches of another size round differently: at most a near-tie may fall the other way.
    assert np.mean(sums.argmax(1).numpy() == stored) >= 47 / 48


def test_k_out_of_range(finished_demo: FinishedDemo) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to"):
        load_robust_classifier(
            finished_demo.store, "digits-train-digits-cnn", model(finished_demo), k=99
        )
