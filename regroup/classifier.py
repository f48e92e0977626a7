"""REGroup as a classifier: an `nn.Module` that takes the network's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.errors import ConfigurationError
from regroup.scoring import Scorer, voting_signs
from regroup.taps import discover_taps

if TYPE_CHECKING:
    from regroup.bank import Bank
    from regroup.taps import Tap, TapPolicy


class REGroupClassifier(nn.Module):
    """REGroup's robust prediction for images (paper arXiv 2006.10679, eq. 7).

    Args:
        model: the classifier, in evaluation mode: pixels (N, 3, H, W) to logits (N, M).
        bank: the mixtures of its taps.
        k: how many of the bank's last taps vote.
        signs: "both", "positive" or "negative".
        policy: the tap policy that the bank was built with.
        example: pixels (N, 3, H, W) such as the model takes, from which its taps are found.
        root_module: the module that tap names are relative to; by default `model`.

    Raises:
        ConfigurationError: k out of range, unknown signs, or a bank of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        bank: Bank,
        k: int,
        signs: str = "both",
        policy: TapPolicy = "preactivation",
        *,
        example: Tensor,
        root_module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._bank = bank.last(k)
        voting_signs(signs)
        self.k, self.signs = k, signs
        check_bank(self._bank, discover_taps(model, example, policy, root_module=root_module))
        self.model = model
        self.training = model.training
        self._extractor = Extractor(model, policy, example, last=k, root_module=root_module)
        self._scorers: dict[torch.device, Scorer] = {}

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return Borda sums (N, M) float32 of pixels (N, 3, H, W), by one forward pass.

        The prediction is `argmax(1)`: the first class of the largest sum. Borda sums are counts:
        they carry no gradient.
        """
        accumulators = self._extractor(pixels).accumulators
        scorer = self._scorer(accumulators[0].device)
        return scorer.borda_sums(accumulators, self.k, self.signs).to(torch.float32)

    def _scorer(self, device: torch.device) -> Scorer:
        """Return the scorer on the network's current device, always float32."""
        if device not in self._scorers:
            self._scorers = {device: Scorer(self._bank, device=device)}
        return self._scorers[device]


def check_bank(bank: Bank, taps: tuple[Tap, ...]) -> None:
    """Raise ConfigurationError, naming the first difference, unless `taps` end like the bank's.

    Args:
        bank: the bank.
        taps: all taps of the model, in execution order.
    """
    count = len(bank.taps)
    if len(taps) < count:
        raise ConfigurationError(
            f"a bank of another model: {count} of its taps vote, the model has {len(taps)}"
        )
    for name, mixtures, tap in zip(bank.taps, bank.mixtures, taps[-count:], strict=True):
        channels = mixtures.shape[2]
        if (name, channels) != (tap.name, tap.channels):
            raise ConfigurationError(
                f"a bank of another model: its tap {name} of {channels} channels is, in this "
                f"model, {tap.name} of {tap.channels}; build a bank for this model and tap policy"
            )
