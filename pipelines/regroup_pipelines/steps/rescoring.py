"""Re-score stored features for every k and sign choice, without a forward pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from regroup_pipelines.errors import UsageError
from regroup_pipelines.log import log
from regroup_pipelines.render.element_state import refuse_unreadable, state_of
from regroup_pipelines.results.base import Record
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.scoring import score
from regroup_pipelines.steps.session import warn_missing
from regroup_store.format.element import BlockElement
from regroup_store.format.lineage import holds_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regroup_pipelines.configs.options import VotingOptions
    from regroup_pipelines.steps.session import Session
    from regroup_store.kinds.banks import StoredBank


class RescoringCost(Record):
    """The cost of re-scoring.

    Attributes:
        seconds: wall time.
        samples: samples scored, over all banks.
        forward_passes: of a classifier, counted in the workers.
        banks: number of banks scored against.
    """

    seconds: float
    samples: int
    forward_passes: int
    banks: int = 1

    def __str__(self) -> str:
        """Return the cost in one line."""
        banks = f" against {self.banks} banks" if self.banks > 1 else ""
        return (
            f"{self.forward_passes} forward passes: {self.samples} samples re-scored{banks} from "
            f"the store in {self.seconds:.1f} s"
        )


def find_features(session: Session, bank: StoredBank, refs: tuple[str, ...]) -> list[BlockElement]:
    """Open the named features, or all complete ones of the bank's model and tap policy.

    Features of images that were only candidates for a bank are left out unless named; those that
    are not finished too, and the log says which.

    Raises:
        UsageError: the store holds none.
        DamageFoundError: features cannot be read, so that it is unknown whether they belong here.
    """
    if refs:
        return [BlockElement.open(session.store, "features", ref) for ref in refs]
    infos = session.store.elements("features")
    refuse_unreadable(infos, "name others with --features")
    elements = {info: BlockElement.open(session.store, "features", info.ref) for info in infos}
    mine = {
        info: e
        for info, e in elements.items()
        if _same_network(bank.inputs, e.inputs)
        and not holds_candidates(session.store, e.kind, e.inputs)
    }
    for info in mine:
        if not info.finalised:
            log(f"features/{info.ref} are left out: {state_of(info)}")
    found = [e for info, e in mine.items() if info.finalised]
    if not found:
        raise UsageError(
            f"the store holds no features of the model of {bank.ref}: run `regroup extract` or "
            "`regroup evaluate` first"
        )
    return found


def _same_network(bank: Mapping[str, Any], features: Mapping[str, Any]) -> bool:
    return all(bank.get(key) == features.get(key) for key in ("model", "policy"))


def rescore(
    session: Session, bank: StoredBank, features: list[BlockElement], options: VotingOptions
) -> tuple[dict[str, VoteSummary], RescoringCost]:
    """Score features against a bank.

    Returns:
        The summary of the votes by the features' name (by their ref where several share a name,
        such as attacks that differ in epsilon), and the cost.
    """
    for element in features:
        warn_missing(f"score {element.name}", element)
    started, entry = time.perf_counter(), len(session.ledger)
    votes = [score(session, element, bank, options) for element in features]
    steps = session.ledger[entry:]
    cost = RescoringCost(
        seconds=time.perf_counter() - started,
        samples=sum(v.plan.rows for v in votes),
        forward_passes=sum(step.forward_passes for step in steps),
    )
    names = [element.name for element in features]
    keys = [e.ref if names.count(e.name) > 1 else e.name for e in features]
    return {key: VoteSummary.of(v) for key, v in zip(keys, votes, strict=True)}, cost
