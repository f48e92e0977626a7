"""Attackers who know REGroup: the same images attacked through the network alone, and through both.

No store and no Ray. Trains a small network on scikit-learn's digits and builds its bank. In a ball
of 24/255 the adaptive attack is then made for the network without a defense, whose images are put
to REGroup as well (an attacker who does not know it), and for REGroup. Success is what each decides
itself, at every step and on the images that are left at the end.

Run: python examples/knowing_attacker.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from regroup.accumulators import Extractor
from regroup.attacks import predictions, run_attack
from regroup.attacks.adaptive import Adaptive
from regroup.bank import Bank, BankStatistics
from regroup.defenses.regroup import DefendedByREGroup, REGroup
from regroup.defenses.smooth_votes import SmoothDivergences
from regroup.defenses.spec import Material
from regroup.models import train_digits_cnn
from regroup.models.classifier import Normalize
from regroup.models.digits import DIGITS_NORMALISATION
from regroup.scales import ScaleSums

TRAIN, ATTACKED = 900, 100
ATTACK = Adaptive(epsilon=24 / 255, steps=30, restarts=1, target_classes=3, squares=0)


def main() -> None:
    """Print, of the images that the network gets right, how many each attacker leaves right."""
    images, labels = load_digits(return_X_y=True)
    grey = images.reshape(-1, 1, 8, 8).repeat(3, axis=1).astype(np.float32) / 16
    pixels = torch.from_numpy(grey)
    network = train_digits_cnn(grey[:TRAIN], labels[:TRAIN], seed=0)
    model = nn.Sequential(Normalize(DIGITS_NORMALISATION), network).eval()
    robust = defended(model, pixels[:TRAIN], labels[:TRAIN])

    (right,) = np.nonzero(predictions(model, pixels[TRAIN:]).numpy() == labels[TRAIN:])
    chosen = TRAIN + right[:ATTACKED]
    clean, true = pixels[chosen], labels[chosen]
    unaware = attacked(model, clean, true)
    aware = attacked(robust, clean, true)
    for name, made in (
        ("clean images", clean),
        ("attacker of the network", unaware),
        ("attacker of REGroup", aware),
    ):
        kept = [int((predictions(each, made).numpy() == true).sum()) for each in (model, robust)]
        print(f"{name}: softmax right on {kept[0]} of {len(clean)}, REGroup on {kept[1]}")


def defended(model: nn.Module, pixels: Tensor, labels: np.ndarray) -> DefendedByREGroup:
    """Return the model behind REGroup's vote, its bank and scales made of `pixels`."""
    extractor = Extractor(model, "preactivation", example=pixels[:2])
    with torch.inference_mode():
        extraction = extractor(pixels)
    confidence, predicted = (each.numpy() for each in extraction.logits.softmax(1).max(1))
    (correct,) = np.nonzero(predicted == labels)
    accumulators = [each.numpy()[correct] for each in extraction.accumulators]
    statistics = BankStatistics.zeros([(tap.name, tap.channels) for tap in extractor.taps], 10)
    statistics.update(accumulators, labels[correct], confidence[correct])
    bank = statistics.finalise()
    material = Material(pixels[:2], bank, scales(bank, accumulators))
    return DefendedByREGroup(model, REGroup(k=3), material)


def scales(bank: Bank, accumulators: list[np.ndarray]) -> np.ndarray:
    """Return sigma of every voter over the bank's own images, (T, 2)."""
    divergences = SmoothDivergences(bank, (0, 1))
    sums = ScaleSums(2 * len(bank.taps))
    sums.add(divergences([torch.from_numpy(each) for each in accumulators]))
    return sums.scales().reshape(-1, 2)


def attacked(model: nn.Module, clean: Tensor, labels: np.ndarray) -> Tensor:
    """Return images (N, C, H, W) that the attack made; those that `model` gets wrong stay clean."""
    found = clean.clone()
    right = predictions(model, clean).numpy() == labels
    names = [f"digit-{number}" for number in np.flatnonzero(right)]
    group = ATTACK.facts.group or len(names)
    for start in range(0, len(names), group):
        rows = np.flatnonzero(right)[start : start + group]
        result = run_attack(ATTACK, model, clean[rows], labels[rows], names[start : start + group])
        found[rows] = torch.from_numpy(result.images)
    return found


if __name__ == "__main__":
    main()
