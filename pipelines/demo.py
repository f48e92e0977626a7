"""The demo: the whole path on scikit-learn's digits, from nothing to tables and a plot."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.options import (
    AttackOptions,
    BankOptions,
    ClusterOptions,
    ModelOptions,
    VotingOptions,
)

if TYPE_CHECKING:
    from pipelines.job import Job
    from pipelines.network import Network
    from store.element import BlockElement
    from store.indexes import SampleIndex

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ClusterOptions):
    """Run the whole study on the embedded digits: train, bank, two attacks, tables, plot.

    Example: regroup demo
    """

    store: str = "demo-store"
    """The store: a folder or an s3:// URI."""
    output: str = "demo-results"
    """Folder for the weights, the tables (JSON) and the plot (PNG)."""
    block_rows: int = 128
    """Samples a block."""
    limit: int = 200
    """Correctly classified images that each attack gets."""
    epsilon: str = "32/255"
    """L-infinity budget (budget), and the first one tried (minimal)."""
    seed: int = 0
    """Seed of training, of the bank and of the attacks."""


def _attacks(config: DemoConfig) -> list[AttackOptions]:
    return [
        AttackOptions(
            attack="pgd",
            protocol=protocol,
            epsilon=config.epsilon,
            bisections=10,  # to a thousandth of epsilon: enough to tell, in half of the time
            limit=config.limit,
            seed=config.seed,
        )
        for protocol in ("minimal", "budget")
    ]


def _features(
    job: Job, network: Network, val: SampleIndex, config: DemoConfig
) -> dict[str, BlockElement]:
    """Features of the clean images and of both attacks' images, by the name tables give them."""
    from pipelines.attack import attack_index, correct_samples
    from pipelines.attack_options import attack_spec
    from pipelines.extract import extract_adversarials, extract_index

    clean = extract_index(job, network, val, BATCH)
    features = {"clean": clean}
    for options in _attacks(config):
        subset = correct_samples(job, val, clean, options.limit, options.seed)
        spec = attack_spec(options)
        made = attack_index(job, network, subset, spec, BATCH, config.block_rows)
        name = f"{spec.facts.title}-{spec.protocol}"
        features[name] = extract_adversarials(job, network, made, BATCH)
    return features


def _study(job: Job, config: DemoConfig, weights: Path) -> dict[str, Any]:
    from pipelines.bank_rounds import draw_bank
    from pipelines.build_bank import build_bank
    from pipelines.evaluate import accuracy_row, rule_of_k
    from pipelines.index_dataset import index_dataset
    from pipelines.network import open_network
    from pipelines.rescore import k_rows, rescore
    from store.banks import read_bank

    network = open_network(ModelOptions(model="digits-cnn", weights=str(weights)))
    train, val = (index_dataset(job, f"digits:{part}") for part in ("train", "val"))
    # All work of the network first: tasks (the bank, scoring) would end its workers in between.
    bank_options = BankOptions(bank_seed=config.seed)
    draw = draw_bank(job, network, train, bank_options, BATCH)
    features = _features(job, network, val, config)
    bank = read_bank(job.store, build_bank(job, network, train, bank_options, BATCH, draw))
    stored, cost = rescore(job, bank, list(features.values()), VotingOptions())
    summaries = {name: stored[element.name] for name, element in features.items()}
    rule = rule_of_k(summaries["clean"], 0.75)
    ks = list(range(1, len(bank.taps) + 1))
    return {
        "bank": bank.ref,
        "taps": list(bank.taps),
        "k": rule.k,
        "taps_over_threshold": rule.count,
        "epsilon": config.epsilon,
        "accuracy": [accuracy_row(name, s, rule.k, "both") for name, s in summaries.items()],
        "accuracy_against_k": k_rows(summaries, ks, ("both", "positive", "negative")),
        "rescoring": cost,
    }


def _keep(job: Job, config: DemoConfig, started: float) -> None:
    """Leave in the store what the shipped study `demo` says of these elements: the report's source.

    It finds all of them made.
    """
    from pipelines.run import run_study
    from pipelines.study_file import load_study, shipped_studies
    from pipelines.study_steps import StudySteps

    changes = ["taps=['preactivation']", f"banks.paper.seed={config.seed}"]
    for attack in ("pgd-minimal", "pgd-budget"):
        given = {"limit": config.limit, "seed": config.seed, "epsilon": f'"{config.epsilon}"'}
        changes += [f"attacks.{attack}.{key}={value}" for key, value in given.items()]
    study = load_study(shipped_studies()["demo"], changes, config.output).study
    job.quiet = True  # the demo itself has just told of all that the study finds
    run_study(job, StudySteps(job, study), started)


def _report(config: DemoConfig, output: Path) -> str:
    """Write the report of the demo; where it begins."""
    from pipelines.report import ReportConfig
    from pipelines.report import main as report

    place = str(output / "report")
    options = ReportConfig(store=config.store, output=place, study="demo", json=config.json)
    return str(report(options)["index"])


def _write(results: dict[str, Any], output: Path) -> None:
    from pipelines.tables import plot_k

    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    names = [row["images"] for row in results["accuracy"]]
    titles = {name: name for name in names}
    plot_k(results["accuracy_against_k"], titles, results["k"], output / "accuracy_against_k.png")


def _print(results: dict[str, Any], output: Path, quiet: bool, worked: bool) -> None:
    from pipelines.rescore import cost_line
    from pipelines.tables import accuracy_table, k_table, print_line, show

    names = [row["images"] for row in results["accuracy"]]
    show(accuracy_table(results["accuracy"]), quiet)
    show(k_table(results["accuracy_against_k"], names), quiet)
    print_line(cost_line(results["rescoring"]), quiet)
    if not worked:
        print_line("Everything was in the store already: nothing was computed again.", quiet)
    print_line(f"Results: {output}/results.json and {output}/accuracy_against_k.png", quiet)


def main(config: DemoConfig) -> dict[str, Any]:
    """Run what is missing of the demo, print its tables and write its files."""
    from pipelines.attack_options import attack_spec
    from pipelines.job import Job
    from pipelines.train_demo_model import train_demo_model

    started, output = time.perf_counter(), Path(config.output)
    for options in _attacks(config):
        attack_spec(options)  # before any work
    weights = output / "digits-cnn.safetensors"
    trained = train_demo_model(weights, config.seed)
    with Job(config) as job:
        results = _study(job, config, weights)
        results["softmax_val"] = trained["accuracy"]
        results["steps"] = job.summary()
        worked = any(entry.blocks for entry in job.ledger)
        _keep(job, config, started)
    _write(results, output)
    _print(results, output, config.json, worked)
    results["report"] = _report(config, output)
    results["seconds"] = time.perf_counter() - started
    print_line_seconds(results["seconds"], config.json)
    return results


def print_line_seconds(seconds: float, quiet: bool) -> None:
    """How long the whole run took."""
    from pipelines.tables import print_line

    print_line(f"Done in {seconds:.0f} s.", quiet)


if __name__ == "__main__":
    from pipelines.cli import run_command

    run_command("demo")
