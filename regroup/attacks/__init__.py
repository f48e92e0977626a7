"""Attacks in pixel space; each sample's example depends on its own random stream alone."""

from regroup.attacks.gradients import predictions
from regroup.attacks.result import AttackResult
from regroup.attacks.run import run_attack
from regroup.attacks.spec import AttackSpec

__all__ = ["AttackResult", "AttackSpec", "predictions", "run_attack"]
