"""Credentials in texts are masked, and what merely looks like them is not."""

from __future__ import annotations

import json

import pytest

from regroup_store.backends.s3 import s3_client, store_error
from regroup_store.errors import StoreUsageError
from regroup_store.format.store import open_store
from regroup_store.secrets import without_secrets
from regroup_store.sources import open_source


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/x", "https://***@host/x"),
        ("PUT https://AKIA:se/cr+et=@host:9000/x failed", "PUT https://***@host:9000/x failed"),
        ("https://user:p@ss@host", "https://***@host"),
        ("https://token@host/x", "https://***@host/x"),
        ("ftp://:secret@[::1]:21/", "ftp://***@[::1]:21/"),
        ("https://user:8080@host", "https://***@host"),
        ("a https://u:p@h and s3://v:q@b/x", "a https://***@h and s3://***@b/x"),
        ("https://h/x?sig=abc&se=2 no", "https://h/x?*** no"),
        ("https://h/x?versionId=1#f", "https://h/x?***"),
    ],
)
def test_what_a_uri_may_hide_is_masked(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host:9000/bucket/a@b.png", "s3://bucket/a:b@c/x", "https://host:9000", "c:\\a@b",
        "someone@example.org", "s3://bucket/train-0?.parquet", "what?why=because",
        "user:secret@host", "https://host/?", "git@github.com:x/y",
    ],
)  # fmt: skip
def test_what_hides_nothing_is_left_alone(text: str) -> None:
    assert without_secrets(text) == text


def test_the_keys_of_this_process_are_masked_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the")
    assert without_secrets('{"key": "wJalrXUtnFEMI/K7MDENG"} in the log') == (
        '{"key": "***"} in the log'
    )


def test_a_bucket_with_a_key_is_refused_without_it() -> None:
    with pytest.raises(StoreUsageError, match=r"^s3://\*\*\*@bucket names no bucket: write s3://"):
        s3_client("key:secret@bucket")


@pytest.mark.parametrize(
    "spec",
    [
        "imagefolder:s3://user:secret@bucket/x", "webdataset:s3://user:secret@bucket/*.tar",
        "parquet:https://user:secret@host/x.parquet", "imagenet:val:https://secret@host/val",
        "parquet:https://host/x.parquet?sig=secret",
    ],
)  # fmt: skip
def test_a_dataset_with_a_password_is_refused_before_it_is_recorded(spec: str) -> None:
    with pytest.raises(StoreUsageError, match="holds a password or a signature") as told:
        open_source(spec)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://user:sec/ret@host:9", r"http://\*\*\*@host:9 is not a URL"),
        ("ftp://user:secret@host", r"ftp://\*\*\*@host is not a URL"),
        ("http://user:secret@host:port", r"http://\*\*\*@host:port is not a URL"),
    ],
)
def test_an_endpoint_that_cannot_be_one_is_named_without_its_password(
    endpoint: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StoreUsageError, match=shown):
        open_store("s3://bucket/x")


def test_an_error_of_the_server_names_no_password() -> None:
    text = (
        "Generic S3 error: Error performing HEAD http://us:secret@127.0.0.1:9/bucket/x in 3ms"
        " - HTTP error: error sending request"
    )
    told = str(store_error("the store s3://bucket/x failed", Exception(text)))
    assert "HEAD http://***@127.0.0.1:9/bucket/x" in told
    assert "secret" not in json.dumps(told)
