"""The steps of a study. Each makes one element, with the same function as its command."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from regroup.errors import ConfigurationError
from regroup.models.class_matching import match_names
from regroup_pipelines.banks.build import build_bank, check_covered
from regroup_pipelines.banks.rounds import draw_bank
from regroup_pipelines.errors import UsageError
from regroup_pipelines.results.accuracy import rule_of_k
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.schema.attacks import MistakeError
from regroup_pipelines.steps.attacking import attack_index, check_attackable, correct_samples
from regroup_pipelines.steps.extraction import extract_adversarials, extract_index
from regroup_pipelines.steps.indexing import index_dataset, largest_sample
from regroup_pipelines.steps.inference_time import TABLE, TimedPrediction, time_inference
from regroup_pipelines.steps.labels import log_labels, named_by, network_for
from regroup_pipelines.steps.network import open_network
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import NotYetError
from regroup_pipelines.study.subsets import draw_subset
from regroup_store.errors import StoreUsageError
from regroup_store.kinds.banks import read_bank
from regroup_store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup_pipelines.banks.rounds import BankDraw
    from regroup_pipelines.configs.options import TapPolicyName
    from regroup_pipelines.results.timings import TimingRow
    from regroup_pipelines.schema.study import Study
    from regroup_pipelines.steps.network import Network
    from regroup_pipelines.steps.session import Session
    from regroup_pipelines.study.subsets import DrawnSubset
    from regroup_store.format.element import BlockElement
    from regroup_store.kinds.banks import StoredBank
    from regroup_store.kinds.indexes import SampleIndex
    from regroup_store.sources import Source

_T = TypeVar("_T")


def check_study_k(k: int, taps: int) -> None:
    """Check `scoring.k` against the number of taps.

    Raises:
        UsageError: there are fewer than `k`.
    """
    if k > taps:
        raise UsageError(f"scoring.k is {k}, but the network has {taps} taps: give 1 to {taps}")


@dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes:
        label: the step in words.
        key: the element it makes: "index", "draw", "clean", "attack", "attacked", "bank", "votes"
            or "time", followed by the names that identify it.
        make: makes the element.
        attack: the attack that the step belongs to, or None.
        required: whether the study, or the step's attack, is abandoned where the step fails.
    """

    label: str
    key: tuple[str, ...]
    make: Callable[[], object]
    attack: str | None = None
    required: bool = True

    @property
    def part(self) -> str | None:
        """The part of the study that is left out where the step fails; None: all of it."""
        return self.attack if self.required else self.label


