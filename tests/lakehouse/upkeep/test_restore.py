from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Lakehouse
from lakehouse.errors import NotPublishedError, RestoreError, TableBusyError, UnknownVersionError
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Rating
from lakehouse.upkeep.acts import Act, settle
from lakehouse.upkeep.restore import restore, to_withdraw, withdrawn

NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)

Put = Callable[..., int]


def rating(user: int, stars: float = 4.0, item: int = 1) -> Rating:
    return Rating(user_id=user, item_id=item, rating=stars, rated_at=NOON)


def users(lake: Lakehouse, reference: str = "ratings") -> list[int]:
    return sorted(lake.resolve(reference).arrow(["user_id"])["user_id"].to_pylist())


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path, own_state: None) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def versions(lake: Lakehouse, put: Put) -> list[int]:
    """Versions of ratings by users 1; 1 and 2; 1, 2 and 3."""
    return [put(lake, [rating(user)]) for user in (1, 2, 3)]


def test_a_restored_version_is_published_with_its_old_rows(lake: Lakehouse, versions: list[int]) -> None:
    snapshot = restore(lake, f"ratings@{versions[0]}")
    assert snapshot == lake.latest(Rating)
    assert snapshot.version == versions[2] + 1
    assert users(lake) == [1]
    last = max(lake.publications("ratings"), key=lambda p: p.version)
    assert (last.kind, last.restored_from, last.rows_total) == ("restore", versions[0], 1)
    assert (last.rows_in, last.rows_published, last.inputs) == (0, 0, [f"ratings@{versions[0]}"])
    assert users(lake, f"ratings@{versions[2]}") == [1, 2, 3], "the versions between stay readable by number"


def test_batches_between_are_withdrawn_and_named_beforehand(lake: Lakehouse, versions: list[int], put: Put) -> None:
    target = lake.resolve(f"ratings@{versions[0]}")
    between = [f"ratings/put-{version}@{version}" for version in versions[1:]]
    assert [p.publication_id for p in to_withdraw(lake, target)] == between
    restore(lake, target.reference)
    assert withdrawn(lake.publications()) == set(between)
    put(lake, [rating(4)])
    assert withdrawn(lake.publications()) == set(between), "what came after the restore stays"
    assert [p.version for p in to_withdraw(lake, target)] == [versions[2] + 2], "none is withdrawn twice"


def test_restoring_again_or_the_latest_changes_nothing(lake: Lakehouse, versions: list[int]) -> None:
    assert restore(lake, f"ratings@{versions[2]}").version == versions[2]
    once = restore(lake, f"ratings@{versions[0]}")
    assert restore(lake, f"ratings@{versions[0]}") == once
    assert open_delta(once.uri).version() == once.version


def test_going_back_to_before_a_restore_has_its_batches_again(lake: Lakehouse, versions: list[int]) -> None:
    restore(lake, f"ratings@{versions[0]}")
    restore(lake, f"ratings@{versions[2]}")
    assert users(lake) == [1, 2, 3]
    batches = {p.publication_id for p in lake.publications("ratings") if p.kind == "batch"}
    assert not withdrawn(lake.publications()) & batches


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=12))
def test_withdrawn_is_what_the_newest_version_does_not_hold(steps: list[int | None]) -> None:
    """A step is a batch, or a restore to an earlier version; each version's batches are followed by hand."""
    holds: list[set[str]] = [set()]
    publications = []
    for version, step in enumerate(steps, 1):
        target = None if step is None else step % version
        one = publication(version, target)
        publications.append(one)
        holds.append(holds[-1] | {one.publication_id} if target is None else set(holds[target]))
    batches = {p.publication_id for p in publications if p.restored_from is None}
    assert batches - withdrawn(reversed(publications)) == holds[-1]


def publication(version: int, restored_from: int | None) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}",
        table_name="ratings",
        batch_id=str(version),
        kind="batch" if restored_from is None else "restore",
        restored_from=restored_from,
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=0,
        rows_published=0,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=0,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=NOON,
    )


def test_a_restore_that_was_killed_before_its_publication_is_settled(lake: Lakehouse, versions: list[int]) -> None:
    table = open_delta(lake.uri("ratings"))
    table.restore(versions[1], commit_properties=Act(kind="restore", parent=versions[1]).commit_properties())
    assert users(lake) == [1, 2, 3], "nothing is published yet"
    for _ in range(2):
        newest = max(settle(lake, "ratings"), key=lambda p: p.version)
        assert (newest.kind, newest.restored_from, newest.version) == ("restore", versions[1], versions[2] + 1)
        assert users(lake) == [1, 2]
        assert len(lake.publications("ratings")) == 4
    assert restore(lake, f"ratings@{versions[1]}").version == versions[2] + 1


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("ratings@0", NotPublishedError),
        ("ratings@99", UnknownVersionError),
        ("publications@0", RestoreError),
    ],
)
def test_what_can_not_come_back_is_refused(
    lake: Lakehouse, versions: list[int], reference: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        restore(lake, reference)
    assert open_delta(lake.uri("ratings")).version() == versions[2]


def test_a_refused_version_is_no_target_and_is_left_behind(lake: Lakehouse, versions: list[int], put: Put) -> None:
    refused = put(lake, [rating(4)], published=False)
    with pytest.raises(NotPublishedError, match="never published"):
        restore(lake, f"ratings@{refused}")
    assert restore(lake, f"ratings@{versions[2]}").version == refused + 1
    assert users(lake) == [1, 2, 3]


def test_a_batch_on_its_way_is_not_undone(lake: Lakehouse, versions: list[int]) -> None:
    from deltalake import CommitProperties, Transaction

    table = open_delta(lake.uri("ratings"))
    merged = CommitProperties(app_transactions=[Transaction("millrace/ratings/x", 0)])
    table.delete("user_id = 3", commit_properties=merged)
    with pytest.raises(TableBusyError, match="not published yet"):
        restore(lake, f"ratings@{versions[0]}")


def test_of_two_restores_at_once_one_is_told_of_the_other(
    lake: Lakehouse, versions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake import DeltaTable

    real = DeltaTable.restore

    def late(table: DeltaTable, *args: object, **options: object) -> object:
        monkeypatch.setattr(DeltaTable, "restore", real)
        restore(lake, f"ratings@{versions[1]}")
        return real(table, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DeltaTable, "restore", late)
    with pytest.raises(TableBusyError, match="Another writer"):
        restore(lake, f"ratings@{versions[0]}")
    assert users(lake) == [1, 2]
