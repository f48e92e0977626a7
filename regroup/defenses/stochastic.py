"""Networks whose defense draws: the decision and the surrogate as means over families of draws."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint

from regroup.attacks.views import DefendedNetwork, Views
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

    from regroup.defenses.draws import Purpose


class StochasticNetwork(DefendedNetwork):
    """A network that decides by the mean probability over its judging draws.

    Its surrogates are the mean over the attack draws (`eot`: expectation over transformations,
    Athalye et al. 2018), and over the judging draws themselves, for an attacker who knows the
    randomness (`known-randomness`). Gradients take one draw's memory at a time: each draw's pass is
    repeated when it is differentiated.

    Args:
        model: the classifier: pixels (N, 3, H, W) to logits (N, M).
        judge_draws: R, at least 1.
        attack_draws: of the surrogate, at least 1.

    Raises:
        ConfigurationError: no draws.
    """

    surrogates: ClassVar[tuple[str, ...]] = ("eot", "known-randomness")

    def __init__(self, model: nn.Module, judge_draws: int, attack_draws: int) -> None:
        super().__init__()
        for name, draws in (("judge_draws", judge_draws), ("attack_draws", attack_draws)):
            if draws < 1:
                raise ConfigurationError(f"{name} is {draws}: give at least 1")
        self.model, self.judge_draws, self.attack_draws = model, judge_draws, attack_draws
        self.eval()

    @abstractmethod
    def drawn(self, pixels: Tensor, purpose: Purpose, draw: int) -> Tensor:
        """Return logits (N, M) of pixels (N, 3, H, W) by network `draw` of a family."""

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return logs (N, M) of the mean probability over the judging draws."""
        return self._mean(pixels, "judge", self.judge_draws)

    @torch.no_grad()
    def each_draw(self, pixels: Tensor) -> Tensor:
        """Return the classes (R, N) int64 that the judging draws decide on, one by one."""
        draws = range(self.judge_draws)
        return torch.stack([self.drawn(pixels, "judge", r).argmax(dim=1) for r in draws])

    def views(self, pixels: Tensor, surrogate: str) -> Views:
        """Return the decision over the judging draws, and the mean over the attacker's."""
        if surrogate == "known-randomness":
            scores = self._mean(pixels, "judge", self.judge_draws)
            return Views(scores.detach(), scores, scores)
        scores = self._mean(pixels, "attack", self.attack_draws)
        return Views(self(pixels.detach()), scores, scores)

    def _mean(self, pixels: Tensor, purpose: Purpose, draws: int) -> Tensor:
        logs = [self._logs(pixels, purpose, draw) for draw in range(draws)]
        mean: Tensor = torch.logsumexp(torch.stack(logs), dim=0) - torch.tensor(float(draws)).log()
        return mean

    def _logs(self, pixels: Tensor, purpose: Purpose, draw: int) -> Tensor:
        """Return log probabilities (N, M); without what its backward pass can compute again."""
        if not (pixels.requires_grad and torch.is_grad_enabled()):
            return self._drawn_logs(pixels, purpose, draw)
        found: Tensor = checkpoint(self._drawn_logs, pixels, purpose, draw, use_reentrant=False)
        return found

    def _drawn_logs(self, pixels: Tensor, purpose: Purpose, draw: int) -> Tensor:
        return log_softmax(self.drawn(pixels, purpose, draw).float(), dim=1)
