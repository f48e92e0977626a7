"""What a defense is: facts for its users, parameters for fingerprints, and the network behind it.

A defense stands beside a model, not inside it: features stay those of the bare network, and a job
names both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from regroup.attacks.views import DefendedNetwork
    from regroup.bank import Bank
    from regroup.models.classifier import Classifier

Gradient = Literal["exact", "surrogate", "eot", "bpda", "eot and bpda", "none"]
Needs = Literal["nothing", "statistics", "images", "models", "a bank"]


@dataclass(frozen=True)
class DefenseFacts:
    """What a list of defenses shows about one.

    Attributes:
        title: its name in tables.
        source: the paper.
        gradient: what an attacker differentiates: the decision itself ("exact"), a smooth stand-in
            for it ("surrogate"), a mean over draws ("eot", Athalye et al. 2018), a smooth backward
            pass of what rounds ("bpda"); "none": black-box attacks alone.
        needs: what must be there first.
        stochastic: its outputs are random: it is judged over draws.
        trained: it changes the training; at test time alone it is an ablation.
    """

    title: str
    source: str
    gradient: Gradient
    needs: Needs = "nothing"
    stochastic: bool = False
    trained: bool = False


@dataclass(frozen=True, eq=False)
class Material:
    """What a defense may need besides the network.

    Attributes:
        example: (N, 3, H, W), pixels such as the network takes.
        bank: the mixtures of the network's taps.
        scales: (T, 2) float64, sigma of each of the bank's voters.
        models: further networks by name.
    """

    example: Tensor
    bank: Bank | None = None
    scales: NDArray[np.float64] | None = None
    models: dict[str, Classifier] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """The parameters of a defense; the repr is the full list of them.

    Attributes:
        seed: determines all of its draws.
    """

    name: ClassVar[str]
    facts: ClassVar[DefenseFacts]
    # Incremented whenever a change to it changes what it decides, so that stored outcomes are
    # computed again.
    version: ClassVar[int] = 1

    seed: int = 0

    @abstractmethod
    def defend(self, model: Classifier, material: Material) -> DefendedNetwork:
        """Return the network behind this defense, on the model's device.

        Raises:
            ConfigurationError: the material lacks what the defense needs, or is of another model.
        """

    def describe(self) -> dict[str, object]:
        """Return all that determines what it decides, as plain JSON for fingerprints.

        Material is described where it lies: a bank by the fingerprint of its element.
        """
        parameters = asdict(self)
        if not self.facts.stochastic:
            del parameters["seed"]
        return {"name": self.name, **parameters, "defense_version": self.version}


def require(what: str, given: object | None, defense: Defense) -> None:
    """Raise ConfigurationError if `given` is None: `defense` needs it."""
    if given is None:
        raise ConfigurationError(
            f"{defense.name} needs {defense.facts.needs}, and has no {what}: make it first"
        )
