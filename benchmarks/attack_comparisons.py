"""The attacks that are timed against each other, and their sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from benchmarks.baselines import by_foolbox, by_torchattacks, full_batch
from regroup.attacks import AttackSpec, make_attack
from regroup.attacks.network import AttackedNetwork
from regroup.attacks.pgd.attack import PGD

if TYPE_CHECKING:
    from benchmarks.attack_subject import Subject

EPSILON = 4 / 255
WITHIN_5_PERCENT = 1 / 1.05
_GROWTHS = 20
Attack = Callable[[], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Images of each comparison, and the parameters that determine its duration."""

    images: int
    pgd_steps: int
    minimal_images: int
    minimal_steps: int
    bisections: int
    deepfool_steps: int
    searches: int
    carlini_steps: int
    boundary_steps: int
    spsa_images: int
    spsa_steps: int

    @property
    def most_images(self) -> int:
        """The largest number of images in any comparison."""
        return max(self.images, self.minimal_images, self.spsa_images)


SIZES = {
    "tiny": Sizes(3, 2, 3, 2, 1, 2, 1, 2, 2, 1, 1),
    "small": Sizes(16, 40, 48, 10, 3, 100, 1, 30, 100, 4, 2),
    "large": Sizes(64, 40, 256, 40, 20, 100, 5, 100, 500, 16, 10),
}


@dataclass(frozen=True)
class Comparison:
    """One of our attacks and the attacks that it is timed against.

    Attributes:
        what: its name.
        target: the smallest ratio that meets the target; None: no target.
        subject: network and images.
        ours: runs our attack.
        rivals: runs the other attacks, by name.
        missing: reasons for attacks that are not available, by name.
    """

    what: str
    target: float | None
    subject: Subject
    ours: Attack
    rivals: dict[str, Attack]
    missing: dict[str, str] = field(default_factory=dict)


def pgd_budget(subject: Subject, sizes: Sizes) -> Comparison:
    """PGD inside one ball with all steps."""
    subject, steps = subject.first(sizes.images), sizes.pgd_steps
    spec = PGD(epsilon=EPSILON, protocol="budget", steps=steps)
    rivals: dict[str, Attack] = {}
    missing: dict[str, str] = {}
    try:
        from foolbox.attacks import LinfPGD

        attack = LinfPGD(rel_stepsize=spec.ratio, steps=steps, random_start=True)
        rivals["foolbox"] = _foolbox(attack, subject, EPSILON)
    except ImportError as error:
        missing["foolbox"] = str(error)
    try:
        import torchattacks

        theirs = torchattacks.PGD(subject.model, EPSILON, spec.ratio * EPSILON, steps)
        rivals["torchattacks"] = _torchattacks(theirs, subject, subject.rows)
    except ImportError as error:
        missing["torchattacks"] = str(error)
    return Comparison("PGD budget", 1.0, subject, partial(subject.ours, spec), rivals, missing)


def pgd_minimal(subject: Subject, sizes: Sizes) -> Comparison:
    """The complete search for the smallest perturbation, with and without compaction."""
    steps, bisections = sizes.minimal_steps, sizes.bisections
    spec = PGD(epsilon=EPSILON, steps=steps, growth_limit=_GROWTHS, bisections=bisections)
    return _with_compaction("PGD minimal", 3.0, subject.first(sizes.minimal_images), spec)


def pgd_first_success(subject: Subject, sizes: Sizes) -> Comparison:
    """The search up to each sample's first success, without bisections."""
    spec = PGD(epsilon=EPSILON, steps=sizes.pgd_steps, growth_limit=_GROWTHS, bisections=0)
    return _with_compaction("PGD success", None, subject.first(sizes.minimal_images), spec)


def _with_compaction(what: str, target: float | None, subject: Subject, spec: PGD) -> Comparison:
    network = AttackedNetwork(subject.model, subject.rows)
    theirs = partial(full_batch, spec, _GROWTHS, network, subject.batch)
    return Comparison(what, target, subject, partial(subject.ours, spec), {"full batch": theirs})


def deepfool(subject: Subject, sizes: Sizes) -> Comparison:
    """DeepFool through our adapter, and called directly."""
    from foolbox.attacks.deepfool import L2DeepFoolAttack

    subject, steps = subject.first(sizes.images), sizes.deepfool_steps
    parameters: dict[str, Any] = {
        "steps": steps,
        "candidates": 10,
        "overshoot": 0.05,
        "loss": "crossentropy",
    }
    spec = make_attack("deepfool", **parameters)
    return _through_our_layer("DeepFool", subject, spec, L2DeepFoolAttack(**parameters))


def carlini_wagner(subject: Subject, sizes: Sizes) -> Comparison:
    """C&W through our adapter, and called directly."""
    from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack

    subject, searches = subject.first(sizes.images), sizes.searches
    spec = make_attack("carlini-wagner", binary_searches=searches, steps=sizes.carlini_steps)
    attack = L2CarliniWagnerAttack(
        binary_search_steps=searches,
        steps=sizes.carlini_steps,
        stepsize=5e-3,
        initial_const=1e-2,
        confidence=0,
    )
    return _through_our_layer("C&W", subject, spec, attack)


def boundary(subject: Subject, sizes: Sizes) -> Comparison:
    """Boundary through our adapter, and called directly."""
    from foolbox.attacks.boundary_attack import BoundaryAttack

    # Foolbox raises for the entire batch if its starting noise does not fool some image.
    subject = subject.fooled_by_noise().first(sizes.images)
    spec = make_attack("boundary", steps=sizes.boundary_steps)
    attack = BoundaryAttack(steps=sizes.boundary_steps)
    return _through_our_layer("Boundary", subject, spec, attack)


def spsa(subject: Subject, sizes: Sizes) -> Comparison:
    """Our SPSA, and that of torchattacks on single images and on batches."""
    import torchattacks

    subject, steps = subject.first(sizes.spsa_images), sizes.spsa_steps
    parameters = {"delta": 0.01, "learning_rate": 0.01, "samples": 128}
    spec = make_attack("spsa", epsilon=EPSILON, steps=steps, **parameters)
    theirs = torchattacks.SPSA(subject.model, EPSILON, 0.01, 0.01, nb_iter=steps, nb_sample=128)
    rivals = {
        f"torchattacks, {kind}": _torchattacks(theirs, subject, rows)
        for kind, rows in (("single", 1), ("batch", subject.rows))
    }
    return Comparison("SPSA", None, subject, partial(subject.ours, spec), rivals)


COMPARISONS = {
    "pgd-budget": pgd_budget,
    "pgd-minimal": pgd_minimal,
    "pgd-first-success": pgd_first_success,
    "deepfool": deepfool,
    "carlini-wagner": carlini_wagner,
    "boundary": boundary,
    "spsa": spsa,
}


def _through_our_layer(what: str, subject: Subject, spec: AttackSpec, attack: object) -> Comparison:
    rivals = {"foolbox": _foolbox(attack, subject, None)}
    return Comparison(what, WITHIN_5_PERCENT, subject, partial(subject.ours, spec), rivals)


def _foolbox(attack: object, subject: Subject, epsilon: float | None) -> Attack:
    images = subject.pixels, subject.labels
    return partial(by_foolbox, attack, subject.model, *images, epsilon, subject.rows)


def _torchattacks(attack: object, subject: Subject, rows: int) -> Attack:
    return partial(by_torchattacks, attack, subject.pixels, subject.labels, rows)
