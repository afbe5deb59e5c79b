"""A small world for the gate's tests: five users and five movies, published without Spark, that ratings refer to.

And a table that has a column of every kind.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Protocol

import pytest
from deltalake import write_deltalake
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lakehouse import EventTime, Key, Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.table import Table
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie, User

DAY = date(1998, 3, 1)
LONG_AGO = datetime(1997, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with users 1 to 5 and movies 1 to 5; copy it."""
    lake = Lakehouse.open(tmp_path_factory.mktemp("seed") / "lake", create=True)
    users = [
        User(user_id=n, age=30, gender="F", occupation="artist", zip_code="02139", joined_at=LONG_AGO)
        for n in range(1, 6)
    ]
    movies = [Movie(item_id=n, title=f"Movie {n}", year=1996, genres=["Drama"], added_at=LONG_AGO) for n in range(1, 6)]
    for rows in (users, movies):
        _publish_without_spark(lake, rows)
    return Path(lake.root)


def _publish_without_spark(lake: Lakehouse, rows: Sequence[Table]) -> None:
    contract = type(rows[0]).contract
    create_table(lake, contract)
    write_deltalake(lake.uri(contract.table), to_arrow(type(rows[0]), rows), mode="append")
    publication = Publication(
        publication_id=f"{contract.table}/seed",
        table_name=contract.table,
        batch_id="seed",
        day=DAY,
        version=open_delta(lake.uri(contract.table)).version(),
        published=True,
        rows_in=len(rows),
        rows_published=len(rows),
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=len(rows),
        failed_checks=[],
        broken_rules="{}",
        fingerprint=contract.fingerprint,
        published_at=LONG_AGO,
    )
    lake.ledger.append([publication])


class Put(Protocol):
    """Publishes rows as one batch, by delta-rs alone: a row whose key is there takes its place."""

    def __call__(self, lake: Lakehouse, rows: Sequence[Table], *, published: bool = True) -> int: ...


