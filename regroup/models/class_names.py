"""The names of a network's outputs, in whatever form and place people give them."""

from __future__ import annotations

import enum
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

from torch import nn

from regroup.errors import ConfigurationError
from regroup.models.class_matching import in_imagenets_order
from regroup.models.imagenet import imagenet_wnids

# Where libraries keep them, the first that fits the outputs: Hugging Face, timm, fastai,
# torchvision's datasets and weights, ultralytics.
_PLACES = (
    "config.id2label", "config.label2id", "id2label", "label2id", "pretrained_cfg.label_names",
    "classes", "categories", "class_to_idx", "idx_to_class", "label_names", "names",
)  # fmt: skip
_NUMBER = re.compile(r"\d{1,9}")


def network_class_names(network: nn.Module, outputs: int, model: str) -> tuple[str, ...] | None:
    """Return the names of a network's outputs, from `class_names` or where libraries keep them.

    1000 names in ImageNet's order, some of them repeated as in older lists, are its wnids.

    Args:
        network: may have `class_names`: see `read_class_names`.
        outputs: M.
        model: names the network in errors.

    Raises:
        ConfigurationError: `class_names` cannot be read, or are not one different name per output.
    """
    try:
        given = _attribute(network, "class_names")
        if given is None:
            return _kept_elsewhere(network, outputs)
        names = read_class_names(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"model {model}: {error}") from error
    if names and len(set(names)) < len(names) == outputs and in_imagenets_order(names):
        return imagenet_wnids()
    if names and not len(set(names)) == len(names) == outputs:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        raise ConfigurationError(
            f"model {model} has {outputs} outputs and {len(set(names))} different class_names"
            f"{f' ({repeated[0]!r} is repeated)' if repeated else ''}: give one for each output"
        )
    return names or None


def read_class_names(given: object) -> tuple[str, ...]:
    """Return class names, by output.

    Args:
        given: a sequence or an array of names; a mapping of numbers to names or of names to
            numbers; an enumeration; text with a name per line, or else between commas; or a
            function without arguments that returns one of these. A name may be text, bytes, a
            number, or a pair such as (wnid, English name). Empty: no names.

    Raises:
        ConfigurationError: anything else.
    """
    if isinstance(given, type) and issubclass(given, enum.Enum):
        return _by_number({member.name: member.value for member in given})
    if callable(given) and not isinstance(given, nn.Module | type):
        given = _called(given)
    if isinstance(given, str):
        given = [part.strip() for part in given.split("\n" if "\n" in given.strip() else ",")]
        return tuple(part for part in given if part)
    if isinstance(given, Mapping):
        return _by_number(given)
    if isinstance(given, AbstractSet):
        raise ConfigurationError("class_names are a set, which has no order: give a list")
    scalar = getattr(given, "shape", None) == ()  # iterable by its type alone
    if not isinstance(given, Iterable) or scalar or isinstance(given, bytes | nn.Module | type):
        raise _unreadable(given)
    return tuple(_name(each) for each in given)


def _attribute(of: object, name: str) -> Any:
    """Return a member of a dictionary or an attribute, None where there is none."""
    try:
        return of.get(name) if isinstance(of, dict) else getattr(of, name, None)
    except Exception as error:  # a property of the user's own may raise anything
        raise ConfigurationError(
            f"its attribute {name} fails ({_told(error)}): give the names themselves"
        ) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _called(given: Callable[..., object]) -> object:
    try:
        return given()
    except Exception as error:  # the user's code may raise anything
        raise ConfigurationError(
            f"class_names is a function that fails without arguments ({_told(error)}): give the "
            "names themselves"
        ) from error


def _unreadable(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"class_names is of type {type(given).__name__}: give a list with a name for each output"
    )


def _by_number(given: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names of {number: name} or {name: number}, by number.

    Raises:
        ConfigurationError: the numbers are not 0, 1, ... in some order.
    """
    numbers = [_number(key) for key in given]
    names = list(given.values())
    texts = any(isinstance(key, str) for key in given)
    if None in numbers or (texts and not any(isinstance(name, str) for name in names)):
        # {name: number}; {"7": 7} as well, whose keys are names since they are text.
        turned = [_number(value) for value in names]
        if None not in turned:
            numbers, names = turned, list(given)
    if sorted(number for number in numbers if number is not None) != [*range(len(names))]:
        raise ConfigurationError(
            f"class_names are a mapping whose numbers are not 0 to {len(names) - 1}: map each "
            "output's number to its name"
        )
    named = dict(zip(numbers, names, strict=True))
    return tuple(_name(named[number]) for number in range(len(names)))


def _number(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _NUMBER.fullmatch(value.strip()) else None
    with suppress(TypeError, ValueError):
        return operator.index(value)  # type: ignore[arg-type]
    return None


def _name(value: Any) -> str:
    """Return one name; a number, such as an element of a tensor, in digits.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, Mapping):
        value = value.get("name")
    if isinstance(value, list | tuple) and value:
        return ", ".join(_name(part) for part in value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, enum.Enum):
        return value.name
    if (number := _number(value)) is not None and not isinstance(value, str):
        return str(number)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"class_names holds a {type(value).__name__}: give a name, as text, for each output"
        )
    return str(value)  # of NumPy's own kind of text too


def _kept_elsewhere(network: nn.Module, outputs: int) -> tuple[str, ...] | None:
    """Return names that some library left on the network, where they fit its outputs."""
    for place in _PLACES:
        with suppress(ConfigurationError, TypeError, ValueError):  # `classes` may be anything here
            given: Any = network
            for part in place.split("."):
                given = _attribute(given, part)
            if given is None or callable(given) or isinstance(given, str):
                continue
            if place == "names" and not isinstance(given, Mapping):
                continue
            names = read_class_names(given)
            if len(set(names)) == len(names) == outputs and not numbered_in_order(names):
                return names
    return None


_PLACEHOLDER = re.compile(r"(?:label|class|output)?[\s_-]*(\d{1,9})", re.IGNORECASE)


def numbers_of(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the numbers that names such as "7", "LABEL_7" or "class 07" consist of, else None."""
    found = [_PLACEHOLDER.fullmatch(name.strip()) for name in names]
    numbers = tuple(int(each[1]) for each in found if each)
    return numbers if len(numbers) == len(names) else None


def numbered_in_order(names: tuple[str, ...]) -> bool:
    """Whether names say nothing but their place: "0", "1", ... or "LABEL_0", "LABEL_1", ..."""
    return numbers_of(names) == tuple(range(len(names)))
