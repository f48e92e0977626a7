"""Verification names whatever is damaged, and repair re-queues exactly that."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_store.backends.local import LocalBackend
from regroup_store.errors import GapError, StoreError, StoreUsageError
from regroup_store.format.element import BlockElement
from regroup_store.format.fingerprint import seal, unseal
from regroup_store.format.store import Store
from regroup_store.kinds.banks import BankSpec, create_bank, read_bank
from regroup_store.kinds.indexes import COLUMNS, SampleIndex
from regroup_store.maintenance.repair import apply_repair, kept_elements, plan_repairs
from regroup_store.maintenance.verify import select_locations, verify_store
from tests.store.elements import (
    FLOATS,
    INTS,
    copy_into,
    fill,
    make,
    memory_store,
    snapshot,
    spec,
    table,
    values,
    written_on_each,
)
from tests.store.test_damage import empty, flip, truncate

CHUNK, INT_CHUNK = f"{FLOATS}/c/1/0/0", f"{INTS}/c/1/0"
PART, COMMIT = "samples/part-00001.parquet", "commits/00001.json"
BANK = BankSpec("tiny", {"features": "b" * 64}, (("conv-1", 3), ("logits", 2)), ("cat", "dog"))


def write_index(store: Store) -> SampleIndex:
    columns = {
        "sample_id": ["a", "b"], "label": [0, 1], "locator": ["a.png", "b.png"], "digest": ["", ""],
    }  # fmt: skip
    rows = pa.table(columns, schema=COLUMNS)
    return SampleIndex.write(store, "pets", [rows], ("cat", "dog"), "imagefolder:pets")


def write_bank(store: Store) -> str:
    writer = create_bank(store, BANK)
    for number, (tap, channels) in enumerate(BANK.taps):
        writer.write_tap(tap, np.full((2, 2, channels), 0.5 + number))
    return writer.finish([3, 4])


def features(store: Store, index: SampleIndex) -> BlockElement:
    """Features of the index: two arrays, three blocks, finalised."""
    element = BlockElement.create(store, spec(inputs=_inputs(index)), {})
    fill(element).finalise({"note": "long enough to be flipped within"})
    return element


def _inputs(index: SampleIndex) -> dict[str, object]:
    return {"model": {"name": "tiny"}, "source": {"index": index.fingerprint}}


def write_whole(store: Store) -> None:
    """An index, features of it and a bank, of features that are elsewhere."""
    features(store, write_index(store))
    write_bank(store)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, bytes]]:
    return written_on_each(write_whole, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def whole(any_store: Store, written: dict[bool, dict[str, bytes]]) -> Store:
    return copy_into(any_store, written)


def damage(store: Store, kind: str, name: str, how: Callable[[bytes], bytes] | None) -> str:
    """Change (or, with None, delete) something of the only element of a kind; return its key."""
    (location,) = [each for each in select_locations(store) if each.kind == kind]
    key = location.key(name)
    if how is None:
        store.backend.delete(key)
    else:
        store.backend.replace(key, how(store.backend.read(key)))
    return key


def told(store: Store, *refs: str) -> list[tuple[str, str, int | None, str]]:
    """Level, what, block and path of every finding but the bank's absent parent."""
    findings = verify_store(store, refs)
    return [(f.level, f.what, f.block, f.path) for f in findings if f.what != "parent"]


def repair(store: Store, *refs: str) -> list[str]:
    """Repair everything; return the keys that were removed."""
    repairs = plan_repairs(store, verify_store(store, refs))
    for each in repairs:
        apply_repair(store, each)
    return [key for each in repairs for key in each.removed]


def test_a_whole_store_has_only_the_note_on_the_absent_features(whole: Store) -> None:
    (finding,) = verify_store(whole)
    assert (finding.level, finding.what, finding.kind) == ("note", "parent", "banks")
    assert "features bbbbbbbbbbbbbbbb" in finding.problem
    assert plan_repairs(whole, [finding]) == []


