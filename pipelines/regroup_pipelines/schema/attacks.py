"""Subsets, attacks and sweeps of a study file, typed and checked (docs/studies.md).

Also the types and helpers that all tables of a study file share. Loads no torch, ray or zarr.
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from regroup.errors import ConfigurationError
from regroup_pipelines.configs.options import AttackOptions
from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.attack_options import attack_spec, parse_epsilon
from regroup_pipelines.schema.spelling import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regroup.attacks import AttackSpec

STRICT = ConfigDict(extra="forbid", strict=True)
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


class MistakeError(Exception):
    """An invalid value in a study file.

    Attributes:
        path: the key path of the value.
    """

    def __init__(self, path: tuple[str, ...], text: str) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Subset:
    """`[subsets.NAME]`: samples of a dataset, drawn at random by `seed`.

    Attributes:
        dataset: the dataset to draw from.
        correct: draw only from samples that the network classifies correctly.
        per_class: maximum number of samples per class.
        classes: number of classes, drawn as well.
        class_names: the classes by name, instead of `classes`.
        limit: maximum number of samples in total.
        seed: seed of both draws.
    """

    dataset: str = "val"
    correct: bool = True
    per_class: Count | None = None
    classes: Count | None = None
    class_names: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    limit: Count | None = None
    seed: int = 0

    @property
    def query(self) -> dict[str, Any]:
        """The selection as JSON, part of the subset's fingerprint."""
        names = self.class_names and sorted(self.class_names)
        asked = {**asdict(self), "class_names": names}
        # Left out where true, so that subsets made before the key existed keep their fingerprints.
        unsaid = {"dataset", "correct"} if self.correct else {"dataset"}
        return {key: value for key, value in asked.items() if key not in unsaid}

    def check_classes(self, path: tuple[str, ...], names: Sequence[str]) -> None:
        """Check the requested classes against those of the dataset.

        Raises:
            MistakeError: `names`, the classes of the dataset, lack one.
        """
        if self.classes is not None and self.classes > len(names):
            raise MistakeError((*path, "classes"), f"the dataset has {len(names)} classes")
        for name in self.class_names or ():
            if name not in names:
                text = f"there is no class {suggestion(name, names)}"
                raise MistakeError((*path, "class_names"), text)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Attack(AttackOptions):
    """`[attacks.NAME]`: an attack on a subset, or on the correctly classified samples of a dataset.

    Attributes:
        dataset: the dataset to attack; None: "val", or that of the subset.
        subset: the subset to attack.
        block_rows: samples per block (default: from the attack's cost).
        batch: samples attacked at once (default: the model's batch size).
        skip: declare the attack without running it.
        parameters: parameters specific to the attack.
    """

    dataset: str | None = None
    subset: str | None = None
    block_rows: Count | None = None
    batch: Count | None = None
    skip: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("epsilon", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if number else value

    @field_validator("epsilon")
    @classmethod
    def _in_pixel_units(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_epsilon(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("steps", "growth_limit", "limit")
    @classmethod
    def _counts(cls, value: int | None) -> int | None:
        return value if value is None else at_least(1, value)

    @field_validator("bisections")
    @classmethod
    def _halvings(cls, value: int | None) -> int | None:
        return value if value is None else at_least(0, value)

    def spec(self) -> AttackSpec:
        """Make the attack.

        Raises:
            UsageError: there is no such attack, preset or parameter.
            ConfigurationError: the attack rejects a value.
        """
        return attack_spec(self, self.parameters)

    def check(self, path: tuple[str, ...]) -> None:
        """Check that the attack can be made.

        Raises:
            MistakeError: it cannot; at the offending key below `path` where that is known.
        """
        try:
            self.spec()
        except (UsageError, ConfigurationError) as error:
            words = re.findall(r"\w+", str(error))
            named = (key for key in keys_of(Attack) if getattr(self, key) and key in words)
            raise MistakeError((*path, *[*named][:1]), str(error)) from None

    @property
    def title(self) -> str:
        """Title for tables and captions; always names the protocol."""
        spec = self.spec()
        steps = getattr(spec, "steps", None)
        parts = [
            spec.facts.title,
            spec.norm if spec.facts.norms[0] != spec.norm else "",
            "targeted" if spec.targeted else "",
            f"protocol {spec.protocol}",
            self._size(spec),
            f"{steps} steps" if steps is not None else "",
            self._search(spec),
            *(f"{key} {value}" for key, value in self.parameters.items()),
            f"seed {self.seed}",
        ]
        return ", ".join(part for part in parts if part)

    def _size(self, spec: AttackSpec) -> str:
        """Describe epsilon and confidence in words."""
        confidence = "" if spec.confidence is None else f"confidence {spec.confidence:g}"
        if spec.epsilon is None:
            return confidence
        first = "epsilon" if spec.protocol == "budget" else "first epsilon"
        epsilon = f"{first} {self.epsilon or in_255ths(spec.epsilon)}"
        return f"{epsilon}, {confidence}" if confidence else epsilon

    def _search(self, spec: AttackSpec) -> str:
        bisections = getattr(spec, "bisections", None)
        shown = spec.protocol == "minimal" and bisections is not None
        return f"{bisections} bisections" if shown else ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sweep(Attack):
    """`[sweeps.NAME]`: one attack at several epsilons, each of which is the attack `NAME-LEVEL`.

    All other keys are those of an attack.

    Attributes:
        levels: epsilons in 255ths; in the file also the text `FIRST-LAST`, an inclusive range.
    """

    levels: Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(min_length=1)]

    @field_validator("levels", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        listed = level_range(value) if isinstance(value, str) else value
        return tuple(listed) if isinstance(listed, list) else listed

    @property
    def attacks(self) -> dict[int, Attack]:
        """The attack at every level."""
        keys = {field.name: getattr(self, field.name) for field in fields(Attack)}
        return {n: Attack(**{**keys, "epsilon": f"{n}/255"}) for n in self.levels}


def level_range(text: str) -> list[int]:
    """Parse a range of levels: `1-40` gives 1, 2, ... 40.

    Raises:
        ValueError: `text` is not a range within 1 to 255.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r}: give a list of epsilons in 255ths, or a range such as '1-40'")
    first, last = map(int, found.groups())
    if not 1 <= first <= last <= 255:
        raise ValueError(f"{text!r}: a range is from a lower to a higher level, within 1 to 255")
    return list(range(first, last + 1))


def in_255ths(epsilon: float) -> str:
    """Format epsilon as `4/255` where it is a whole number of 255ths, else as a decimal."""
    levels = epsilon * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-9 else f"{epsilon:.4g}"


def keys_of(table: type[Any]) -> list[str]:
    """Return the keys of a table of the study file, as spelt in the file."""
    aliases = {"bank_seed": "seed"}
    names = [aliases.get(field.name, field.name) for field in fields(table)]
    return [name for name in names if table is not Sweep or name != "epsilon"]


def at_least(least: int, value: int) -> int:
    """Return `value`.

    Raises:
        ValueError: it is below `least`.
    """
    if value < least:
        raise ValueError(f"{value} is too small: give at least {least}")
    return value
