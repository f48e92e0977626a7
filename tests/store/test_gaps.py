"""Elements finalised without some blocks, and the records of why a block failed."""

from collections.abc import Callable

import numpy as np
import pytest

from regroup_store.backends.local import LocalBackend
from regroup_store.errors import DamagedError, GapError, StoreUnavailableError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.store import Store
from regroup_store.kinds.indexes import SampleIndex
from regroup_store.maintenance.repair import plan_repairs
from regroup_store.maintenance.verify import verify_store
from tests.store.elements import FLOATS, INTS, fill, spec, table, values
from tests.store.test_damage import empty, flip, truncate
from tests.store.test_verify import repair, told, write_index

# Blocks of one row: row 1 of the index is "b", of class 1.
PLAN = {"rows": 2, "block_rows": 1}


def features(store: Store, index: SampleIndex) -> BlockElement:
    inputs = {"model": {"name": "tiny"}, "source": {"index": index.fingerprint}}
    return BlockElement.create(store, spec(inputs=inputs, **PLAN), {})  # type: ignore[arg-type]


def opened(element: BlockElement, store: Store) -> BlockElement:
    return BlockElement.open(store, "features", element.ref)


@pytest.fixture
def gappy(any_store: Store) -> BlockElement:
    """Features finalised without block 1, which failed."""
    element = fill(features(any_store, write_index(any_store)), 0)
    element.quarantine(1, 3, "Traceback\n  ...\nValueError: bad luck")
    element.finalise({"samples": 2}, without=[1])
    return element


def test_a_missing_block_is_refused_until_it_is_accepted(any_store: Store) -> None:
    element = fill(features(any_store, write_index(any_store)), 0)
    for call in (element.samples, lambda: element.finalise({}), lambda: element.read_table(1)):
        with pytest.raises(GapError, match="1"):
            call()
    element.finalise({}, without=[1])
    assert element.summary() == {"missing_blocks": [1]}
    assert opened(element, any_store).samples().num_rows == 2


def test_labels_of_a_known_gap_are_numbered_as_the_models(any_store: Store) -> None:
    index = write_index(any_store)
    inputs = {"model": {}, "source": {"index": index.fingerprint}, "labels": [7, 3]}
    element = fill(BlockElement.create(any_store, spec(inputs=inputs, **PLAN), {}), 0)  # type: ignore[arg-type]
    element.finalise({}, without=[1])
    assert opened(element, any_store).read_table(1, ["label"]).to_pydict() == {"label": [3]}


def test_an_element_without_any_block_is_never_finalised(any_store: Store) -> None:
    element = features(any_store, write_index(any_store))
    with pytest.raises(GapError, match="2 of 2 blocks"):
        element.finalise({}, without=[0, 1])


def test_samples_of_a_known_gap_are_failed_rows(gappy: BlockElement, any_store: Store) -> None:
    reader = opened(gappy, any_store)
    assert reader.gaps == [1]
    rows = reader.samples()
    assert rows.schema == reader.read_table(0).schema
    (row,) = rows.slice(1).to_pylist()
    assert row == {
        "sample_id": "b",
        "status": "failed",
        "error": f"block 1 of features/{gappy.ref} is missing",
        "label": 1,
        "prediction": -1,
        "top5_correct": None,
        "success": None,
    }
    assert reader.read_table(1, ["label"]).to_pydict() == {"label": [1]}
    assert np.isnan(reader.read_array(FLOATS, 1)).all()
    assert (reader.read_array(INTS, 1) == -1).all()
    assert reader.read_array(FLOATS, 1).shape == (1, 2, 3)
    with pytest.raises(GapError, match="not committed"):
        reader.commit(1)


def test_whose_rows_are_missing_is_not_made_up(gappy: BlockElement, any_store: Store) -> None:
    (index,) = any_store.elements("indexes")
    any_store.backend.delete(f"indexes/{index.ref}/manifest.json")
    with pytest.raises(GapError, match="so are the indexes"):
        opened(gappy, any_store).samples()


