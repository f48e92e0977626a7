"""Refusals by the server are user errors: one sentence with the remedy, exit status 2."""

from __future__ import annotations

import pytest

from regroup_pipelines.configs.table import CONFIGS
from regroup_store.backends.open import backend_for
from regroup_store.backends.s3 import RETRY_VARIABLE
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.store import open_store
from tests.objectstore.server import READER, Server
from tests.pipelines.conftest import Run, run

__all__ = ["run"]
EVERYWHERE = {
    "index-dataset": ("--dataset", "digits:val"),
    "extract": ("--dataset", "digits:val", "--model", "digits-cnn", "--weights", "random"),
    "build-bank": ("--dataset", "digits:train", "--model", "digits-cnn", "--weights", "random"),
    "ls": (),
    "verify": (),
    "repair": (),
}


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "403"),
        ("AWS_ACCESS_KEY_ID", "nobody", "403"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:8333", "AWS_ENDPOINT_URL=127.0.0.1:8333 is not a URL"),
        (RETRY_VARIABLE, "soon", "REGROUP_S3_RETRY_SECONDS=soon: give seconds"),
    ],
)
def test_wrong_settings(
    run: Run, uri: str, monkeypatch: pytest.MonkeyPatch,
    name: str, variable: str, value: str, words: str,
) -> None:  # fmt: skip
    assert name in CONFIGS
    monkeypatch.setenv(variable, value)
    outcome = run(name, "--store", uri, *EVERYWHERE[name])
    assert outcome.status == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"regroup {name}: ")
    assert words in line
    assert "wrong" not in line


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_missing_bucket(run: Run, variables: Server, name: str) -> None:
    outcome = run(name, "--store", "s3://no-such-bucket/x", *EVERYWHERE[name])
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert "the store s3://no-such-bucket/x failed" in line
    assert "there is no such bucket" in line


def test_no_store_yet(run: Run, uri: str) -> None:
    outcome = run("ls", "--store", uri)
    assert outcome.status == 2
    assert f"there is no store at {uri}" in outcome.err


def test_no_credentials(run: Run, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client then asks the machine's metadata service; here nobody listens there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(RETRY_VARIABLE, "0.2")
    outcome = run("ls", "--store", uri)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert "no credentials; set AWS_ACCESS_KEY_ID" in line


def test_who_may_only_read_reads(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(uri, create=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    assert open_store(uri).elements() == []
    backend = backend_for(uri)
    for write in (
        lambda: backend.create("k", b""),
        lambda: backend.replace("k", b""),
        lambda: backend.delete("store.json"),
    ):
        with pytest.raises(StoreUsageError, match=r"failed writing .*check the AWS_\* variables"):
            write()


@pytest.mark.parametrize("uri", ["s3://a?b/c", "s3://b/../c", "s3://b/a//c"])
def test_names_that_are_none(variables: Server, uri: str) -> None:
    with pytest.raises(StoreError):
        open_store(uri)