@pytest.mark.parametrize("how", [truncate, empty, flip, None])
@pytest.mark.parametrize(
    ("kind", "name", "what", "block"),
    [
        ("features", CHUNK, "chunk", 1),
        ("features", INT_CHUNK, "chunk", 1),
        ("features", PART, "part", 1),
        ("features", COMMIT, "commit", 1),
        ("features", f"{FLOATS}/zarr.json", "metadata", None),
        ("features", "accumulators.zarr/zarr.json", "metadata", None),
        ("features", "manifest.json", "manifest", None),
        ("indexes", "part-00000.parquet", "part", None),
        ("banks", "mixtures.zarr/logits/zarr.json", "metadata", None),
    ],
)
def test_whatever_is_damaged_is_named_and_nothing_else(
    whole: Store,
    kind: str,
    name: str,
    what: str,
    block: int | None,
    how: Callable[[bytes], bytes] | None,
) -> None:
    if name.endswith("zarr.json") and how is flip:
        how = lambda data: data.replace(b'"node_type"', b'"node_typf"')  # noqa: E731
    key = damage(whole, kind, name, how)
    assert told(whole) == [("damaged", what, block, key)]


@pytest.mark.parametrize("how", [truncate, flip, None])
def test_a_damaged_bank_chunk_is_named_by_its_array(
    whole: Store, how: Callable[[bytes], bytes] | None
) -> None:
    key = damage(whole, "banks", "mixtures.zarr/logits/c/1/0/0", how)
    assert told(whole) == [("damaged", "chunk", None, key.removesuffix("/c/1/0/0"))]


@pytest.mark.parametrize("how", [truncate, flip])
def test_a_damaged_summary_is_written_again_without_any_block(
    whole: Store, how: Callable[[bytes], bytes]
) -> None:
    key = damage(whole, "features", "summary.json", how)
    assert told(whole) == [("damaged", "summary", None, key)]
    assert repair(whole) == [key]
    assert told(whole) == []
    assert BlockElement.open(whole, "features", "tiny").missing() == []


@pytest.mark.parametrize("name", ["manifest.json"])
@pytest.mark.parametrize("kind", ["indexes", "banks"])
def test_a_damaged_manifest_of_an_index_or_a_bank(whole: Store, kind: str, name: str) -> None:
    assert told(whole) == []
    key = damage(whole, kind, name, flip)
    assert ("damaged", "manifest", None, key) in told(whole)


def test_it_never_stops_at_the_first(whole: Store) -> None:
    keys = [
        damage(whole, "indexes", "part-00000.parquet", flip),
        damage(whole, "features", CHUNK, flip),
        damage(whole, "features", INT_CHUNK, None),
        damage(whole, "features", PART, truncate),
        damage(whole, "features", "commits/00002.json", empty),
        damage(whole, "banks", "mixtures.zarr/conv-1/c/0/0/0", flip).removesuffix("/c/0/0/0"),
    ]
    assert [path for *_, path in told(whole)] == keys


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_byte_of_a_block_changes_unnoticed(data: st.DataObject) -> None:
    store = memory_store()
    features(store, write_index(store))
    held = [key for key in store.backend.keys("") if not key.endswith("zarr.json")]
    key = data.draw(st.sampled_from(held))
    whole = bytearray(store.backend.read(key))
    position = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    whole[position] ^= bit
    store.backend.replace(key, bytes(whole))
    bad = [f for f in verify_store(store) if f.level != "note"]
    # JSON has spellings that do not count: white space, "\u0041" for "A", the case of \u escapes.
    assert [f.path for f in bad] == [key] or (bad == [] and key.endswith(".json") and _same(store))


def _same(store: Store) -> bool:
    """Whether all is read as it was written, in spite of the byte that changed."""
    element = BlockElement.open(store, "features", "tiny")
    clean = memory_store()
    other = features(clean, write_index(clean))
    return (
        all(element.commit(b) == other.commit(b) for b in range(3))
        and element.summary() == other.summary()
        and element.inputs == other.inputs
    )


