"""A study's results with access to the elements behind them; nothing is computed."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from regroup.errors import RegroupError
from regroup_pipelines.errors import UsageError
from regroup_pipelines.render.study_tables import key_of
from regroup_pipelines.results.records import AttackedImages, CleanImages
from regroup_store.errors import (
    DamagedError,
    FingerprintMismatchError,
    GapError,
    LinkError,
    SchemaVersionError,
    StoreError,
    StoreUsageError,
)
from regroup_store.format.element import BlockElement
from regroup_store.format.manifests import find_location, locate, read_manifest
from regroup_store.kinds.banks import KIND as BANKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import EvaluationResults, StudyResults
    from regroup_pipelines.schema.study import Study
    from regroup_store.format.store import Store

_T = TypeVar("_T")


@dataclass(frozen=True)
class Missing:
    """Stands for something that can no longer be read.

    Attributes:
        reason: why, for the page.
    """

    reason: str


# Why what a page should show is damaged: collected while a report is written.
_DAMAGE: ContextVar[dict[str, None]] = ContextVar("damage")
_DAMAGING = (DamagedError, SchemaVersionError, FingerprintMismatchError, GapError, LinkError)


@contextmanager
def damage_noted() -> Iterator[dict[str, None]]:
    """Yield the reasons, without duplicates, why pages say within the block that all is not well.

    An element that was removed is not among them: its page says that it is gone.
    """
    reasons: dict[str, None] = {}
    token = _DAMAGE.set(reasons)
    try:
        yield reasons
    finally:
        _DAMAGE.reset(token)


def note_damage(reason: str) -> None:
    """Note that something that belongs on a page is damaged."""
    _DAMAGE.get({})[reason] = None


def or_missing(read: Callable[[], _T]) -> _T | Missing:
    """Return what `read` returns, or `Missing` where a store or dataset can no longer be read."""
    try:
        return read()
    except (StoreError, UsageError, RegroupError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _DAMAGING):
            note_damage(reason)
        return Missing(reason)


@dataclass(frozen=True)
class ReportedStudy:
    """The results of one study, and the store that holds its elements.

    Attributes:
        store: the store.
        results: the results.
        datasets: where clean images may be read, as indexes state it: those that the user named.
        declared_values: the file of published values that the study names, which is not read.
    """

    store: Store
    results: StudyResults
    datasets: frozenset[str] = frozenset()
    declared_values: str | None = None

    @classmethod
    def of(
        cls, store: Store, results: StudyResults, datasets: frozenset[str], values: str
    ) -> ReportedStudy:
        """Return the study with the file of published values that the user named, or with none."""
        settings = results.settings
        read = results.model_copy(
            update={"settings": replace(settings, paper_values=values or None)}
        )
        return cls(store, read, datasets, settings.paper_values)

    @property
    def declared(self) -> JsonObject:
        """The settings as the study declares them, as plain JSON."""
        plain: JsonObject = self.results.plain()["settings"]
        return {**plain, "paper_values": self.declared_values}

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.results.study

    @property
    def settings(self) -> Study:
        """The study as declared."""
        return self.results.settings

    @property
    def attacks(self) -> list[AttackedImages]:
        """The attacks that were run."""
        return [row for row in self.results.images if isinstance(row, AttackedImages)]

    @cached_property
    def evaluations(self) -> list[ReportedEvaluation]:
        """Every pair of tap policy and bank."""
        return [ReportedEvaluation(self, row) for row in self.results.evaluations]

    def clean_images_of(self, attack: AttackedImages) -> CleanImages:
        """Return the clean images of the dataset that was attacked."""
        clean = (row for row in self.results.images if isinstance(row, CleanImages))
        return next(row for row in clean if row.dataset == attack.dataset)

    def adversarials(self, attack: AttackedImages) -> BlockElement:
        """Open the adversarials of an attack.

        Raises:
            StoreUsageError: they are no longer in the store.
        """
        return BlockElement.open(self.store, "adversarials", attack.adversarials)


@dataclass(frozen=True)
class ReportedEvaluation:
    """One tap policy and bank of a study."""

    study: ReportedStudy
    results: EvaluationResults
    _kept: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Key of the evaluation in files and links."""
        return key_of(self.results)

    @property
    def title(self) -> str:
        """Title on pages."""
        return f"{self.results.taps} taps, bank {self.results.bank}"

    @property
    def k(self) -> int:
        """How many of the last taps vote."""
        return self.results.k

    @property
    def signs(self) -> str:
        """Which voters of a tap count."""
        return self.study.results.signs

    def votes(self, images: str) -> BlockElement:
        """Open the votes on a set of images.

        Raises:
            StoreUsageError: they are no longer in the store.
        """
        return BlockElement.open(self.study.store, "votes", self.results.votes[images])

    def features(self, images: str) -> BlockElement:
        """Open the features that the votes on a set of images score, with the gaps of the votes.

        Raises:
            StoreUsageError: they are no longer in the store.
        """
        votes = self.votes(images)
        fingerprint = str(votes.inputs["features"])
        found = find_location(self.study.store.backend, "features", fingerprint)
        if found is None:
            raise StoreUsageError(f"the features {fingerprint[:16]} are no longer in the store")
        features = BlockElement.open(self.study.store, "features", found.ref)
        features.accept_gaps_of(votes.inputs)
        return features

    def once(self, key: str, read: Callable[[], _T]) -> _T:
        """Return what `read` returns, cached under `key`, so that large tables are read once."""
        if key not in self._kept:
            self._kept[key] = read()
        found: _T = self._kept[key]
        return found

    @cached_property
    def _bank_inputs(self) -> JsonObject:
        backend = self.study.store.backend
        manifest = read_manifest(backend, locate(backend, BANKS, self.results.bank_ref))
        inputs: Any = manifest["inputs"]
        found: JsonObject = inputs
        return found

    @property
    def class_names(self) -> list[str]:
        """The names of the classes that are voted on.

        Raises:
            StoreUsageError: the bank is no longer in the store.
            DamagedError: its manifest is damaged.
        """
        return [str(name) for name in self._bank_inputs["class_names"]]

    @property
    def taps(self) -> list[str]:
        """Every tap that may vote, first to last, as the results list them."""
        return [row.tap for row in self.results.tap_accuracy]
