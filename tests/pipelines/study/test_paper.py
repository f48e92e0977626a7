"""The shipped study of the paper, end to end, with the dataset and the network replaced."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from regroup_pipelines.commands.run import main
from regroup_pipelines.configs.studies import RunConfig
from regroup_pipelines.json_types import JsonObject
from regroup_pipelines.render import paper_figures
from regroup_pipelines.render.escapes import latex_text
from regroup_pipelines.render.latex import latex_table
from regroup_pipelines.render.paper_tables import (
    PAPER_TABLES,
    paper_note,
    paper_rows,
    paper_table,
)
from regroup_pipelines.results.base import Accuracy
from regroup_pipelines.results.records import EvaluationResults, StudyResults
from regroup_pipelines.results.whole_subset import whole_subset_notes
from regroup_pipelines.schema.paper_values import MeasureName
from tests.pipelines.colours import BLUE, GREEN, MODEL, RED, colour_folder
from tests.pipelines.conftest import Run
from tests.pipelines.records import measured, over_success, study_results
from tests.pipelines.schema.test_paper_values import VALUES

Drawn = Callable[[Any, StudyResults], list[Any]]
FEWER = {
    "scoring.k": "1",
    "banks.paper.per_class": "3",
    "subsets.V10K.per_class": "2",
    "subsets.V2K.per_class": "1",
    "subsets.V10C.classes": "2",
    "attacks.deepfool.steps": "5",
    "attacks.carlini-wagner.steps": "5",
    "attacks.carlini-wagner-targeted.steps": "5",
    "attacks.trust-region.steps": "5",
    "attacks.boundary.steps": "5",
    "attacks.spsa-4.steps": "2",
    "attacks.spsa-8.steps": "2",
    "sweeps.figure2-minimal.levels": "[4]",
    "sweeps.figure2-budget.levels": "[4, 200]",
    "sweeps.figure2-budget.subset": "V50K",
}


@dataclass(frozen=True)
class Paper:
    results: StudyResults
    folder: Path

    @property
    def evaluation(self) -> EvaluationResults:
        (found,) = self.results.evaluations
        return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.folder / f"{table}.json").read_text())
        return rows


@pytest.fixture(scope="module")
def paper(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Paper:
    """`paper-resnet50` on coloured squares, its heavy attacks with fewer steps.

    The network gets two of the fourteen images wrong for certain, and one of these is no image.
    """
    folder = tmp_path_factory.mktemp("paper")
    colour_folder(folder / "train", images=3)
    val = colour_folder(folder / "val", images=4)
    shutil.copy(val / BLUE / "0.png", val / RED / "blue.png")
    (val / GREEN / "broken.png").write_text("no image")
    (folder / "values.toml").write_text(VALUES)
    changes = {
        "model.name": MODEL,
        "model.weights": "random",
        "model.classes": "dataset",
        "datasets.train": f"imagefolder:{folder}/train",
        "datasets.val": f"imagefolder:{folder}/val",
        "paper_values": str(folder / "values.toml"),
        **FEWER,
    }
    config = RunConfig(
        study="paper-resnet50",
        store=str(folder / "store"),
        output=str(folder / "out"),
        workers=1,
        json=True,
        set=tuple(f"{key}={value}" for key, value in changes.items()),
    )
    return Paper(study_results(main(config)), folder / "out" / "preactivation-paper")


def test_every_row_is_measured_or_says_not_run(paper: Paper) -> None:
    measured = {}
    for table in PAPER_TABLES:
        for row in paper.rows(table):
            measured[row["row"]] = row["state"] != "not run"
            if row["state"] == "not run":
                assert (row["accuracy"], row["correct"]) == ("", "")
    assert {name for name, ran in measured.items() if not ran} == {"v10c-cadv"}
    assert len(measured) == 15


def test_inference_time_is_measured_beside(paper: Paper) -> None:
    rows = paper.rows("table-6")
    measured = [row for row in rows if row["device"] == "cpu"]
    assert [(row["batch"], row["measure"]) for row in measured] == [
        (batch, measure) for batch in "1n" for measure in ("softmax", "regroup", "ratio")
    ]
    assert all(row["state"] == "measured" and row["median"] > 0 for row in measured)
    assert {row["paper"] for row in rows} == {""}
    assert "not available" in (paper.folder / "table-6.md").read_text()


def test_cells_are_those_of_the_accuracy_table(paper: Paper) -> None:
    accuracy = measured(paper.evaluation)
    for row in paper.rows("table-2"):
        if row["state"] == "measured":
            cell = over_success(accuracy[row["images"]]).of(row["measure"])
            assert (row["correct"], row["total"]) == (cell.correct, cell.total)
            assert row["success"] == accuracy[row["images"]].success == row["total"]


def test_the_clean_row_and_the_attacks_count_the_same_images(paper: Paper) -> None:
    pgd = measured(paper.evaluation)["pgd-16"]
    assert pgd.whole is not None
    assert pgd.success is not None
    rows = paper.rows("table-1")
    assert {(row["row"], row["images"], row["attempted"], row["over"]) for row in rows} == {
        ("clean", "V50K", 13, "all"),
        ("table1-pgd-16", "pgd-16", 12, "all"),
    }
    assert {row["total"] for row in rows} == {13}, "the broken one has no outcome"
    softmax = [row["correct"] for row in rows if row["measure"] == "softmax_top1"]
    assert softmax == [12, 12 - pgd.success]
    for row in rows:
        whole = pgd.whole.clean if row["row"] == "clean" else pgd.over_all
        assert row["correct"] == whole.of(row["measure"]).correct
    assert pgd.whole.samples == 14
    subsets = {each.subset: (each.samples, each.correct) for each in paper.results.subsets}
    assert (subsets["V50K"], subsets["V10K"]) == ((14, 12), (6, 6))


def test_the_papers_value_is_beside_and_never_in_place(paper: Paper) -> None:
    rows = [row for row in paper.rows("table-2") if row["paper"] != ""]
    assert [(row["row"], row["measure"], row["paper"]) for row in rows] == [
        ("table2-pgd-4", "regroup_top1", 0.125)
    ]
    assert rows[0]["state"] == "measured"
    assert rows[0]["difference"] == pytest.approx(rows[0]["accuracy"] - 0.125)
    text = (paper.folder / "table-2.md").read_text()
    assert "12.5 %" in text
    assert "not available" in text
    assert "| v10c-cadv (cadv) | minimal | not run | not run |" in text


def test_a_value_of_an_attack_that_was_not_run_leaves_its_cell_empty(
    paper: Paper, tmp_path: Path
) -> None:
    path = tmp_path / "v.toml"
    path.write_text(VALUES.replace("table2-pgd-4", "v10c-cadv"))
    plain = paper.results.plain()
    plain["settings"]["paper_values"] = str(path)
    results = study_results(plain)
    rows = paper_table(PAPER_TABLES["table-2"], results, results.evaluations[0]).download
    (row,) = (r for r in rows if r["paper"] != "")
    assert (row["row"], row["state"], row["accuracy"], row["difference"]) == (
        "v10c-cadv",
        "not run",
        "",
        "",
    )


def test_quoted_figures_are_marked(paper: Paper) -> None:
    text = (paper.folder / "table-1.md").read_text()
    assert "A_defense & 50 % (quoted)" in text
    assert "quoted, not measured here" in text
    assert "A_defense" not in (paper.folder / "table-1.csv").read_text()


def test_csv_and_json_of_every_table_agree(paper: Paper) -> None:
    for path in sorted(paper.folder.glob("*.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        listed = paper.rows(path.stem)
        assert len(rows) == len(listed) > 0
        told = [{k: "" if v is None else str(v) for k, v in row.items()} for row in listed]
        assert rows == told


def test_figures_are_png_and_an_svg_without_a_date(paper: Paper) -> None:
    for name in ("k", "taps", "figure-2", "figure-3", "figure-4"):
        assert (paper.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        text = (paper.folder / f"{name}.svg").read_text()
        assert "<svg" in text
        assert "dc:date" not in text


@pytest.fixture
def drawn(paper: Paper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drawn:
    """Draws a figure of the study; its axes are handed back instead of written."""

    def draw(figure: Any, results: StudyResults) -> list[Any]:
        kept: list[Any] = []
        monkeypatch.setattr(paper_figures, "save_figure", lambda made, _: kept.append(made))
        figure(results, results.evaluations[0], tmp_path / "figure.png")
        return list(kept[0].axes)

    return draw


def spread(paper: Paper) -> StudyResults:
    """The results with an accuracy of its own in every cell that a figure shows."""
    plain = paper.results.plain()
    (evaluation,) = plain["evaluations"]
    counts = itertools.count(1)

    def share(cell: JsonObject) -> None:
        cell |= {"correct": next(counts), "total": 997}

    for row in evaluation["accuracy"]:
        for cell in row["over_all"].values() if row.get("attempted") else ():
            share(cell)
    for row in evaluation["accuracy_against_k"]:
        for cell in row["accuracy"].values():
            share(cell)
    return study_results(plain)


def per_cent(accuracy: Accuracy) -> float:
    assert accuracy.accuracy is not None
    return 100 * accuracy.accuracy


def test_figure_2_draws_both_measures_of_every_level(paper: Paper, drawn: Drawn) -> None:
    results = spread(paper)
    rows = measured(results.evaluations[0])
    axes = dict(zip(results.settings.sweeps, drawn(paper_figures.figure_2, results), strict=True))
    assert "protocol budget" in axes["figure2-budget"].get_title()
    assert "over all images of V50K" in axes["figure2-budget"].get_title()
    assert "over all attempted images" in axes["figure2-minimal"].get_title()
    counted = measured(paper.evaluation)
    assert {counted[f"figure2-budget-{n}"].over_all.softmax_top1.total for n in (4, 200)} == {13}
    assert counted["figure2-minimal-4"].over_all.softmax_top1.total == 6
    lines = {line.get_label(): line for line in axes["figure2-budget"].get_lines()}
    assert set(lines) == {f"{m} top-{n}" for m in ("softmax", "REGroup") for n in (1, 5)}
    for label, line in lines.items():
        measure = cast("MeasureName", label.replace(" top-", "_top").lower())
        assert list(line.get_xdata()) == [4, 200]
        levels = [rows[f"figure2-budget-{n}"].over_all.of(measure) for n in (4, 200)]
        expected = [per_cent(each) for each in levels]
        assert list(line.get_ydata()) == pytest.approx(expected)


def test_figure_3_has_a_bar_a_sign_choice_and_no_sweep(paper: Paper, drawn: Drawn) -> None:
    results = spread(paper)
    (evaluation,) = results.evaluations
    (axis,) = drawn(paper_figures.figure_3, results)
    names = [tick.get_text() for tick in axis.get_xticklabels()]
    assert "clean" in names
    assert not [name for name in names if name.startswith("figure2")]
    at_k = {r.signs: r.accuracy for r in evaluation.accuracy_against_k if r.k == evaluation.k}
    expected = [
        per_cent(at_k[signs][name]) if name in at_k[signs] else 0
        for signs in ("both", "positive", "negative")
        for name in names
    ]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx(expected)


def test_figure_4_has_a_line_for_all_images_but_sweeps(paper: Paper, drawn: Drawn) -> None:
    results = spread(paper)
    (evaluation,) = results.evaluations
    (axis,) = drawn(paper_figures.figure_4, results)
    lines = {line.get_label(): line for line in axis.get_lines()}
    both = [row for row in evaluation.accuracy_against_k if row.signs == "both"]
    assert list(lines["clean"].get_xdata()) == [row.k for row in both]
    expected = [per_cent(row.accuracy["clean"]) for row in both]
    assert list(lines["clean"].get_ydata()) == pytest.approx(expected)
    assert {"cadv: not run", "75 %", "pgd-4"} <= set(lines)
    assert not [name for name in lines if name.startswith("figure2")]


def test_captions_name_the_subset_and_what_rows_count(paper: Paper) -> None:
    table = (paper.folder / "table-2.md").read_text()
    assert "- deepfool: subset V10K of val, DeepFool" in table
    for name in ("table-1.md", "table-1.tex"):
        text = (paper.folder / name).read_text()
        assert "all images of the attack's subset, attempted or not" in text
        assert "and the row of an attack on it count the same images" in text
        assert "counts 13 images of the subset V50K" in text
        assert "the 12 correctly classified ones by their attacked image, the other 1 by" in text
        assert "1 more have no outcome" in text
        assert "count different images" not in text
    assert "same images" not in table


def test_captions_of_subsets_of_correct_samples(paper: Paper) -> None:
    """Where no attack is on a whole subset, and where only one is."""
    plain = paper.results.plain()
    (evaluation,) = plain["evaluations"]
    settings = plain["settings"]["attacks"]
    settings["other"] = settings["pgd-16"]
    (pgd,) = (row for row in evaluation["accuracy"] if row["images"] == "pgd-16")
    evaluation["accuracy"].append({**pgd, "images": "other", "whole": None})
    note, names = note_and_rows(plain)
    assert "an attack's row of other only those that it attempted" in note
    assert names == ["V50K", "clean", "pgd-16", "other"]
    pgd["whole"] = None
    note, names = note_and_rows(plain)
    clean = (
        "The clean row counts every image of the dataset; an attack's row only those that it "
        "attempted, which are correctly classified: the two rows count different images."
    )
    others = whole_subset_notes(study_results(plain).evaluations[0].accuracy)
    assert note.endswith(" ".join([clean, *others])), "the sweep's attacks are on V50K"
    assert names == ["clean", "pgd-16", "other"]


def note_and_rows(plain: JsonObject) -> tuple[str, list[str]]:
    """The note of table 1, and the images of its rows."""
    results, table = study_results(plain), PAPER_TABLES["table-1"]
    (evaluation,) = results.evaluations
    rows = [row.images for row in paper_rows(table, results, evaluation)]
    return paper_note(table, results, evaluation), list(dict.fromkeys(rows))


def test_svg_is_the_same_every_time(paper: Paper, tmp_path: Path) -> None:
    paper_figures.figure_2(paper.results, paper.evaluation, tmp_path / "figure-2.png")
    again = (tmp_path / "figure-2.svg").read_bytes()
    assert again == (paper.folder / "figure-2.svg").read_bytes()


def test_latex_of_the_papers_tables(paper: Paper) -> None:
    compiler = next(filter(shutil.which, ("pdflatex", "tectonic")), None)
    texts = [(paper.folder / f"{table}.tex").read_text() for table in PAPER_TABLES]
    assert all(text.count(r"\begin{table}") == text.count(r"\end{table}") for text in texts)
    assert r"A\_defense \& 50 \% (quoted)" in texts[0]
    if compiler is None:
        pytest.skip("no LaTeX compiler here: the tables were written, not compiled")
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (paper.folder / "all.tex").write_text(head + "\n".join(texts) + "\\end{document}\n")
    subprocess.run([compiler, "all.tex"], cwd=paper.folder, check=True, capture_output=True)


def test_latex_escapes_every_special_letter() -> None:
    assert latex_text("a_b & 5 % #1 $x$ {y} ~ ^ \\") == (
        r"a\_b \& 5 \% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    lines = latex_table(["h"], [["[1]"]], "t", "n", "tab:x").splitlines()
    assert "{[}1{]} \\\\" in lines


def test_without_imagenet_one_sentence_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    told = run("run", "paper-vgg19", "--data", tmp_path, "--store", tmp_path / "s", "--dry-run")
    assert told.status == 2
    assert "Traceback" not in told.err
    assert "datasets.val" in told.err.strip().splitlines()[-1]
    assert str(tmp_path / "imagenet") in told.err
