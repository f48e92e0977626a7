"""The pages of one study: what each one is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regroup_pipelines.render.study_files import caption
from regroup_pipelines.report_pages import cost, curves, failures, figures, paper, provenance
from regroup_pipelines.report_pages.evaluation import Missing, attempt
from regroup_pipelines.report_pages.explorer import Explorer
from regroup_pipelines.report_pages.outcomes import outcomes_of
from regroup_pipelines.report_pages.pictures import Album
from regroup_pipelines.report_pages.tables import (
    Cell,
    Table,
    accuracy_cell,
    headline_table,
    number_cell,
    study_tables,
    text_cell,
)
from regroup_pipelines.steps.run_record import public

if TYPE_CHECKING:
    from regroup_pipelines.report_pages.evaluation import Evaluation, Row, Study
    from regroup_pipelines.report_pages.outcomes import Outcomes
    from regroup_pipelines.report_pages.site import Site


@dataclass(frozen=True)
class StudyPages:
    """Writes the six pages of a study, the explorer last: it takes the room that is left.

    Attributes:
        runs: the records of the store's runs.
        images: samples that the explorer shows in pictures at most, drawn with `seed`.
    """

    site: Site
    study: Study
    runs: list[Row]
    images: int
    seed: int

    def write(self) -> None:
        """Write all but the explorer."""
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
            headline=headline_table(study.evaluations),
            what=provenance.what_was_run(study),
            rules=[f"{each.title}: {rule_line(each)}" for each in study.evaluations],
            commands=provenance.commands(study, self.site.store, runs),
            versions=provenance.versions(study),
            settings=json.dumps(public(study.settings), indent=2),
            **tables,
        )

    def _tables(self) -> None:
        sections = []
        for evaluation in self.study.evaluations:
            tables = study_tables(evaluation)
            self.site.write_tables(self.study, tables)
            sections.append(
                {
                    "key": evaluation.key,
                    "title": evaluation.title,
                    "caption": caption(self.study.results, evaluation.row).split("\n\n")[0],
                    "tables": tables,
                    "k_figures": figures.k_figures(evaluation),
                    "taps_figure": figures.taps_figure(evaluation),
                    **self._paper(evaluation),
                }
            )
        drawn = [
            figure
            for each in sections
            for figure in (*each["k_figures"], each["taps_figure"], *each["paper_figures"])
        ]
        self.site.write_page(self.study, "tables.html", sections=sections, figures=drawn)

    def _paper(self, evaluation: Evaluation) -> Row:
        """The paper's tables and figures, and what there is to say of those that lack."""
        notes: list[str] = []
        tables = paper.paper_tables(evaluation, notes)
        self.site.write_tables(self.study, tables)
        drawn = paper.paper_figures(evaluation, notes)
        return {"paper_tables": tables, "paper_figures": drawn, "paper_notes": notes}

    def _curves(self) -> None:
        sections = [self._curve_section(each) for each in self.study.evaluations]
        drawn = [figure for section in sections for figure in section["curves"]]
        self.site.write_page(self.study, "curves.html", sections=sections, figures=drawn)

    def _curve_section(self, evaluation: Evaluation) -> Row:
        found: list[Row] = []
        tables: list[Table] = []
        notes: list[str] = []
        for minimal, curve in _curves_of(evaluation, notes):
            found.append(figures.curve_figure(evaluation, curve, minimal=minimal))
            tables.append(curve_table(found[-1]["download"], curve))
        self.site.write_tables(self.study, tables)
        head = {"key": evaluation.key, "title": evaluation.title, "k": evaluation.k}
        return {**head, "curves": found, "tables": tables, "notes": notes}

    def write_explorer(self, room: int) -> None:
        """Write the explorer, with its pictures, in about `room` bytes."""
        album = Album(self.site.folder / self.study.name / "pictures", room)
        explorer = Explorer(self.study, album, self.images, self.seed)
        data = explorer.describe()
        empty = not self.study.attacks or not self.study.evaluations
        content = {"explorer": data, "notes": data["notes"], "empty": empty}
        content["shown"] = explorer.shown_line()
        self.site.write_page(self.study, "explorer.html", **content)

    def _failures(self) -> None:
        sections = [
            self._failure_section(evaluation, attack)
            for evaluation in self.study.evaluations
            for attack in self.study.attacks
        ]
        drawn = [section["map"] for section in sections if section["map"]]
        self.site.write_page(self.study, "failures.html", sections=sections, figures=drawn)

    def _failure_section(self, evaluation: Evaluation, attack: Row) -> Row:
        name = attack["images"]
        key = f"{evaluation.key}-{figures.slug(name)}"
        section = {"key": key, "title": f"{name}, {evaluation.title}, k = {evaluation.k}"}
        found = attempt(lambda: (outcomes_of(evaluation, attack), evaluation.class_names))
        if isinstance(found, Missing):
            return {**section, "tables": [], "notes": [found.reason], "map": None}
        outcomes, names = found
        tables = failure_tables(key, evaluation, name, outcomes, names)
        self.site.write_tables(self.study, tables)
        shown = len(names) <= failures.CLASSES_IN_MAP and bool(outcomes["success"].any())
        drawn = confusion_figure(key, outcomes, names) if shown else None
        return {**section, "tables": tables, "notes": [], "map": drawn}

    def _cost(self) -> None:
        costs = cost.spent(self.study, self.runs)
        tables = {"kinds": cost.kinds_table(costs), "steps": cost.steps_table(costs)}
        self.site.write_tables(self.study, tables.values())
        saved = saved_lines(cost.saving(self.study, costs))
        self.site.write_page(self.study, "cost.html", saved=saved, **tables)


