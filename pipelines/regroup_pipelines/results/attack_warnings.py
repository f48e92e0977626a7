"""What makes an attack's success say little about the network, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regroup_pipelines.results.records import AttackSummary

NOT_MEASURED = "gradients not measured"
# AutoAttack's own checks, by their names in the store (`FLAGS` of kinds/adversarials.py).
_REMARKS = {
    "randomised": "the network's outputs differ from pass to pass, a randomised defence, which "
    "takes an attack on their expectation",
    "probabilities": "its outputs are probabilities: attack its logits",
    "dynamic": "its forward pass takes gradients itself, a dynamic defence, which takes an attack "
    "adapted to it",
    "zero gradient": "there are points with zero gradient",
    "Square alone": "only Square broke them, so that the attacks by gradients may be unreliable",
}


def useless_gradients(summary: AttackSummary) -> str:
    """Say for how many samples gradients could not lead the attack."""
    n, bad = summary.gradient_samples or 0, summary.bad_gradient_samples or 0
    zero, infinite = summary.zero_gradient_samples, summary.not_finite_gradient_samples
    return (
        f"the input gradient was zero or not finite for {bad} of {n} samples not yet fooled "
        f"({100 * bad / n:.0f} %; zero: {zero}, not finite: {infinite})"
    )


def attack_warnings(summary: AttackSummary) -> list[str]:
    """Return a sentence for everything that an attack's numbers should not be quoted without."""
    found = []
    if summary.gradients_useless:
        found.append(
            f"{useless_gradients(summary)}: the network hides its gradient, so that few "
            "successes, or large ones, say nothing about its robustness; attack it with a "
            "differentiable approximation of the step that hides it (BPDA), or by a black-box "
            "attack such as square or hop-skip-jump"
        )
    for name, samples in (summary.flags or {}).items():
        text = _REMARKS.get(name, name)
        found.append(f"AutoAttack's own check, {name} ({samples} samples): {text}")
    return found


def gradients_line(summary: AttackSummary) -> str:
    """Say in one line what the gradients were."""
    if summary.gradient_samples is None:
        return NOT_MEASURED
    if not summary.gradient_samples:
        return "no gradients were used"
    return (
        f"gradients of {summary.gradient_samples} samples not yet fooled: zero for "
        f"{summary.zero_gradient_samples}, not finite for {summary.not_finite_gradient_samples}"
    )
