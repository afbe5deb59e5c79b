"""The store: an answer is stored once, whoever stores it, and never changed."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from models.llm.errors import ResponseStoreError
from models.llm.store import SCHEMA, Answer, ResponseStore


def answer(key: str, raw: str = "{}") -> Answer:
    return Answer(
        answer_key=key,
        component="c",
        model_digest="m",
        prompt_digest="p",
        schema_digest="s",
        sampling_digest="a",
        row_digest="r",
        input="{}",
        raw=raw,
        output=None,
        error="e",
        tokens_in=1,
        tokens_out=2,
        asked_at=datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
    )


def test_a_store_that_was_never_written_knows_nothing(tmp_path: Path) -> None:
    store = ResponseStore(str(tmp_path / "answers"))
    assert store.known(["k1"]) == {}
    assert not (tmp_path / "answers").exists()


def test_an_answer_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    store = ResponseStore(str(tmp_path / "answers"))
    assert store.append([answer("k1"), answer("k2")]) == 2
    assert store.known(["k2", "k3"]) == {"k2": answer("k2")}
    assert store.known([]) == {}


def test_a_table_from_before_the_later_columns_is_read_and_gets_them_with_the_next_answers(tmp_path: Path) -> None:
    old = [field for field in SCHEMA if field.name not in ("determinism", "batch", "place")]
    table = pa.Table.from_pylist([answer("k1").model_dump()], schema=pa.schema(old))
    write_deltalake(str(tmp_path / "answers"), table)
    store = ResponseStore(str(tmp_path / "answers"))
    assert store.known(["k1"]) == {"k1": answer("k1")}
    new = answer("k2").model_copy(update={"determinism": "greedy/x", "batch": "b", "place": 3})
    assert store.append([answer("k1", "again"), new]) == 1
    assert store.known(["k1", "k2"]) == {"k1": answer("k1"), "k2": new}
    assert {one.answer_key for one in store.of(["c"], "m")} == {"k1", "k2"}
    assert store.of(["other"], "m") == store.of(["c"], "other") == []


def test_storing_a_key_again_changes_nothing_and_commits_nothing(tmp_path: Path) -> None:
    store = ResponseStore(str(tmp_path / "answers"))
    store.append([answer("k1", "first")])
    version = DeltaTable(store.uri).version()
    assert store.append([answer("k1", "second")]) == 0
    assert store.append([answer("k1", "third"), answer("k2")]) == 1
    assert store.known(["k1"])["k1"].raw == "first"
    assert DeltaTable(store.uri).version() == version + 1


def test_a_writer_that_lost_the_race_drops_what_has_landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = ResponseStore(str(tmp_path / "answers")), ResponseStore(str(tmp_path / "answers"))
    slow.append([answer("k0")])
    seen = slow._open()
    fast.append([answer("k1", "fast")])
    # The slow writer searched the table before the fast one wrote.
    opened = iter([seen])
    monkeypatch.setattr(slow, "_open", lambda: next(opened, None) or ResponseStore._open(slow))
    assert slow.append([answer("k1", "slow"), answer("k2")]) == 1
    rows = DeltaTable(slow.uri).to_pyarrow_table().to_pylist()
    assert sorted(row["answer_key"] for row in rows) == ["k0", "k1", "k2"]
    assert fast.known(["k1"])["k1"].raw == "fast"


def test_writers_side_by_side_store_each_key_once(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(12)]
    barrier = threading.Barrier(3)
    stored: list[int] = []

    def write(name: str) -> None:
        barrier.wait()
        store = ResponseStore(str(tmp_path / "answers"))
        stored.append(sum(store.append([answer(key, name) for key in keys[i : i + 4]]) for i in range(0, 12, 4)))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = DeltaTable(str(tmp_path / "answers")).to_pyarrow_table().to_pylist()
    assert sorted(row["answer_key"] for row in rows) == sorted(keys)
    assert sum(stored) == len(keys)


def test_a_writer_that_always_loses_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResponseStore(str(tmp_path / "answers"))
    store.append([answer("k0")])
    old = DeltaTable(store.uri, version=0)
    store.append([answer("k1")])
    monkeypatch.setattr(store, "_open", lambda: old)
    monkeypatch.setattr(store, "_moved_on", lambda seen: True)
    with pytest.raises(ResponseStoreError, match="1 answer"):
        store.append([answer("k2")])


def test_times_are_stored_in_utc_microseconds(tmp_path: Path) -> None:
    store = ResponseStore(str(tmp_path / "answers"))
    store.append([answer("k1")])
    field = DeltaTable(store.uri).to_pyarrow_table().schema.field("asked_at")
    assert field.type == pa.timestamp("us", tz="UTC") == SCHEMA.field("asked_at").type


def test_another_table_is_not_taken_for_answers(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), pa.table({"answer_key": ["k1"], "x": [1]}))
    with pytest.raises(ResponseStoreError, match="component"):
        ResponseStore(str(tmp_path)).known(["k1"])
    with pytest.raises(ResponseStoreError, match="component"):
        ResponseStore(str(tmp_path)).append([answer("k1")])


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResponseStoreError, match="could not be written"):
        ResponseStore(str(tmp_path / "file" / "answers")).append([answer("k1")])
