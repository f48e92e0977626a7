"""A study in a store, written without a network: two images sets, one attack, votes, results.

Four samples: the third cannot be read, and the attack succeeds on the first and the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from regroup_pipelines.results.accuracy import accuracy_row
from regroup_pipelines.results.attack_summary import attack_summary
from regroup_pipelines.results.counts import VoteSummary, summarise
from regroup_pipelines.results.records import (
    AttackedImages,
    AttackNotRun,
    ChosenK,
    CleanImages,
    EvaluationResults,
    ImagesNotRun,
    Range,
    StudyResults,
)
from regroup_pipelines.schema.attacks import Attack
from regroup_pipelines.schema.study import DeclaredBank, Model, Study
from regroup_store.format.element import BlockElement
from regroup_store.format.element_spec import ElementSpec
from regroup_store.format.manifests import locate, read_manifest
from regroup_store.format.store import Store
from regroup_store.kinds import adversarials, features, votes
from regroup_store.kinds.banks import BankSpec, create_bank
from regroup_store.kinds.indexes import COLUMNS as INDEX_COLUMNS
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.kinds.studies import write_study

TAPS = (("conv-1", 3), ("logits", 2))
MODEL: dict[str, object] = {"name": "tiny", "weights": "none"}
IDS, LABELS = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"], [0, 0, 1, 1]
STATUS: dict[str, list[Any]] = {
    "sample_id": IDS,
    "status": ["ok", "ok", "failed", "ok"],
    "error": [None, None, 'truncated, "half" a file\nof two', None],
    "label": LABELS,
}
ATTACK = {"name": "pgd", "epsilon": 4 / 255, "steps": 40, "seed": 0}
TITLE = "PGD, protocol budget, epsilon 4/255"
WHY = "the study skips it"
SETTINGS = Study(
    name="small",
    store="store",
    model=Model(name="tiny"),
    datasets={"train": "digits", "val": "digits"},
    banks={"two": DeclaredBank(per_class=2)},
    attacks={"pgd": Attack(attack="pgd"), "cadv": Attack(attack="cadv", skip=True)},
)
ROWS, BLOCK_ROWS = len(IDS), 2


def write(store: Store, spec: ElementSpec, rows: dict[str, list[Any]], arrays: Any) -> BlockElement:
    """Write and finalise an element; failed rows of arrays hold NaN or -1."""
    element = BlockElement.create(store, spec, {"command": "test"})
    failed = np.array(rows["status"]) == "failed"
    table = pa.table(rows, schema=spec.columns)
    for array in spec.arrays:
        arrays[array.path][failed] = array.fill
    for block in range(element.plan.blocks):
        span = element.plan.span(block)
        part = {path: np.ascontiguousarray(values[span]) for path, values in arrays.items()}
        element.write_block(block, part, table.slice(span.start, span.stop - span.start), {})
    element.finalise({})
    return element


def zeros(spec: ElementSpec) -> dict[str, Any]:
    return {a.path: np.zeros(a.shape(spec.rows), a.dtype) for a in spec.arrays}


def write_index(store: Store, name: str = "pets", classes: tuple[str, ...] = ("cat", "dog")) -> Any:
    rows = {"sample_id": IDS, "label": LABELS, "locator": IDS, "digest": ["0" * 32] * ROWS}
    table = pa.table(rows, schema=INDEX_COLUMNS)
    return SampleIndex.write(store, name, [table], classes, f"imagefolder:{name}")


def write_features(
    store: Store, name: str, source: dict[str, str], predictions: list[int], dtype: str = "float32"
) -> BlockElement:
    spec = features.features_spec(
        name, model=MODEL, taps=TAPS, policy="preactivation", source=source, num_classes=2,
        rows=ROWS, block_rows=BLOCK_ROWS, dtype=dtype,
    )  # fmt: skip
    rows = {
        **STATUS,
        "prediction": predictions,
        "confidence": [0.75, 0.625, None, 0.5],
        "true_confidence": [0.75, 0.625, None, 0.5],
        "top5": [[0, 1], [0, 1], None, [1, 0]],
    }
    return write(store, spec, rows, zeros(spec))


def write_adversarials(
    store: Store, index: Any, attack: dict[str, object], name: str = "pets-pgd"
) -> BlockElement:
    spec = adversarials.adversarials_spec(
        name, model=MODEL, attack=attack, index_fingerprint=index.fingerprint,
        image_shape=(3, 1, 2), rows=ROWS, block_rows=BLOCK_ROWS,
    )  # fmt: skip
    rows = {
        **STATUS,
        "success": [True, False, None, True],
        "success_8bit": [True, False, None, False],
        "claimed": [True, True, None, True],
        "adversarial_class": [1, -1, -1, 0],
        "target": [-1] * ROWS,
        "epsilon": [0.25, 0.25, None, 0.25],
        "l2": [1.5, 2.0, None, 0.5],
        "linf": [0.25, 0.25, float("nan"), 0.25],
        "mse": [0.125, 0.125, None, 0.0625],
        "steps": [4, 40, 0, 2],
        "queries": [5, 41, 0, 3],
        "backward_passes": [4, 40, 0, 2],
        **dict.fromkeys(adversarials.LATER, [0] * ROWS),
    }
    return write(store, spec, rows, zeros(spec))


def write_bank(store: Store, of: BlockElement, per_class: int = 2) -> str:
    recipe = {
        "model": MODEL, "policy": "preactivation", "features": of.fingerprint,
        "per_class": per_class,
    }  # fmt: skip
    writer = create_bank(store, BankSpec("pets-tiny", recipe, TAPS, ("cat", "dog")))
    for tap, channels in TAPS:
        writer.write_tap(tap, np.ones((2, 2, channels)))
    return writer.finish([2, 2])


def write_votes(
    store: Store, of: BlockElement, bank: str, predictions: list[int], success: list[Any],
    delta: float = 1e-20,
) -> BlockElement:  # fmt: skip
    """REGroup is right about the first sample at every k, about the last at k = 2 alone."""
    stored = read_manifest(store.backend, locate(store.backend, "banks", bank))
    spec = votes.votes_spec(
        of.name, features_fingerprint=of.fingerprint, bank_fingerprint=str(stored["fingerprint"]),
        scoring={"rule": "borda", "delta": delta}, taps=[t for t, _ in TAPS], rows=ROWS,
        block_rows=BLOCK_ROWS,
    )  # fmt: skip
    rows = {**STATUS, "prediction": predictions, "top5_correct": [True, True, None, True]}
    ranks = np.repeat(np.array([[1, 1], [2, 2], [0, 0], [6, 1]], np.int32)[:, None], 3, axis=1)
    right = np.array(LABELS, np.int32)[:, None, None]
    arrays = {path: ranks.copy() for path in (votes.TRUE_RANK, votes.TAP_TRUE_RANK)}
    for path in (votes.PREDICTION, votes.TAP_PREDICTION):
        arrays[path] = np.where(ranks == 1, right, 1 - right).astype(np.int32)
    element = write(store, spec, rows | {"success": success}, arrays)
    element.finalise(summarise(element))
    return element


def write_small_study(store: Store, name: str = "small", k: int = 2) -> StudyResults:
    """Write everything; return the results that are kept under the study's name."""
    index = write_index(store)
    clean = write_features(store, "pets-tiny", {"index": index.fingerprint}, [0, 0, -1, 1])
    made = write_adversarials(store, index, ATTACK)
    attacked = write_features(
        store, "pets-pgd", {"adversarials": made.fingerprint}, [1, 0, -1, 0]
    )  # fmt: skip
    bank = write_bank(store, clean)
    found = {
        "clean": write_votes(store, clean, bank, [0, 0, -1, 1], [None] * ROWS),
        "pgd": write_votes(store, attacked, bank, [1, 0, -1, 0], [True, False, None, True]),
    }
    rows = [accuracy_row(n, VoteSummary.of(v), k, "both") for n, v in found.items()]
    results = StudyResults(
        study=name,
        settings=SETTINGS,
        images=(
            CleanImages(images="clean", dataset="val", index=index.ref),
            AttackedImages(
                images="pgd", dataset="val", title=TITLE, adversarials=made.ref,
                summary=attack_summary(made),
            ),
            AttackNotRun(images="cadv", dataset="val", title="cAdv", reason=WHY),
        ),
        evaluations=(
            EvaluationResults(
                taps="preactivation",
                bank="two",
                bank_ref=bank,
                votes={name: element.ref for name, element in found.items()},
                samples_per_class=Range(fewest=2, most=2),
                k=k,
                rule=ChosenK(k=k, count=k, threshold=0.75, reached=True),
                accuracy=(*rows, ImagesNotRun(images="cadv", reason=WHY)),
                accuracy_against_k=(),
                tap_accuracy=(),
            ),
        ),
    )  # fmt: skip
    write_study(store, name, results.plain())
    return results