def test_a_gap_that_is_filled_is_none(gappy: BlockElement, any_store: Store) -> None:
    reader = opened(gappy, any_store)
    fixed = opened(gappy, any_store)
    fixed.accept_gaps(reader.gaps)
    fill(gappy, 1)
    assert (reader.gaps, fixed.gaps) == ([], [1])
    assert reader.gap_inputs() == {}
    assert fixed.gap_inputs() == {"input_gaps": {"block_rows": 1, "blocks": [1]}}
    np.testing.assert_array_equal(reader.read_array(FLOATS, 1), values(gappy, 1)[FLOATS])
    assert fixed.read_table(1)["status"].to_pylist() == ["failed"]
    gappy.finalise({"samples": 2})
    assert gappy.summary() == {"samples": 2}


def test_reasons_are_kept_until_the_block_is_committed(
    gappy: BlockElement, any_store: Store
) -> None:
    gappy.quarantine(1, 2, "OSError: worse luck")
    (kept,) = gappy.quarantined()
    assert (kept.block, kept.attempts, kept.cause) == (1, 2, "OSError: worse luck")
    assert any_store.elements("features")[0].quarantined == (kept,)
    gappy.clear_quarantine()
    assert gappy.quarantined() == [kept]
    assert gappy.write_block(1, values(gappy, 1), table(gappy, 1), {})
    assert gappy.quarantined() == []
    gappy.clear_quarantine()
    assert not [key for key in any_store.backend.keys("") if "quarantine" in key]


def test_known_gaps_are_no_damage_others_are(gappy: BlockElement, any_store: Store) -> None:
    assert [level for level, *_ in told(any_store)] == ["note"]
    any_store.backend.delete(f"features/{gappy.ref}/commits/00000.json")
    key = f"features/{gappy.ref}/commits/00000.json"
    assert ("damaged", "commit", 0, key) in told(any_store)
    (plan,) = plan_repairs(any_store, verify_store(any_store))
    assert plan.blocks == (0,)


@pytest.mark.parametrize("how", [truncate, empty, flip])
def test_a_damaged_reason_is_named_and_forgotten(
    gappy: BlockElement, any_store: Store, how: Callable[[bytes], bytes]
) -> None:
    key = f"features/{gappy.ref}/quarantine/00001.json"
    any_store.backend.replace(key, how(any_store.backend.read(key)))
    assert ("damaged", "quarantine", None, key) in told(any_store)
    assert key in any_store.elements("features")[0].quarantined[0].reason
    with pytest.raises(DamagedError, match=key):
        gappy.quarantined()
    assert repair(any_store) == [key]
    assert [level for level, *_ in told(any_store)] == ["note"]
    assert gappy.summary() == {"samples": 2, "missing_blocks": [1]}


@pytest.mark.parametrize("listed", ["1", [1.5], [True], {"1": 1}])
def test_a_list_of_gaps_that_is_none_is_damage(
    gappy: BlockElement, any_store: Store, listed: object
) -> None:
    key = f"features/{gappy.ref}/summary.json"
    record = unseal(any_store.backend.read(key), key)
    any_store.backend.replace(key, seal({**record, "missing_blocks": listed}))
    with pytest.raises(DamagedError, match=f"{key}.*missing_blocks"):
        opened(gappy, any_store).samples()
    assert ("damaged", "summary", None, key) in told(any_store)


def test_a_store_that_vanished_is_told_from_a_gap(store: Store) -> None:
    element = fill(features(store, write_index(store)), 0)
    assert isinstance(store.backend, LocalBackend)
    root = store.backend.root
    root.rename(root.with_name("elsewhere"))
    reads = (element.missing, lambda: opened(element, store), lambda: element.read_table(0))
    for call in (*reads, lambda: element.write_block(1, values(element, 1), table(element, 1), {})):
        with pytest.raises(StoreUnavailableError, match=f"{root} has vanished") as caught:
            call()
        assert (caught.value.exit_status, caught.value.fatal) == (1, True)
    assert not root.exists()
