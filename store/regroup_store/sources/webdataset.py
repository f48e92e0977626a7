"""Tar shards in the WebDataset layout: an image and its label side by side, under one key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from regroup_store.errors import StoreUsageError
from regroup_store.sources.files import find_by_name
from regroup_store.sources.parquet import MAX_CLASSES
from regroup_store.sources.source import SourceRow, absolute, error_message, file_system, stamp
from regroup_store.sources.tar_members import Archives, TarMember, members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IMAGE_KEYS = ("jpg", "jpeg", "png")
LABELS = ("cls", "json")
LABEL_KEYS = ("label", "cls")
# A label is a number, or a few fields about the image, in bytes.
LARGEST_LABEL = 1 << 24
_EXAMPLE = "webdataset:shards/train-{000..146}.tar"
# Of shards that one pair of braces may stand for.
MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")
# The key goes up to the first dot of the file's name, as the webdataset library has it.
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


class WebDatasetSource:
    """The shards that a glob matches, sorted by name; ``{000..146}`` names each of a range.

    A sample is the files of one key, which are adjacent: one image (jpg, jpeg, png), and the label
    in `cls`, a number as text, or in `json` as a number under "label" or "cls"; `cls` takes
    precedence. Other files are ignored. Sample ids are ``<shard>#<key>``, locators
    ``<shard>#<first byte>+<bytes>``.
    """

    def __init__(self, location: str) -> None:
        """Find the shards; `rows` and `class_names` read their headers and labels.

        Raises:
            StoreUsageError: nothing matches, a shard of a range is missing, or two shards share
                their name.
        """
        self._fs, pattern = file_system(location, f"webdataset:{location}")
        self.spec = f"webdataset:{absolute(self._fs, pattern)}"
        patterns = _expanded(pattern)
        self._paths = find_by_name(self._fs, patterns, self.spec, _EXAMPLE)
        self._archives = Archives(self._fs, self.spec, self._paths)

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
        samples = 0
        for name, path in self._paths.items():
            for row in self._shard_rows(name, path):
                samples += 1
                yield row
        if not samples:
            raise StoreUsageError(
                f"{self.spec}: the shards hold no sample; expected images "
                f"({' '.join(_IMAGE_KEYS)}) "
                f"with labels ({' '.join(LABELS)})"
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
            version = stamp(self._fs, entry)
            for sample in _samples(file, f"{self.spec}: {name}", int(entry["size"])):
                image, label = sample.image(), sample.label(file)
                yield SourceRow(f"{name}#{sample.key}", label, image.locator(name), version)


@dataclass(frozen=True)
class _Sample:
    """The files of one key.

    Attributes:
        shard: names it in errors.
        key: of the files.
        members: by extension.
    """

    shard: str
    key: str
    members: dict[str, TarMember]

    @property
    def where(self) -> str:
        """Shard and key, for errors."""
        return f"{self.shard}: sample {self.key!r}"

    def image(self) -> TarMember:
        """The one image of the sample.

        Raises:
            StoreUsageError: there is none, or several.
        """
        found = [extension for extension in _IMAGE_KEYS if extension in self.members]
        if not found:
            raise StoreUsageError(
                f"{self.where} has a label but no image ({' '.join(_IMAGE_KEYS)}) next to it"
            )
        if len(found) > 1:
            raise StoreUsageError(f"{self.where} has {len(found)} images: {' '.join(found)}")
        return self.members[found[0]]

    def label(self, file: BinaryIO) -> int:
        """The class index, read from the shard.

        Raises:
            StoreUsageError: there is none, or it is not a class index.
        """
        found = next((extension for extension in LABELS if extension in self.members), None)
        if found is None:
            raise StoreUsageError(
                f"{self.where} has an image but no label ({' '.join(LABELS)}) next to it"
            )
        member = self.members[found]
        if member.size > LARGEST_LABEL:
            raise StoreUsageError(f"{self.where}: its {found} has {member.size} bytes")
        file.seek(member.offset)
        text = file.read(member.size).decode("utf-8", "replace").strip()
        label = _number(text) if found == "cls" else _json_number(text)
        if label is None or not 0 <= label < MAX_CLASSES:
            where = "" if found == "cls" else f" under {' or '.join(LABEL_KEYS)}"
            raise StoreUsageError(
                f"{self.where}: its {found} is {text[:60]!r}; expected a class index counted "
                f"from 0{where}"
            )
        return label


def _samples(file: BinaryIO, shard: str, size: int) -> Iterator[_Sample]:
    """Runs of files with one key that hold an image or a label."""
    sample = _Sample(shard, "", {})
    for member in members(file, shard, 0, size):
        key, extension = _split(member.name)
        if extension not in _IMAGE_KEYS + LABELS:
            continue
        if key != sample.key:
            if sample.members:
                yield sample
            sample = _Sample(shard, key, {})
        if extension in sample.members:
            raise StoreUsageError(f"{sample.where} has its {extension} twice")
        sample.members[extension] = member
    if sample.members:
        yield sample


def _split(name: str) -> tuple[str, str]:
    """Key and lower-case extension of a file name; no extension is ""."""
    match = _NAME.fullmatch(name)
    return (match[1].removeprefix("./"), match[2].lower()) if match else (name, "")


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _json_number(text: str) -> int | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    label = next((fields[key] for key in LABEL_KEYS if key in fields), None)
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
