"""Re-scoring tells features apart that have one name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from regroup_pipelines.configs.options import VotingOptions
from regroup_pipelines.results.counts import VoteSummary
from regroup_pipelines.steps.rescoring import rescore


def test_two_attacks_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks that differ in epsilon alone are named alike."""

    def score(session: object, features: Any, bank: object, options: object) -> Any:
        return SimpleNamespace(ref=features.ref, plan=SimpleNamespace(rows=2))

    monkeypatch.setattr("regroup_pipelines.steps.rescoring.score", score)
    monkeypatch.setattr(VoteSummary, "of", lambda votes: {"of": votes.ref})
    features = [
        SimpleNamespace(name=name, ref=f"{name}-{i}", gaps=[])
        for i, name in enumerate(("val", "val-pgd", "val-pgd"))
    ]
    session, bank = cast("Any", SimpleNamespace(ledger=[])), cast("Any", None)
    found, cost = rescore(session, bank, cast("Any", features), VotingOptions())
    refs = {"val": "val-0", "val-pgd-1": "val-pgd-1", "val-pgd-2": "val-pgd-2"}
    assert cast("Any", found) == {name: {"of": ref} for name, ref in refs.items()}
    assert (cost.samples, cost.forward_passes, cost.banks) == (6, 0, 1)
