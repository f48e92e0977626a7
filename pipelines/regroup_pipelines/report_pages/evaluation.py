"""A study's elements, opened from the names that its results give; nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from regroup.errors import RegroupError
from regroup_pipelines.errors import UsageError
from regroup_store.errors import StoreError, StoreUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import short_fingerprint
from regroup_store.format.manifests import find_location, locate, read_manifest
from regroup_store.kinds.banks import KIND as BANKS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from regroup_store.format.store import Store

    T = TypeVar("T")

Row = dict[str, Any]


@dataclass(frozen=True)
class Missing:
    """What a page says in place of something that cannot be read any more."""

    reason: str


def attempt(read: Callable[[], T]) -> T | Missing:
    """What `read` returns, or why the store, or a dataset, does not give it any more."""
    try:
        return read()
    except (StoreError, UsageError, RegroupError, OSError) as error:
        return Missing(" ".join(str(error).split()) or type(error).__name__)


@dataclass(frozen=True)
class Study:
    """The results of one study beside the store that holds them."""

    store: Store
    results: Row

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.results["study"])

    @property
    def settings(self) -> Row:
        """What was asked for."""
        settings: Row = self.results["settings"]
        return settings

    @property
    def attacks(self) -> list[Row]:
        """The rows of its images that are attacks with numbers."""
        return [row for row in self.results["images"] if "adversarials" in row]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Every pair of tap policy and bank."""
        return [Evaluation(self, row) for row in self.results["evaluations"]]

    def clean_of(self, attack: Row) -> str:
        """What the results call the clean images of the dataset that was attacked."""
        clean = {row["dataset"]: row["images"] for row in self.results["images"] if "index" in row}
        return str(clean[attack["dataset"]])

    def adversarials(self, attack: Row) -> BlockElement:
        """What the attack made."""
        return BlockElement.open(self.store, "adversarials", attack["adversarials"])


@dataclass(frozen=True)
class Evaluation:
    """One tap policy and bank of a study."""

    study: Study
    row: Row
    _kept: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Names it in files and links."""
        return f"{self.row['taps']}-{self.row['bank']}"

    @property
    def title(self) -> str:
        """Names it on pages."""
        return f"{self.row['taps']} taps, bank {self.row['bank']}"

    @property
    def k(self) -> int:
        """How many of the last taps vote."""
        return int(self.row["k"])

    @property
    def signs(self) -> str:
        """Which voters of a tap count."""
        return str(self.study.settings["scoring"]["signs"])

    def votes(self, images: str) -> BlockElement:
        """Votes on clean or attacked images; raises StoreUsageError where they are gone."""
        return BlockElement.open(self.study.store, "votes", self.row["votes"][images])

    def features(self, images: str) -> BlockElement:
        """The features that those votes are of, as far as their gaps say."""
        votes = self.votes(images)
        fingerprint = str(votes.inputs["features"])
        found = find_location(self.study.store.backend, "features", fingerprint)
        if found is None:
            raise StoreUsageError(
                f"the features {short_fingerprint(fingerprint)} are no longer in the store"
            )
        features = BlockElement.open(self.study.store, "features", found.ref)
        features.accept_gaps_of(votes.inputs)
        return features

    def once(self, key: str, read: Callable[[], T]) -> T:
        """What `read` returns, kept under `key`: large tables are read from the store once."""
        if key not in self._kept:
            self._kept[key] = read()
        found: T = self._kept[key]
        return found

    @cached_property
    def _bank_inputs(self) -> Row:
        backend = self.study.store.backend
        manifest = read_manifest(backend, locate(backend, BANKS, self.row["bank_ref"]))
        inputs: Any = manifest["inputs"]
        found: Row = inputs
        return found

    @property
    def class_names(self) -> list[str]:
        """The names of the classes that are voted on; raises StoreUsageError, DamagedError."""
        return [str(name) for name in self._bank_inputs["class_names"]]

    @property
    def taps(self) -> list[str]:
        """Every tap that may vote, first to last, from the results alone."""
        return [str(row["tap"]) for row in self.row["tap_accuracy"]]
