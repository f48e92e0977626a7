"""Tar shards in the WebDataset layout: an image and its label side by side, under one key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import EXTENSIONS
from regroup_store.sources.left_out import HIDDEN, LeftOut, is_hidden
from regroup_store.sources.limits import DEFAULT_LARGEST
from regroup_store.sources.places import find_by_name
from regroup_store.sources.source import (
    MAX_CLASSES,
    SourceRow,
    absolute,
    error_message,
    file_system,
    spec_of,
    stamp,
)
from regroup_store.sources.tar_members import Archives, TarMember, members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Beside one of these a file of another format is no second image of the sample.
_FIRST_KEYS = ("jpg", "jpeg", "png")
_IMAGE_KEYS = tuple(dict.fromkeys([*_FIRST_KEYS, *(each[1:] for each in EXTENSIONS)]))
_SHOWN_KEYS = f"{' '.join(_FIRST_KEYS)} webp ..."
LABELS = ("cls", "json")
LABEL_KEYS = ("label", "cls")
# A label is a number, or a few fields about the image, in bytes. Parsed JSON takes up to 30 times
# its size.
LARGEST_LABEL = 1 << 22
_EXAMPLE = "webdataset:shards/train-{000..146}.tar"
# Of shards that one pair of braces may stand for.
MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")
# The key goes up to the first dot of the file's name, as the webdataset library has it.
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)

# Of the webdataset library's own files, which it skips.
_META = re.compile(r"__[^/]*__($|/)")


class WebDatasetSource:
    """The shards that a glob matches, sorted by name; ``{000..146}`` names each of a range.

    A sample is the files of one key, which are adjacent: one image, and the label in `cls`, a
    number as text, or in `json` as a number under "label" or "cls"; `cls` takes precedence. A label
    column is another extension, or another field of the json. Other files are left out and counted.
    Sample ids are ``<shard>#<key>``, locators ``<shard>#<first byte>+<bytes>``.
    """

    def __init__(
        self, location: str, label_column: str | None = None, largest: int = DEFAULT_LARGEST
    ) -> None:
        """Find the shards; `rows` and `class_names` read their headers and labels.

        Args:
            location: of the shards.
            label_column: where the labels are, if not in one of the usual places.
            largest: bytes that one image may have.

        Raises:
            StoreUsageError: nothing matches, a shard of a range is missing, or two shards share
                their name.
        """
        self._label_column = label_column
        self.left_out = LeftOut()
        self._fs, pattern = file_system(location, f"webdataset:{location}")
        self.spec = spec_of("webdataset", label_column, absolute(self._fs, pattern))
        patterns = _expanded(pattern)
        self._paths = find_by_name(self._fs, patterns, self.spec, _EXAMPLE)
        self._archives = Archives(self._fs, self.spec, self._paths, largest)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """``"0"`` to the largest label of all shards.

        Raises:
            StoreUsageError: what `rows` raises.
        """
        return tuple(str(label) for label in range(max(row.label for row in self.rows()) + 1))

    def rows(self) -> Iterator[SourceRow]:
        """All samples, by shard and then in the order of the shard.

        Raises:
            StoreUsageError: no sample, a damaged shard, an image without a label or the reverse,
                two images of one key, or a label that is not a number from 0 up.
        """
        self.left_out.clear()
        samples = 0
        for name, path in self._paths.items():
            before = samples
            for row in self._shard_rows(name, path):
                samples += 1
                yield row
            if samples == before:
                self.left_out.add("shards without a sample", name)
        if not samples:
            raise StoreUsageError(
                f"{self.spec}: the shards hold no sample; expected images "
                f"({_SHOWN_KEYS}) "
                f"with labels ({' '.join(self._label_keys)})"
            )

    def read(self, locators: Sequence[str]) -> list[bytes | OSError]:
        """Bytes of the images.

        Raises:
            StoreUsageError: a locator is in none of these shards.
        """
        return self._archives.read(locators)

    def _shard_rows(self, name: str, path: str) -> Iterator[SourceRow]:
        try:
            entry = self._fs.info(path)
            file = self._fs.open(path, "rb")
        except OSError as error:
            raise StoreUsageError(
                f"{self.spec}: {name} cannot be read: {error_message(error)}"
            ) from error
        with file:
            version, shard = stamp(self._fs, entry), f"{self.spec}: {name}"
            for sample in self._samples(file, shard, int(entry["size"])):
                image, label = sample.image(self.left_out), sample.label(file)
                yield SourceRow(f"{name}#{sample.key}", label, image.locator(name), version)

    @property
    def _label_keys(self) -> tuple[str, ...]:
        """The extensions of files that hold labels."""
        return LABELS if self._label_column is None else (self._label_column.lower(), "json")

    def _samples(self, file: BinaryIO, shard: str, size: int) -> Iterator[_Sample]:
        """Runs of files with one key that hold an image or a label."""
        sample = _Sample(shard, "", {}, self._label_column, self._label_keys)
        for member in members(file, shard, 0, size, self.left_out):
            key, extension = _split(member.name)
            if (reason := self._no_part(member.name, extension)) is not None:
                self.left_out.add(reason, member.name)
                continue
            if key != sample.key:
                if sample.members:
                    yield sample
                sample = replace(sample, key=key, members={})
            if extension in sample.members:
                raise StoreUsageError(f"{sample.where} has its {extension} twice")
            sample.members[extension] = member
        if sample.members:
            yield sample

    def _no_part(self, name: str, extension: str) -> str | None:
        """Why a file is no part of a sample; None where it is one."""
        if is_hidden(name) or _META.search(name):
            return HIDDEN
        if extension in _IMAGE_KEYS or extension in self._label_keys:
            return None
        return "neither image nor label"


@dataclass(frozen=True)
class _Sample:
    """The files of one key.

    Attributes:
        shard: names it in errors.
        key: of the files.
        members: by extension.
        label_column: where the label is, if that was said.
        label_keys: the extensions of files that hold labels, in the order of precedence.
    """

    shard: str
    key: str
    members: dict[str, TarMember]
    label_column: str | None
    label_keys: tuple[str, ...]

    @property
    def where(self) -> str:
        """Shard and key, for errors."""
        return f"{self.shard}: sample {self.key!r}"

    def image(self, left_out: LeftOut) -> TarMember:
        """The one image of the sample; `left_out` counts those of other formats beside it.

        Raises:
            StoreUsageError: there is none, or several.
        """
        images = [each for each in self.members if each in _IMAGE_KEYS]
        found = [each for each in images if each in _FIRST_KEYS] or images
        if not found:
            raise StoreUsageError(
                f"{self.where} has a label but no image ({_SHOWN_KEYS}) next to it; "
                "put the files of a sample one after the other"
            )
        if len(found) > 1:
            raise StoreUsageError(
                f"{self.where} has {len(found)} images: {' '.join(sorted(found))}; keep one"
            )
        for extension in set(images) - set(found):
            left_out.add("of another format beside the image", self.members[extension].name)
        return self.members[found[0]]

    def label(self, file: BinaryIO) -> int:
        """The class index, read from the shard.

        Raises:
            StoreUsageError: there is none, or it is not a class index.
        """
        found = next((extension for extension in self.label_keys if extension in self.members), "")
        if not found:
            raise StoreUsageError(
                f"{self.where} has an image but no label ({' '.join(self.label_keys)}) next to it; "
                "--label-column names another extension, or another field of the json"
            )
        member = self.members[found]
        if member.size > LARGEST_LABEL:
            raise StoreUsageError(
                f"{self.where}: its {found} has {member.size} bytes, above the {LARGEST_LABEL} of "
                "a label; make it a number, or a few fields"
            )
        file.seek(member.offset)
        text = member.content(file.read(member.stored)).decode("utf-8", "replace").strip()
        return self._class_index(found, text)

    def _class_index(self, found: str, text: str) -> int:
        """The class index that the text of a file of extension `found` states."""
        keys = LABEL_KEYS if self.label_column is None else (self.label_column,)
        fields = found == "json"
        label = _json_number(text, keys) if fields else _number(text)
        if label is None or not 0 <= label < MAX_CLASSES:
            where = f" under {' or '.join(keys)}" if fields else ""
            raise StoreUsageError(
                f"{self.where}: its {found} is {text[:60]!r}; expected a class index counted "
                f"from 0{where} (--label-column names another place)"
            )
        return label


def _split(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a file name; no extension is ""."""
    match = _NAME.fullmatch(name)
    return (match[1].removeprefix("./"), match[2].lower()) if match else (name, "")


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _json_number(text: str, keys: Sequence[str]) -> int | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    label = next((fields[key] for key in keys if key in fields), None)
    return label if isinstance(label, int) and not isinstance(label, bool) else None


def _expanded(pattern: str) -> list[str]:
    """The patterns that ``{first..last}`` stands for, zero-padded as written."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise StoreUsageError(
            f"{pattern}: {match[0]} is not a range; write the smaller number first"
        )
    head, tail = pattern[: match.start()], pattern[match.end() :]
    numbers = (str(number).zfill(len(match[1])) for number in range(first, last + 1))
    return [path for number in numbers for path in _expanded(f"{head}{number}{tail}")]
