"""REGroup as a defense: the vote decides, smooth stand-ins of it are what attackers follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.attacks.views import DefendedNetwork, Views
from regroup.bank import DELTA
from regroup.classifier import check_bank
from regroup.defenses import smooth_votes
from regroup.defenses.spec import Defense, DefenseFacts, Material, require
from regroup.divergence_rules import (
    DIVERGENCE_RULES,
    DivergenceScorer,
    check_scales,
    crossmax,
)
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer, voting_signs
from regroup.taps import TapPolicy, discover_taps
from regroup.voting import RULES, Rule, RuleScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from regroup.bank import Bank
    from regroup.models.classifier import Classifier

# The first is the default; crossmax passes the gradient of few voters.
_FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "standardised": smooth_votes.standardised,
    "soft-borda": smooth_votes.soft_borda,
    "straight-through": smooth_votes.straight_through,
    "crossmax": crossmax,
}
# The logits without the defense: examples made by them that the vote takes too.
NETWORK = "network"
ALL_RULES: tuple[str, ...] = (*RULES, *DIVERGENCE_RULES)


@dataclass(frozen=True, kw_only=True)
class REGroup(Defense):
    """REGroup (Tiwari et al. 2022, eq. 7).

    Attributes:
        k: how many of the bank's last taps vote.
        signs: "both", "positive" or "negative".
        rule: the voting rule.
        weights: only for weighted-borda: whole numbers, one per tap of the bank.
        delta: added to every accumulator entry.
        policy: the tap policy that the bank was built with.
    """

    name: ClassVar[str] = "regroup"
    facts: ClassVar[DefenseFacts] = DefenseFacts(
        title="REGroup",
        source="Tiwari et al. 2022",
        gradient="surrogate",
        needs="a bank",
    )

    k: int = 5
    signs: str = "both"
    rule: str = "borda"
    weights: tuple[int, ...] | None = None
    delta: float = DELTA
    policy: TapPolicy = "preactivation"

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        voting_signs(self.signs)
        if self.k < 1:
            raise ConfigurationError(f"k is {self.k}: give at least 1")
        if self.rule not in ALL_RULES:
            raise ConfigurationError(
                f"unknown voting rule {self.rule!r}: choose from {', '.join(ALL_RULES)}"
            )
        if self.policy not in get_args(TapPolicy):
            known = ", ".join(get_args(TapPolicy))
            raise ConfigurationError(f"unknown tap policy {self.policy!r}: choose from {known}")

    def defend(self, model: Classifier, material: Material) -> DefendedNetwork:
        """Return `model` behind the vote of the material's bank."""
        require("bank", material.bank, self)
        require("scales of its voters", material.scales, self)
        assert material.bank is not None
        if material.bank.num_classes != model.num_classes:
            raise ConfigurationError(
                f"a bank of {material.bank.num_classes} classes for a model of "
                f"{model.num_classes}: give the bank of this model"
            )
        return DefendedByREGroup(model, self, material, root_module=model.network)


class DefendedByREGroup(DefendedNetwork):
    """A network behind REGroup's vote (paper arXiv 2006.10679, eq. 7), with its surrogates.

    One forward pass gives both views: the accumulators of the vote have the bits that they have
    without gradients.

    Args:
        model: the classifier, in evaluation mode: pixels (N, 3, H, W) to logits (N, M).
        defense: the parameters.
        material: bank, scales of its voters, and an example from which the model's taps are found.
        root_module: the module that tap names are relative to; by default `model`.

    Raises:
        ConfigurationError: k out of range, a bank of another model, or scales of another bank.
    """

    surrogates: ClassVar[tuple[str, ...]] = (*_FORMS, NETWORK)

    def __init__(
        self,
        model: nn.Module,
        defense: REGroup,
        material: Material,
        *,
        root_module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        bank, scales = material.bank, material.scales
        assert bank is not None
        assert scales is not None
        check_scales(scales, bank)
        voting, example = bank.last(defense.k), material.example
        check_bank(voting, discover_taps(model, example, defense.policy, root_module=root_module))
        self.model, self.defense = model, defense
        self._voting, self._own_scales = voting, scales[-defense.k :]
        _check_weights(defense, len(bank.taps))
        self._scorers = {torch.device("cpu"): self._scorer(voting, torch.device("cpu"))}
        self._extractor = Extractor(
            model,
            defense.policy,
            example,
            last=defense.k,
            root_module=root_module,
            keep_graph=True,
        )
        chosen = voting_signs(defense.signs)
        self.divergences = smooth_votes.SmoothDivergences(voting, chosen, defense.delta)
        own = torch.tensor(self._own_scales[:, list(chosen)], dtype=torch.float32)
        self._scales: Tensor
        self.register_buffer("_scales", own.reshape(1, -1, 1), persistent=False)
        self.eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the rule's scores (N, M) float32 of pixels (N, 3, H, W); Borda sums by default."""
        return self._decision(list(self._extractor(pixels).accumulators))

    def views(self, pixels: Tensor, surrogate: str) -> Views:
        """Return what decides, and the scores of one of `surrogates`."""
        extraction = self._extractor(pixels)
        decision = self._decision([each.detach() for each in extraction.accumulators])
        if surrogate == NETWORK:
            return Views(decision, extraction.logits, extraction.logits)
        scores = -self.divergences(extraction.accumulators) / self._scales
        return Views(decision, _FORMS[surrogate](scores), extraction.logits)

    def _decision(self, accumulators: list[Tensor]) -> Tensor:
        device, defense = accumulators[0].device, self.defense
        if device not in self._scorers:
            self._scorers = {device: self._scorer(self._voting, device)}
        scorer = self._scorers[device]
        return scorer.class_scores(accumulators, defense.k, defense.signs).to(torch.float32)

    def _scorer(self, bank: Bank, device: torch.device) -> Scorer:
        defense, weights = self.defense, self.defense.weights
        if defense.rule in DIVERGENCE_RULES:
            scales = self._own_scales
            return DivergenceScorer(bank, defense.rule, scales, delta=defense.delta, device=device)
        if defense.rule == "borda":
            return Scorer(bank, delta=defense.delta, device=device)
        counted = cast("Rule", defense.rule)
        own = None if weights is None else weights[-defense.k :]
        return RuleScorer(bank, counted, own, delta=defense.delta, device=device)


def _check_weights(defense: REGroup, taps: int) -> None:
    """Raise ConfigurationError unless the weights, if any, are one for each of the bank's taps."""
    if defense.weights is not None and len(defense.weights) != taps:
        raise ConfigurationError(
            f"{len(defense.weights)} weights for a bank of {taps} taps: give one for each"
        )
