"""cAdv: an image is recoloured until it is misclassified; its lightness stays.

Bhattad, Chong, Liang, Li and Forsyth, "Unrestricted Adversarial Examples via Semantic Manipulation"
(ICLR 2020). A colouriser (Zhang et al. 2017) receives the image's lightness and some of its true
colours; Adam changes these colours, and the mask that says where colours are given, until the
colouriser's output is misclassified. Neither network's weights change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from regroup.attacks.colour.cielab import lab_to_rgb, rgb_to_lab
from regroup.attacks.colour.hints import colour_segments, hint_pixels, most_certain_segments
from regroup.attacks.network import AttackedNetwork, cross_entropy
from regroup.attacks.outcome import KernelOutcome
from regroup.attacks.random_streams import stream
from regroup.attacks.spec import (
    AttackFacts,
    AttackSpec,
    Cost,
    Norm,
    Protocol,
    check_at_least,
    check_positive,
)
from regroup.errors import ConfigurationError
from regroup.models.colouriser import (
    AB_SCALE,
    PUBLISHED_SHA256,
    Colouriser,
    colouriser_sha256,
    load_colouriser,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regroup.attacks.batch import AttackBatch

# Images that both networks see at once. One on a CPU: with 16 rows of padding a single image would
# cost 16 times as much, and the colouriser's gradients of 16 images of 224 pixels need gigabytes.
_CPU_ROWS, _DEVICE_ROWS = 1, 16
_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8  # Adam's own defaults
_MISSING = (
    "cadv needs the colouriser's weights: fetch siggraph17-df00044c.pth (sha256 "
    f"{PUBLISHED_SHA256[:8]}...) as github.com/richzhang/colorization says, and give its path as "
    "the parameter 'colouriser'"
)


@dataclass(frozen=True, kw_only=True)
class CAdv(AttackSpec):
    """Adversarial colours (Bhattad et al. 2020, section 3.1).

    Attributes:
        colouriser: path of the weights of siggraph17, .safetensors or .pth; the same on every
            worker.
        colouriser_sha256: 64 hex characters: refuse a file with another sha256; None: accept any.
        mask_centre: see `Colouriser`: 0 for the published weights.
        learning_rate: of Adam, for a* and b* over 110 and for the mask.
        steps: maximum number of steps.
        clusters: segments by colour.
        kept: how many of the segments get hints of their true colours.
        hints: total number of pixels whose colour is given at first.
        margin: success requires a wrong class (or the target) with a softmax probability that
            exceeds the second largest by more than this.
        settled: continue until the margin also changes by less than this in a step (the authors'
            code: 1e-3), or to the end; None: stop at the first success.
    """

    name: ClassVar[str] = "cadv"
    facts: ClassVar[AttackFacts] = AttackFacts(
        title="cAdv",
        norms=("none",),
        protocols=("minimal",),
        knowledge="white-box",
        source="Bhattad et al. 2020",
        targeted=True,
    )

    norm: Norm = "none"
    protocol: Protocol = "minimal"
    colouriser: str | None = None
    colouriser_sha256: str | None = None
    mask_centre: float = 0.0
    learning_rate: float = 1e-4
    steps: int = 500
    clusters: int = 8
    kept: int = 4
    hints: int = 50
    margin: float = 0.05
    settled: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigurationError naming the first parameter that is out of range."""
        super().__post_init__()
        if self.epsilon is not None:
            raise ConfigurationError("cadv has no epsilon: nothing limits how far colours change")
        check_at_least(
            1, steps=self.steps, clusters=self.clusters, kept=self.kept, hints=self.hints
        )
        check_positive(learning_rate=self.learning_rate)
        if self.settled is not None:
            check_positive(settled=self.settled)
        if self.kept > self.clusters:
            raise ConfigurationError(f"kept is {self.kept}: there are {self.clusters} clusters")
        if not 0 <= self.margin < 1:
            raise ConfigurationError(
                f"margin is {self.margin:g}: it is a difference of probabilities, 0 <= margin < 1"
            )
        given = self.colouriser_sha256
        if given is not None and not re.fullmatch("[0-9a-f]{64}", given):
            raise ConfigurationError(
                f"colouriser_sha256 {given!r} is not a sha256: give 64 characters of 0-9a-f"
            )

    def attack(self, network: AttackedNetwork, batch: AttackBatch) -> KernelOutcome:
        """Recolour every sample.

        Raises:
            ConfigurationError: the colouriser's weights are missing, or images are not RGB.
        """
        if batch.clean.shape[1] != 3:
            raise ConfigurationError(
                f"cadv colours RGB images: these have {batch.clean.shape[1]} channels"
            )
        self._weights_sha256()
        colouriser = load_colouriser(self._path(), network.device, self.mask_centre)
        return Recolouring(self, network, colouriser, batch).run()

    def cost(self) -> Cost:
        """Return every step, a last look, and the check of the image that is kept."""
        return Cost(self.steps + 2, self.steps)

    def describe(self) -> dict[str, object]:
        """Return all that determines the examples: the sha256 of the weights, not their path.

        Raises:
            ConfigurationError: the weights are missing and `colouriser_sha256` does not name them,
                or they have another sha256.
        """
        described = super().describe()
        del described["colouriser"]
        return {**described, "colouriser_sha256": self._weights_sha256()}

    def pinned(self) -> CAdv:
        """Return this attack, with the sha256 of the weights that are there now."""
        return replace(self, colouriser_sha256=self._weights_sha256())

    def _weights_sha256(self) -> str:
        if self.colouriser is None and self.colouriser_sha256 is not None:
            return self.colouriser_sha256
        return colouriser_sha256(self._path(), self.colouriser_sha256)

    def _path(self) -> str:
        if self.colouriser is None:
            raise ConfigurationError(_MISSING)
        return self.colouriser


