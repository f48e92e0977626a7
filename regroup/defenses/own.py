"""The user's own defense: "package.module:factory", which returns a `Defense`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from regroup.defenses.spec import Defense
from regroup.errors import ConfigurationError, plain_line
from regroup.models.own.factory import found_factory, own_surroundings, refused_failures
from regroup.models.own.source_code import Project, source_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping


def own_defense(name: str, parameters: Mapping[str, Any]) -> Defense:
    """Return what the factory `name` makes of `parameters`.

    Raises:
        ConfigurationError: it cannot be imported, takes other parameters, raises, or returns
            something else.
    """
    what = f"defense {name}"
    with own_surroundings():
        factory = found_factory(what, name)
        _check_parameters(what, factory, parameters)
        with refused_failures(f"{what} failed"):
            made = factory(**parameters)
    if not isinstance(made, Defense):
        raise ConfigurationError(
            f"{what} returned {type(made).__name__}: return a regroup.defenses.spec.Defense"
        )
    return made


def _check_parameters(what: str, factory: Any, parameters: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables of other languages have none
        return
    try:
        signature.bind(**parameters)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigurationError(
            f"{what} takes other parameters ({plain_line(error)}): it has {known}"
        ) from error


def own_source(name: str) -> str:
    """Return the sha256 of the source of `name`'s module and what it imports of its project."""
    return source_sha256(Project(name.partition(":")[0]), ())
