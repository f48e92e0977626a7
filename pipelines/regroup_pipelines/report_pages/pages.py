"""The pages of one study: the content that their templates are filled with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from regroup_pipelines.render.caption import caption, rule_line
from regroup_pipelines.render.table import Cell, Table, accuracy_cell, number_cell, text_cell
from regroup_pipelines.report_pages import cost, curves, failures, figures, paper, provenance
from regroup_pipelines.report_pages.evaluation import Missing, or_missing
from regroup_pipelines.report_pages.explorer import Explorer
from regroup_pipelines.report_pages.figures import Figure, HeatMap
from regroup_pipelines.report_pages.outcomes import outcomes_of
from regroup_pipelines.report_pages.pictures import Album
from regroup_pipelines.report_pages.tables import evaluation_tables, headline_table
from regroup_pipelines.steps.run_record import public

if TYPE_CHECKING:
    from regroup_pipelines.json_types import FlatRow, JsonObject
    from regroup_pipelines.report_pages.curves import Curve
    from regroup_pipelines.report_pages.evaluation import ReportedEvaluation, ReportedStudy
    from regroup_pipelines.report_pages.failures import Confusion, SampleLoss
    from regroup_pipelines.report_pages.outcomes import Outcomes
    from regroup_pipelines.report_pages.site import Site
    from regroup_pipelines.results.records import AttackedImages


@dataclass(frozen=True)
class TablesSection:
    """The section of one evaluation on the page of tables."""

    key: str
    title: str
    caption: str
    tables: list[Table]
    k_figures: list[Figure]
    taps_figure: Figure
    paper_tables: list[Table]
    paper_figures: list[Figure]
    paper_notes: list[str]

    @property
    def figures(self) -> list[Figure]:
        """All figures of the section."""
        return [*self.k_figures, self.taps_figure, *self.paper_figures]


@dataclass(frozen=True)
class CurvesSection:
    """The section of one evaluation on the page of curves."""

    key: str
    title: str
    k: int
    curves: list[Figure]
    tables: list[Table]
    notes: list[str]


@dataclass(frozen=True)
class FailuresSection:
    """The section of one attack under one evaluation on the page of failures."""

    key: str
    title: str
    tables: list[Table]
    notes: list[str]
    map: Figure | None


@dataclass(frozen=True)
class StudyPages:
    """Writes the six pages of a study; the explorer last, since it takes the bytes that are left.

    Attributes:
        site: writes the files.
        study: the study.
        runs: the records of the store's runs.
        images: maximum number of samples that the explorer shows with pictures.
        seed: seed of their choice.
    """

    site: Site
    study: ReportedStudy
    runs: list[JsonObject]
    images: int
    seed: int

    def write(self) -> None:
        """Write all pages but the explorer."""
        self._overview()
        self._tables()
        self._curves()
        self._failures()
        self._cost()

    def _overview(self) -> None:
        study, runs = self.study, cost.study_runs(self.study, self.runs)
        tables = {"runs": provenance.runs_table(runs), "elements": provenance.elements_table(study)}
        self.site.write_tables(study, tables.values())
        self.site.write_page(
            study,
            "index.html",
            [],
            headline=headline_table(study.evaluations),
            what=provenance.what_was_run(study),
            rules=[
                f"{each.title}: {rule_line(study.results, each.results)}"
                for each in study.evaluations
            ],
            commands=provenance.commands(study, self.site.store, runs),
            versions=provenance.versions(study),
            settings=json.dumps(public(study.declared), indent=2),
            **tables,
        )

    def _tables(self) -> None:
        sections = [self._tables_section(each) for each in self.study.evaluations]
        self.site.write_page(
            self.study,
            "tables.html",
            [figure for section in sections for figure in section.figures],
            sections=sections,
        )

    def _tables_section(self, evaluation: ReportedEvaluation) -> TablesSection:
        notes: list[str] = []
        section = TablesSection(
            key=evaluation.key,
            title=evaluation.title,
            caption=caption(self.study.results, evaluation.results),
            tables=evaluation_tables(evaluation),
            k_figures=figures.k_figures(evaluation),
            taps_figure=figures.taps_figure(evaluation),
            paper_tables=paper.paper_tables(evaluation, notes),
            paper_figures=paper.paper_figures(evaluation, notes),
            paper_notes=notes,
        )
        self.site.write_tables(self.study, section.tables + section.paper_tables)
        return section

    def _curves(self) -> None:
        sections = [self._curves_section(each) for each in self.study.evaluations]
        drawn = [figure for section in sections for figure in section.curves]
        self.site.write_page(self.study, "curves.html", drawn, sections=sections)

    def _curves_section(self, evaluation: ReportedEvaluation) -> CurvesSection:
        notes: list[str] = []
        found = curves_of(evaluation, notes)
        drawn = [figures.curve_figure(evaluation, curve) for curve in found]
        tables = [
            curve_table(str(figure.download), curve)
            for figure, curve in zip(drawn, found, strict=True)
        ]
        self.site.write_tables(self.study, tables)
        return CurvesSection(evaluation.key, evaluation.title, evaluation.k, drawn, tables, notes)

    def write_explorer(self, size: int) -> None:
        """Write the explorer and its pictures in about `size` bytes."""
        album = Album(self.site.folder / self.study.name / "pictures", size)
        explorer = Explorer(self.study, album, self.images, self.seed)
        data = explorer.describe()
        empty = not self.study.attacks or not self.study.evaluations
        content = {"explorer": data, "notes": data["notes"], "empty": empty}
        content["shown"] = explorer.shown_line()
        self.site.write_page(self.study, "explorer.html", [], **content)

    def _failures(self) -> None:
        sections = [
            self._failures_section(evaluation, attack)
            for evaluation in self.study.evaluations
            for attack in self.study.attacks
        ]
        drawn = [section.map for section in sections if section.map]
        self.site.write_page(self.study, "failures.html", drawn, sections=sections)

    def _failures_section(
        self, evaluation: ReportedEvaluation, attack: AttackedImages
    ) -> FailuresSection:
        key = f"{evaluation.key}-{figures.slug(attack.images)}"
        title = f"{attack.images}, {evaluation.title}, k = {evaluation.k}"
        found = or_missing(lambda: (outcomes_of(evaluation, attack), evaluation.class_names))
        if isinstance(found, Missing):
            return FailuresSection(key, title, [], [found.reason], None)
        outcomes, names = found
        tables = failure_tables(key, evaluation, attack.images, outcomes, names)
        self.site.write_tables(self.study, tables)
        shown = len(names) <= failures.CLASSES_IN_MAP and bool(outcomes["success"].any())
        drawn = confusion_figure(key, outcomes, names) if shown else None
        return FailuresSection(key, title, tables, [], drawn)

    def _cost(self) -> None:
        costs = cost.spent(self.study, self.runs)
        tables = {"kinds": cost.kinds_table(costs), "steps": cost.steps_table(costs)}
        self.site.write_tables(self.study, tables.values())
        saved = saved_lines(cost.saving(self.study, costs))
        self.site.write_page(self.study, "cost.html", [], saved=saved, **tables)


def curves_of(evaluation: ReportedEvaluation, notes: list[str]) -> list[Curve]:
    """Return the curves of an evaluation; adds to `notes` why one cannot be shown."""
    groups = or_missing(lambda: list(curves.families(evaluation)))
    if isinstance(groups, Missing):
        notes.append(groups.reason)
        return []
    found = []
    for minimal, attacks in groups:
        curve = or_missing(
            lambda minimal=minimal, attacks=attacks: (  # type: ignore[misc]
                curves.minimal_curve(evaluation, attacks[0])
                if minimal
                else curves.budget_curve(evaluation, attacks)
            )
        )
        if isinstance(curve, Missing):
            notes.append(f"{attacks[0].images}: {curve.reason}")
        else:
            found.append(curve)
    return found


def curve_table(key: str, curve: Curve) -> Table:
    """Return the points of a curve as a table."""
    scale, unit = (255, "L-infinity, in 255ths") if curve.size == "linf" else (1, curve.size)
    rows = [
        [
            number_cell(scale * float(point.epsilon)),
            accuracy_cell(point.softmax),
            accuracy_cell(point.regroup),
        ]
        for point in curve.points
    ]
    note = f"{len(rows)} of {curve.every} sizes; `regroup curve` writes all of them."
    heads = [f"perturbation, {unit}", "softmax", "REGroup"]
    return Table(key, curve.attack, heads, rows, [each.flat() for each in curve.points], note)


def failure_tables(
    key: str, evaluation: ReportedEvaluation, attack: str, outcomes: Outcomes, names: list[str]
) -> list[Table]:
    """Return the tables of answers, classes, pairs and samples of the page of failures."""
    return [
        _answers_table(key, outcomes),
        _classes_table(key, outcomes, names),
        _pairs_table(key, outcomes, names),
        _samples_table(key, evaluation, attack, outcomes, names),
    ]


def _answers_table(key: str, outcomes: Outcomes) -> Table:
    words = {
        "true": "the true class",
        "adversarial": "the class that the attack chose",
        "other": "another class",
    }
    found = failures.answers(outcomes)
    rows = [
        [text_cell(words[name]), number_cell(share.correct), accuracy_cell(share)]
        for name, share in found.items()
    ]
    title = "What REGroup says of the images that fool softmax"
    return Table(f"{key}-answers", title, ["answer", "samples", "share of S"], rows)


def _classes_table(key: str, outcomes: Outcomes, names: list[str]) -> Table:
    found = failures.classes(outcomes, names)
    rows = [
        [
            text_cell(row.name),
            number_cell(row.attempted),
            *(accuracy_cell(share) for share in (row.softmax, row.clean, row.attacked)),
            Cell(f"{row.lost} of {row.attempted}", row.lost / row.attempted),
        ]
        for row in found
    ]
    download: list[FlatRow] = [
        {
            "class": row.name,
            "attempted": row.attempted,
            "softmax": row.softmax.correct,
            "clean": row.clean.correct,
            "attacked": row.attacked.correct,
            "lost": row.lost,
        }
        for row in found
    ]
    heads = ["class", "attempted", "softmax, attacked", "REGroup, clean", "REGroup, attacked"]
    return Table(f"{key}-classes", "Classes that lose most", [*heads, "lost"], rows, download)


def _pairs_table(key: str, outcomes: Outcomes, names: list[str]) -> Table:
    found = failures.pairs(outcomes, names)
    rows = [
        [
            text_cell(pair.name),
            text_cell(pair.adversarial_class),
            *(number_cell(count) for count in (pair.samples, pair.adversarial, pair.true)),
        ]
        for pair in found[: failures.PAIRS_SHOWN]
    ]
    heads = ["true class", "softmax was fooled into", "samples", "REGroup says the same"]
    heads.append("REGroup says the true class")
    note = f"{len(rows)} of {len(found)} pairs; all are in the download."
    title = "Confusion with the class that the attack chose"
    return Table(f"{key}-pairs", title, heads, rows, [_flat(pair) for pair in found], note)


def _flat(row: Confusion | SampleLoss) -> FlatRow:
    """Return a row of a download, with the column `name` called `class`."""
    return {("class" if name == "name" else name): value for name, value in asdict(row).items()}


def _samples_table(
    key: str, evaluation: ReportedEvaluation, attack: str, outcomes: Outcomes, names: list[str]
) -> Table:
    def link(sample_id: str) -> str:
        """Return the link to this sample in the explorer."""
        chosen = {"evaluation": evaluation.key, "attack": attack, "sample": sample_id}
        return f"explorer.html#{urlencode(chosen)}"

    found = failures.samples(outcomes, names)
    rows = [
        [
            text_cell(row.sample_id, link(row.sample_id)),
            text_cell(row.name),
            *(number_cell(rank) for rank in (row.clean_rank, row.attacked_rank)),
            *(text_cell(answer) for answer in (row.regroup, row.softmax)),
        ]
        for row in found
    ]
    heads = ["sample", "true class", "its rank, clean", "its rank, attacked"]
    heads += ["REGroup says, attacked", "softmax says, attacked"]
    note = "Ordered by how far the true class falls in REGroup's ranking; the first 50."
    download = [_flat(row) for row in found]
    return Table(f"{key}-samples", "Samples that lose most", heads, rows, download, note)


def confusion_figure(key: str, outcomes: Outcomes, names: list[str]) -> Figure:
    """Return a heat map of the true class by REGroup's answer, on the images that fool softmax."""
    return Figure(
        key=f"{key}-figure",
        title="REGroup's answers on the images that fool softmax",
        subtitle="true class by answer; the diagonal is right",
        alt="The tables above count the same answers.",
        x="REGroup says",
        y="true class",
        heat=HeatMap(failures.confusion(outcomes, len(names)).tolist(), names),
    )


def saved_lines(saved: cost.Saving) -> list[str]:
    """Say what re-scoring saved, in sentences that state their basis."""
    lines = [
        f"The tables answer {saved.questions} questions (every k, every sign choice) about "
        f"{saved.samples:,} scored images in {saved.evaluations} evaluations, from stored "
        f"features: {saved.scored_passes} forward passes."
    ]
    if saved.scored_seconds is not None:
        lines.append(f"Scoring took {saved.scored_seconds:.1f} s in the recorded runs.")
    if saved.again_seconds is not None:
        lines.append(
            f"Each further question would otherwise run these {saved.samples:,} images through the "
            f"network again: one forward pass per image, about {saved.again_seconds:.1f} s at the "
            f"{saved.rate:.0f} images per second of the recorded extractions (start of the workers "
            "included). That is an estimate from counts, not a measurement."
        )
    if saved.attack_passes is not None:
        lines.append(
            f"The attacks took {saved.attack_passes:,} forward passes; no other k, sign choice, "
            "bank or tap policy needs them again."
        )
    if saved.rate is None:
        lines.append("This store has no record of the extractions, so the time saved is unknown.")
    return lines
