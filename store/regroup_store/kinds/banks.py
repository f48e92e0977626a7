"""Banks: the class-conditional mixtures of all voters (paper, eq. 1), one array per tap."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from regroup_store.errors import DamagedError, StoreError, StoreUsageError
from regroup_store.format.arrays import (
    ArraySpec,
    create_array,
    open_array,
    read_checked,
    specs_to_json,
)
from regroup_store.format.environment import environment_record
from regroup_store.format.fingerprint import checksum_array, seal, short_fingerprint
from regroup_store.format.manifests import (
    SCHEMA_VERSION,
    Location,
    element_fingerprint,
    find_location,
    locate,
    locations,
    new_location,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from regroup_store.backends.base import Backend
    from regroup_store.format.store import Store

KIND = "banks"
SIGNS = 2


@dataclass(frozen=True)
class BankSpec:
    """Description of a bank.

    Attributes:
        name: what people call it; not hashed.
        inputs: all that determines it (features fingerprint, samples per class, weighting, seed,
            delta), as JSON; hashed.
        taps: (name, channels) in execution order; hashed.
        class_names: of classes 0, 1, ...; hashed.
    """

    name: str
    inputs: Mapping[str, object]
    taps: tuple[tuple[str, int], ...]
    class_names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the bank, 64 hex characters."""
        return element_fingerprint(KIND, self._hashed())

    def array(self, tap: str) -> ArraySpec:
        """Describe the array of a tap's mixtures.

        Raises:
            StoreUsageError: the bank has no such tap.
        """
        for name, channels in self.taps:
            if name == tap:
                return _mixtures_spec(name, len(self.class_names), channels)
        raise StoreUsageError(f"the bank {self.name!r} has no tap {tap!r}")

    def manifest(
        self, checksums: list[str], counts: list[int], recorded: Mapping[str, object]
    ) -> dict[str, object]:
        """Manifest of the finished bank."""
        arrays = specs_to_json([self.array(tap) for tap, _ in self.taps], SIGNS)
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "inputs": self._hashed(),
            "arrays": arrays,
            "checksums": checksums,
            "counts": counts,
            "rows": sum(counts),
            "recorded": environment_record(recorded),
        }

    def _hashed(self) -> dict[str, object]:
        taps = [[name, channels] for name, channels in self.taps]
        return {**self.inputs, "taps": taps, "class_names": list(self.class_names)}


@dataclass(frozen=True)
class BankWriter:
    """Writes one bank. It may be pickled, and each tap written in another process.

    Attributes:
        backend: of the store.
        location: of the bank.
        spec: of the bank.
    """

    backend: Backend
    location: Location
    spec: BankSpec

    @property
    def ref(self) -> str:
        """`<name>-<first 16 characters of the fingerprint>`."""
        return self.location.ref

    @property
    def finished(self) -> bool:
        """Whether the manifest exists, so that nothing is left to write."""
        return self.backend.exists(self.location.key("manifest.json"))

    def write_tap(self, tap: str, mixtures: NDArray[np.float64]) -> None:
        """Write a tap's mixtures, (2, M, C) float64; without effect once the bank is finished.

        Raises:
            ValueError: another shape or dtype, or values that are not finite.
        """
        spec = self.spec.array(tap)
        if mixtures.shape != spec.shape(SIGNS) or mixtures.dtype != np.float64:
            raise ValueError(f"mixtures of {tap} are {mixtures.dtype} {mixtures.shape}, not {spec}")
        if not np.isfinite(mixtures).all():
            raise ValueError(f"mixtures of {tap} hold NaN or infinities")
        if self.finished:
            return
        array = open_array(self.backend, self.location, spec, SIGNS, 1)
        with self.backend.writes(f"{spec.path} of {self.location.folder}"):
            array[:] = mixtures
        keys = [self.location.key(spec.path, "c", str(sign), "0", "0") for sign in range(SIGNS)]
        self.backend.sync(keys)

    def finish(self, counts: Sequence[int], recorded: Mapping[str, object] | None = None) -> str:
        """Write the manifest, last, with the checksums of what is stored.

        Args:
            counts: samples per class.
            recorded: more to record.

        Returns:
            The ref of the bank.

        Raises:
            DamagedError: a tap was not written.
            ValueError: there are not as many counts as classes.
        """
        if len(counts) != len(self.spec.class_names):
            raise ValueError(f"{len(counts)} counts for {len(self.spec.class_names)} classes")
        if not self.finished:
            checksums = [self._checksum(tap) for tap, _ in self.spec.taps]
            manifest = self.spec.manifest(checksums, [int(n) for n in counts], recorded or {})
            self.backend.create(self.location.key("manifest.json"), seal(manifest))
        return self.ref

    def _checksum(self, tap: str) -> str:
        array = open_array(self.backend, self.location, self.spec.array(tap), SIGNS, 1)
        values = np.asarray(array[:])
        if np.isnan(values).any():
            folder = self.location.folder
            raise DamagedError(f"the tap {tap} of {folder} was not written completely")
        return checksum_array(values)


