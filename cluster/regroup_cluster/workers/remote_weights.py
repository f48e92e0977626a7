"""Weights files in a bucket: every worker fetches its own copy."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import obstore

from regroup.errors import ConfigurationError
from regroup.models import load_classifier
from regroup_store.backends.s3 import s3_client, s3_errors

if TYPE_CHECKING:
    from regroup.models import Classifier, ModelSpec

S3 = "s3://"


def fetch_classifier(spec: ModelSpec) -> Classifier:
    """Load a classifier whose weights file may be local or at s3://bucket/key.

    Endpoint and credentials come from the AWS_* variables of this process.

    Raises:
        ConfigurationError: there is no such object, or the file is not usable.
        StoreError: the file could not be fetched.
    """
    if spec.weights is None or not spec.weights.startswith(S3):
        return load_classifier(spec)
    with tempfile.TemporaryDirectory(prefix="regroup-weights-") as folder:
        path = Path(folder) / spec.weights.rpartition("/")[2]
        _fetch(spec.weights, path)
        try:
            classifier = load_classifier(replace(spec, weights=str(path)))
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace(str(path), spec.weights)) from error
    classifier.notes = tuple(note.replace(str(path), spec.weights) for note in classifier.notes)
    return classifier


def _fetch(uri: str, path: Path) -> None:
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if not path.suffix:
        raise ConfigurationError(
            f"weights file {uri}: name an object, s3://bucket/name.safetensors"
        )
    try:
        with s3_errors(f"reading the weights {uri} failed"), path.open("wb") as file:
            for chunk in obstore.get(s3_client(bucket), key):
                file.write(chunk)
    except FileNotFoundError:
        raise ConfigurationError(f"weights file {uri} does not exist") from None
