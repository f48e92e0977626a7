"""Figures as plain JSON: the page's script draws them in the colours of its theme.

A series has a `role`, which decides its colour, dash and marker, and values in per cent with the
bounds of their intervals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_store.kinds.votes import SIGN_CHOICES

if TYPE_CHECKING:
    from regroup_pipelines.report_pages.evaluation import Evaluation, Row

PER_CENT = "top-1, %"


def k_figures(evaluation: Evaluation) -> list[Row]:
    """Accuracy against k, a figure for each set of images; the signs are its lines."""
    results = evaluation.study.results
    titles = {row["images"]: row.get("title", "clean images") for row in results["images"]}
    rows = evaluation.row["accuracy_against_k"]
    return [
        {
            "key": f"{evaluation.key}-k-{slug(name)}-figure",
            "title": name,
            "subtitle": titles[name],
            "x": "k (last taps that vote)",
            "y": "REGroup " + PER_CENT,
            "series": [series(signs, signs, _along_k(rows, name, signs)) for signs in SIGN_CHOICES],
            "lines": [{"x": evaluation.k, "text": f"k = {evaluation.k}"}],
            "download": f"{evaluation.key}-k",
        }
        for name in titles
        if rows and name in rows[0]
    ]


def _along_k(rows: list[Row], name: str, signs: str) -> list[tuple[float, Row]]:
    return [(row["k"], row[name]) for row in rows if row["signs"] == signs]


def taps_figure(evaluation: Evaluation) -> Row:
    """Each tap alone, first to last, with the threshold of the rule."""
    rows, threshold = evaluation.row["tap_accuracy"], evaluation.row["rule"]["threshold"]
    return {
        "key": f"{evaluation.key}-taps-figure",
        "title": "Each tap alone",
        "subtitle": "correctly classified clean images; the last taps, after the line, vote",
        "x": "tap, first to last",
        "y": "of the tap alone, " + PER_CENT,
        "series": [
            series(signs, signs, [(row["position"], row[signs]) for row in rows])
            for signs in SIGN_CHOICES
        ],
        "names": {str(row["position"]): row["tap"] for row in rows},
        "lines": [
            {"y": 100 * threshold, "text": f"{100 * threshold:g} %"},
            {"x": len(rows) - evaluation.k + 0.5, "text": f"k = {evaluation.k}"},
        ],
        "download": f"{evaluation.key}-taps",
    }


def curve_figure(evaluation: Evaluation, curve: Row, *, minimal: bool) -> Row:
    """Softmax's and REGroup's accuracy against the perturbation's size."""
    size, rows = curve["size"], curve["rows"]
    scale, unit = (255, "L-infinity, in 255ths") if size == "linf" else (1, f"{size.upper()}")
    key = f"{evaluation.key}-curve-{slug(curve['attack'])}"
    return {
        "key": f"{key}-figure",
        "title": curve["attack"],
        "subtitle": curve["title"],
        "x": f"perturbation, {unit}",
        "y": PER_CENT,
        "step": minimal,
        "series": [
            series(role, name, [(scale * row["epsilon"], row[role]) for row in rows])
            for role, name in (("softmax", "softmax"), ("regroup", "REGroup"))
        ],
        "download": key,
    }


def series(role: str, name: str, cells: list[tuple[Any, Row]]) -> Row:
    """A line of a figure through accuracies, those with a number; x: numbers or categories."""
    known = [(x, cell) for x, cell in cells if cell["accuracy"] is not None]
    return {
        "role": role,
        "name": name,
        "x": [x if isinstance(x, str) else round(x, 6) for x, _ in known],
        "y": [round(100 * cell["accuracy"], 3) for _, cell in known],
        "low": [round(100 * cell["interval95"][0], 3) for _, cell in known],
        "high": [round(100 * cell["interval95"][1], 3) for _, cell in known],
    }


def slug(name: str) -> str:
    """`name` as a part of a file's name: letters, digits, '_' and '-' alone."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)
