"""REGroup as a defense: the vote decides, smooth stand-ins of it are what attackers follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.attacks.views import DefendedNetwork, Views
from regroup.bank import DELTA
from regroup.classifier import check_bank
from regroup.defenses import smooth_votes
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer, voting_signs
from regroup.taps import discover_taps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from regroup.bank import Bank
    from regroup.taps import TapPolicy

_FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "standardised": smooth_votes.standardised,
    "soft-borda": smooth_votes.soft_borda,
    "straight-through": smooth_votes.straight_through,
}


class DefendedByREGroup(DefendedNetwork):
    """A network behind REGroup's vote (paper arXiv 2006.10679, eq. 7), with its surrogates.

    One forward pass gives both views: the accumulators of the vote have the bits that they have
    without gradients.

    Args:
        model: the classifier, in evaluation mode: pixels (N, 3, H, W) to logits (N, M).
        bank: the mixtures of its taps.
        scales: (T, 2) float64, sigma of every voter of the bank (`smooth_votes.ScaleSums`).
        k: how many of the bank's last taps vote.
        signs: "both", "positive" or "negative".
        policy: the tap policy that the bank was built with.
        delta: added to every accumulator entry.
        example: pixels (N, 3, H, W) such as the model takes, from which its taps are found.
        root_module: the module that tap names are relative to; by default `model`.

    Raises:
        ConfigurationError: k out of range, unknown signs, a bank of another model, or scales of
            another bank.
    """

    surrogates: ClassVar[tuple[str, ...]] = tuple(_FORMS)

    def __init__(
        self,
        model: nn.Module,
        bank: Bank,
        scales: NDArray[np.float64],
        k: int,
        signs: str = "both",
        policy: TapPolicy = "preactivation",
        *,
        delta: float = DELTA,
        example: Tensor,
        root_module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if scales.shape != (len(bank.taps), 2):
            raise ConfigurationError(
                f"scales of shape {scales.shape} for a bank of {len(bank.taps)} taps: give those "
                "of this bank"
            )
        voting, chosen = bank.last(k), voting_signs(signs)
        check_bank(voting, discover_taps(model, example, policy, root_module=root_module))
        self.k, self.signs, self.model = k, signs, model
        self._voting, self._delta = voting, delta
        self._scorers: dict[torch.device, Scorer] = {}
        self._extractor = Extractor(
            model, policy, example, last=k, root_module=root_module, keep_graph=True
        )
        self.divergences = smooth_votes.SmoothDivergences(voting, chosen, delta)
        own = torch.tensor(scales[-k:, list(chosen)], dtype=torch.float32)
        self._scales: Tensor
        self.register_buffer("_scales", own.reshape(1, -1, 1), persistent=False)
        self.eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return Borda sums (N, M) float32 of pixels (N, 3, H, W)."""
        return self._decision(list(self._extractor(pixels).accumulators))

    def views(self, pixels: Tensor, surrogate: str) -> Views:
        """Return Borda sums, and the scores of one of `surrogates`."""
        extraction = self._extractor(pixels)
        decision = self._decision([each.detach() for each in extraction.accumulators])
        scores = -self.divergences(extraction.accumulators) / self._scales
        return Views(decision, _FORMS[surrogate](scores), extraction.logits)

    def _decision(self, accumulators: list[Tensor]) -> Tensor:
        device = accumulators[0].device
        if device not in self._scorers:
            self._scorers = {device: Scorer(self._voting, delta=self._delta, device=device)}
        sums = self._scorers[device].borda_sums(accumulators, self.k, self.signs)
        return sums.to(torch.float32)