@pytest.fixture
def put() -> Put:
    def put(lake: Lakehouse, rows: Sequence[Table], *, published: bool = True) -> int:
        """Merge the rows and return the version they ended in."""
        row_model = type(rows[0])
        contract = row_model.contract
        create_table(lake, contract)
        table = open_delta(lake.uri(contract.table))
        merge = table.merge(
            to_arrow(row_model, rows),
            predicate=" AND ".join(f"stored.{name} = fresh.{name}" for name in contract.key),
            source_alias="fresh",
            target_alias="stored",
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
        batch_id = f"put-{table.version()}"
        publication = Publication(
            publication_id=f"{contract.table}/{batch_id}@{table.version()}",
            table_name=contract.table,
            batch_id=batch_id,
            day=DAY,
            version=table.version(),
            published=published,
            rows_in=len(rows),
            rows_published=len(rows),
            rows_quarantined=0,
            rows_duplicate=0,
            rows_total=open_delta(lake.uri(contract.table)).count(),
            failed_checks=[],
            broken_rules="{}",
            fingerprint=contract.fingerprint,
            published_at=datetime.now(UTC),
        )
        lake.ledger.append([publication])
        return table.version()

    return put


class Mood(enum.StrEnum):
    CALM = "calm"
    WILD = "wild"


class Maker(BaseModel):
    """Who made a part."""

    name: Annotated[str, Field(min_length=1, max_length=9, description="Its name.")]
    founded: date | None


class Part(BaseModel):
    """A part of a thing, with the rules that a column may have."""

    code: Annotated[str, Field(pattern="^[A-Z]{1,3}$")]
    price: Annotated[Decimal, Field(ge=0, max_digits=9, decimal_places=2)]
    weight: Annotated[float | None, Field(gt=0)]
    made_at: datetime
    maker: Maker | None
    sizes: Annotated[list[int], Field(max_length=3)]
    mood: Mood | None


@pytest.fixture(scope="session")
def every_kind() -> Iterator[type[Table]]:
    """A row model with every kind of column and every rule that holds for one value."""
    declared = dict(Table._registry)

    class EveryKind(Table, name="every_kind"):
        """All that a column can be."""

        number: Annotated[int, Key(), Field(ge=-5, le=5000, description="Its number.")]
        code: Annotated[str, Key(), Field(min_length=1, max_length=9)]
        even: Annotated[int | None, Field(multiple_of=2)]
        share: Annotated[float, Field(gt=0, lt=1)]
        level: float | None
        price: Annotated[Decimal, Field(ge=0, max_digits=9, decimal_places=2)]
        ratio: Annotated[Decimal | None, Field(max_digits=4, decimal_places=4)]
        huge: Annotated[Decimal, Field(max_digits=38, decimal_places=0)]
        tiny: Annotated[Decimal, Field(max_digits=12, decimal_places=10)]
        ready: bool
        sure: bool | None
        note: str | None
        plate: Annotated[str, Field(pattern="^[A-Z]{1,3}-[0-9]+$")]
        mood: Mood
        size: Literal["s", "l"] | None
        born: date
        left: date | None
        at: Annotated[datetime, EventTime()]
        until: datetime | None
        tags: Annotated[list[str], Field(max_length=3)]
        scores: Annotated[list[float] | None, Field(min_length=1)]
        grid: list[list[int]]
        maker: Annotated[Maker, Field(description="Who made it.")]
        spare: Part | None
        parts: Annotated[list[Part], Field(max_length=2)]

    yield EveryKind
    Table._registry.clear()
    Table._registry.update(declared)


@pytest.fixture(scope="session")
def every_row(every_kind: type[Table]) -> st.SearchStrategy[Table]:
    """Rows of it, up to the ends of what each engine keeps; floats that JSON can write."""
    text = st.text(max_size=5)  # any but surrogates, which UTF-8 has not
    instants = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1), timezones=st.just(UTC))
    floats = st.floats(allow_nan=False, allow_infinity=False)
    days = st.dates(date(1700, 1, 1), date(9999, 12, 31))
    int64 = st.integers(-(2**63), 2**63 - 1)

    def digits(before: int, after: int, *, signed: bool = True) -> st.SearchStrategy[Decimal]:
        most = 10 ** (before + after) - 1
        return st.integers(-most if signed else 0, most).map(lambda whole: Decimal(f"{whole}E-{after}"))

    makers = st.fixed_dictionaries({"name": st.text(min_size=1, max_size=9), "founded": st.none() | days})
    parts = st.fixed_dictionaries(
        {
            "code": st.sampled_from(["A", "XYZ"]),
            "price": digits(7, 2, signed=False),
            "weight": st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
            "made_at": instants,
            "maker": st.none() | makers,
            "sizes": st.lists(int64, max_size=3),
            "mood": st.none() | st.sampled_from(Mood),
        }
    )
    return st.builds(
        every_kind.model_validate,
        st.fixed_dictionaries(
            {
                "number": st.integers(-5, 5000),
                "code": st.text(min_size=1, max_size=9),
                "even": st.none() | st.integers(-(2**62), 2**62 - 1).map(lambda half: 2 * half),
                "share": st.floats(0, 1, exclude_min=True, exclude_max=True),
                "level": st.none() | floats,
                "price": digits(7, 2, signed=False),
                "ratio": st.none() | digits(0, 4),
                "huge": digits(38, 0),
                "tiny": digits(2, 10),
                "ready": st.booleans(),
                "sure": st.none() | st.booleans(),
                "note": st.none() | text,
                "plate": st.sampled_from(["A-1", "ABC-007"]),
                "mood": st.sampled_from(Mood),
                "size": st.sampled_from(["s", "l", None]),
                "born": days,
                "left": st.none() | days,
                "at": instants,
                "until": st.none() | instants.map(lambda at: at + timedelta(microseconds=1)),
                "tags": st.lists(text, max_size=3),
                "scores": st.none() | st.lists(floats, min_size=1, max_size=3),
                "grid": st.lists(st.lists(int64, max_size=2), max_size=2),
                "maker": makers,
                "spare": st.none() | parts,
                "parts": st.lists(parts, max_size=2),
            }
        ),
    )
