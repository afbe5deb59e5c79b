"""When nothing more can be written: one clear error, nothing half done, and the same call works once there is room.

A limit on the size of files stands for the full disk: the system refuses the write all the same.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.evolution import apply, plan
from lakehouse.contracts.table import Table
from lakehouse.errors import StorageError
from lakehouse.gate.staging import stage, staged
from lakehouse.snapshot import Snapshot, open_delta
from lakehouse.tables import Rating, User
from lakehouse.upkeep.optimize import optimize
from lakehouse.upkeep.pins import pin, pins
from lakehouse.upkeep.restore import restore

Put = Callable[..., int]
DAY = date(1998, 3, 1)
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)


@contextmanager
def no_room() -> Iterator[None]:
    """No file may grow beyond a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def rating(user: int, stars: float = 4.0) -> Rating:
    return Rating(user_id=user, item_id=1, rating=stars, rated_at=NOON)


@pytest.fixture
def ratings(lake: Lakehouse, put: Put) -> Lakehouse:
    """Ratings in six small files, the last version published."""
    for number in range(1, 7):
        put(lake, [rating(number)])
    return lake


def stage_one(lake: Lakehouse) -> object:
    return stage(lake, Rating, pa.table({"user_id": [1]}), batch_id="b", day=DAY)


ACTS: dict[str, Callable[[Lakehouse], object]] = {
    "stage": stage_one,
    "create": lambda lake: create_table(lake, User.contract),
    "ledger": lambda lake: pin(lake, "ratings@3", holder="paper", reason="figure"),
    "optimize": lambda lake: optimize(lake, "ratings"),
    "restore": lambda lake: restore(lake, "ratings@3"),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_write_without_room_is_one_sentence_and_is_made_good_by_the_same_call(ratings: Lakehouse, act: str) -> None:
    before = open_delta(ratings.uri("ratings")).version()
    with no_room(), pytest.raises(StorageError) as caught:
        ACTS[act](ratings)
    assert "\n" not in str(caught.value)
    assert open_delta(ratings.uri("ratings")).version() == before
    assert ratings.latest(Rating).count() == 6
    assert staged(ratings, Rating, batch_id="b", day=DAY) is None
    assert [p.holder for p in pins(ratings)] == []
    ACTS[act](ratings)  # there is room again


def test_a_widening_without_room_leaves_the_table_as_it_was(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))
    write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating(1)]), mode="append")
    annotations = {**Rating.__annotations__, "source": str}
    body = {"__annotations__": annotations, "__doc__": Rating.__doc__, "__module__": Rating.__module__, "source": "web"}
    wider = type(Table)("Rating", (Table,), body, name="ratings")
    found = plan(lake, wider)
    assert found.verdict == "widening"
    with no_room(), pytest.raises(StorageError, match="'ratings' can't be changed"):
        apply(lake, found)
    assert Snapshot(lake.uri("ratings"), open_delta(lake.uri("ratings")).version(), Table).count() == 1
    assert apply(lake, plan(lake, wider)) is not None