@pytest.mark.parametrize("how", [truncate, flip, None])
@pytest.mark.parametrize("name", [CHUNK, INT_CHUNK, PART, COMMIT])
def test_repair_requeues_the_block_and_the_next_run_restores_every_byte(
    whole: Store, name: str, how: Callable[[bytes], bytes] | None
) -> None:
    before = snapshot(whole)
    damage(whole, "features", name, how)
    element = BlockElement.open(whole, "features", "tiny")
    folder = f"features/{element.ref}"
    assert repair(whole) == [f"{folder}/summary.json", f"{folder}/{COMMIT}"]
    assert [level for level, *_ in told(whole)] == ["note", "note"]  # a gap, and values left there
    again = BlockElement.open(whole, "features", "tiny")
    assert again.missing() == [1]
    assert again.write_block(1, values(again, 1), table(again, 1), {})
    again.finalise(unseal(before[f"{folder}/summary.json"], "summary"))
    assert snapshot(whole) == before
    assert told(whole) == []


@pytest.mark.parametrize("name", [f"{FLOATS}/zarr.json", "accumulators.zarr/zarr.json"])
def test_zarr_metadata_is_written_again_at_once(whole: Store, name: str) -> None:
    before = snapshot(whole)
    damage(whole, "features", name, truncate)
    assert repair(whole) == []
    assert snapshot(whole) == before


def test_chunks_of_another_size_than_the_blocks_are_damage(whole: Store) -> None:
    key = damage(
        whole,
        "features",
        f"{INTS}/zarr.json",
        lambda data: _swap(data, b"4,", b"5,", "chunk_shape"),
    )
    assert told(whole) == [("damaged", "metadata", None, key)]


def _swap(data: bytes, old: bytes, new: bytes, after: str) -> bytes:
    head, word, tail = data.partition(after.encode())
    return head + word + tail.replace(old, new, 1)


@pytest.mark.parametrize("block_rows", [4, 5, 10])
def test_a_lost_manifest_is_made_again_over_the_same_blocks(whole: Store, block_rows: int) -> None:
    element = BlockElement.open(whole, "features", "tiny")
    key = damage(whole, "features", "manifest.json", flip)
    assert repair(whole) == [key]
    assert told(whole) == [("damaged", "manifest", None, key)]
    index = SampleIndex.open(whole, "pets")
    again = BlockElement.create(whole, spec(block_rows=block_rows, inputs=_inputs(index)), {})
    assert (again.plan, again.missing()) == (element.plan, [])
    assert told(whole) == []
    np.testing.assert_array_equal(again.read_array(FLOATS, 2), values(again, 2)[FLOATS])


def test_commits_of_another_block_plan_are_damage(whole: Store) -> None:
    key = damage(whole, "features", COMMIT, _with_rows(3))
    assert told(whole) == [("damaged", "commit", 1, key)]


def _with_rows(rows: int) -> Callable[[bytes], bytes]:
    return lambda data: seal({**unseal(data, "commit"), "rows": rows})


def test_a_damaged_index_is_written_again(whole: Store) -> None:
    before = snapshot(whole)
    key = damage(whole, "indexes", "part-00000.parquet", flip)
    assert repair(whole) == [key.replace("part-00000.parquet", "manifest.json")]
    # Until then the features' parent is absent, which is a note.
    assert [f.what for f in verify_store(whole) if f.kind == "features"] == ["parent"]
    write_index(whole)
    assert told(whole) == []
    assert snapshot(whole)[key] == before[key]


@pytest.mark.parametrize(
    "name", ["mixtures.zarr/logits/c/0/0/0", "mixtures.zarr/logits/zarr.json", "manifest.json"]
)
def test_a_damaged_bank_is_written_again_whole(whole: Store, name: str) -> None:
    damage(whole, "banks", "mixtures.zarr/conv-1/zarr.json", truncate)
    damage(whole, "banks", name, truncate)
    removed = repair(whole)
    assert removed[0].endswith("/manifest.json")
    write_bank(whole)
    assert told(whole) == []
    assert read_bank(whole, "tiny").mixtures[1].tolist() == np.full((2, 2, 2), 1.5).tolist()


