"""The tables of a study file, typed and checked (docs/studies.md). Loads no torch, ray or zarr.

Every class is a table of the file and every field one of its keys; `schema.loading` reads them and
locates mistakes.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from regroup_pipelines.configs.options import (
    BankOptions,
    ClassesName,
    DecoderOption,
    LabelsName,
    ModelOptions,
    PrecisionName,
    RuleName,
    SignsName,
    TapPolicyName,
    TieBreakName,
    VotingOptions,
    with_label_column,
)
from regroup_pipelines.errors import UsageError
from regroup_pipelines.schema.attacks import (
    STRICT,
    Attack,
    Count,
    MistakeError,
    Subset,
    Sweep,
    Text,
    at_least,
)
from regroup_pipelines.schema.paper_values import read_paper_values
from regroup_pipelines.schema.spelling import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


TableName = Literal[
    "accuracy", "k", "taps", "attacks", "table-1", "table-2", "table-3", "table-4", "table-5",
    "table-6",
]  # fmt: skip
FigureName = Literal["k", "taps", "figure-2", "figure-3", "figure-4"]
DATA = "{data}"
SOURCES = ("digits", "imagefolder", "imagenet", "parquet", "webdataset")
# The kinds whose labels lie beside the images, in a column that may be named.
_LABELLED = ("parquet:", "webdataset:")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """`[model]`: the classifier; the keys are those of `ModelOptions`."""

    name: Text
    weights: Text | None = None
    num_classes: Count | None = None
    resize: Count | None = None
    crop: Count | None = None
    classes: ClassesName = "all"
    labels: LabelsName = "name"
    dtype: PrecisionName = "fp32"
    channels_last: bool = False
    tf32: bool = False
    decoder: DecoderOption = "pil"
    batch: Count = 64

    def options(self, policy: TapPolicyName) -> ModelOptions:
        """Return the options of the model with the tap policy `policy`."""
        declared = {key: value for key, value in asdict(self).items() if key != "name"}
        return ModelOptions(model=self.name, taps=policy, **declared)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeclaredBank(BankOptions):
    """`[banks.NAME]`: how a bank is drawn, and from which dataset (paper, eq. 1)."""

    dataset: str = "train"
    bank_seed: int = Field(default=0, alias="seed")
    expected_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.75

    @field_validator("per_class")
    @classmethod
    def _counts(cls, value: int) -> int:
        return at_least(1, value)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scoring:
    """`[scoring]`: how features are scored, and how many of the last taps vote.

    Attributes:
        dataset: the dataset whose clean images choose k.
        threshold: of the 75 % rule that chooses k (paper, section 3.2).
        k: how many of the last taps vote, instead of the rule's choice.
        signs: which voters of a tap count.
        rule: how the voters' rankings are merged.
        tie_break: how equal classes are ordered.
        delta: added to every accumulator before it becomes a PMF.
    """

    dataset: str = "val"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.75
    k: Count | None = None
    signs: SignsName = "both"
    rule: RuleName = "borda"
    tie_break: TieBreakName = "class"
    delta: Annotated[float, Field(gt=0, le=1)] = 1e-20

    @property
    def voting(self) -> VotingOptions:
        """The options that determine the votes."""
        return VotingOptions(rule=self.rule, tie_break=self.tie_break, delta=self.delta)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Report:
    """`[report]`: which tables and figures are written."""

    tables: tuple[TableName, ...] = ("accuracy", "k", "taps")
    figures: tuple[FigureName, ...] = ("k", "taps")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Study:
    """A complete study file.

    Paths are relative to the working directory of the command.

    Attributes:
        name: names the results in the store.
        store: default of --store.
        data: replaces `{data}` in datasets and weights.
        paper_values: file of published values to show next to the measured ones.
        block_rows: samples per block.
        label_columns: where the labels of a dataset are, by its name.
        taps: tap policies; correctly classified samples are chosen by features of the first.
        model: the classifier.
        datasets: source of every dataset, by name.
        banks: every bank, by name.
        subsets: samples to attack, by name.
        attacks: every attack, by name.
        sweeps: attacks at several epsilons, by name.
        scoring: how features are scored.
        report: which tables and figures are written.
    """

    name: Text
    store: Text
    data: Text = "data"
    paper_values: Text | None = None
    block_rows: Count = 256
    strict: bool = False
    taps: Annotated[tuple[TapPolicyName, ...], Field(min_length=1)] = ("preactivation",)
    model: Model
    datasets: dict[str, Text]
    label_columns: dict[str, Text] = Field(default_factory=dict)
    banks: Annotated[dict[str, DeclaredBank], Field(min_length=1)]
    subsets: dict[str, Subset] = Field(default_factory=dict)
    attacks: dict[str, Attack] = Field(default_factory=dict)
    sweeps: dict[str, Sweep] = Field(default_factory=dict)
    scoring: Scoring = Field(default_factory=Scoring)
    report: Report = Field(default_factory=Report)

    @property
    def clean(self) -> dict[str, str]:
        """The dataset of every set of clean images, by its name in tables."""
        attacked = (self.attacked_dataset(name) for name in self.attacks)
        others = dict.fromkeys(name for name in attacked if name != self.scoring.dataset)
        return {"clean": self.scoring.dataset, **{f"clean {name}": name for name in others}}

    @property
    def used(self) -> list[str]:
        """The datasets that the study reads: first those that are scored, then those of banks."""
        banks = (bank.dataset for bank in self.banks.values())
        return list(dict.fromkeys([*self.clean.values(), *banks]))

    def attacked_dataset(self, attack: str) -> str:
        """Return the dataset that an attack draws its samples from."""
        options = self.attacks[attack]
        if options.subset is not None:
            return self.subsets[options.subset].dataset
        return options.dataset or "val"

    def expanded(self) -> Study:
        """Return the study with the attacks of its sweeps added to its attacks."""
        from dataclasses import replace

        swept = {
            f"{name}-{level}": attack
            for name, sweep in self.sweeps.items()
            for level, attack in sweep.attacks.items()
        }
        return replace(self, attacks={**self.attacks, **swept})

    def located(self, text: str) -> str:
        """Return `text` with `{data}` replaced."""
        return text.replace(DATA, self.data)

    def source(self, dataset: str) -> str:
        """Return the source spec of a dataset, such as "imagefolder:data/val"."""
        return with_label_column(
            self.located(self.datasets[dataset]), self.label_columns.get(dataset)
        )

    @property
    def voting(self) -> VotingOptions:
        """The options that determine the votes, and what labels go by."""
        from dataclasses import replace

        return replace(self.scoring.voting, labels=self.model.labels)

    def model_options(self, policy: TapPolicyName) -> ModelOptions:
        """Return the model's options with the tap policy `policy` and `{data}` replaced."""
        from dataclasses import replace

        options = self.model.options(policy)
        weights = options.weights and self.located(options.weights)
        return replace(options, model=self.located(options.model), weights=weights)

    def check(self) -> None:
        """Check names, references and values that no single table can check.

        Raises:
            MistakeError: the first mistake that is found.
        """
        _check_name(("name",), self.name)
        for section in ("datasets", "banks", "subsets", "attacks", "sweeps"):
            for name in getattr(self, section):
                _check_name((section, name), name)
        for name, source in self.datasets.items():
            _check_source(("datasets", name), source)
        for name in self.label_columns:
            _check_labelled(name, self.datasets)
        for path, dataset in self._references():
            if dataset not in self.datasets:
                raise MistakeError(
                    path, f"there is no dataset {suggestion(dataset, self.datasets)}"
                )
        for name, attack in self.attacks.items():
            attack.check(("attacks", name))
            self._check_subset(("attacks", name), attack)
        for name, sweep in self.sweeps.items():
            self._check_sweep(("sweeps", name), sweep)
        self._check_paper_values()
        for name, subset in self.subsets.items():
            if subset.classes is not None and subset.class_names is not None:
                raise MistakeError(
                    ("subsets", name, "classes"),
                    "classes and class_names exclude each other: leave one out",
                )
        for path, listed in self._lists():
            if len(set(listed)) < len(listed):
                raise MistakeError(path, "an item is listed twice")

    def _check_sweep(self, path: tuple[str, ...], sweep: Sweep) -> None:
        """Check a sweep like an attack; `epsilon` must be absent and its attacks' names free."""
        if sweep.epsilon is not None:
            raise MistakeError((*path, "epsilon"), "levels sets it: leave epsilon out")
        for level, attack in sweep.attacks.items():
            attack.check(path)
            if f"{path[-1]}-{level}" in self.attacks:
                raise MistakeError(path, f"there already is an attack {path[-1]}-{level}")
        self._check_subset(path, sweep)

    def _check_paper_values(self) -> None:
        from pathlib import Path

        try:
            if self.paper_values is not None:
                read_paper_values(Path(self.paper_values))
        except UsageError as error:
            raise MistakeError(("paper_values",), str(error)) from None

    def _check_subset(self, path: tuple[str, ...], attack: Attack) -> None:
        """Check that an attack's subset is declared and that no other key selects samples."""
        if attack.subset is None:
            return
        if attack.subset not in self.subsets:
            where = f"there is no subset {suggestion(attack.subset, self.subsets)}"
            raise MistakeError((*path, "subset"), where)
        for key in ("dataset", "limit"):
            if getattr(attack, key) is not None:
                problem = f"subset {attack.subset!r} sets it: leave {key} out, or give it there"
                raise MistakeError((*path, key), problem)

    def _references(self) -> Iterator[tuple[tuple[str, ...], str]]:
        yield ("scoring", "dataset"), self.scoring.dataset
        for name, bank in self.banks.items():
            yield ("banks", name, "dataset"), bank.dataset
        for name, subset in self.subsets.items():
            yield ("subsets", name, "dataset"), subset.dataset
        for name, attack in self.attacks.items():
            if attack.subset is None:
                yield ("attacks", name, "dataset"), attack.dataset or "val"
        for name, sweep in self.sweeps.items():
            if sweep.subset is None:
                yield ("sweeps", name, "dataset"), sweep.dataset or "val"

    def _lists(self) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
        yield ("taps",), self.taps
        for name, sweep in self.sweeps.items():
            yield ("sweeps", name, "levels"), [str(level) for level in sweep.levels]
        yield ("report", "tables"), self.report.tables
        yield ("report", "figures"), self.report.figures


def _check_name(path: tuple[str, ...], name: str) -> None:
    if not _NAME.fullmatch(name):
        raise MistakeError(path, f"{name!r} is not a valid name: use letters, digits, '_' and '-'")


def _check_source(path: tuple[str, ...], source: str) -> None:
    kind, _, location = source.partition(":")
    kind = kind.partition("[")[0]
    if kind not in SOURCES:
        raise MistakeError(path, f"there is no kind of dataset {suggestion(kind, SOURCES)}")
    if not location and source != "digits":
        raise MistakeError(path, f"{source!r} has no location: give {kind}:LOCATION")


def _check_labelled(name: str, datasets: Mapping[str, str]) -> None:
    path = ("label_columns", name)
    if name not in datasets:
        raise MistakeError(path, f"there is no dataset {suggestion(name, datasets)}")
    if not datasets[name].startswith(_LABELLED):
        known = " and ".join(kind.rstrip(":") for kind in _LABELLED)
        raise MistakeError(path, f"only datasets of the kinds {known} have columns: leave it out")
