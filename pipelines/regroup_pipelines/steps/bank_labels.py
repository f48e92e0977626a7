"""What a bank says of classes: its names for a network without any, and whether labels fit it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from regroup.models.class_matching import match_names
from regroup.models.class_names import numbers_of
from regroup_pipelines.errors import UsageError
from regroup_pipelines.steps.labels import (
    has_names,
    label_map,
    log_labels,
    named_by,
    network_for,
)
from regroup_pipelines.steps.network import restricted
from regroup_store.errors import StoreError
from regroup_store.format.element import BlockElement
from regroup_store.kinds.banks import banks_of_model
from regroup_store.kinds.indexes import SampleIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.configs.options import ClassesName
    from regroup_pipelines.steps.network import Network
    from regroup_store.format.store import Store
    from regroup_store.kinds.banks import StoredBank

SKIP = "give --labels position to take their labels as they are"


def network_on(store: Store, network: Network, index: SampleIndex, classes: ClassesName) -> Network:
    """Return the network for the labels of `index`, and log what these go by.

    A network without names takes those of the banks that the store has of it; --classes restricts
    it.

    Raises:
        UsageError: the labels do not fit, or the banks name its classes differently.
    """
    if not has_names(network):
        network = _named_by_banks(store, network)
    log_labels(index.class_names, index.ref, network)
    return network_for(network, index, classes)


def _named_by_banks(store: Store, network: Network) -> Network:
    named: dict[tuple[str, ...], str] = {}
    for ref, names in banks_of_model(store, network.description):
        if numbers_of(names) is None:
            named.setdefault(names, ref)
    if len(named) > 1 and network.labels == "name":
        (first, one), (second, other), *_ = named.items()
        at = next(at for at, name in enumerate(first) if second[at] != name)
        raise UsageError(
            f"the banks {one} and {other} of the model {network.spec.name} call its class {at} "
            f"{first[at]!r} and {second[at]!r}, so its classes have no certain names: set "
            "`class_names` on the module that the factory returns, or give --labels position"
        )
    if len(named) != 1:
        return network
    ((names, ref),) = named.items()
    return named_by(network, names, f"the bank {ref}")


def network_of_bank(
    network: Network, bank: StoredBank, index: SampleIndex, classes: ClassesName
) -> Network:
    """Return the network of `bank` for the labels of `index`, and log what these go by.

    Under --classes dataset its candidates are the bank's classes, in the bank's order, if these
    are the dataset's.

    Raises:
        UsageError: the labels do not fit.
    """
    model: Any = bank.inputs["model"]
    kept, whose = model.get("classes"), f"the bank {bank.ref}"
    if classes == "dataset" and kept and max(kept) < network.num_classes:
        candidate = named_by(restricted(network, tuple(kept)), bank.class_names, whose)
        with suppress(UsageError):
            labels = label_map(index, candidate) or range(len(index.class_names))
            if len(labels) == len(kept):
                log_labels(index.class_names, index.ref, candidate)
                return candidate
    if not kept:
        network = named_by(network, bank.class_names, whose)
    log_labels(index.class_names, index.ref, network)
    return network_for(network, index, classes)


def check_bank_names(bank: StoredBank, network: Network) -> None:
    """Check that the classes of a bank are called as the network calls its own.

    Raises:
        UsageError: they are not.
    """
    if network.class_names and has_names(network) and network.labels == "name":
        whose = f"{network.names_of or f'the model {network.spec.name}'}"
        known = dict(enumerate(network.class_names))
        _check(bank, known, whose, _recorded(bank.manifest) == "name")


def check_labels(store: Store, adversarials: BlockElement, network: Network) -> None:
    """Check that adversarials number their classes as `network` numbers those of their dataset.

    Raises:
        UsageError: they do not.
    """
    index = _index(store, str(adversarials.inputs["index"]))
    if index is None:
        return
    ours, theirs = label_map(index, network), adversarials.inputs.get("labels")
    if (list(ours) if ours else None) != theirs:
        raise UsageError(
            f"the adversarials {adversarials.ref} number their classes differently from the model "
            f"{network.spec.name} on {index.ref}: give --classes as in the attack and --labels "
            "too, or attack again"
        )


def check_stored_labels(store: Store, features: BlockElement, bank: StoredBank) -> None:
    """Check that stored features number the classes of their dataset as a bank does its own.

    Raises:
        UsageError: they do not.
    """
    element = features
    origin: Any = features.inputs["source"]
    if adversarials := origin.get("adversarials"):
        element = BlockElement.open(store, "adversarials", adversarials)
    source: Any = element.inputs.get("source", element.inputs)
    index = _index(store, source["index"])
    if index is None or numbers_of(index.class_names):
        return
    labels: Any = element.inputs.get("labels") or range(len(index.class_names))
    names = dict(zip(labels, index.class_names, strict=True))
    both = _recorded(element.manifest) == _recorded(bank.manifest) == "name"
    _check(bank, names, f"the labels of the features {features.ref}", both)


def recorded_labels(manifest: Mapping[str, Any]) -> dict[str, object]:
    """Return what an element records of its labels, for what is made of it."""
    by = _recorded(manifest)
    return {} if by is None else {"labels": by}


def _recorded(manifest: Mapping[str, Any]) -> Any:
    return manifest.get("recorded", {}).get("labels")


def _index(store: Store, fingerprint: str) -> SampleIndex | None:
    """Open an index; None for one that is gone."""
    with suppress(StoreError):
        return SampleIndex.open(store, fingerprint)
    return None


def _check(bank: StoredBank, names: Mapping[int, str], whose: str, known: bool) -> None:
    """Compare the names of a bank's classes with others.

    Args:
        bank: the bank.
        names: other names by class.
        whose: these are, in words.
        known: whether both were found among the model's names, so that one that is not found
            among the others has another name for the same.

    Raises:
        UsageError: a name is of another class, or of none.
    """
    ours = bank.class_names
    if "label_order" in bank.inputs or numbers_of(ours):
        return
    classes = sorted(names)
    match = match_names(tuple(names[number] for number in classes), ours)
    for number, place in zip(classes, match.positions, strict=True):
        if place == number or (place is None and known):
            continue
        called = f"class {number} {names[number]!r}, which"
        other = f"class {place}" if place is not None else "none"
        raise UsageError(
            f"{whose} call {called} is {other} of the bank {bank.ref} ({ours[number]!r} there): "
            f"build the bank and extract features again with the same names, or {SKIP}"
            if number < len(ours)
            else f"{whose} have a class {number}, and the bank {bank.ref} has {len(ours)}"
        )
