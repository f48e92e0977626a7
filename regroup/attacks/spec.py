"""The parameters of an attack: everything that decides the adversarial examples.

Each attack is a class of its own, in a module of its own, with its kernel; `registry` names them.
The two protocols are described in docs/protocols.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal, Self, get_args

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork
    from regroup.attacks.outcome import KernelOutcome

Norm = Literal["linf", "l2", "none"]
Protocol = Literal["minimal", "budget"]
Knowledge = Literal["white-box", "black-box, scores", "black-box, decisions"]


@dataclass(frozen=True)
class AttackFacts:
    """What `regroup attack --list` shows about an attack.

    Attributes:
        title: its name in tables.
        norms: the perturbation size it minimises or stays within; "none": something else limits it.
        protocols: those it supports.
        knowledge: what it must see of the network.
        source: the paper.
        implementation: "own", or the library and its class.
        targeted: available with a target class too.
        confidence: available with a confidence.
        group: None: a sample's example depends on no other sample. A number: the library's kernel
            couples the samples of a batch, so that it runs on fixed groups of this many rows,
            aligned to the rows of the index: the same for any block size, batch size and cluster.
    """

    title: str
    norms: tuple[Norm, ...]
    protocols: tuple[Protocol, ...]
    knowledge: Knowledge
    source: str
    implementation: str = "own"
    targeted: bool = False
    confidence: bool = False
    group: int | None = None


@dataclass(frozen=True)
class Cost:
    """The most that one sample can cost: forward and backward passes through the network."""

    forward: int
    backward: int = 0

    @property
    def passes(self) -> int:
        """Passes of either kind."""
        return self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class AttackSpec(ABC):
    """An attack in pixel space; the repr is the full list of parameters.

    Attributes:
        norm: which size of the perturbation counts.
        protocol: "budget" (inside one fixed ball) or "minimal" (smallest perturbation).
        epsilon: in pixel units, 0 < epsilon <= 1 (for "l2" a distance, which may be larger): the
            radius of the ball, or where a search begins; None: the attack has no limit.
        targeted: towards the target class of each sample (`regroup.attacks.targets`), not just
            away.
        confidence: success also requires a softmax probability of at least this for the class;
            None: the largest logit is enough. 0 < confidence < 1.
        seed: determines, with the sample id, each sample's own random stream and target.
    """

    name: ClassVar[str]
    facts: ClassVar[AttackFacts]
    # Incremented whenever a change to the kernel changes its examples, so that stored ones are
    # computed again.
    kernel_version: ClassVar[int] = 1

    norm: Norm
    protocol: Protocol
    epsilon: float | None = None
    targeted: bool = False
    confidence: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        check_one_of(f"norm of {self.name}", self.norm, self.facts.norms)
        check_one_of("protocol", self.protocol, get_args(Protocol))
        check_one_of(f"protocol of {self.name}", self.protocol, self.facts.protocols)
        self._check_epsilon()
        if self.targeted and not self.facts.targeted:
            raise ConfigurationError(f"{self.name} supports only untargeted attacks")
        if self.confidence is not None and not self.facts.confidence:
            raise ConfigurationError(f"{self.name} does not support a confidence")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ConfigurationError(
                f"confidence is {self.confidence:g}: it is a softmax probability between 0 and 1"
            )

    def _check_epsilon(self) -> None:
        """Check that an L-infinity size is at most 1; others may be any distance above zero."""
        if self.epsilon is None:
            return
        if not 0 < self.epsilon < float("inf") or (self.norm == "linf" and self.epsilon > 1):
            raise ConfigurationError(
                f"epsilon {self.epsilon:g} is out of range: "
                "epsilon is in [0,1] pixel units: did you mean 4/255?"
            )

    @abstractmethod
    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Attack correctly classified samples; return one row for each, in the given order."""

    @abstractmethod
    def cost(self) -> Cost:
        """Return the most that one sample can cost."""

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples, as plain JSON for fingerprints.

        Kernels leave out parameters that do not matter under their protocol.
        """
        group = {} if self.facts.group is None else {"group": self.facts.group}
        version = {"kernel_version": self.kernel_version}
        return {"name": self.name, **asdict(self), **group, **version}

    def given(self) -> dict[str, object]:
        """Return the parameters by which it was made, to change some of them and make another."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def pinned(self) -> Self:
        """Return this attack, refusing files other than those that are there now."""
        return self

    @property
    def stream(self) -> str:
        """The attack's part of the key of a sample's random stream."""
        return f"{self.name}-{self.norm}-{self.protocol}"


@dataclass(frozen=True, kw_only=True)
class BallAttack(AttackSpec):
    """An attack inside one ball.

    Attributes:
        epsilon: radius of the ball; for "l2" a distance, such as 0.5.
    """

    norm: Norm = "linf"
    protocol: Protocol = "budget"
    epsilon: float | None = 4 / 255

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is None:
            raise ConfigurationError(f"{self.name} needs an epsilon: the radius of its ball")

    @property
    def radius(self) -> float:
        """`epsilon`, which these attacks always have."""
        assert self.epsilon is not None
        return self.epsilon


def check_one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless `value` is one of `known`."""
    if value not in known:
        raise ConfigurationError(f"unknown {what} {value!r}: choose from {', '.join(known)}")


def check_at_least(minimum: float, **parameters: float) -> None:
    """Raise ConfigurationError for the first parameter below `minimum`."""
    for name, value in parameters.items():
        if not value >= minimum:
            raise ConfigurationError(f"{name} is {value:g}: give at least {minimum:g}")


def check_positive(**parameters: float) -> None:
    """Raise ConfigurationError for the first parameter that is not above zero."""
    for name, value in parameters.items():
        if not value > 0:
            raise ConfigurationError(f"{name} is {value:g}: it must be positive")