@dataclass
class StudySteps:
    """The elements of a study, each made once, on first request.

    A failure is remembered like a result: later requests raise the same error and do not retry.
    """

    session: Session
    study: Study
    _made: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def _once(self, key: tuple[str, ...], make: Callable[[], _T]) -> _T:
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[no-any-return]

    def check(self) -> None:
        """Open every dataset and build the network before any work begins.

        Raises:
            MistakeError: a dataset or the network cannot be opened, or labels do not fit it.
            UsageError: the network cannot be attacked as declared.
        """
        self._check_datasets()
        try:
            network = self._named(self.study.taps[0])
        except (ConfigurationError, UsageError) as error:
            raise MistakeError(("model",), str(error)) from error
        self._check_labels(network)
        for name in self.attacks:
            check_attackable(network, self.study.attacks[name].spec())

    def _class_names(self, dataset: str) -> tuple[str, ...]:
        return self._once(("names", dataset), lambda: self._source(dataset).class_names)

    def _check_datasets(self) -> None:
        for name in self.study.used:
            try:
                self._class_names(name)
            except StoreUsageError as error:
                raise MistakeError(("datasets", name), str(error)) from error
        for name, subset in self.study.subsets.items():
            if subset.dataset in self.study.used:
                subset.check_classes(("subsets", name), self._class_names(subset.dataset))
        first, *others = self.study.used
        for name in others if self.study.model.classes == "dataset" else ():
            ours, theirs = self._class_names(name), self._class_names(first)
            by_name = self.study.model.labels == "name"
            if len(ours) != len(theirs) or (by_name and match_names(ours, theirs).unmatched):
                raise MistakeError(
                    ("datasets", name),
                    f"its {len(ours)} classes are not the {len(theirs)} of {first}: with "
                    'model.classes = "dataset" all datasets need the same',
                )

    def _check_labels(self, network: Network) -> None:
        """Check that the labels of every dataset fit the network, and log what they go by."""
        for name in self.study.used:
            names = self._class_names(name)
            try:
                log_labels(names, name, network)
            except UsageError as error:
                text = str(error).replace("--labels position", 'model.labels = "position"')
                raise MistakeError(("datasets", name), text) from error
            if self.study.model.classes == "dataset" and name == self.study.used[0]:
                # Restricted to the classes of the first, which `_check_datasets` found in the rest.
                network = replace(
                    network,
                    class_names=names,
                    names_of=f"the dataset {name}",
                    num_classes=len(names),
                )

    def _source(self, dataset: str) -> Source:
        return open_source(self.study.source(dataset), largest_sample(self.session.options))

    def steps(self) -> Iterator[Step]:
        """Yield every step; those that need the network come first, then those run by tasks.

        Tasks (banks, scoring) take the resources of idle workers, which would have to be started
        again for further work of the network.
        """
        for name in self.study.used:
            yield Step(f"index {name}", ("index", name), partial(self.index, name))
        for policy in self.study.taps:
            yield from self._clean_steps(policy)
            if policy == self.study.taps[0]:
                for attack in self.attacks:
                    make = partial(self.adversarials, attack)
                    yield Step(f"attack {attack}", ("attack", attack), make, attack)
            for attack in self.attacks:
                make, key = partial(self.attacked, policy, attack), ("attacked", policy, attack)
                yield Step(f"{policy}: {attack}", key, make, attack)
        for pair in self.evaluations:
            policy, bank = pair
            yield Step(f"{policy}: bank {bank}", ("bank", *pair), partial(self.bank, *pair))
        for pair in self.evaluations:
            yield from self._scoring(*pair)
        for pair in self.evaluations if self.timed else ():
            timed = partial(self.inference_time, *pair)
            label = f"{pair[0]}: inference time with {pair[1]}"
            yield Step(label, ("time", *pair), timed, required=False)

    def _clean_steps(self, policy: TapPolicyName) -> Iterator[Step]:
        for bank in self.study.banks:
            drawn = partial(self.draw, policy, bank)
            yield Step(f"{policy}: samples of {bank}", ("draw", policy, bank), drawn)
        for name, dataset in self.study.clean.items():
            key, extracted = ("clean", policy, dataset), partial(self.clean, policy, dataset)
            yield Step(f"{policy}: {name}", key, extracted)

    @property
    def timed(self) -> bool:
        """Whether the study has the table of inference times."""
        return TABLE in self.study.report.tables

    def _scoring(self, policy: TapPolicyName, bank: str) -> Iterator[Step]:
        against = f" against {bank}" if len(self.study.banks) > 1 else ""
        for name in (*self.study.clean, *self.attacks):
            attack = name if name in self.study.attacks else None
            make, key = partial(self.votes, policy, bank, name), ("votes", policy, bank, name)
            yield Step(f"{policy}: score {name}{against}", key, make, attack)

    @property
    def attacks(self) -> list[str]:
        """The attacks that are not skipped."""
        return [name for name, attack in self.study.attacks.items() if not attack.skip]

    @property
    def evaluations(self) -> list[tuple[TapPolicyName, str]]:
        """Every pair of tap policy and bank; each is scored and tabulated."""
        return [(policy, bank) for policy in self.study.taps for bank in self.study.banks]

    def index(self, dataset: str) -> SampleIndex:
        """Return the index of a dataset."""
        spec = self.study.source(dataset)
        return self._once(("index", dataset), lambda: index_dataset(self.session, spec))

    def network(self, policy: TapPolicyName) -> Network:
        """Return the network, restricted to the dataset's classes where the study says so."""
        return self._once(("network", policy), lambda: self._network(policy))

    def _opened(self, policy: TapPolicyName) -> Network:
        return self._once(
            ("opened", policy), lambda: open_network(self.study.model_options(policy))
        )

    def _network(self, policy: TapPolicyName) -> Network:
        index = self.index(self.study.scoring.dataset)
        return network_for(self._named(policy), index, self.study.model.classes)

    def _named(self, policy: TapPolicyName) -> Network:
        """Return the complete network; one without names takes those of a bank's dataset."""
        dataset = next(iter(self.study.banks.values())).dataset
        names, whose = self._class_names(dataset), f"the dataset {dataset}"
        return named_by(self._opened(policy), names, whose)

    def clean(self, policy: TapPolicyName, dataset: str) -> BlockElement:
        """Return the features of a dataset's clean images."""

        def extract() -> BlockElement:
            """Extract the clean images."""
            network, index = self.network(policy), self.index(dataset)
            return extract_index(self.session, network, index, self.study.model.batch)

        return self._once(("clean", policy, dataset), extract)

    def adversarials(self, attack: str) -> BlockElement:
        """Return the adversarials of an attack, which all tap policies share."""
        return self._once(("attack", attack), lambda: self._attack(attack))

    def _attack(self, name: str) -> BlockElement:
        attack, policy = self.study.attacks[name], self.study.taps[0]
        if attack.subset is not None:
            subset = self.subset(attack.subset).attacked
        else:
            dataset = self.study.attacked_dataset(name)
            index, clean = self.index(dataset), self.clean(policy, dataset)
            subset = correct_samples(self.session, index, clean, attack.limit, attack.seed)
        batch = attack.batch or self.study.model.batch
        network, spec = self.network(policy), attack.spec()
        return attack_index(self.session, network, subset, spec, batch, attack.block_rows)

    def subset(self, name: str) -> DrawnSubset:
        """Return a subset, with correct samples chosen by features of the first tap policy."""
        return self._once(("subset", name), lambda: self._subset(name))

    def _subset(self, name: str) -> DrawnSubset:
        subset, policy = self.study.subsets[name], self.study.taps[0]
        index, clean = self.index(subset.dataset), self.clean(policy, subset.dataset)
        return draw_subset(self.session, name, subset, index, clean)

    def attacked(self, policy: TapPolicyName, attack: str) -> BlockElement:
        """Return the features of an attack's images."""

        def extract() -> BlockElement:
            """Extract the attack's images."""
            network, made = self.network(policy), self.adversarials(attack)
            return extract_adversarials(self.session, network, made, self.study.model.batch)

        return self._once(("attacked", policy, attack), extract)

    def features(self, policy: TapPolicyName, images: str) -> BlockElement:
        """Return the features of clean or attacked images, by their name in tables."""
        if images in self.study.clean:
            return self.clean(policy, self.study.clean[images])
        return self.attacked(policy, images)

    def draw(self, policy: TapPolicyName, bank: str) -> BankDraw:
        """Return the samples of a bank, extracting what that takes."""

        def drawn() -> BankDraw:
            """Choose the samples, extracting images as needed."""
            options = self.study.banks[bank]
            network, index = self.network(policy), self.index(options.dataset)
            check_covered(index, network)
            return draw_bank(self.session, network, index, options, self.study.model.batch)

        return self._once(("draw", policy, bank), drawn)

    def bank(self, policy: TapPolicyName, bank: str) -> StoredBank:
        """Return a bank under a tap policy."""

        def build() -> StoredBank:
            """Reduce the samples to a bank."""
            draw, options = self.draw(policy, bank), self.study.banks[bank]
            network, index = self.network(policy), self.index(options.dataset)
            batch = self.study.model.batch
            ref = build_bank(self.session, network, index, options, batch, draw)
            return read_bank(self.session.store, ref)

        return self._once(("bank", policy, bank), build)

    def votes(self, policy: TapPolicyName, bank: str, images: str) -> BlockElement:
        """Return the votes of clean or attacked images against a bank."""

        def vote() -> BlockElement:
            """Score the features."""
            features, stored = self.features(policy, images), self.bank(policy, bank)
            return score(self.session, features, stored, self.study.voting)

        return self._once(("votes", policy, bank, images), vote)

    def inference_time(self, policy: TapPolicyName, bank: str) -> list[TimingRow]:
        """Return how long the network and REGroup take per prediction, one entry per device."""
        return self._once(("time", policy, bank), lambda: self._time(policy, bank))

    def _time(self, policy: TapPolicyName, bank: str) -> list[TimingRow]:
        stored, scoring = self.bank(policy, bank), self.study.scoring
        timed = TimedPrediction(
            study=self.study.name,
            network=self.network(policy),
            index=self.index(scoring.dataset),
            bank=stored,
            k=self.k(policy, bank),
            signs=scoring.signs,
            batch=self.study.model.batch,
        )
        return time_inference(self.session, timed)

    def k(self, policy: TapPolicyName, bank: str) -> int:
        """Return how many of the last taps vote.

        Raises:
            NotYetError: a dry run, where the votes that choose k do not exist yet.
        """
        if (k := self.study.scoring.k) is not None:
            check_study_k(k, len(self.bank(policy, bank).taps))
            return k
        votes = self.votes(policy, bank, "clean")
        if votes.summary() is None:
            raise NotYetError("k")
        return rule_of_k(VoteSummary.of(votes), self.study.scoring.threshold).k
