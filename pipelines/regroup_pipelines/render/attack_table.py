"""The table of a study's attacks: what each achieved and what it took, and REGroup's accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regroup_pipelines.render.terminal import format_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterator

Row = dict[str, Any]
HEADS = [
    "attack", "attempted", "#S", "success", "#S, 8 bits", "median L2, S", "median L-infinity, S",
    "queries", "backward passes", "seconds", "REGroup, S", "REGroup, all",
]  # fmt: skip
NUMBERS = (
    "attempted", "failed", "success", "success_8bit", "claimed_not_verified", "median_l2",
    "median_linf", "mean_queries", "median_queries", "mean_backward_passes", "mean_seconds",
)  # fmt: skip


def attacks_of(results: Row) -> list[Row]:
    """The rows of `results["images"]` that are attacks."""
    return [images for images in results["images"] if "title" in images]


def attack_cells(images: Row, accuracy: Row) -> list[str]:
    """A row for people: sizes in [0, 1], L-infinity in 255ths; costs are means over a sample."""
    if "not_run" in images or "not_run" in accuracy:
        return [images["images"], *["not run"] * (len(HEADS) - 1)]
    share = f"{100 * images['success'] / images['attempted']:.1f} %" if images["attempted"] else "-"
    linf = images["median_linf"]
    return [
        images["images"],
        str(images["attempted"]),
        str(images["success"]),
        share,
        _number(images["success_8bit"]),
        _number(images["median_l2"]),
        "-" if linf is None else f"{255 * linf:.3g}/255",
        *(_number(images[f"mean_{name}"]) for name in ("queries", "backward_passes", "seconds")),
        *(format_accuracy(accuracy.get(f"regroup_top1_{over}")) for over in ("S", "all")),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def attack_rows(results: Row, evaluation: Row) -> Iterator[Row]:
    """A row an attack, for computing; empty where it was not run."""
    accuracies = {row["images"]: row for row in evaluation["accuracy"]}
    for images in attacks_of(results):
        accuracy = accuracies[images["images"]]
        state = "not run" if "not_run" in images or "not_run" in accuracy else "measured"
        yield {
            "images": images["images"],
            "attack": images["title"],
            "state": state,
            **{name: images.get(name, "") for name in NUMBERS},
            **_accuracies(accuracy if state == "measured" else {}),
            "k": evaluation["k"],
            "signs": results["settings"]["scoring"]["signs"],
        }


def _accuracies(accuracy: Row) -> Row:
    cells = {over: accuracy.get(f"regroup_top1_{over}") or {} for over in ("S", "all")}
    return {
        f"regroup_{over}_{name}": cell.get(name, "")
        for over, cell in cells.items()
        for name in ("correct", "total")
    }
