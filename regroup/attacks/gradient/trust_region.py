"""The trust region attack (Yao, Gholami, Xu, Keutzer, Mahoney, CVPR 2019), L-infinity and L2.

Written from the paper. Its subproblem is solved to first order (the paper's own choice for networks
of rectifiers, whose second derivatives vanish): with f = z_j - z_true, the logit of the class aimed
at minus the true one, a step goes as far along the gradient of f as the radius allows. The ratio of
the actual gain of f to that promised by its gradient then widens or narrows the radius.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch

from regroup.attacks.criterion import Criterion
from regroup.attacks.lp_balls import BALLS
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_one_of,
    check_positive,
)
from regroup.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from regroup.attacks.batch import AttackBatch
    from regroup.attacks.network import AttackedNetwork

Choice = Literal["nearest", "fixed", "worst"]


@dataclass(frozen=True, kw_only=True)
class TrustRegion(AttackSpec):
    """Steps of an adaptive radius towards the nearest class, until the network is fooled.

    From the paper: the first-order step, the ratio with its two thresholds and one factor, the best
    and the hardest class. c = 9 and the first radius of 1e-4 are those of the command that its
    authors publish for ImageNet. Our own choices: the values of steps, eta and the sigmas, the
    least and the greatest radius, the unit of the radius under L2, dual norms in the distance to a
    boundary, `epsilon`, and that a step which moves no pixel ends the attack. A small first radius
    keeps the last step from going far beyond the boundary.

    Attributes:
        candidates: c, how many classes may be aimed at: those with the largest logits on the clean
            image besides the true one (fewer if the network has fewer).
        choice: which of them. "nearest": at each step the one whose linearised boundary is nearest,
            |f| over the dual norm of its gradient (the paper's best class). "fixed": the nearest on
            the clean image, kept. "worst": the farthest on the clean image, kept (the paper's
            hardest class). Whichever is aimed at, the first misclassification ends the attack.
        steps: the most that a sample takes.
        radius: of the first step, in pixel units: its L-infinity size, or under L2 its root mean
            square, so that a value fits any image size.
        min_radius: the least radius of a step.
        max_radius: the greatest radius of a step.
        eta: the factor by which the radius is multiplied if gain / promise > sigma_high, and
            divided if it is < sigma_low. Every step is taken, even a bad one.
        sigma_low: see eta.
        sigma_high: see eta.
        epsilon: every iterate stays in that ball (L2: a distance); None: no limit.
    """

    name: ClassVar[str] = "trust-region"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="Trust Region",
        norms=("linf", "l2"),
        protocols=("minimal",),
        knowledge="white-box",
        source="Yao et al. 2019",
    )

    norm: Norm = "linf"
    protocol: Protocol = "minimal"
    epsilon: float | None = None
    candidates: int = 9
    choice: Choice = "nearest"
    steps: int = 500
    radius: float = 1e-4
    min_radius: float = 1e-5
    max_radius: float = 1e-2
    eta: float = 1.1
    sigma_low: float = 0.5
    sigma_high: float = 0.9

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        check_one_of("choice", self.choice, get_args(Choice))
        check_at_least(1, candidates=self.candidates, steps=self.steps, eta=self.eta)
        check_positive(min_radius=self.min_radius)
        if not self.min_radius <= self.radius <= self.max_radius <= 1:
            raise ConfigurationError(
                f"radius is {self.radius:g}: give min_radius <= radius <= max_radius <= 1, "
                f"not {self.min_radius:g} and {self.max_radius:g}"
            )
        if not self.sigma_low <= self.sigma_high:
            raise ConfigurationError(
                f"sigma_low is {self.sigma_low:g}: it must not be above sigma_high "
                f"{self.sigma_high:g}"
            )

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Walk every sample over the boundary."""
        return Walk(self, network, batch).run()

    def cost(self) -> Cost:
        """Return every step; "fixed" and "worst" follow a single class after the first."""
        later = self.candidates if self.choice == "nearest" else 1
        return Cost(self.steps + 2, self.candidates + (self.steps - 1) * later)


@dataclass(frozen=True)
class Linearisation:
    """The class aimed at, to first order, for some rows.

    Attributes:
        logits: (n, M).
        aim: (n,) int64, the class j.
        gain: (n,) float64, f = z_j - z_true.
        gradient: (n, C, H, W), of f.
        dual: (n,) float64, its dual norm.
        finite: (n,) bool, whether the logits and all candidates' gradients were.
    """

    logits: Tensor
    aim: Tensor
    gain: Tensor
    gradient: Tensor
    dual: Tensor
    finite: Tensor


class Walk:
    """The state of all samples of a batch; `run` steps them until each is over the boundary."""

    def __init__(self, spec: TrustRegion, network: AttackedNetwork, batch: AttackBatch) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        self.criterion = Criterion.of(spec)
        labels = batch.labels
        self.x = batch.clean.clone()
        self.candidates = candidate_classes(network.logits(batch.clean), labels, spec.candidates)
        self.aim = self.candidates[:, 0].clone()
        self.radius = torch.full(
            labels.shape, spec.radius, dtype=torch.float64, device=labels.device
        )
        self.gain = torch.full_like(self.radius, torch.nan)
        self.promise = torch.full_like(self.radius, torch.nan)  # of the last step; NaN: none yet
        self.found = torch.zeros_like(labels, dtype=torch.bool)
        self.steps, self.backward = torch.zeros_like(labels), torch.zeros_like(labels)
        self.queries = torch.ones_like(labels)  # the one that ranked the candidates
        self.failures: dict[int, str] = {}

    def run(self) -> KernelOutcome:
        """Return every sample's first misclassified iterate, or its clean image."""
        active = torch.arange(len(self.batch), device=self.x.device)
        for step in range(self.spec.steps):
            if not len(active):
                break
            # A few rows at a time: each has a gradient for every candidate.
            parts = torch.split(active, self.network.fixed_rows)
            active = torch.cat([self._tick(rows) for rows in parts])
            if step == 0 and self.spec.choice != "nearest":
                self.candidates = self.aim[:, None]
        if len(active):
            self._look(active)
        return self._result()

    def _look(self, rows: Tensor) -> None:
        """Check whether the last iterates fool the network."""
        logits = self.network.logits(self.x[rows])
        self.queries[rows] += 1
        self.found[rows] = self._met(rows, logits)
        self._fail(rows[~logits.isfinite().all(dim=1)])

    def _met(self, rows: Tensor, logits: Tensor) -> Tensor:
        return self.criterion.met(logits, self.batch.labels[rows], self.batch.targets[rows])

    def _fail(self, rows: Tensor) -> None:
        for row in rows.tolist():
            steps = int(self.steps[row])
            self.failures[row] = f"the network's logits or gradient are not finite at step {steps}"

    def _tick(self, rows: Tensor) -> Tensor:
        """Run one forward pass, the backward passes and a step; return the rows that continue."""
        slope = self._slope(rows)
        found = self._met(rows, slope.logits)
        self.found[rows] = found
        self._fail(rows[~slope.finite & ~found])  # a finished row needs no gradient
        self._adapt(rows, slope.logits)
        return rows[self._step(rows, slope)]

    def _slope(self, rows: Tensor) -> Linearisation:
        labels, candidates = self.batch.labels[rows], self.candidates[rows]
        network = self.network.of(rows)
        logits, gradients = network.gradients(self.x[rows], gains, labels, candidates)
        self.queries[rows] += 1
        self.backward[rows] += candidates.shape[1]
        f, dual = gains(logits, labels, candidates).double(), dual_norm(gradients, self.spec.norm)
        distance = -f / dual
        # A class without a gradient cannot be reached.
        order = -distance if self.spec.choice == "worst" else distance
        pick = torch.where(dual > 0, order, torch.inf).argmin(dim=1)
        each = torch.arange(len(rows), device=rows.device)
        finite = logits.isfinite().all(dim=1) & dual.isfinite().all(dim=1)
        return Linearisation(
            logits,
            candidates[each, pick],
            f[each, pick],
            gradients[each, pick],
            dual[each, pick],
            finite,
        )

    def _adapt(self, rows: Tensor, logits: Tensor) -> None:
        """Adapt the radius by the last step's gain for the class that it aimed at."""
        now = gains(logits, self.batch.labels[rows], self.aim[rows, None])[:, 0].double()
        ratio = (now - self.gain[rows]) / self.promise[rows]  # NaN before the first step
        spec, radius = self.spec, self.radius[rows]
        wider = torch.where(ratio > spec.sigma_high, radius * spec.eta, radius)
        self.radius[rows] = torch.where(ratio < spec.sigma_low, radius / spec.eta, wider).clamp(
            spec.min_radius, spec.max_radius
        )

    def _step(self, rows: Tensor, slope: Linearisation) -> Tensor:
        """Step where nothing was found; return (n,) bool: the rows that moved and continue."""
        going = slope.finite & ~self.found[rows]
        before, clean = self.x[rows], self.batch.clean[rows]
        direction = steepest(slope.gradient, slope.dual, self.spec.norm)
        length = column(self.radius[rows]).to(before.dtype)
        after = inside(before + length * direction, clean, self.spec)
        moved = going & (after != before).flatten(1).any(dim=1)
        self.x[rows] = torch.where(column(moved), after, before)
        self.aim[rows], self.gain[rows] = slope.aim, slope.gain
        self.promise[rows] = row_sums(slope.gradient * (after - before))
        self.steps[rows] += moved
        return moved

    def _result(self) -> KernelOutcome:
        images = torch.where(column(self.found), self.x, self.batch.clean)
        limit = torch.nan if self.spec.epsilon is None else self.spec.epsilon
        epsilon = torch.full_like(self.radius, limit).masked_fill(~self.found, torch.nan)
        return KernelOutcome(
            images, self.found, epsilon, self.steps, self.queries, self.backward, self.failures
        )


def candidate_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return (N, K) int64, K = min(count, M - 1): the largest logits but the label's.

    Ties go to the smaller index.
    """
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(count, logits.shape[1] - 1)]


def gains(logits: Tensor, labels: Tensor, candidates: Tensor) -> Tensor:
    """Return (N, K): f of every candidate (N, K), its logit minus the label's; negative inside."""
    return logits.gather(1, candidates) - logits.gather(1, labels[:, None])


def dual_norm(gradients: Tensor, norm: Norm) -> Tensor:
    """Return (N, K) float64 of gradients (N, K, C, H, W): L1 under "linf", L2 under "l2"."""
    flat = gradients.flatten(0, 1)
    sizes = row_sums(flat.abs()) if norm == "linf" else row_sums(flat.square()).sqrt()
    return sizes.view(gradients.shape[:2])


def steepest(gradient: Tensor, dual: Tensor, norm: Norm) -> Tensor:
    """Return the direction of steepest ascent (N, C, H, W), of L-infinity size or RMS 1."""
    if norm == "linf":
        return gradient.sign()
    size = math.sqrt(math.prod(gradient.shape[1:]))
    factor = torch.where(dual > 0, size / dual, 0.0)
    return gradient * column(factor).to(gradient.dtype)


def inside(pixels: Tensor, clean: Tensor, spec: TrustRegion) -> Tensor:
    """Project `pixels` (N, C, H, W) into the ball of `spec`, if it has one, and [0, 1]."""
    if spec.epsilon is None:
        return pixels.clamp(0, 1)
    if spec.norm == "linf":
        return BALLS["linf"].project(
            pixels, clean, clean.new_full((len(clean), 1, 1, 1), spec.epsilon)
        )
    distance = row_sums((pixels - clean).square()).sqrt()
    factor = torch.where(distance > spec.epsilon, spec.epsilon / distance, 1.0)
    return (clean + (pixels - clean) * column(factor).to(clean.dtype)).clamp(0, 1)


def row_sums(values: Tensor) -> Tensor:
    """Return (N,) float64 of (N, ...), N > 0, row by row: torch may sum a batch otherwise."""
    return torch.stack([row.sum(dtype=torch.float64) for row in values.flatten(1)])


def column(values: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
