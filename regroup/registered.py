"""Things that are made by name: attacks, defenses. Their modules are imported on demand."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def registered(what: str, name: str, known: Mapping[str, tuple[str, str]], more: str = "") -> Any:
    """Return the class called `name`.

    Args:
        what: it is, for the message.
        name: its name.
        known: name -> module and class.
        more: what the message ends with.

    Raises:
        ConfigurationError: an unknown name; the message has the nearest one.
    """
    if name not in known:
        hint = _hint(name, known, f"choose from {', '.join(known)}")
        raise ConfigurationError(f"unknown {what} {name!r}: {hint}{more}")
    module, kind = known[name]
    return getattr(import_module(module), kind)


def check_parameters(name: str, kind: type[Any], parameters: Iterable[str]) -> None:
    """Raise ConfigurationError for the first of `parameters` that is no field of `kind`."""
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            hint = _hint(parameter, known, f"it has {', '.join(known)}")
            raise ConfigurationError(f"{name} has no parameter {parameter!r}: {hint}")


def _hint(word: str, known: Iterable[str], otherwise: str) -> str:
    near = get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else otherwise