class Recolour(nn.Module):
    """Maps L*, the hints' a* / 110 and b* / 110, the mask, (N, 4, H, W), to sRGB (N, 3, H, W)."""

    def __init__(self, colouriser: Colouriser) -> None:
        super().__init__()
        self.colouriser = colouriser

    def forward(self, given: Tensor) -> Tensor:
        """Return values in [0, 1]: clipping colours outside of sRGB alone changes the lightness."""
        lightness, hints, mask = given[:, :1], given[:, 1:3] * AB_SCALE, given[:, 3:]
        colours = self.colouriser(lightness, hints, mask)
        return lab_to_rgb(torch.cat((lightness, colours), dim=1)).clamp(0, 1)


class _Entropy(nn.Module):
    """Maps L* to the entropy in nats of the colours of each 4 x 4 pixels, without hints."""

    def __init__(self, colouriser: Colouriser) -> None:
        super().__init__()
        self.colouriser = colouriser

    def forward(self, lightness: Tensor) -> Tensor:
        """Return the entropy (N, H / 4, W / 4) of L* (N, 1, H, W)."""
        nothing = torch.zeros_like(lightness)
        logits = self.colouriser.colour_logits(lightness, nothing.expand(-1, 2, -1, -1), nothing)
        logs = logits.log_softmax(dim=1)
        return -(logs.exp() * logs).sum(dim=1)


