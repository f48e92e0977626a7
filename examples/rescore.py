"""Every k, sign choice and another voting rule, from stored features: no forward pass.

What was extracted once answers every question about the vote. Needs the store that
`attack_and_evaluate.py` made; the network and its weights are not needed any more.

Run: python examples/rescore.py runs/example
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.configs.stored import RescoreConfig
from regroup_pipelines.results.accuracy import k_rows
from regroup_pipelines.steps.rescoring import find_features, rescore
from regroup_pipelines.steps.session import Session
from regroup_store.kinds.banks import read_bank

if TYPE_CHECKING:
    from regroup_pipelines.configs.options import RuleName

BANK = "digits-train-digits-cnn"
RULES: tuple[RuleName, ...] = ("borda", "copeland")


def main(folder: str) -> None:
    """Print the accuracy on each set of images against k, under each rule."""
    for rule in RULES:
        config = RescoreConfig(store=str(Path(folder) / "store"), bank=BANK, rule=rule)
        with Session(config, create=False) as session:
            bank = read_bank(session.store, config.bank)
            features = find_features(session, bank, ())
            summaries, cost = rescore(session, bank, features, config)
        print(f"{rule}: {cost.forward_passes} forward passes, {cost.samples} samples")
        for row in k_rows(summaries, range(1, len(bank.taps) + 1), ("both",)):
            cells = (f"{images} {accuracy}" for images, accuracy in row.accuracy.items())
            print(f"  k = {row.k}: {', '.join(cells)}")


if __name__ == "__main__":
    with ray_session(SessionConfig()):
        main(*sys.argv[1:])
