"""The report's numbers against those of the store, read and counted here."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tyro

from regroup.intervals import wilson
from regroup_pipelines.configs.steps import BuildBankConfig
from regroup_pipelines.configs.stored import ReportConfig, RescoreConfig
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.configs.table import CONFIGS, command_of
from regroup_pipelines.report_pages import cost, failures
from regroup_pipelines.report_pages.curves import budget_curve, minimal_curve
from regroup_pipelines.report_pages.evaluation import ReportedEvaluation
from regroup_pipelines.report_pages.outcomes import outcomes_of
from regroup_pipelines.report_pages.provenance import code_of, command_line
from regroup_store.format.element import BlockElement
from tests.pipelines.records import measured
from tests.pipelines.reported import IMAGE, Reported, evaluation_of, study_of


def test_no_two_things_on_a_page_have_one_name(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        named = Counter(re.findall(r' id="([^"]*)"', page.read_text()))
        assert (page.name, [name for name, count in named.items() if count > 1]) == (page.name, [])


def download(page: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((page.parent / "data" / name).read_text())))


@pytest.fixture
def evaluation(reported: Reported) -> ReportedEvaluation:
    return evaluation_of(reported)


def test_what_the_command_says(reported: Reported) -> None:
    assert reported.summary["studies"] == ["colours"]
    assert reported.summary["forward_passes"] == 0
    assert reported.summary["pages"] == 7
    names = {path.name for path in (reported.output / "static").iterdir()}
    assert names == {"report.css", "report.js", "explorer.js", "plotly.min.js"}
    assert all("http" not in line for line in links(reported.page("tables.html")))


def links(page: Path) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]*)"', page.read_text())


def test_every_link_of_every_page_leads_to_a_file(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        local = [each for each in links(page) if not each.startswith(("data:", "#"))]
        missing = [each for each in local if not (page.parent / each.split("#")[0]).is_file()]
        assert (page.name, missing) == (page.name, [])


def test_classes_samples_and_pairs_that_lose(
    reported: Reported, evaluation: ReportedEvaluation
) -> None:
    attack = study_of(reported).attacks[0]
    outcomes, names = outcomes_of(evaluation, attack), evaluation.class_names
    rows = [
        {name: values[i].item() for name, values in outcomes.columns.items()}
        for i in range(len(outcomes))
    ]
    lost = Counter(
        row["label"]
        for row in rows
        if row["clean_regroup"] == row["label"] != row["attacked_regroup"]
    )
    assert sum(lost.values())
    found = failures.classes(outcomes, names)
    assert {row.name: row.lost for row in found} == {
        names[label]: lost[label] for label in {row["label"] for row in rows}
    }
    fooled = [row for row in rows if row["success"]]
    taken = Counter((row["label"], row["adversarial"]) for row in fooled)
    assert {(r.name, r.adversarial_class): r.samples for r in failures.pairs(outcomes, names)} == {
        (names[a], names[b]): n for (a, b), n in taken.items()
    }
    answers = failures.answers(outcomes)
    assert sum(cell.correct for cell in answers.values()) == len(fooled)
    same = sum(row["attacked_regroup"] == row["adversarial"] for row in fooled)
    assert answers["adversarial"].correct == same
    assert answers["true"].interval95 == pytest.approx(wilson(answers["true"].correct, len(fooled)))
    falls = [row["attacked_rank"] - row["clean_rank"] for row in rows]
    told = [row.attacked_rank - row.clean_rank for row in failures.samples(outcomes, names)]
    assert told == sorted((fall for fall in falls if fall > 0), reverse=True)


def test_curves_begin_clean_and_end_where_the_tables_are(
    reported: Reported, evaluation: ReportedEvaluation
) -> None:
    strong, least = study_of(reported).attacks
    accuracy = measured(reported.results.evaluations[0])
    for curve, name in (
        (budget_curve(evaluation, [strong]), "strong"),
        (minimal_curve(evaluation, least), "least"),
    ):
        outcomes = outcomes_of(evaluation, strong if name == "strong" else least)
        first, last = curve.points[0], curve.points[-1]
        assert first.epsilon == 0
        assert first.softmax.correct == len(outcomes)
        assert first.regroup.correct == int(outcomes.regroup_right_clean.sum())
        assert last.softmax.correct == accuracy[name].over_all.softmax_top1.correct
        assert last.regroup.correct == accuracy[name].over_all.regroup_top1.correct
        assert (curve.attack, curve.minimal) == (name, name == "least")
    assert budget_curve(evaluation, [strong]).points[1].epsilon == pytest.approx(200 / 255)


def test_downloads_hold_the_study_s_numbers(reported: Reported) -> None:
    row = reported.results.evaluations[0]
    name = f"{row.taps}-{row.bank}-accuracy"
    rows = download(reported.page("tables.html"), f"{name}.csv")
    found = {(r["images"], r["measure"], r["top"], r["over"]): r for r in rows}
    assert list(measured(row)) == ["clean", "strong", "least"]
    for images, each in measured(row).items():
        told = found[images, "regroup", "1", "all"]
        assert int(told["correct"]) == each.over_all.regroup_top1.correct
    assert found["later", "regroup", "1", "all"]["state"] == "not run"
    as_json = json.loads((reported.page("data") / f"{name}.json").read_text())
    assert [str(r["correct"]) for r in as_json] == [r["correct"] for r in rows]


def test_cost_adds_up_to_what_the_study_counted(reported: Reported) -> None:
    study = study_of(reported)
    costs = cost.spent(study, cost.read_runs(reported.store))
    assert sum(each.forward_passes for each in costs) == reported.results.forward_passes > 0
    saved = cost.saving(study, costs)
    evaluations = reported.results.evaluations
    rows = [
        BlockElement.open(reported.store, "votes", ref).plan.rows
        for each in evaluations
        for ref in each.votes.values()
    ]
    assert saved.samples == sum(rows)
    assert saved.scored_passes == 0
    assert saved.questions == 3 * len(evaluations[0].tap_accuracy)
    attacks = [step for step in reported.results.steps if step.step.startswith("attack")]
    assert saved.attack_passes == sum(step.forward_passes for step in attacks)


def test_provenance_names_every_element_and_command(reported: Reported) -> None:
    page = reported.page("index.html").read_text()
    results = reported.results
    for evaluation in results.evaluations:
        for ref in (evaluation.bank_ref, *evaluation.votes.values()):
            assert ref[-16:] in page
    elements = download(reported.page("index.html"), "elements.csv")
    assert all(len(row["fingerprint"]) == 64 for row in elements)
    assert {row["kind"] for row in elements} == {
        "indexes", "adversarials", "banks", "features", "votes",
    }  # fmt: skip
    runs = download(reported.page("index.html"), "runs.csv")
    assert runs[0]["command"].startswith("regroup run ")
    assert "--store" in runs[0]["command"]
    assert "regroup rescore --store" in page
    assert "regroup curve --store" in page


def test_every_command_of_the_report_parses(reported: Reported) -> None:
    """The footers', of every page, those of the runs, and those that reproduce the numbers."""
    found = set[str]()
    for page in reported.output.rglob("*.html"):
        told = re.findall(r"<code>(regroup .*?)</code>", page.read_text(), re.S)
        assert told, page
        found |= {html.unescape(each) for each in told}
    found |= {row["command"] for row in download(reported.page("index.html"), "runs.csv")}
    assert {shlex.split(each)[1] for each in found} >= {"report", "run", "rescore", "curve"}
    for each in found:
        _, command, *words = shlex.split(each)
        assert tyro.cli(CONFIGS[command], args=words)


