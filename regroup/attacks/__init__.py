"""Attacks in pixel space; each sample's example depends on its own random stream alone."""

from regroup.attacks.network import predictions
from regroup.attacks.registry import ATTACKS, attack_class, make_attack
from regroup.attacks.result import AttackResult
from regroup.attacks.run import run_attack
from regroup.attacks.spec import AttackSpec
from regroup.attacks.verification import Verification, verify

__all__ = [
    "ATTACKS",
    "AttackResult",
    "AttackSpec",
    "Verification",
    "attack_class",
    "make_attack",
    "predictions",
    "run_attack",
    "verify",
]
