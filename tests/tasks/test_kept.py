"""Cached answers: what they may be given for, and what is written down about them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import pytest
from flytekit.core.local_cache import LocalTaskCache
from pydantic import BaseModel

from lakehouse import Lakehouse
from lakehouse.ledger import Cost
from tasks.kept import Artifact, Destination, without_places
from tasks.meter import spent
from tasks.typed import task

CALLS: list[str] = []
PLACE = {"now": "one"}


class Numbers(BaseModel):
    values: dict[str, float]


class Made(BaseModel):
    """Something on disk."""

    path: Annotated[str, Artifact()]
    digest: str


class Sent(BaseModel):
    """Something that went elsewhere."""

    to: Annotated[str, Destination(lambda: PLACE["now"])]


@pytest.fixture(autouse=True)
def no_calls_yet() -> None:
    CALLS.clear()
    PLACE["now"] = "one"


@task()
def add_up(numbers: Numbers, weights: dict[str, float], plain: dict) -> float:  # type: ignore[type-arg]
    CALLS.append("add_up")
    return sum(numbers.values.values()) + sum(weights.values()) + len(plain)


@task()
def names(numbers: Numbers) -> Numbers:
    """Gives back an object whose keys are in the order of the call."""
    return Numbers(values=dict(reversed(numbers.values.items())))


@task()
def make(folder: str) -> list[Made]:
    CALLS.append("make")
    made = Path(folder) / "made"
    made.mkdir(parents=True, exist_ok=True)
    return [Made(path=str(made), digest="d")]


@task()
def send(what: str) -> Sent:
    CALLS.append("send")
    spent(3, 4)
    return Sent(to=PLACE["now"])


def test_the_order_of_keys_changes_no_answer(lake: Lakehouse) -> None:
    for order in (["a", "b"], ["b", "a"]):
        values = {name: float(len(name)) for name in order}
        nested = {name: dict.fromkeys(order, 1) for name in order}
        assert add_up(numbers=Numbers(values=values), weights=values, plain=nested) == 6
    assert CALLS == ["add_up"]
    add_up(numbers=Numbers(values={"a": 1.0, "b": 2.0}), weights={}, plain={})
    assert CALLS == ["add_up", "add_up"]


def test_an_answer_is_handed_on_with_sorted_keys(lake: Lakehouse) -> None:
    assert list(names(numbers=Numbers(values={"b": 1.0, "a": 2.0})).values) == ["a", "b"]


def test_an_answer_whose_artifact_is_gone_is_made_again(lake: Lakehouse, tmp_path: Path) -> None:
    for _ in range(2):
        (made,) = make(folder=str(tmp_path))
    assert CALLS == ["make"]
    shutil.rmtree(made.path)
    assert make(folder=str(tmp_path)) == [made]
    assert Path(made.path).is_dir()
    make(folder=str(tmp_path))
    assert CALLS == ["make", "make"]
    first, second = (json.loads(row.key or "") for row in lake.ledger.read(Cost))
    assert first["gone"] == ""
    assert second["gone"] == f"{made.path} is gone"


def test_an_answer_that_went_elsewhere_is_given_again_only_while_the_place_is_the_same(lake: Lakehouse) -> None:
    send(what="x")
    assert send(what="x").to == "one"
    PLACE["now"] = "two"
    assert send(what="x").to == "two"
    assert CALLS == ["send", "send"]


def test_an_execution_leaves_its_key_its_answer_and_what_it_used(lake: Lakehouse) -> None:
    send(what="x")
    (row,) = lake.ledger.read(Cost)
    key = json.loads(row.key or "")
    assert key["inputs"] == {"what": "x"}
    assert "test_kept.py" in key["code"] or any(name.endswith("test_kept.py") for name in key["code"])
    assert key["engines"]["python"].startswith("3.")
    assert len(key["lock"]) == 64
    assert json.loads(row.answer or "") == {"to": "one"}
    assert (row.tokens_in, row.tokens_out) == (3, 4)
    assert row.read_bytes is not None and row.read_bytes >= 0


def test_places_are_not_what_two_machines_compare(tmp_path: Path) -> None:
    assert without_places([Made(path=str(tmp_path), digest="d")]) == [{"digest": "d"}]


def test_a_lake_from_before_a_ledger_column_gets_it_with_the_next_row(lake: Lakehouse) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    send(what="x")
    rows = lake.ledger._newest(Cost).arrow()  # type: ignore[union-attr]
    old = rows.drop_columns(["key", "answer", "read_bytes", "written_bytes", "tokens_in", "tokens_out", "gpu_seconds"])
    shutil.rmtree(lake.ledger.uri(Cost))
    write_deltalake(lake.ledger.uri(Cost), pa.table(old))
    assert [row.key for row in lake.ledger.read(Cost)] == [None]
    LocalTaskCache.clear()
    send(what="x")
    assert [row.key is None for row in lake.ledger.read(Cost)] == [True, False]
