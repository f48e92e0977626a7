"""The vote explorer under every voting rule: the page's winners are those of the stored votes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch

from regroup.voting import ELECTIONS, Rule
from regroup_pipelines.commands.report import REPORT_BYTES, named_datasets
from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.stored import ReportConfig
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.report_pages.evaluation import ReportedStudy
from regroup_pipelines.report_pages.pages import StudyPages
from regroup_pipelines.report_pages.points import WORDS, VotingRule, running_points
from regroup_pipelines.report_pages.site import Site
from regroup_store.format.element import BlockElement
from regroup_store.format.store import open_store
from regroup_store.kinds.votes import PREDICTION, SIGN_CHOICES
from tests.pipelines.report_pages.browser import visit
from tests.pipelines.reported import Reported, column, embedded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULES = get_args(Rule)


def by_the_rule(reported: Reported, rule: str, folder: Path) -> Reported:
    """The study of a copy of the store, voted by another rule with both signs, and its explorer."""
    store = str(shutil.copytree(Path(reported.store.uri), folder / "store"))
    where = {"store": store, "output": str(folder / "out"), "data": str(reported.data)}
    # The explorer reads the votes alone: no figures, and no other pages.
    changes = (f"scoring.rule={rule}", "scoring.signs=both", "report.figures=[]")
    study = str(reported.data / "colours.toml")
    main(RunConfig(study=study, json=True, workers=1, set=changes, **where))  # type: ignore[arg-type]
    made = Reported(open_store(store), reported.data, folder / "report", {})
    made.output.mkdir()
    site = Site(made.output, store, "")
    site.copy_scripts()
    found = ReportedStudy.of(made.store, made.results, named_datasets(reported.dataset), "")
    StudyPages(site, found, [], ReportConfig.images, ReportConfig.seed).write_explorer(REPORT_BYTES)
    return made


def row_of_winners(page: Page, number: int) -> list[str]:
    cells = page.locator("#winners tbody tr").nth(number).locator("td").all_inner_texts()
    return [text.split(" ", 1)[1] for text in cells]


def stored_winners(made: Reported, ref: str, rule: str) -> dict[str, list[int]]:
    """Of every sample of votes by `rule`: the class that wins with both signs, at every k."""
    votes = BlockElement.open(made.store, "votes", ref)
    assert votes.inputs["scoring"]["rule"] == rule  # type: ignore[index]
    names = votes.samples(["sample_id"])["sample_id"].to_pylist()
    winners = column(votes, PREDICTION)[:, SIGN_CHOICES.index("both")].tolist()
    return dict(zip(names, winners, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_the_winner_at_every_k_is_the_stored_prediction(
    browser: Browser, reported: Reported, rule: str, tmp_path: Path
) -> None:
    made = by_the_rule(reported, rule, tmp_path)
    data = embedded(made.page("explorer.html"), "explorer-data")
    compared = 0
    with visit(browser) as visited:
        visited.go(made.page("explorer.html"))
        page = visited.page
        for number, evaluation in enumerate(made.results.evaluations):
            told = data["evaluations"][number]
            page.select_option("#f-evaluation", str(number))
            for place, attack in enumerate(told["attacks"]):
                page.select_option("#f-attack", str(place))
                stored = [
                    stored_winners(made, evaluation.votes[images], rule)
                    for images in ("clean", attack["name"])
                ]
                for i, sample in enumerate(attack["samples"]):
                    page.select_option("#samples", str(i))
                    for row, winners in enumerate(stored):
                        classes = [told["classes"][label] for label in winners[sample]]
                        assert row_of_winners(page, row) == classes
                        compared += len(classes)
        assert WORDS[rule][0] in page.locator("#winners-title").inner_text()
        assert page.locator("#points-title").inner_text() == f"{WORDS[rule][1]} as k grows"
        assert visited.complaints == []
    assert compared > 50


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("signs", SIGN_CHOICES)
def test_points_are_the_rules_scores_as_shares(rule: Any, signs: str) -> None:
    """Against the elections that the votes are counted by, for every class and k."""
    taps, samples, classes = 5, 4, 6
    generator = np.random.default_rng(0)
    ranks = 1 + generator.random((taps, 2, samples, classes)).argsort(-1).argsort(-1)
    weights = (3, 0, 2, 7, 1) if rule == "weighted-borda" else None
    election = ELECTIONS.get(rule, ELECTIONS["weighted-borda"])(weights or (1,) * taps)
    scores = []
    for tap in reversed(range(taps)):
        election.add(tap, torch.from_numpy(ranks[tap]))
        scores.append(election.scores()[SIGN_CHOICES.index(signs)].numpy())
    for chosen in range(classes):
        labels = np.full(samples, chosen)
        before = [(each < each[..., chosen, None]).transpose(1, 0, 2) for each in ranks]
        found = running_points(VotingRule(rule, weights), before, labels, signs)
        for k in range(1, taps + 1):
            voters = k * (2 if signs == "both" else 1)
            heavy = sum((weights or (1,) * taps)[-k:]) * voters // k
            score = scores[k - 1][:, chosen]
            share = {
                "plurality": score / voters,
                "copeland": (score - 1) / (2 * (classes - 1)),
                "median-rank": (classes + score / 2) / (classes - 1),
            }.get(rule, score / (heavy * (classes - 1)))
            assert found[:, k - 1] == pytest.approx(100 * share)
