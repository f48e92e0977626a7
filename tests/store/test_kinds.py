"""Spec builders of features, adversarials and votes."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pytest

from regroup_store.errors import FingerprintMismatchError
from regroup_store.format.element import BlockElement
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.store import Store
from regroup_store.kinds import adversarials, features, votes

MODEL = {"name": "tiny", "weights": "0" * 64}


def _features(**changes: object) -> ElementSpec:
    options: dict[str, object] = {
        "model": MODEL, "taps": [("relu-0", 4), ("logits", 10)], "policy": "preactivation",
        "source": {"index": "a" * 64}, "num_classes": 10, "rows": 5, "block_rows": 2,
    }  # fmt: skip
    return features.features_spec("f", **(options | changes))  # type: ignore[arg-type]


def _adversarials(**changes: object) -> ElementSpec:
    options: dict[str, object] = {
        "model": MODEL, "attack": {"name": "pgd", "seed": 0}, "index_fingerprint": "a" * 64,
        "image_shape": (3, 32, 32), "rows": 5, "block_rows": 2,
    }  # fmt: skip
    return adversarials.adversarials_spec("a", **(options | changes))  # type: ignore[arg-type]


def _votes(**changes: object) -> ElementSpec:
    options: dict[str, object] = {
        "features_fingerprint": "a" * 64, "bank_fingerprint": "b" * 64,
        "scoring": {"delta": 1e-20, "tie_break": "class"}, "taps": ["relu-0", "logits"],
        "rows": 5, "block_rows": 2,
    }  # fmt: skip
    return votes.votes_spec("v", **(options | changes))  # type: ignore[arg-type]


def test_arrays_are_those_of_the_design(store: Store) -> None:
    shapes = {a.path: (a.tail, a.dtype) for s in (_features(), _adversarials(), _votes())
              for a in s.arrays}  # fmt: skip
    assert shapes == {
        "accumulators.zarr/relu-0": ((2, 4), "float32"),
        "accumulators.zarr/logits": ((2, 10), "float32"),
        "logits.zarr": ((10,), "float32"),
        "images.zarr": ((3, 32, 32), "float32"),
        "prediction.zarr": ((3, 2), "int32"),
        "true_rank.zarr": ((3, 2), "int32"),
        "tap_prediction.zarr": ((3, 2), "int32"),
        "tap_true_rank.zarr": ((3, 2), "int32"),
    }
    for each in (_features(), _adversarials(), _votes()):
        assert BlockElement.create(store, each, {}).missing() == [0, 1, 2]
    opened = BlockElement.open(store, "features", "f")
    assert features.feature_taps(opened.manifest) == ("relu-0", "logits")


@pytest.mark.parametrize(
    ("builder", "changes"),
    [
        (_features, {"model": {"name": "other"}}),
        (_features, {"taps": [("relu-0", 4)]}),
        (_features, {"policy": "linear"}),
        (_features, {"dtype": "bfloat16"}),
        (_features, {"source": {"index": "b" * 64}}),
        (_features, {"source": {"adversarials": "a" * 64}}),
        (_adversarials, {"model": {"name": "other"}}),
        (_adversarials, {"attack": {"name": "pgd", "seed": 1}}),
        (_adversarials, {"index_fingerprint": "b" * 64}),
        (_votes, {"features_fingerprint": "c" * 64}),
        (_votes, {"bank_fingerprint": "c" * 64}),
        (_votes, {"scoring": {"delta": 1e-19, "tie_break": "class"}}),
        (_votes, {"taps": ["logits"]}),
    ],
)
def test_what_determines_the_content_changes_the_fingerprint(
    builder: "type[ElementSpec]", changes: Mapping[str, object]
) -> None:
    assert builder().fingerprint != builder(**changes).fingerprint  # type: ignore[call-arg,arg-type]
    assert builder().fingerprint == builder(rows=9, block_rows=3).fingerprint  # type: ignore[call-arg]


def test_features_have_one_source() -> None:
    for source in ({}, {"index": "a", "adversarials": "b"}, {"folder": "a"}):
        with pytest.raises(ValueError, match="one index or one adversarials"):
            _features(source=source)


def _without(spec: ElementSpec, *names: str) -> ElementSpec:
    """An element of an earlier release, without some columns."""
    kept = [field for field in spec.columns if field.name not in names]
    return replace(spec, columns=pa.schema(kept))


def test_an_element_without_later_columns_is_gone_on_with(store: Store) -> None:
    """They say more about the same images: its fingerprint stays, and its columns too."""
    old = BlockElement.create(store, _without(_adversarials(), *adversarials.LATER), {})
    found = BlockElement.create(store, _adversarials(), {})
    assert found.fingerprint == old.fingerprint
    assert found.manifest == old.manifest
    assert not set(adversarials.LATER) & set(found.column_names)


def test_an_element_without_other_columns_is_refused(store: Store) -> None:
    BlockElement.create(store, _without(_adversarials(), "success_8bit"), {})
    with pytest.raises(FingerprintMismatchError, match="other columns"):
        BlockElement.create(store, _adversarials(), {})


def test_columns_are_no_reason_to_attack_again() -> None:
    """The fingerprint that ba43c66 gave these inputs, before there were more columns."""
    inputs = _adversarials().inputs
    assert inputs["columns"] == 2
    assert not set(adversarials.LATER) & set(inputs)