@pytest.mark.parametrize(
    "config",
    [
        ReportConfig(store="s", output="out", study="colours", json=True),
        ReportConfig(store="-s", output="a 'b'", images=3),
        RunConfig(study="a.toml", set=("a.b=[1, 2]", "--c=1"), dry_run=True),
        RunConfig(study="demo", cpus_per_worker=0.5, allow_missing=True),
        RescoreConfig(store="s", bank="b", k=(1, 3), deltas=(1e-20, 0.5), per_class=(4,)),
        BuildBankConfig(store="s", dataset="d", model="m", classes="dataset", decoder="pil"),
    ],
)
def test_a_recorded_command_parses_to_its_options(config: Any) -> None:
    recorded = json.loads(json.dumps({"command": command_of(config), "options": asdict(config)}))
    _, command, *words = shlex.split(command_line(recorded))
    assert tyro.cli(CONFIGS[command], args=words) == config


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ({"git_commit": "8f14e45", "code": {"regroup": "0" * 32}}, "8f14e45"),
        ({"git_commit": None, "code": {"regroup": "01234567ab", "regroup_store": "89abcdef01"}},
         "unknown, code 01234567-89abcdef"),
        ({"git_commit": None}, "unknown"),
    ],
)  # fmt: skip
def test_code_without_a_commit_is_named_by_its_digests(recorded: Any, shown: str) -> None:
    assert code_of(recorded) == shown


def test_names_from_the_store_are_text_on_every_page(reported: Reported) -> None:
    for page in reported.output.rglob("*.html"):
        text = page.read_text()
        assert IMAGE not in text
        assert "<b onmouseover" not in text
        assert "window.owned = 1</script>" not in text
    assert "&lt;img src=x" in reported.page("failures.html").read_text()