def rule_line(evaluation: Evaluation) -> str:
    """How k was chosen."""
    rule, k = evaluation.row["rule"], evaluation.k
    given = evaluation.study.settings["scoring"]["k"] is not None
    chosen = f"k = {k}, given (the rule chooses {rule['k']})" if given else f"k = {k}, by the rule"
    return (
        f"{chosen}; {rule['count']} taps alone reach {100 * rule['threshold']:g} % of the "
        "correctly classified clean images."
    )


def _curves_of(evaluation: Evaluation, notes: list[str]) -> list[tuple[bool, Row]]:
    """The curves of an evaluation, and whether each is of a search; `notes` get why one is not."""
    groups = attempt(lambda: list(curves.families(evaluation)))
    if isinstance(groups, Missing):
        notes.append(groups.reason)
        return []
    found = []
    for minimal, attacks in groups:
        curve = attempt(
            lambda minimal=minimal, attacks=attacks: (  # type: ignore[misc]
                curves.minimal_curve(evaluation, attacks[0])
                if minimal
                else curves.budget_points(evaluation, attacks)
            )
        )
        if isinstance(curve, Missing):
            notes.append(f"{attacks[0]['images']}: {curve.reason}")
        else:
            found.append((minimal, curve))
    return found


def curve_table(key: str, curve: Row) -> Table:
    """The points of a curve."""
    scale, unit = (255, "L-infinity, in 255ths") if curve["size"] == "linf" else (1, curve["size"])
    rows = [
        [
            number_cell(scale * float(row["epsilon"])),
            accuracy_cell(row["softmax"]),
            accuracy_cell(row["regroup"]),
        ]
        for row in curve["rows"]
    ]
    note = f"{len(rows)} of {curve['every']} sizes; `regroup curve` writes every one."
    heads = [f"perturbation, {unit}", "softmax", "REGroup"]
    return Table(key, curve["attack"], heads, rows, [_flat(row) for row in curve["rows"]], note)


def _flat(row: Row) -> Row:
    """A point of a curve as a row of CSV; epsilon in pixel units of [0, 1]."""
    flat: Row = {"epsilon": row["epsilon"], "total": row["softmax"]["total"]}
    for measure in ("softmax", "regroup"):
        low, high = row[measure]["interval95"]
        flat |= {f"{measure}_correct": row[measure]["correct"]}
        flat |= {f"{measure}_low": low, f"{measure}_high": high}
    return flat


