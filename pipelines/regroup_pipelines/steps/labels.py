"""A dataset's labels as the model's classes: by name, by number or by position.

Every command, study and program takes this way: the names of the dataset's classes are compared
with those of the model's outputs. Labels are never taken by position where both sides have names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from regroup.models.class_matching import match_names
from regroup.models.class_names import numbered_in_order, numbers_of
from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.steps.network import restricted

if TYPE_CHECKING:
    from regroup.models.class_matching import NameMatch
    from regroup_pipelines.configs.options import ClassesName
    from regroup_pipelines.steps.network import Network
    from regroup_store.format.element_spec import ElementSpec
    from regroup_store.format.store import Store
    from regroup_store.kinds.indexes import SampleIndex

POSITION = "give --labels position if label 0 is the model's class 0 and so on"
SHOWN_NAMES = 3
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Labels:
    """How the labels of a dataset become classes of the model.

    Attributes:
        by: what they go by.
        classes: the model's class of every label; None where they are the same.
        forced: whether they go by position because `--labels position` says so, and would not
            without it. Part of the fingerprint where it is so.
        line: what the log says; None where names are equal and in one order.
    """

    by: Literal["name", "number", "position"]
    classes: tuple[int, ...] | None
    forced: bool = False
    line: str | None = None


def labels_of(names: tuple[str, ...], where: str, network: Network) -> Labels:
    """Return how labels called `names` become classes of `network`.

    Args:
        names: of the dataset's classes, in the order of its labels.
        where: the dataset, for messages.
        network: has the names to compare with, and `--labels`.

    Raises:
        UsageError: the names are not those of the model, or nothing says which class a label is.
    """
    if network.labels == "name":
        return _compared(names, where, network)
    _check_count(names, where, network)
    try:
        forced = _compared(names, where, network).classes is not None
    except UsageError:
        forced = True
    line = f"labels of {where}: by position, as --labels says: {_first(names)} is class 0"
    return Labels("position", None, forced, line)


def labels_for(index: SampleIndex, network: Network) -> Labels:
    """Return how the labels of `index` become classes of `network`; see `labels_of`."""
    return labels_of(index.class_names, index.ref, network)


def label_map(index: SampleIndex, network: Network) -> tuple[int, ...] | None:
    """Return the model's class of every label of the dataset, or None where they are equal.

    Raises:
        UsageError: see `labels_of`.
    """
    return labels_for(index, network).classes


def has_names(network: Network) -> bool:
    """Whether the outputs of a network have names, other than their numbers."""
    return network.class_names is not None and not numbered_in_order(network.class_names)


def named_by(network: Network, names: tuple[str, ...], whose: str) -> Network:
    """Let a network whose outputs have no names take others: those of its bank's dataset.

    Args:
        network: the network; one that has names keeps them.
        names: of all its outputs, in order; ignored if they are mere numbers.
        whose: what has the names, in words.
    """
    if has_names(network) or len(names) != network.num_classes or numbered_in_order(names):
        return network
    return replace(network, class_names=names, names_of=whose)


def network_for(network: Network, index: SampleIndex, classes: ClassesName) -> Network:
    """Apply --classes: return `network`, or restrict it to the classes of `index`.

    A restricted network has only the dataset's classes, in the dataset's order. Softmax and all
    later ranking and scoring range over these classes.

    Raises:
        UsageError: see `labels_of`.
    """
    labels = label_map(index, network) or tuple(range(len(index.class_names)))
    if classes == "all" or labels == tuple(range(network.num_classes)):
        return network
    return named_by(restricted(network, labels), index.class_names, f"the dataset {index.ref}")


def log_labels(names: tuple[str, ...], where: str, network: Network) -> None:
    """Say in one line what labels go by, unless names are equal and in one order.

    Raises:
        UsageError: see `labels_of`.
    """
    if line := labels_of(names, where, network).line:
        log(line)


def log_made_anew(store: Store, spec: ElementSpec) -> None:
    """Say so where an element exists under other labels than those it gets now."""
    held = store.find(spec.kind, spec.fingerprint)
    if held is not None or not {"labels", "label_order"} & spec.inputs.keys():
        return
    inputs = {k: v for k, v in spec.inputs.items() if k not in ("labels", "label_order")}
    if earlier := store.find(spec.kind, replace(spec, inputs=inputs).fingerprint):
        log(f"{spec.name}: made anew, since the labels of {earlier} go by position without a word")


def _compared(names: tuple[str, ...], where: str, network: Network) -> Labels:
    known = network.class_names
    match = match_names(names, known) if known is not None else None
    if known is not None and match is not None and not match.unmatched:
        found = tuple(place for place in match.positions if place is not None)
        line = _names_line(names, known, found, where, network)
        return Labels("name", _unless_equal(found), line=line)
    numbers, named = numbers_of(names), has_names(network)
    if numbers and _are_classes(numbers, network.num_classes):
        if not named:
            _check_order(names, numbers, where, network)
        line = f"labels of {where}: its classes are numbers, taken as those of the model's classes"
        return Labels("number", _unless_equal(numbers), line=line)
    if known is not None and match is not None and named:
        raise _mismatch(names, known, match, where, network)
    return _by_position(names, where, network)


def _unless_equal(classes: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if classes == tuple(range(len(classes))) else classes


def _names_line(
    names: tuple[str, ...], known: tuple[str, ...], found: tuple[int, ...], where: str, of: Network
) -> str | None:
    differ = [at for at, name in enumerate(names) if known[found[at]] != name or found[at] != at]
    if not differ:
        return None
    at = next((at for at in differ if known[found[at]] != names[at]), differ[0])
    return (
        f"labels of {where}: by name, all {len(names)} found among those of "
        f"{of.names_of or _model(of)}, such as {names[at]!r}: class {found[at]} "
        f"({known[found[at]]!r})"
    )


def _are_classes(numbers: tuple[int, ...], classes: int) -> bool:
    return len(set(numbers)) == len(numbers) and max(numbers) < classes


def _check_order(
    names: tuple[str, ...], numbers: tuple[int, ...], where: str, network: Network
) -> None:
    """Refuse as many numbers as outputs in another order, which has two meanings.

    Raises:
        UsageError: class 10 may be output 10, or output 2, as torchvision numbers folders.
    """
    ordered = tuple(range(network.num_classes))
    if numbers != ordered and tuple(sorted(numbers)) == ordered:
        raise _two_orders(names, where, network)


def _two_orders(names: tuple[str, ...], where: str, network: Network) -> UsageError:
    at = next(at for at, name in enumerate(_natural(names)) if names[at] != name)
    return UsageError(
        f"the dataset {where} has the classes {_few(names[: at + 1])} in this order, and "
        f"{_model(network)} does not name its outputs: {names[at]!r} may be output {at}, as "
        "torchvision numbers folders, or the one of its number: set `class_names` on the module, "
        "name folders with leading zeros (00, 01, 02), or give --labels position for the first"
    )


def _natural(names: tuple[str, ...]) -> list[str]:
    """Sort names by their numbers."""
    return sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d{1,18}", name)])


def _by_position(names: tuple[str, ...], where: str, network: Network) -> Labels:
    """Return labels by position, which is all there is where the model names no classes.

    Raises:
        UsageError: there are more of them than outputs, two orders of them, or a part of
            ImageNet's classes, which are surely not the first.
    """
    _check_count(names, where, network)
    fewer = len(names) < network.num_classes
    if fewer and all(_WNID.fullmatch(name) for name in names):
        raise UsageError(
            f"the dataset {where} has {len(names)} wnids as classes ({_few(names)}), and "
            f"{_model(network)} does not say which of its {network.num_classes} classes they are: "
            f"set `class_names` on the module that the factory returns, or {POSITION}"
        )
    parts = {tuple(re.split(r"\d+", name)) for name in names}
    if len(parts) == 1 and len(parts.pop()) > 1 and _natural(names) != list(names):
        raise _two_orders(names, where, network)
    names_none = "does not name" if network.class_names is None else "only numbers"
    some = f", {len(names)} of {network.num_classes} classes" if fewer else ""
    line = (
        f"labels of {where}: by position, {_first(names)} is class 0 and so on{some}, since "
        f"{_model(network)} {names_none} its classes (`class_names`) and no bank names them"
    )
    return Labels("position", None, line=line)


def _check_count(names: tuple[str, ...], where: str, network: Network) -> None:
    if len(names) > network.num_classes:
        raise UsageError(
            f"the dataset {where} has {len(names)} classes but {_model(network)} has "
            f"{network.num_classes}: choose a model trained on these classes"
        )


def _mismatch(
    names: tuple[str, ...], known: tuple[str, ...], match: NameMatch, where: str, network: Network
) -> UsageError:
    at = match.unmatched[0]
    theirs = network.names_of or _model(network)
    if places := match.doubtful.get(at):
        could = " or ".join(f"{known[place]!r} (class {place})" for place in places[:SHOWN_NAMES])
        taken = "" if len(places) > 1 else ", which another class is as well"
        return UsageError(
            f"the dataset {where} has the class {names[at]!r}, which could be {could} of "
            f"{theirs}{taken}: rename the class so that one name is meant, or {POSITION}"
        )
    unknown = [names[number] for number in match.unmatched]
    left = [name for place, name in enumerate(known) if place not in match.positions]
    return UsageError(
        f"the dataset {where} has {_classes(unknown)}, not among the {len(known)} classes of "
        f"{theirs} (others of which are {_few(left)}): rename or remove the class, choose a model "
        f"that knows it, or {POSITION}"
    )


def _model(network: Network) -> str:
    return f"the model {network.spec.name}"


def _first(names: tuple[str, ...]) -> str:
    return f"label 0 ({names[0]!r})"


def _few(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(repr, names[:SHOWN_NAMES])) + more


def _classes(names: list[str]) -> str:
    return f"the class {names[0]!r}" if len(names) == 1 else f"the classes {_few(names)}"
