"""Attacks from the options of a command or the keys of a study's attack.

Every error is one sentence; for an unknown attack, preset or parameter it suggests the nearest.
"""

from __future__ import annotations

import re
from dataclasses import fields
from difflib import get_close_matches
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regroup.attacks import AttackSpec
    from regroup_pipelines.configs.options import AttackOptions
    from regroup_pipelines.json_types import JsonObject

DEFAULT = "pgd"
# Parameters that have their own option (in a study: key); `--parameters` takes the rest.
OPTIONS = (
    "norm", "protocol", "epsilon", "steps", "targeted", "confidence", "growth_limit", "bisections",
    "seed",
)  # fmt: skip
# A decimal number, or the quotient of two; an exponent of more digits would fill the memory.
_DECIMAL = r"(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
_QUOTIENT = re.compile(rf"([+-]?{_DECIMAL})(?:/({_DECIMAL}))?", re.ASCII)
UNITS = "epsilon is in [0,1] pixel units: did you mean"


def parse_number(text: str) -> float:
    """Parse a decimal number, or the quotient of two: "4/255", "0.5 / 255", "1e-3".

    Raises:
        ValueError: it is neither, or no finite float.
    """
    found = _QUOTIENT.fullmatch("".join(text.split()))
    if found is None or not Fraction(found[2] or "1"):
        raise ValueError(text)
    try:
        return float(Fraction(found[1]) / Fraction(found[2] or "1"))
    except OverflowError:
        raise ValueError(text) from None


def parse_epsilon(text: str) -> float:
    """Parse a positive size in pixel units, such as "4/255" or "0.0157".

    Raises:
        UsageError: the text is not such a number.
    """
    if text.rstrip().endswith("%"):
        raise UsageError(f"epsilon {text!r} is a percentage: {UNITS} 4/255?")
    try:
        epsilon = parse_number(text)
    except ValueError:
        raise UsageError(
            f"epsilon {text!r} is not a number: give a fraction such as 4/255 or a decimal"
        ) from None
    if epsilon <= 0:
        raise UsageError(f"epsilon {text} is not positive: {UNITS} 4/255?")
    return epsilon


def attack_spec(
    options: AttackOptions, parameters: Sequence[str] | Mapping[str, object] = ()
) -> AttackSpec:
    """Make the attack that the options describe; the rest is the preset's or the attack's default.

    Args:
        options: which attack or preset, and what they change of it.
        parameters: parameters specific to the attack, as "key=value" texts or typed values by key.

    Raises:
        UsageError: there is no such attack, preset or parameter.
        ConfigurationError: the attack rejects a value.
    """
    from regroup.attacks import make_attack

    base = _base(options)
    name = str(base.pop("name"))
    given = _given(options) | own_parameters(name, parameters)
    if options.epsilon is not None:
        given["epsilon"] = _epsilon(options.epsilon, str({**base, **given}["norm"]))
    return make_attack(name, **{**base, **given})


def _base(options: AttackOptions) -> JsonObject:
    """Return the name and parameters to start from: a preset's, or an attack's defaults."""
    if options.preset is None:
        name = DEFAULT if options.attack is None else options.attack
        # The class defaults to `minimal`, as in the paper; the commands have always used `budget`.
        protocol = {"protocol": "budget"} if name == DEFAULT else {}
        defaults = {field.name: field.default for field in fields(attack_kind(name))}
        return {"name": name, "norm": defaults["norm"], **protocol}
    if options.attack is not None:
        raise UsageError(
            f"--preset {options.preset} is an attack already: leave --attack {options.attack} out"
        )
    found = preset(options.preset)
    return {"name": found.name, **found.given()}


def _given(options: AttackOptions) -> JsonObject:
    """Return the parameters that were given by their own option."""
    named = {name: getattr(options, name) for name in OPTIONS if name != "epsilon"}
    if not options.targeted:
        del named["targeted"]  # keeps that of a preset
    return {name: value for name, value in named.items() if value is not None}


def _epsilon(text: str, norm: str) -> float:
    epsilon = parse_epsilon(text)
    if norm == "linf" and epsilon > 1:
        meant = f"{text.strip()}/255" if text.strip().isdecimal() else "4/255"
        raise UsageError(f"epsilon {text} is out of range: {UNITS} {meant}?")
    return epsilon


def attack_kind(name: str) -> type[AttackSpec]:
    """Return the class of an attack.

    Raises:
        UsageError: its module cannot be imported.
    """
    from regroup.attacks import attack_class

    try:
        return attack_class(name)
    except ImportError as error:
        raise UsageError(f"the attack {name} is not available: {error}") from error


def presets() -> Mapping[str, AttackSpec]:
    """Return all presets by name, in the order of the paper's tables."""
    from regroup.attacks.presets import PRESETS

    return PRESETS


def preset(name: str) -> AttackSpec:
    """Return the preset called `name`.

    Raises:
        UsageError: there is none; the message suggests the nearest.
    """
    known = presets()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known) or 'none'}"
        raise UsageError(f"there is no preset {name!r}: {hint}")
    return known[name]


def own_parameters(attack: str, given: Sequence[str] | Mapping[str, object]) -> dict[str, object]:
    """Parse the parameters specific to an attack, each to the type of its field.

    Raises:
        UsageError: a text is not key=value, a value is not of the right type, or the parameter has
            its own option.
    """
    pairs = given if isinstance(given, dict) else dict(map(_pair, given))
    kinds = {field.name: str(field.type) for field in fields(attack_kind(attack))}
    for name in pairs:
        if name in OPTIONS:
            raise UsageError(
                f"the parameter {name} has its own option: give it as "
                f"--{name.replace('_', '-')}, in a study as a key of the attack"
            )
    return {name: typed(name, kinds.get(name, "str"), value) for name, value in pairs.items()}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--parameters {text}: give each as key=value, as in steps_a_try=10")
    return name.strip().replace("-", "_"), value.strip()


def typed(name: str, annotation: str, value: object) -> object:
    """Convert `value`, text or a TOML value, to the type that a field's annotation names.

    Raises:
        UsageError: the value does not fit the annotation.
    """
    kinds = [kind.strip() for kind in annotation.split("|")]
    if "None" in kinds and value in ("none", "None"):
        return None
    if annotation.startswith("tuple[") and isinstance(value, str | list):
        inner = annotation.removeprefix("tuple[").rstrip("]").split(",")[0]
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(typed(name, inner, part) for part in parts)
    for kind, convert in (("bool", _boolean), ("int", _whole), ("float", _number)):
        if kind in kinds:
            try:
                return convert(value)
            except (ValueError, TypeError, KeyError):
                raise UsageError(
                    f"the parameter {name} takes {_WORDS[kind]}, not {value!r}"
                ) from None
    return value


_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number"}


def _boolean(value: object) -> bool:
    return {"true": True, "false": False}[value] if isinstance(value, str) else _is(bool, value)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, str) else _is(int, value)


def _number(value: object) -> float:
    if isinstance(value, str):
        return parse_number(value)
    number = float(_is(float, float(value) if type(value) is int else value))
    if not isfinite(number):
        raise ValueError(value)
    return number


def _is(kind: type[Any], value: object) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value