def test_what_was_made_of_damaged_blocks_is_named_and_kept(whole: Store) -> None:
    element = BlockElement.open(whole, "features", "tiny")
    inputs = {"features": element.fingerprint, "bank": "c" * 64}
    votes = dataclasses.replace(spec(inputs=inputs), kind="votes")
    scored = BlockElement.create(whole, votes, {})
    damage(whole, "features", CHUNK, flip)
    (plan,) = plan_repairs(whole, verify_store(whole))
    assert plan.blocks == (1,)
    assert [each.folder for each in kept_elements(whole, plan)] == [f"votes/{scored.ref}"]
    damage(whole, "indexes", "part-00000.parquet", flip)
    index_plan, _ = plan_repairs(whole, verify_store(whole))
    kept = [each.folder for each in kept_elements(whole, index_plan)]
    assert kept == [f"features/{element.ref}", f"votes/{scored.ref}"]


def test_gaps_and_what_an_attempt_left_are_notes(any_store: Store) -> None:
    element = fill(make(any_store), 0, 1)
    any_store.backend.delete(f"features/{element.ref}/{COMMIT}")
    found = list(verify_store(any_store))
    assert [(f.level, f.what) for f in found] == [("note", "gap"), ("note", "leftover")]
    assert "2 of 3 blocks are not committed (1-2)" in found[0].problem
    assert "(1)" in found[1].problem
    assert plan_repairs(any_store, found) == []


def test_begun_indexes_and_partial_files_are_notes(store: Store) -> None:
    element = fill(make(store))
    store.backend.replace("indexes/pets-0123456789abcdef/part-00000.parquet", b"half")
    assert isinstance(store.backend, LocalBackend)
    partial = store.backend.root / "features" / element.ref / "commits" / ".x.json.1f.partial"
    partial.write_bytes(b"{")
    assert told(store) == [
        ("note", "leftover", None, "indexes/pets-0123456789abcdef/manifest.json"),
        ("note", "leftover", None, f"features/{element.ref}/commits/.x.json.1f.partial"),
    ]


def test_a_reader_keeps_a_bounded_number_of_commit_records(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regroup_store.format.element_reader.COMMITS_KEPT", 2)
    element = fill(make(store))
    for block in range(3):
        element.read_table(block)
    for block in range(3):
        store.backend.delete(f"features/{element.ref}/commits/{block:05d}.json")
    assert [element.commit(block).block for block in (1, 2)] == [1, 2]
    with pytest.raises(GapError):
        element.commit(0)


def test_refs_choose_what_is_checked(whole: Store) -> None:
    damage(whole, "features", CHUNK, flip)
    damage(whole, "banks", "manifest.json", flip)
    assert told(whole, "pets") == []
    assert [path.split("/")[0] for *_, path in told(whole, "tiny")] == ["features", "banks"]
    assert [path.split("/")[0] for *_, path in told(whole, "banks/tiny")] == ["banks"]
    with pytest.raises(StoreUsageError, match="there is no 'votes/tiny'"):
        list(verify_store(whole, ["votes/tiny"]))


def test_a_manifest_of_another_version_or_place_is_left_alone(whole: Store) -> None:
    newer = damage(
        whole, "features", "manifest.json", lambda d: seal({**unseal(d, ""), "schema_version": 9})
    )
    moved = "banks/tiny-0123456789abcdef/manifest.json"
    (bank,) = select_locations(whole, ["banks/tiny"])
    whole.backend.replace(moved, whole.backend.read(bank.key("manifest.json")))
    found = told(whole)
    assert ("unreadable", "manifest", None, newer) in found
    assert ("unreadable", "manifest", None, moved) in found
    assert repair(whole) == []


def test_bytes_that_cannot_be_read_are_not_called_damaged(
    whole: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that broke must never cost a committed block."""
    read = type(whole.backend).read
    damage(whole, "features", CHUNK, flip)

    def broken(backend: object, key: str) -> bytes:
        if key.endswith((CHUNK, PART)):
            raise StoreError(f"cannot read {key}: connection reset")
        return read(backend, key)  # type: ignore[arg-type]

    monkeypatch.setattr(type(whole.backend), "read", broken)
    assert [(level, what) for level, what, *_ in told(whole)] == [
        ("unreadable", "chunk"),
        ("unreadable", "part"),
    ]
    assert repair(whole) == []
