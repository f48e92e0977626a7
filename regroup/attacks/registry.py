"""The attacks by name. Modules are imported on demand: some need a library."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from regroup.errors import ConfigurationError

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
    if name not in ATTACKS:
        near = get_close_matches(name, ATTACKS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(ATTACKS)}"
        raise ConfigurationError(f"unknown attack {name!r}: {hint}")
    module, kind = ATTACKS[name]
    found: type[AttackSpec] = getattr(import_module(module), kind)
    return found


def make_attack(name: str, **parameters: Any) -> AttackSpec:
    """Return an attack by name; omitted parameters take the attack's own defaults.

    Raises:
        ConfigurationError: an unknown attack or parameter, or a value out of range.
    """
    kind = attack_class(name)
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            near = get_close_matches(parameter, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise ConfigurationError(f"{name} has no parameter {parameter!r}: {hint}")
    return kind(**parameters)
