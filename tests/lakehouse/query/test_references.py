from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import NotPublishedError, ReferenceSyntaxError, TagError, UnknownTableError, UnknownVersionError
from lakehouse.ledger import Publication
from lakehouse.query import pointer
from lakehouse.query.sql import query
from lakehouse.query.tags import tag, tagged_version, tags, untag
from lakehouse.storage import LocalStorage
from lakehouse.tables import Rating

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def publication(version: int, *, restored_from: int | None = None, published: bool = True) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}@{version}",
        table_name="ratings",
        batch_id=str(version),
        kind="batch" if restored_from is None else "restore",
        restored_from=restored_from,
        day=date(1998, 3, 1) + timedelta(days=version if restored_from is None else restored_from),
        version=version,
        published=published,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=version + 1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=START + timedelta(hours=version),
    )


@pytest.fixture
def ratings(lake: Lakehouse) -> Lakehouse:
    """Ratings at versions 0 to 3, each published an hour and a day after the one before."""
    for user in range(4):
        rating = Rating(user_id=user, item_id=7, rating=4.0, rated_at=datetime(1998, 3, 1, 12, tzinfo=UTC))
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating]), mode="append")
    for version in range(4):
        lake.ledger.append([publication(version)])
    return lake


def restore(lake: Lakehouse, version: int, target: int) -> None:
    DeltaTable(lake.uri("ratings")).restore(target)
    lake.ledger.append([publication(version, restored_from=target)])


def test_an_instant_is_what_readers_got_then_by_the_clock_of_the_ledger(ratings: Lakehouse) -> None:
    versions = {
        text: ratings.resolve(f"ratings@{text}").version
        for text in (
            "2026-01-01T12:00:00Z",
            "2026-01-01T13:59:59.999999Z",
            "2026-01-01T14:00Z",
            "2026-01-01T19:30:00+05:30",
            "2030-01-01T00:00:00Z",
        )
    }
    assert list(versions.values()) == [0, 1, 2, 2, 3]
    with pytest.raises(NotPublishedError, match="2026-01-01T11:59:59"):
        ratings.resolve("ratings@2026-01-01T11:59:59Z")
    for text in ("2026-01-01T12:00:00", "2026-13-01T12:00:00Z", "0001-01-01T00:00:00+23:59"):
        with pytest.raises(ReferenceSyntaxError):
            ratings.resolve(f"ratings@{text}")


def test_what_a_restore_withdrew_is_no_days_version_and_still_that_of_its_instant(ratings: Lakehouse) -> None:
    restore(ratings, 4, 1)
    assert ratings.latest(Rating).version == 4
    assert ratings.resolve("ratings@1998-03-03").version == 4
    assert ratings.resolve("ratings@1998-03-01").version == 0
    assert ratings.resolve("ratings@2026-01-01T15:30:00Z").version == 3
    lines = {line.version: (line.published, line.withdrawn, line.kind) for line in ratings.history("ratings")}
    assert lines == {
        4: (True, False, "restore"),
        3: (True, True, "batch"),
        2: (True, True, "batch"),
        1: (True, False, "batch"),
        0: (True, False, "batch"),
    }


# Tags


def test_a_tag_names_a_version_moves_and_goes(ratings: Lakehouse) -> None:
    assert tag(ratings, "ratings@1", "golden").version == 1
    tag(ratings, "ratings", "fresh")
    assert ratings.resolve("ratings@golden").version == 1
    assert query(ratings, "SELECT count(*) AS n FROM ratings@golden, Ratings@FRESH")["n"].to_pylist() == [8]
    tag(ratings, "ratings@golden", "silver")
    tag(ratings, "ratings@2", "golden")
    assert {row.tag: row.version for row in tags(ratings, "ratings")} == {"golden": 2, "silver": 1, "fresh": 3}
    assert untag(ratings, "ratings", "golden") == 2
    with pytest.raises(TagError, match=r"no tag 'golde'.*Tags: fresh, silver\."):
        tagged_version(ratings, "ratings", "golde")
    with pytest.raises(TagError, match="no tag 'golden'"):
        ratings.resolve("ratings@golden")
    tag(ratings, "ratings@0", "golden")
    assert ratings.resolve("ratings@golden").version == 0
    assert next(line for line in ratings.history("ratings") if line.version == 1).tags == ["silver"]


@pytest.mark.parametrize("word", ["", "Golden", "1a", "latest", "a-b", "a b", "a@b", "a'b", "é", "a" * 61])
def test_what_can_not_stand_in_a_reference_can_not_be_a_tag(ratings: Lakehouse, word: str) -> None:
    with pytest.raises(TagError, match="can't be a tag"):
        tag(ratings, "ratings@1", word)


def test_only_versions_of_data_that_are_there_are_tagged(ratings: Lakehouse) -> None:
    with pytest.raises(UnknownVersionError):
        tag(ratings, "ratings@9", "golden")
    with pytest.raises(UnknownTableError):
        tag(ratings, "rating", "golden")
    with pytest.raises(TagError, match="belongs to the ledger"):
        tag(ratings, "publications@1", "golden")
    with pytest.raises(ReferenceSyntaxError, match="system table"):
        ratings.resolve("publications@golden")
    assert tags(ratings) == []


# The pointer to what is published


def test_the_pointer_follows_every_publication(ratings: Lakehouse) -> None:
    assert pointer.latest(ratings.storage) == {"ratings": 3}
    restore(ratings, 4, 1)
    assert pointer.latest(ratings.storage) == {"ratings": 4}
    ratings.ledger.append([publication(5, published=False)])
    assert pointer.latest(ratings.storage) == {"ratings": 4}


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"publications": "x", "latest": {}}', b'{"latest": 3}'])
def test_a_pointer_that_is_gone_or_damaged_is_not_needed(ratings: Lakehouse, content: bytes | None) -> None:
    path = Path(ratings.root) / "_ledger/_published.json"
    assert path.exists()
    path.unlink() if content is None else path.write_bytes(content)
    assert ratings.latest(Rating).version == 3


def test_an_old_pointer_is_not_believed(ratings: Lakehouse) -> None:
    path = Path(ratings.root) / "_ledger/_published.json"
    old = path.read_bytes()
    write_deltalake(ratings.uri("ratings"), to_arrow(Rating, []), mode="append")
    ratings.ledger.append([publication(4)])
    path.write_bytes(old)  # as a kill between the ledger's commit and the pointer leaves it
    assert ratings.latest(Rating).version == 4
    assert path.read_bytes() == old  # who reads writes nothing
    DeltaTable(ratings.uri("publications")).optimize.compact()
    assert ratings.latest(Rating).version == 4


def test_the_latest_version_is_found_without_reading_the_ledger(
    ratings: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("lakehouse.ledger.Ledger.read_at", refuse)
    monkeypatch.setattr(LocalStorage, "tables", refuse)
    assert ratings.latest(Rating).version == 3
    assert ratings.resolve("ratings@2").version == 2


def test_a_version_is_opened_once(ratings: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counted(uri: str, version: int | None = None) -> DeltaTable:
        opened.append(version)
        return DeltaTable(uri, version=version)

    monkeypatch.setattr("lakehouse.snapshot.open_delta", counted)
    snapshot = ratings.resolve("ratings@2")
    assert (snapshot.count(), snapshot.arrow().num_rows, len(snapshot.table_id)) == (3, 3, 36)
    assert opened == [2]
