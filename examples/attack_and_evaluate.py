"""Attack a network under both protocols, and evaluate softmax and REGroup on the images.

The commands of the README as functions: each computes what the store lacks, so that a second run
of this program finds everything there. Takes the network that `regroup train-demo-model` trains.

Run: python examples/attack_and_evaluate.py runs/example
"""

from __future__ import annotations

import sys
from pathlib import Path

from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.commands import attack, build_bank, evaluate
from regroup_pipelines.configs.steps import AttackConfig, BuildBankConfig, EvaluateConfig
from regroup_pipelines.results.records import MeasuredImages
from regroup_pipelines.steps.demo_model import train_demo_model

MODEL, DATASET, LIMIT = "digits-cnn", "digits:val", 32
WORKERS = 1  # by default one per core: for so few images, each takes longer to start than to work


def main(folder: str) -> None:
    """Build the bank, attack `LIMIT` images under each protocol, and print the accuracies."""
    store, weights = str(Path(folder) / "store"), str(Path(folder) / "digits-cnn.safetensors")
    train_demo_model(Path(weights), seed=0)
    bank = build_bank.main(
        BuildBankConfig(
            store=store, dataset="digits:train", model=MODEL, weights=weights, workers=WORKERS
        )
    )
    made = [
        attack.main(
            AttackConfig(
                store=store,
                dataset=DATASET,
                model=MODEL,
                weights=weights,
                protocol=protocol,
                epsilon="16/255",
                limit=LIMIT,
                workers=WORKERS,
            )
        )
        for protocol in ("minimal", "budget")
    ]
    found = evaluate.main(
        EvaluateConfig(
            store=store,
            dataset=DATASET,
            model=MODEL,
            weights=weights,
            bank=bank["bank"],
            adversarials=tuple(each["adversarials"] for each in made),
            workers=WORKERS,
        )
    )
    for row in map(MeasuredImages.model_validate, found["rows"]):
        if row.over_success is not None:
            print(f"{row.images}: REGroup over S {row.over_success.regroup_top1}")


if __name__ == "__main__":
    with ray_session(SessionConfig()):  # one Ray on this machine, for all commands
        main(*sys.argv[1:])