def failure_tables(
    key: str, evaluation: Evaluation, attack: str, outcomes: Outcomes, names: list[str]
) -> list[Table]:
    """What REGroup says of the fooled images, and the classes, pairs and samples that lose most."""
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
        [text_cell(words[name]), number_cell(cell["correct"]), accuracy_cell(cell)]
        for name, cell in found.items()
    ]
    title = "What REGroup says of the images that fool softmax"
    return Table(f"{key}-answers", title, ["answer", "samples", "share of S"], rows)


def _classes_table(key: str, outcomes: Outcomes, names: list[str]) -> Table:
    found = failures.classes(outcomes, names)
    shares = ("softmax", "clean", "attacked")
    rows = [
        [
            text_cell(row["class"]),
            number_cell(row["attempted"]),
            *(accuracy_cell(row[name].describe()) for name in shares),
            Cell(f"{row['lost']} of {row['attempted']}", row["lost"] / row["attempted"]),
        ]
        for row in found
    ]
    download = [{**row, **{name: row[name].correct for name in shares}} for row in found]
    heads = [
        "class",
        "attempted",
        "softmax, attacked",
        "REGroup, clean",
        "REGroup, attacked",
        "lost",
    ]
    return Table(f"{key}-classes", "Classes that lose most", heads, rows, download)


def _pairs_table(key: str, outcomes: Outcomes, names: list[str]) -> Table:
    found = failures.pairs(outcomes, names)
    rows = [
        [
            text_cell(row["class"]),
            text_cell(row["adversarial_class"]),
            *(number_cell(row[name]) for name in ("samples", "adversarial", "true")),
        ]
        for row in found[: failures.PAIRS_SHOWN]
    ]
    heads = ["true class", "softmax was fooled into", "samples", "REGroup says the same"]
    note = f"{len(rows)} of {len(found)} pairs; all are in the download."
    title = "Confusion with the class that the attack chose"
    heads.append("REGroup says the true class")
    return Table(f"{key}-pairs", title, heads, rows, found, note)


def _samples_table(
    key: str, evaluation: Evaluation, attack: str, outcomes: Outcomes, names: list[str]
) -> Table:
    from urllib.parse import urlencode

    def link(sample_id: str) -> str:
        """The explorer's page with this sample chosen."""
        chosen = {"evaluation": evaluation.key, "attack": attack, "sample": sample_id}
        return f"explorer.html#{urlencode(chosen)}"

    found = failures.samples(outcomes, names)
    rows = [
        [
            text_cell(row["sample_id"], link(row["sample_id"])),
            text_cell(row["class"]),
            *(number_cell(row[name]) for name in ("clean_rank", "attacked_rank")),
            *(text_cell(row[name]) for name in ("regroup", "softmax")),
        ]
        for row in found
    ]
    heads = ["sample", "true class", "its place, clean", "its place, attacked"]
    heads += ["REGroup says, attacked", "softmax says, attacked"]
    note = "By how far the true class falls in REGroup's order; the first 50."
    return Table(f"{key}-samples", "Samples that lose most", heads, rows, found, note)


def confusion_figure(key: str, outcomes: Outcomes, names: list[str]) -> Row:
    """The true class by REGroup's answer on the images that fool softmax, as a heat map."""
    return {
        "key": f"{key}-figure",
        "title": "REGroup's answers on the images that fool softmax",
        "subtitle": "true class by answer; the diagonal is right",
        "alt": "The tables above count the same answers.",
        "x": "REGroup says",
        "y": "true class",
        "heat": {"z": failures.confusion(outcomes, len(names)).tolist(), "names": names},
        "series": [],
        "download": None,
    }


def saved_lines(saved: cost.Saving) -> list[str]:
    """What re-scoring saved, in sentences that state their basis."""
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
            f"network again: one forward pass an image, about {saved.again_seconds:.1f} s at the "
            f"{saved.rate:.0f} images a second of the recorded extractions (start of the workers "
            "included). That is an estimate from counts, not a measurement."
        )
    if saved.attack_passes is not None:
        lines.append(
            f"The attacks took {saved.attack_passes:,} forward passes; no other k, sign choice, "
            "bank or tap policy takes them again."
        )
    if saved.rate is None:
        lines.append("This store has no record of the extractions, so no seconds can be told.")
    return lines
