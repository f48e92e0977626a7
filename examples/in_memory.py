"""A bank in memory: REGroup in place of a network, with torch and NumPy alone.

No store and no Ray: one forward pass per image in this process. Trains a small network on
scikit-learn's digits, builds the bank, lets the paper's rule choose k, and predicts.

Run: python examples/in_memory.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from regroup.accumulators import Extractor
from regroup.bank import BankStatistics
from regroup.choose_k import choose_k
from regroup.classifier import REGroupClassifier
from regroup.models import train_digits_cnn
from regroup.models.classifier import Normalize
from regroup.models.digits import DIGITS_NORMALISATION
from regroup.scoring import Scorer

TRAIN, TEST = 900, 1300  # images before TRAIN make the bank, those before TEST choose k


def main() -> None:
    """Train, build the bank, choose k, and compare REGroup with softmax on the other images."""
    images, labels = load_digits(return_X_y=True)
    grey = images.reshape(-1, 1, 8, 8).repeat(3, axis=1).astype(np.float32) / 16
    network = train_digits_cnn(grey[:TRAIN], labels[:TRAIN], seed=0)
    # The model takes pixels in [0, 1]: normalisation is a part of it.
    model, pixels = nn.Sequential(Normalize(DIGITS_NORMALISATION), network), torch.from_numpy(grey)
    model.eval()

    extractor = Extractor(model, "preactivation", example=pixels[:2])
    with torch.inference_mode():
        extraction = extractor(pixels[:TEST])
    confidence, predicted = (each.numpy() for each in extraction.logits.softmax(1).max(1))
    # Bank and rule are about correctly classified images alone (paper, eq. 1 and section 3.2).
    (correct,) = np.nonzero(predicted == labels[:TEST])
    chosen, held_out = correct[correct < TRAIN], correct[correct >= TRAIN]
    statistics = BankStatistics.zeros([(tap.name, tap.channels) for tap in extractor.taps], 10)
    accumulators = [each.numpy() for each in extraction.accumulators]
    statistics.update([each[chosen] for each in accumulators], labels[chosen], confidence[chosen])
    bank = statistics.finalise()
    votes = Scorer(bank).votes([each[held_out] for each in accumulators], labels[held_out])
    rule = choose_k((votes.tap_true_rank[:, 0] == 1).mean(axis=0))

    robust = REGroupClassifier(model, bank, rule.k, example=pixels[:2])
    with torch.inference_mode():
        outputs = {"softmax": model(pixels[TEST:]), "REGroup": robust(pixels[TEST:])}
    print(f"{len(bank.taps)} taps, {rule.count} reach {rule.threshold:.0%} alone: k = {rule.k}")
    for name, scores in outputs.items():
        accuracy = (scores.argmax(1).numpy() == labels[TEST:]).mean()
        print(f"{name}: {accuracy:.1%} of {len(scores)} clean images")


if __name__ == "__main__":
    main()
