"""Re-scoring tells features apart that have one name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from regroup_pipelines.configs.options import VotingOptions
from regroup_pipelines.steps.rescoring import rescore


def test_two_attacks_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks that differ in epsilon alone are named alike."""

    def score(job: object, features: Any, bank: object, options: object) -> Any:
        return SimpleNamespace(
            name=features.name, plan=SimpleNamespace(rows=2), summary=lambda: {"of": features.ref}
        )

    monkeypatch.setattr("regroup_pipelines.steps.rescoring.score", score)
    features = [
        SimpleNamespace(name=name, ref=f"{name}-{i}", gaps=[])
        for i, name in enumerate(("val", "val-pgd", "val-pgd"))
    ]
    job, bank = cast("Any", SimpleNamespace(ledger=[])), cast("Any", None)
    found, cost = rescore(job, bank, cast("Any", features), VotingOptions())
    assert found == {name: {"of": ref} for name, ref in (
        ("val", "val-0"), ("val-pgd-1", "val-pgd-1"), ("val-pgd-2", "val-pgd-2")
    )}  # fmt: skip
    assert cost["samples"] == 6
