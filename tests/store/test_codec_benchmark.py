"""benchmarks/codec.py runs, on synthetic arrays and on those of a store."""

import json

import pytest

from benchmarks.codec import candidates, main
from regroup_store.format.store import Store
from tests.store.elements import fill, make


def test_it_compares_codecs_on_synthetic_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "4", "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["codec"] for row in report["codecs"]] == list(candidates())
    assert all(row["write_mb_s"] > 0 and row["ratio"] > 0 for row in report["codecs"])


def test_it_measures_the_accumulators_of_a_store(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", store.uri]) == 2
    assert "holds no committed features" in capsys.readouterr().err
    fill(make(store), 0)
    assert main(["--store", store.uri, "--rounds", "1"]) == 0
    assert "1 arrays" in capsys.readouterr().out