class Adam:
    """Adam (Kingma and Ba 2015) for samples that began together: no row depends on another.

    Only operations that round once: fused ones may round differently with a row's place in memory.
    """

    def __init__(self, like: Tensor, learning_rate: float) -> None:
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)
        self.learning_rate, self.step = learning_rate, 0

    def move(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Return the update of the variables at `rows`, (R, ...), given their loss's gradient."""
        self.step += 1
        self.first[rows] = self.first[rows] * _FIRST_DECAY + gradient * (1 - _FIRST_DECAY)
        self.second[rows] = self.second[rows] * _SECOND_DECAY + gradient * gradient * (
            1 - _SECOND_DECAY
        )
        mean = self.first[rows] / (1 - _FIRST_DECAY**self.step)
        variance = self.second[rows] / (1 - _SECOND_DECAY**self.step)
        return mean / (variance.sqrt() + _TINY) * -self.learning_rate


class Recolouring:
    """The state of all samples of a batch; `run` steps them until each has ended."""

    def __init__(
        self, spec: CAdv, network: AttackedNetwork, colouriser: Colouriser, batch: AttackBatch
    ) -> None:
        self.spec, self.network, self.batch = spec, network, batch
        on_cpu = network.device.type == "cpu"
        rows = _CPU_ROWS if on_cpu else min(network.fixed_rows, _DEVICE_ROWS)
        recolour = Recolour(colouriser)
        self.recolour = AttackedNetwork(recolour, rows, part=True)
        through = nn.Sequential(recolour, network.network)
        self.through = replace(network, network=through, rows=rows)
        self.entropy = AttackedNetwork(_Entropy(colouriser), rows, part=True)
        self.given = torch.cat([self._start(row) for row in range(len(batch))])
        self.adam = Adam(self.given[:, 1:], spec.learning_rate)
        self.images, self.found = batch.clean.clone(), torch.zeros_like(batch.labels).bool()
        self.steps, self.queries = torch.zeros_like(batch.labels), torch.zeros_like(batch.labels)
        self.backward = torch.zeros_like(batch.labels)
        self.previous = torch.full(batch.labels.shape, torch.inf, device=batch.clean.device)
        self.failures: dict[int, str] = {}

    def run(self) -> KernelOutcome:
        """Return the first image of each sample that succeeded, or the clean one."""
        active = torch.arange(len(self.batch), device=self.batch.clean.device)
        for _ in range(self.spec.steps):
            if len(active):
                active = self._tick(active)
        if len(active):
            self._last_look(active)
        nothing = torch.full(self.found.shape, torch.nan, dtype=torch.float64)
        return KernelOutcome(
            self.images, self.found, nothing, self.steps, self.queries, self.backward, self.failures
        )

    def _start(self, row: int) -> Tensor:
        """Return (1, 4, H, W): lightness, and true colours at some pixels of the surest segments.

        One sample at a time: in a batch, the position of a row may change the last bits.
        """
        spec = self.spec
        lab = rgb_to_lab(self.batch.clean[row : row + 1])
        random = stream(spec, self.batch.sample_ids[row], 0)
        colours = lab[0, 1:].flatten(1).T.double().cpu().numpy()
        segment = colour_segments(colours, spec.clusters, random)
        kept = most_certain_segments(segment, self._entropy_of_pixels(lab[:, :1]), spec.kept)
        pixels = torch.from_numpy(hint_pixels(segment, kept, spec.hints, random)).to(lab.device)
        given = torch.zeros_like(lab[:, :1]).repeat(1, 4, 1, 1)
        given[:, :1] = lab[:, :1]
        flat = given.view(4, -1)
        flat[1:3, pixels] = lab[0, 1:].flatten(1)[:, pixels] / AB_SCALE
        flat[3, pixels] = 1
        return given

    def _entropy_of_pixels(self, lightness: Tensor) -> NDArray[np.float64]:
        height, width = lightness.shape[2:]
        cells = self.entropy.logits(lightness)[0].double().cpu().numpy()
        pixels: NDArray[np.float64] = np.kron(cells, np.ones((4, 4)))[:height, :width].ravel()
        return pixels

    def _tick(self, active: Tensor) -> Tensor:
        """Check the active rows' images, move those that continue, and return these."""
        logits, gradient = self._gradient(active)
        finite = gradient[:, 1:].isfinite().all(dim=(1, 2, 3)) & logits.isfinite().all(dim=1)
        self._fail(active[~finite])
        success, margin = self._success(logits, active)
        if self.spec.settled is not None:
            success &= (margin - self.previous[active]).abs() < self.spec.settled
        self.previous[active] = margin
        ended = self._keep(active[success & finite])
        going = finite & ~torch.isin(active, ended)
        self._move(active[going], gradient[going, 1:])
        return active[going]

    def _gradient(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (R, M), and the gradient (R, 4, H, W) of the loss to minimise."""
        wanted = (self.batch.targets if self.spec.targeted else self.batch.labels)[rows]
        sign = 1 if self.spec.targeted else -1

        def loss(logits: Tensor, classes: Tensor) -> Tensor:
            """Return the loss to minimise, (R,): towards the target, or away from the label."""
            return sign * cross_entropy(logits, classes)

        self.queries[rows] += 1
        self.backward[rows] += 1
        return self.through.of(rows).gradient(self.given[rows], loss, wanted)

    def _last_look(self, rows: Tensor) -> None:
        """Check the outcome of the last step."""
        self.queries[rows] += 1
        logits = self.through.logits(self.given[rows])
        self._fail(rows[~logits.isfinite().all(dim=1)])
        success, _ = self._success(logits, rows)
        self._keep(rows[success])

    def _fail(self, rows: Tensor) -> None:
        for row in rows.tolist():
            self.failures[row] = "cadv: logits or gradients that are not finite"

    def _success(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (R,) each: whether a wrong class (or the target) leads by the margin; its lead."""
        probability = torch.softmax(logits, dim=1)
        (largest, second), (leader, _) = (x.unbind(dim=1) for x in probability.topk(2, dim=1))
        labels, targets = self.batch.labels[rows], self.batch.targets[rows]
        right = leader == targets if self.spec.targeted else leader != labels
        margin = largest - second
        return right & (margin > self.spec.margin), margin

    def _keep(self, rows: Tensor) -> Tensor:
        """Make and check the images of `rows`; keep those that succeed, and return their rows."""
        if not len(rows):
            return rows
        images = self.recolour.logits(self.given[rows])
        self.queries[rows] += 1
        success, _ = self._success(self.network.logits(images), rows)
        self.images[rows[success]], self.found[rows[success]] = images[success], True
        return rows[success]

    def _move(self, rows: Tensor, gradient: Tensor) -> None:
        """Keep colours in -110 .. 110, the mask in 0 .. 1: the colouriser's training range."""
        changed = self.given[rows, 1:] + self.adam.move(rows, gradient)
        self.given[rows, 1:3] = changed[:, :2].clamp(-1, 1)
        self.given[rows, 3:] = changed[:, 2:].clamp(0, 1)
        self.steps[rows] += 1
