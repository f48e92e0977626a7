"""The plan of a study: how much each step would do, as exact numbers or upper bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

from regroup_cluster.workers.latency import images_timed
from regroup_pipelines.render.terminal import print_line, show
from regroup_pipelines.steps.inference_time import DEVICES
from regroup_pipelines.steps.session import NotYetError
from regroup_pipelines.study.dry_run import DryRunSession, held_indexes
from regroup_pipelines.study.subsets import subset_rows
from regroup_store.errors import GapError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regroup_pipelines.configs.options import TapPolicyName
    from regroup_pipelines.json_types import JsonObject
    from regroup_pipelines.results.records import LedgerEntry
    from regroup_pipelines.study.steps import Step, StudySteps

SAMPLES, PASSES = "samples", "forward_passes"
# Passes per image of workers.latency: softmax and REGroup, in each round and the warm-up (tested).
PASSES_OF_TIMING = 12


@dataclass(frozen=True)
class PlannedStep:
    """One line of a plan.

    Attributes:
        step: label of the study's step.
        what: what is made, such as "extract digits-val"; None: not known yet.
        ref: the element, whether the store has it or not; None: its fingerprint is not known yet.
        held: blocks that the store has; None: not known yet.
        blocks: blocks of the element; None: not known yet.
        samples: samples in the missing blocks.
        forward_passes: passes that these samples take, without the padding of an attack's batches
            and the verification of its stored images.
        bounds: which of `samples` and `forward_passes` are upper bounds. The others are exact
            except for unreadable images, which take no pass.
    """

    step: str
    what: str | None
    ref: str | None
    held: int | None
    blocks: int | None
    samples: int
    forward_passes: int
    bounds: tuple[str, ...] = ()

    @property
    def makes(self) -> str:
        """What the step makes: the kind of work, and the element where it is known."""
        if self.what is None:
            return "not known yet"
        return f"{self.what.split()[0]} {self.ref}" if self.ref else self.what

    @property
    def done(self) -> bool:
        """Whether the store has every block."""
        return self.blocks is not None and self.held == self.blocks

    def shown(self, name: str) -> str:
        """Format the number `name`, marked as a bound where it is one."""
        number = getattr(self, name)
        return f"at most {number}" if name in self.bounds else str(number)


@dataclass
class Planner:
    """Plans the steps of a study, in order, in the session of a dry run."""

    session: DryRunSession
    steps: StudySteps
    # Fingerprints of indexes with placeholder digests: a real run gives them other fingerprints.
    _unread: set[str] = field(default_factory=set)
    _moved: set[str] = field(default_factory=set)
    _begun: set[tuple[str, str | None]] = field(default_factory=set)

    def lines(self) -> Iterator[PlannedStep]:
        """Yield the plan, with one line per element that a step makes."""
        for step in self.steps.steps():
            yield from self._plan(step)

    def _plan(self, step: Step) -> Iterator[PlannedStep]:
        entry, unread = len(self.session.ledger), self.session.unread
        try:
            step.make()
            known = True
        except (GapError, NotYetError):
            known = False
        if step.key[0] == "index" and self.session.unread > unread:
            self._note_unread(step.key[1])
        entries = self.session.ledger[entry:]
        yield from (self._line(step, each) for each in entries)
        if not known and (step.key[0] == "draw" or not entries):
            yield from self._most(step, sum(each.samples for each in entries))
        if not known and step.key[0] == "draw":
            self._begun.add((step.key[1], self._dataset(step)))

    def _note_unread(self, dataset: str) -> None:
        """Note a dataset with placeholder digests.

        Where the store has an index of equal size and classes, the data may only have been moved:
        a real run might then find existing results.
        """
        index = self.steps.index(dataset)
        self._unread.add(index.fingerprint)
        like = (index.rows_count, index.class_names)
        if like in [
            (each.rows_count, each.class_names) for each in held_indexes(self.session.store)
        ]:
            self._moved.add(index.fingerprint)

    def _among(self, indexes: set[str], dataset: str) -> bool:
        return self.steps.index(dataset).fingerprint in indexes

    def _line(self, step: Step, entry: LedgerEntry) -> PlannedStep:
        held, blocks = entry.skipped, entry.skipped + entry.blocks
        kind, dataset = entry.step.split()[0], self._dataset(step)
        ref = entry.ref or None
        if dataset is not None and kind != "digest" and self._among(self._unread, dataset):
            ref = None
        passes = self._passes(kind, step, entry.samples)
        bounds = self._bounds(step, kind) if entry.samples else ()
        return PlannedStep(step.label, entry.step, ref, held, blocks, entry.samples, passes, bounds)

    def _bounds(self, step: Step, kind: str) -> tuple[str, ...]:
        """Return which numbers of a step are upper bounds although its samples are known."""
        dataset = self._dataset(step)
        shared = step.key[0] == "draw" and (step.key[1], dataset) in self._begun
        moved = dataset is not None and self._among(self._moved, dataset)
        if kind == "extract" and (shared or moved):
            return (SAMPLES, PASSES)
        return (PASSES,) if kind == "attack" else ()

    def _passes(self, kind: str, step: Step, samples: int) -> int:
        """Return the maximum number of forward passes of a step over so many samples."""
        if kind == "time":
            images = self._images_timed()
            return samples // images * images_timed(images) * PASSES_OF_TIMING
        if kind == "attack" and step.attack is not None:
            return samples * int(self.steps.study.attacks[step.attack].spec().cost().forward)
        return samples if kind == "extract" else 0

    def _dataset(self, step: Step) -> str | None:
        """Return the dataset whose images a step reads, or None."""
        kind, *names = step.key
        if kind == "draw":
            return self.steps.study.banks[names[1]].dataset
        if kind == "time":
            return self.steps.study.scoring.dataset
        return names[-1] if kind in ("index", "clean") else None

    def _most(self, step: Step, planned: int) -> Iterator[PlannedStep]:
        """Yield an upper bound of a step beyond the `planned` samples of its other lines."""
        kind, label = step.key[0], step.label
        if kind == "draw":
            dataset = self.steps.study.banks[step.key[2]].dataset
            samples = self.steps.index(dataset).rows_count - planned
            label = f"{label}, further rounds" if planned else label
        else:
            samples = self._most_samples(step)
        work = {"draw": "extract", "attacked": "extract", "attack": "attack"}.get(kind, kind)
        passes = self._passes(work, step, samples)
        if samples:
            bounds = (SAMPLES, PASSES) if passes else (SAMPLES,)
            yield PlannedStep(label, None, None, None, None, samples, passes, bounds)

    def _most_samples(self, step: Step) -> int:
        kind, *names = step.key
        policy = cast("TapPolicyName", names[0])
        if kind == "bank":
            return self._most_of_bank(policy, names[1])
        if kind == "votes":
            return self._most_scored(policy, names[2])
        return (
            len(DEVICES) * self._images_timed()
            if kind == "time"
            else self._most_attacked(names[-1])
        )

    def _images_timed(self) -> int:
        """Return the images timed on a device; each is predicted several times."""
        rows = self.steps.index(self.steps.study.scoring.dataset).rows_count
        return min(self.steps.study.model.batch, rows)

    def _most_of_bank(self, policy: TapPolicyName, bank: str) -> int:
        options, network = self.steps.study.banks[bank], self.steps.network(policy)
        rows = self.steps.index(options.dataset).rows_count
        return min(rows, options.per_class * network.num_classes)

    def _most_scored(self, policy: TapPolicyName, images: str) -> int:
        try:
            return self.steps.features(policy, images).plan.rows
        except (GapError, NotYetError):
            return self._most_attacked(images)

    def _most_attacked(self, attack: str) -> int:
        """Return the number of samples to attack if the network classified all correctly."""
        options, study = self.steps.study.attacks[attack], self.steps.study
        index = self.steps.index(study.attacked_dataset(attack))
        if options.subset is not None:
            return len(subset_rows(study.subsets[options.subset], index).rows)
        return min(index.rows_count, options.limit or index.rows_count)


def total_passes(lines: list[PlannedStep]) -> dict[str, int]:
    """Return the forward passes known `exactly`, and an upper bound `at_most` of all others."""
    exact = sum(line.forward_passes for line in lines if PASSES not in line.bounds)
    return {"exactly": exact, "at_most": sum(line.forward_passes for line in lines) - exact}


def describe_plan(lines: list[PlannedStep]) -> JsonObject:
    """Return the plan as plain JSON."""
    planned = [{**asdict(line), "done": line.done} for line in lines]
    return {"plan": planned, "forward_passes": total_passes(lines)}


def print_plan(title: str, lines: list[PlannedStep], quiet: bool) -> None:
    """Print the plan as a table with its totals, unless `quiet`."""
    from rich.table import Table

    table = Table(title=title)
    numbers = ("blocks held", "samples to do", "forward passes")
    for head in ("step", "makes", *numbers):
        right = head in numbers
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for line in lines:
        held = "not known yet" if line.blocks is None else f"{line.held} of {line.blocks}"
        table.add_row(line.step, line.makes, held, line.shown(SAMPLES), line.shown(PASSES))
    show(table, quiet)
    print_line(total_sentence(lines), quiet)


def total_sentence(lines: list[PlannedStep]) -> str:
    """Summarise a plan in one sentence: what the store has, and the forward passes still needed."""
    total, done = total_passes(lines), sum(line.done for line in lines)
    more = (
        f", and at most {total['at_most']} more (a bound: it depends on which samples the network "
        "classifies correctly, and on how soon attacks succeed)"
        if total["at_most"]
        else ""
    )
    return (
        f"{done} of {len(lines)} steps are complete in the store. Forward passes to do: exactly "
        f"{total['exactly']}{more}. Dry run: nothing was computed or written."
    )
