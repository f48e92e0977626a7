"""The adaptive attack: a fixed list of attacks in a ball, each on what those before it left.

Of a defended network every surrogate is followed, since a rule's own gradient can mask: an order
statistic passes that of one voter alone. The network without the defense is attacked through it as
well, and last comes a black box on the decision, which no gradient can mislead (Carlini et al.
2019, section 4; Tramer et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from regroup.attacks.apgd.attack import APGD
from regroup.attacks.libraries.pyautoattack import library_module
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.score.square import Square
from regroup.attacks.spec import AttackFacts, AttackSpec, BallAttack, Cost, check_at_least
from regroup.attacks.views import DefendedNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork

# REGroup's. A plan's bound, not what is run.
_MOST_SURROGATES = 5


@dataclass(frozen=True, kw_only=True)
class Adaptive(BallAttack):
    """The strongest of several attacks for every sample, whose names are `members`.

    Attributes:
        steps: gradient steps of each run of APGD.
        restarts: runs of APGD away from the label, for each surrogate.
        target_classes: runs towards as many other classes, the strongest first, by the first
            surrogate.
        squares: iterations of Square on the decision's scores; 0: none.
    """

    name: ClassVar[str] = "adaptive"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Adaptive",
        norms=("linf", "l2"),
        protocols=("budget",),
        knowledge="white-box",
        source="Tramer et al. 2020",
        group=16,
    )

    steps: int = 100
    restarts: int = 5
    target_classes: int = 9
    squares: int = 1000

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_at_least(1, steps=self.steps, restarts=self.restarts)
        check_at_least(0, target_classes=self.target_classes, squares=self.squares)

    def members(self, surrogates: Sequence[str] | None) -> dict[str, AttackSpec]:
        """Return the attacks by name, in order.

        Args:
            surrogates: of the defended network, none where it has no gradient; None: the network
                has no defense.
        """
        if surrogates is None:
            members = self._against_network()
        else:
            members = self._against_surrogates(surrogates)
        if self.squares:
            members["square"] = Square(steps=self.squares, **self._shared(len(members)))
        return members

    def _against_network(self) -> dict[str, AttackSpec]:
        """Return AutoAttack's two losses, and its targeted one."""
        runs: dict[str, Any] = {"steps": self.steps, "restarts": self.restarts}
        members: dict[str, AttackSpec] = {
            "apgd-cross-entropy": APGD(loss="cross-entropy", **runs, **self._shared(0)),
            "apgd-dlr": APGD(loss="dlr", **runs, **self._shared(1)),
        }
        return members | self._aimed(2, loss="dlr")

    def _against_surrogates(self, surrogates: Sequence[str]) -> dict[str, AttackSpec]:
        members: dict[str, AttackSpec] = {
            f"apgd-{surrogate}": APGD(
                steps=self.steps,
                restarts=self.restarts,
                surrogate=surrogate,
                **self._shared(number),
            )
            for number, surrogate in enumerate(surrogates)
        }
        if surrogates:
            members |= self._aimed(len(members), surrogate=surrogates[0])
        return members

    def _aimed(self, number: int, **how: Any) -> dict[str, AttackSpec]:
        if not self.target_classes:
            return {}
        aims: dict[str, Any] = {"restarts": 0, "target_classes": self.target_classes}
        return {"apgd-targeted": APGD(steps=self.steps, **aims, **how, **self._shared(number))}

    def _shared(self, number: int) -> dict[str, Any]:
        """Return what member `number` has of this attack; each draws from a seed of its own."""
        return {"norm": self.norm, "epsilon": self.epsilon, "seed": self.seed + number}

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Run all members, each on the samples that none before it has fooled.

        Raises:
            ConfigurationError: Square's library is not installed; before any work.
        """
        if self.squares:
            library_module("square")
        defended = network.network
        surrogates = defended.surrogates if isinstance(defended, DefendedNetwork) else None
        found = _Strongest(batch)
        for number, member in enumerate(self.members(surrogates).values()):
            left = found.left()
            if not len(left):
                break
            part = batch.rows(left.tolist())
            found.add(number, left, member.attack(network.of(left), part))
        return found.outcome()

    def cost(self) -> Cost:
        """Return that of all members against a defense of as many surrogates as any here has."""
        names = [str(number) for number in range(_MOST_SURROGATES)]
        costs = [member.cost() for member in self.members(names).values()]
        return Cost(sum(each.forward for each in costs), sum(each.backward for each in costs))


class _Strongest:
    """The outcomes of a batch over the members so far."""

    def __init__(self, batch: AttackBatch) -> None:
        self.total = KernelOutcome.unsuccessful(batch)
        self.member = torch.full_like(batch.labels, -1)
        self.images = batch.clean.clone()
        self.found, self.epsilon = self.total.found.clone(), self.total.epsilon.clone()
        self.steps, self.queries, self.backward = (torch.zeros_like(batch.labels) for _ in range(3))
        self.failures: dict[int, str] = {}

    def left(self) -> Tensor:
        """Return the samples that no member has fooled, (n,) int64."""
        return (~self.found).nonzero().flatten()

    def add(self, number: int, rows: Tensor, outcome: KernelOutcome) -> None:
        """Add what member `number` did to `rows`; without success, the first one's image stays."""
        kept = outcome.found | (self.epsilon[rows].isnan() & ~outcome.epsilon.isnan())
        self.images[rows[kept]] = outcome.images[kept]
        self.epsilon[rows[kept]] = outcome.epsilon[kept]
        self.member[rows[outcome.found]] = number
        self.found[rows] |= outcome.found
        self.steps[rows] += outcome.steps
        self.queries[rows] += outcome.queries
        self.backward[rows] += outcome.backward
        for position, reason in outcome.failures.items():
            self.failures.setdefault(int(rows[position]), reason)

    def outcome(self) -> KernelOutcome:
        """Return the strongest of each sample; one that a member failed on may be another's."""
        fooled = set(self.found.nonzero().flatten().tolist())
        return KernelOutcome(
            self.images,
            self.found,
            self.epsilon,
            self.steps,
            self.queries,
            self.backward,
            {row: reason for row, reason in self.failures.items() if row not in fooled},
            member=self.member,
        )
