"""The defenses by name, and those of users, `package.module:factory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup.defenses.own import own_defense, own_source
from regroup.registered import check_parameters, registered

if TYPE_CHECKING:
    from regroup.defenses.spec import Defense

# Name -> module and class; in the order of docs/adaptive.md.
DEFENSES = {
    "regroup": ("regroup.defenses.regroup", "REGroup"),
}


def defense_class(name: str) -> type[Defense]:
    """Return the class of the defense called `name`.

    Raises:
        ConfigurationError: an unknown name; the message has the nearest one.
    """
    own = "; one of your own is package.module:factory"
    found: type[Defense] = registered("defense", name, DEFENSES, own)
    return found


def make_defense(name: str, **parameters: Any) -> Defense:
    """Return a defense by name; omitted parameters take its own defaults.

    Raises:
        ConfigurationError: an unknown defense or parameter, a value out of range, or a factory that
            cannot be called or returns something else.
    """
    if ":" in name:
        return own_defense(name, parameters)
    kind = defense_class(name)
    check_parameters(name, kind, parameters)
    return kind(**parameters)


def describe_defense(name: str, defense: Defense) -> dict[str, object]:
    """Return all that determines what `defense`, called `name`, decides; for fingerprints.

    Of a user's own the source of its module counts too.

    Raises:
        ConfigurationError: a file of a user's own was edited after it had been imported.
    """
    described = defense.describe()
    if ":" in name:
        described |= {"factory": name, "source_sha256": own_source(name)}
    return described
