"""Attacks in pixel space; each sample's example depends on its own random stream alone.

`make_attack` builds an attack by name (`ATTACKS`), `run_attack` runs it on correctly classified
samples (`predictions` finds them), `verify` checks the stored images. Each attack is a class
derived from `AttackSpec`:

- `pgd`: projected gradient descent, in both protocols.
- `gradient`: white-box attacks that follow gradients.
- `decision`, `score`: black-box attacks that see the class, or the scores.
- `transforms`, `colour`: attacks without a perturbation budget.
- `autoattack`: the standard ensemble.
- `libraries`: adapters to other libraries' kernels.
"""

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
