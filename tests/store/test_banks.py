"""Banks."""

import json
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from regroup_store.errors import DamagedError, StoreUsageError
from regroup_store.format.store import Store
from regroup_store.kinds.banks import BankSpec, BankWriter, create_bank, read_bank

TAPS = (("relu-0", 4), ("relu-1", 3), ("logits", 2))
SPEC = BankSpec("bank", {"features": "f" * 64, "per_class": 50, "seed": 0}, TAPS, ("cat", "dog"))


def mixtures(tap: str) -> NDArray[np.float64]:
    channels = dict(TAPS)[tap]
    return np.random.default_rng(channels).dirichlet(np.ones(channels), size=(2, 2))


def written(store: Store) -> BankWriter:
    writer = create_bank(store, SPEC)
    for tap, _ in TAPS:
        writer.write_tap(tap, mixtures(tap))
    return writer


def test_what_is_written_is_read(any_store: Store) -> None:
    ref = written(any_store).finish([50, 49])
    bank = read_bank(any_store, "bank")
    assert bank.taps == ("relu-0", "relu-1", "logits")
    for tap, found in zip(bank.taps, bank.mixtures, strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, mixtures(tap))
    assert (bank.counts.tolist(), bank.class_names) == ([50, 49], ("cat", "dog"))
    assert (bank.fingerprint, ref) == (SPEC.fingerprint, f"bank-{SPEC.fingerprint[:16]}")
    assert any_store.elements("banks")[0].ref == ref
    assert any_store.find("banks", SPEC.fingerprint) == ref


def test_the_last_taps_are_read_alone(any_store: Store) -> None:
    writer = written(any_store)
    writer.finish([1, 1])
    any_store.backend.delete(f"banks/{writer.ref}/mixtures.zarr/relu-0/c/0/0/0")
    some = read_bank(any_store, "bank", taps=("logits",))
    assert some.taps == ("logits",)
    np.testing.assert_array_equal(some.mixtures[0], mixtures("logits"))
    bank = read_bank(any_store, "bank", last=2)
    assert bank.taps == ("relu-1", "logits")
    np.testing.assert_array_equal(bank.mixtures[0], mixtures("relu-1"))
    with pytest.raises(DamagedError, match=r"mixtures\.zarr/relu-0/c/0/0/0 is missing|not match"):
        read_bank(any_store, "bank")
    for last in (0, 4):
        with pytest.raises(StoreUsageError, match="k must be 1 to 3"):
            read_bank(any_store, "bank", last=last)


def test_a_bank_is_not_there_before_it_is_finished(any_store: Store) -> None:
    writer = written(any_store)
    assert any_store.elements() == []
    with pytest.raises(StoreUsageError, match="no banks 'bank'"):
        read_bank(any_store, "bank")
    writer.finish([1, 1])
    assert create_bank(any_store, SPEC).finished


def test_a_tap_that_was_not_written_cannot_be_finished(any_store: Store) -> None:
    writer = create_bank(any_store, SPEC)
    writer.write_tap("relu-0", mixtures("relu-0"))
    with pytest.raises(DamagedError, match=r"relu-1 .*was not written"):
        writer.finish([1, 1])
    assert not writer.finished


def test_a_late_tap_does_not_change_a_finished_bank(any_store: Store) -> None:
    writer = written(any_store)
    writer.finish([1, 1])
    writer.write_tap("logits", mixtures("logits") * 2)
    np.testing.assert_array_equal(read_bank(any_store, "bank", 1).mixtures[0], mixtures("logits"))


def test_taps_are_written_by_other_processes(store: Store) -> None:
    writer = create_bank(store, SPEC)
    copy = pickle.loads(pickle.dumps(writer))  # noqa: S301  (our own bytes)
    for tap, _ in TAPS:
        copy.write_tap(tap, mixtures(tap))
    writer.finish([1, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((2, 2, 3)),
        np.ones((2, 2, 4), np.float32),
        np.full((2, 2, 4), np.nan),
    ],
)
def test_mixtures_that_are_none_are_refused(store: Store, wrong: NDArray[np.float64]) -> None:
    writer = create_bank(store, SPEC)
    with pytest.raises(ValueError, match="mixtures of relu-0"):
        writer.write_tap("relu-0", wrong)
    with pytest.raises(StoreUsageError, match="no tap 'relu-9'"):
        writer.write_tap("relu-9", wrong)


def test_counts_are_one_a_class(store: Store) -> None:
    with pytest.raises(ValueError, match="3 counts for 2 classes"):
        written(store).finish([1, 2, 3])


@pytest.mark.parametrize("position", [0, 10, -1])
def test_damage_is_named(any_store: Store, position: int) -> None:
    writer = written(any_store)
    writer.finish([1, 1])
    key = f"banks/{writer.ref}/mixtures.zarr/logits/c/1/0/0"
    data = bytearray(any_store.backend.read(key))
    data[position] ^= 255
    any_store.backend.replace(key, bytes(data))
    with pytest.raises(DamagedError, match=r"mixtures\.zarr/logits"):
        read_bank(any_store, "bank")


def test_taps_and_class_names_are_part_of_the_fingerprint(store: Store) -> None:
    other = BankSpec(SPEC.name, SPEC.inputs, TAPS, ("cat", "eel"))
    fewer = BankSpec(SPEC.name, SPEC.inputs, TAPS[1:], SPEC.class_names)
    assert len({SPEC.fingerprint, other.fingerprint, fewer.fingerprint}) == 3
    ref = written(store).finish([1, 1])
    manifest = json.loads(store.backend.read(f"banks/{ref}/manifest.json"))
    assert manifest["arrays"][2] == {
        "path": "mixtures.zarr/logits", "shape": [2, 2, 2], "dtype": "float64",
    }  # fmt: skip
