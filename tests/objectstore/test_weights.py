"""Weights files in a bucket: trained into a store, and fetched by the workers that need them."""

from __future__ import annotations

import obstore
import pytest

from regroup.models import ModelSpec
from regroup_cluster.workers.remote_weights import fetch_classifier
from regroup_store.backends.s3 import RETRY_VARIABLE, s3_client
from regroup_store.errors import StoreError
from tests.objectstore.conftest import Command
from tests.objectstore.proxy import Proxy
from tests.objectstore.server import BUCKET
from tests.pipelines.conftest import Outcome


def sentence(outcome: Outcome) -> str:
    """The last line of standard error; no traceback goes before it."""
    assert "Traceback" not in outcome.err
    return outcome.err.strip().splitlines()[-1]


def test_weights_are_trained_into_a_bucket_kept_and_used(command: Command, uri: str) -> None:
    first = command("train-demo-model", "--store", uri, "--json").json
    assert first["weights"] == f"{uri}/weights/digits-cnn.safetensors"
    assert first["accuracy"] >= 0.97
    again = command("train-demo-model", "--store", uri, "--json", "--seed", 1)
    assert "exists and is kept" in again.err
    assert again.json == first
    done = command(
        "extract", "--store", uri, "--dataset", "digits:val", "--model", "digits-cnn",
        "--weights", first["weights"], "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    found = done.json
    assert found["softmax_correct"] / found["samples"] == pytest.approx(first["accuracy"])
    assert command("verify", "--store", uri).status == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.safetensors", "does not exist"), ("weights", "name an object"), ("x.onnx", "expected")],
)
def test_weights_that_cannot_be_used(command: Command, uri: str, name: str, words: str) -> None:
    obstore.put(s3_client(BUCKET), "x.onnx", b"not weights")
    weights = f"s3://{BUCKET}/{name}"
    outcome = command(
        "extract", "--store", uri, "--dataset", "digits:val", "--model", "digits-cnn",
        "--weights", weights,
    )  # fmt: skip
    assert outcome.status == 2
    assert words in sentence(outcome)


def test_a_server_that_fails_is_said(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RETRY_VARIABLE, "1")
    proxy.fail("busy")
    with pytest.raises(StoreError, match=r"reading the weights s3://.* failed"):
        fetch_classifier(ModelSpec("digits-cnn", weights=f"s3://{BUCKET}/a.safetensors"))