def create_bank(store: Store, spec: BankSpec) -> BankWriter:
    """Create the arrays of a bank, unless it is finished already (`BankWriter.finished`).

    The bank is invisible before `finish`: it has no manifest until then.
    """
    location = find_location(store.backend, KIND, spec.fingerprint)
    if location is None:
        location = new_location(KIND, spec.name, spec.fingerprint)
        for tap, _ in spec.taps:
            create_array(store.backend, location, spec.array(tap), SIGNS, 1)
    return BankWriter(store.backend, location, spec)


@dataclass(frozen=True)
class StoredBank:
    """A bank as read: plain arrays.

    Attributes:
        taps: in execution order.
        mixtures: one per tap, (2, M, C) float64, sign 0 positive.
        counts: samples per class, (M,) int64.
        class_names: of classes 0, 1, ...
        manifest: of the bank.
    """

    taps: tuple[str, ...]
    mixtures: tuple[NDArray[np.float64], ...]
    counts: NDArray[np.int64]
    class_names: tuple[str, ...]
    manifest: Mapping[str, object]

    @property
    def fingerprint(self) -> str:
        """The fingerprint, 64 hex characters."""
        return str(self.manifest["fingerprint"])

    @property
    def ref(self) -> str:
        """`<name>-<first 16 characters of the fingerprint>`."""
        return f"{self.manifest['name']}-{short_fingerprint(self.fingerprint)}"

    @property
    def inputs(self) -> dict[str, object]:
        """What determines the bank, as hashed."""
        stated: Any = self.manifest["inputs"]
        return cast("dict[str, object]", copy(stated))


def bank_counts(store: Store, ref: str) -> dict[str, int]:
    """Read how many samples each class of a bank has, by class name."""
    manifest = read_manifest(store.backend, locate(store.backend, KIND, ref))
    inputs, counts = manifest["inputs"], manifest["counts"]
    assert isinstance(inputs, dict)
    assert isinstance(counts, list)
    return dict(zip(inputs["class_names"], counts, strict=True))


def banks_of_model(store: Store, model: Mapping[str, object]) -> list[tuple[str, tuple[str, ...]]]:
    """List the banks of a model whose classes go by name: their refs and class names.

    Those whose manifest cannot be read are left out.

    Args:
        store: where to look.
        model: what determines the network, as in the inputs of its banks.
    """
    found = []
    for location in locations(store.backend, KIND):
        with suppress(StoreError, FileNotFoundError):
            inputs: Any = read_manifest(store.backend, location)["inputs"]
            if inputs["model"] == model and "label_order" not in inputs:
                found.append((location.ref, tuple(inputs["class_names"])))
    return found


def read_bank(
    store: Store, ref: str, last: int | None = None, taps: Collection[str] | None = None
) -> StoredBank:
    """Read a bank, or some of its taps, verified against the manifest.

    Args:
        store: where to read.
        ref: of the bank.
        last: number of last taps to read (default: all).
        taps: names of those to read (default: all).

    Raises:
        StoreUsageError: there is no such bank, or `last` is out of range.
        DamagedError: the mixtures are not what was written.
    """
    location = locate(store.backend, KIND, ref)
    manifest = read_manifest(store.backend, location)
    inputs, checksums = manifest["inputs"], manifest["checksums"]
    assert isinstance(inputs, dict)
    assert isinstance(checksums, list)
    total = len(inputs["taps"])
    if last is not None and not 1 <= last <= total:
        raise StoreUsageError(f"the bank {location.ref} has {total} taps: k must be 1 to {total}")
    chosen = list(zip(inputs["taps"], checksums, strict=True))[total - (last or total) :]
    if taps is not None:
        chosen = [each for each in chosen if each[0][0] in taps]
    classes = tuple(inputs["class_names"])
    specs = [_mixtures_spec(str(tap), len(classes), int(size)) for (tap, size), _ in chosen]
    return StoredBank(
        taps=tuple(str(tap) for (tap, _), _ in chosen),
        mixtures=tuple(
            _read_mixtures(store.backend, location, spec, checksum)
            for spec, (_, checksum) in zip(specs, chosen, strict=True)
        ),
        counts=np.asarray(manifest["counts"], dtype=np.int64),
        class_names=classes,
        manifest=manifest,
    )


def _mixtures_spec(tap: str, classes: int, channels: int) -> ArraySpec:
    return ArraySpec(f"mixtures.zarr/{tap}", (classes, channels), "float64")


def _read_mixtures(
    backend: Backend, location: Location, spec: ArraySpec, checksum: str
) -> NDArray[np.float64]:
    array = open_array(backend, location, spec, SIGNS, 1)
    values = read_checked(array, backend, location, spec, slice(0, SIGNS), checksum)
    return values.astype(np.float64, copy=False)
