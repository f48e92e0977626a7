"""The attacks by name. Modules are imported on demand: some need a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup.registered import check_parameters, registered

if TYPE_CHECKING:
    from regroup.attacks.spec import AttackSpec

# Name -> module and class; in the order of docs/protocols.md.
ATTACKS = {
    "pgd": ("regroup.attacks.pgd.attack", "PGD"),
    "apgd": ("regroup.attacks.apgd.attack", "APGD"),
    "adaptive": ("regroup.attacks.adaptive", "Adaptive"),
    "deepfool": ("regroup.attacks.gradient.deepfool", "DeepFool"),
    "carlini-wagner": ("regroup.attacks.gradient.carlini_wagner", "CarliniWagner"),
    "trust-region": ("regroup.attacks.gradient.trust_region", "TrustRegion"),
    "boundary": ("regroup.attacks.decision.boundary", "Boundary"),
    "spatial": ("regroup.attacks.transforms.spatial", "Spatial"),
    "spsa": ("regroup.attacks.score.spsa", "SPSA"),
    "cadv": ("regroup.attacks.colour.cadv", "CAdv"),
    "autoattack": ("regroup.attacks.autoattack", "AutoAttack"),
    "square": ("regroup.attacks.score.square", "Square"),
    "hop-skip-jump": ("regroup.attacks.decision.hop_skip_jump", "HopSkipJump"),
    "noise": ("regroup.attacks.transforms.corruptions", "Noise"),
    "rotation": ("regroup.attacks.transforms.corruptions", "Rotation"),
    "contrast": ("regroup.attacks.transforms.corruptions", "Contrast"),
}


def attack_class(name: str) -> type[AttackSpec]:
    """Return the class of the attack called `name`.

    Raises:
        ConfigurationError: an unknown name; the message has the nearest one.
    """
    found: type[AttackSpec] = registered("attack", name, ATTACKS)
    return found


def make_attack(name: str, **parameters: Any) -> AttackSpec:
    """Return an attack by name; omitted parameters take the attack's own defaults.

    Raises:
        ConfigurationError: an unknown attack or parameter, or a value out of range.
    """
    kind = attack_class(name)
    check_parameters(name, kind, parameters)
    return kind(**parameters)
