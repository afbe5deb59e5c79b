"""How is a feature view tested? With pytest fixtures and assertions that need no lake, no Spark and no example rows.

    pytest_plugins = ["features.testing"]

    def test_no_row_knows_the_future() -> None:
        assert_no_leak(BasketStats)

Rows are generated from the row models (features/generated.py), the same ones in every run. Needs pytest and hypothesis.
PYTEST_DONT_REWRITE: each assertion says itself what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.drift import MIN_ROWS, drift
from features.feature_view import FeatureView
from features.generated import DAYS, FIRST, Row, Values, as_table, instants, row_lists
from features.parity import check_parity
from features.point_in_time import Lookup, join_as_of
from features.store import FeatureStore
from features.views import event_time, feature_columns, join_keys
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Table
from lakehouse.errors import examples
from lakehouse.lake import Lakehouse
from lakehouse.snapshot import Snapshot, schema_of

#: Writes rows as the next version of a view's table, in a temporary folder, without the gate.
WriteView = Callable[[type[Table], pa.Table], Snapshot[Table]]

_INSTANT = "asked_at"


@pytest.fixture
def view_snapshot(tmp_path: Path) -> WriteView:
    """Write rows as the next version of a view's table, in a temporary folder, and return that version."""
    return partial(_write, tmp_path / "view_snapshots")


@pytest.fixture
def feature_store(tmp_path: Path) -> FeatureStore:
    """An empty feature store in a temporary folder: ``apply`` snapshots, then training sets and online rows."""
    return FeatureStore(tmp_path / "feature_store")


def assert_no_leak(view: type[Table], *, values: Values | None = None, cases: int = 30) -> None:
    """What becomes known after an instant changes no training row at it.

    Two histories are generated that agree in all that was known before an instant T; the one goes on after it. For a
    computed view they are its source's events: what happens from T on, and, where the view names a ``created`` column,
    corrections too, which tell of the time before T but are written down from T on. For another table they are its own
    rows. Both are written as Delta tables, and every entity is joined with them at T: the answers must be equal.

    A table whose key is the entity alone keeps one row of each; that an update of it changes no training set is the
    pin's doing. Of such a table, only other entities' rows come after T.

    Args:
        view: a computed view, or any row model that a view can be derived from.
        values: Hypothesis strategies for columns whose own the contract does not tell.
        cases: pairs of histories that are tried.
    """
    with TemporaryDirectory() as scratch:
        computed = view if issubclass(view, FeatureView) else None
        source = computed.declaration.source if computed else view
        columns = computed.declaration.inputs if computed else source.contract.names
        few = computed.declaration.entity if computed else ()
        histories = row_lists(source.contract, columns, few=few, values=values)

        def leak(before: list[Row], after: list[Row], at: datetime) -> str | None:
            """What differs at the instant once more rows are known; None if nothing does."""
            tables = [as_table(source.contract, columns, known) for known in (before, [*before, *after])]
            entities = _entities(view, tables[1], at)
            answers = []
            for number, table in enumerate(tables):
                pin = _write(Path(scratch) / str(number), view, computed.compute(table) if computed else table)
                answers.append(join_as_of(entities, _INSTANT, [_lookup(pin)]))
            for name in feature_columns(view.contract):
                known, leaked = (answer[name].to_pylist() for answer in answers)
                for row, (value, other) in enumerate(zip(known, leaked, strict=True)):
                    if value != other:
                        who = ", ".join(f"{key} {entities[key][row].as_py()!r}" for key in join_keys(view.contract))
                        return (
                            f"{view.contract.table}.{name} knows the future: for {who} at {at.isoformat()} it is "
                            f"{value!r}, but {other!r} once {len(after)} row(s) became known later: {examples(after)}."
                        )
            return None

        @_tried(cases)
        @given(histories, histories, instants())
        def no_leak(rows: list[Row], more: list[Row], at: datetime) -> None:
            before, after = _split(view, [*rows, *more], at)
            problem = leak(before, after, at)
            if problem is not None:
                # One row is easier to look at than many, where one is enough.
                raise AssertionError(next(filter(None, (leak(before, [row], at) for row in after)), problem))

        no_leak()


def assert_parity(
    view: type[Table], *, store: FeatureStore | None = None, values: Values | None = None, cases: int = 4
) -> None:
    """The online and the offline path give the same values for the same entity at the same instant.

    Args:
        view: a computed view, or any row model that a view can be derived from.
        store: where the view is registered and materialized; every entity of its pinned version is compared. By default
            rows are generated, and written and materialized into a store made for the test, one state after another.
        values: Hypothesis strategies for columns whose own the contract does not tell.
        cases: states that are tried.
    """
    name = view.contract.table
    if store is not None:
        _assert_equal_paths(store, name, store.pins()[name])
        return
    with TemporaryDirectory() as scratch:
        own = FeatureStore(Path(scratch) / "store")
        computed = view if issubclass(view, FeatureView) else None
        source = computed.declaration.source if computed else view
        columns = computed.declaration.inputs if computed else source.contract.names
        few = computed.declaration.entity if computed else ()

        @_tried(cases)
        @given(row_lists(source.contract, columns, few=few, values=values), st.integers(0, DAYS))
        def parity(rows: list[Row], day: int) -> None:
            known, _ = _split(view, rows, FIRST + timedelta(days=DAYS + 1))
            table = as_table(source.contract, columns, known)
            pin = _write(Path(scratch) / "lake", view, computed.compute(table) if computed else table)
            own.apply([pin])
            own.materialize((FIRST + timedelta(days=day)).date())
            _assert_equal_paths(own, name, pin)

        parity()


def assert_schema(view: type[Table], *, against: str | Snapshot[Table], lake: Lakehouse | None = None) -> None:
    """The view has the columns of a pinned version: names, order and types; and computing it gives just these.

    Args:
        view: a computed view, or any row model.
        against: the version, such as ``user_stats@3``.
        lake: where it is; by default the one that the settings name.
    """
    pin = _resolved(against, lake)
    declared = arrow_schema(view.contract)
    if issubclass(view, FeatureView):
        source = view.declaration.source.contract
        made = view.compute(as_table(source, view.declaration.inputs, [])).schema
        assert made.equals(declared), f"{view.contract.table} computes {made}, but declares {declared}."
    stored = schema_of(pin.delta())
    differences = [f"{name} is new" for name in declared.names if name not in stored.names]
    differences += [f"{name} is gone" for name in stored.names if name not in declared.names]
    differences += [
        f"{name} is {declared.field(name).type} and was {stored.field(name).type}"
        for name in declared.names
        if name in stored.names and str(declared.field(name).type) != str(stored.field(name).type)
    ]
    if not differences and declared.names != stored.names:
        differences = [f"the order is {', '.join(declared.names)} and was {', '.join(stored.names)}"]
    assert not differences, f"{view.contract.table} is not what {pin.reference} is: {'; '.join(differences)}."


def assert_distribution_unchanged(
    view: type[Table],
    *,
    against: str | Snapshot[Table],
    rows: pa.Table | None = None,
    features: Sequence[str] | None = None,
    lake: Lakehouse | None = None,
) -> None:
    """No feature has drifted from a pinned version (``features.drift``: far enough to matter, and not by chance).

    Args:
        view: a computed view, or any row model that a view can be derived from.
        against: the version, such as ``user_stats@3``.
        rows: what is compared with it. By default a computed view as its declaration computes it from the latest
            published version of its source, or another table's latest published version.
        features: the columns compared; by default all features.
        lake: where the versions are; by default the one that the settings name.

    Too few rows on either side to call a drift (300) fail: nothing would be asserted.
    """
    pin = _resolved(against, lake)
    if rows is None:
        where = lake or Lakehouse.open()
        if issubclass(view, FeatureView):
            rows = view.compute(where.latest(view.declaration.source).arrow(list(view.declaration.inputs)))
        else:
            rows = where.latest(view).arrow()
    reference = pin.arrow()
    fewest = min(reference.num_rows, rows.num_rows)
    assert fewest >= MIN_ROWS, (
        f"{fewest} row(s) are too few to compare {view.contract.table} with {pin.reference}: it takes {MIN_ROWS}."
    )
    found = drift(reference, rows, list(features or feature_columns(view.contract)))
    moved = [f"{one.feature} (PSI {one.psi:.2f} > {one.threshold})" for one in found if one.drifted]
    assert not moved, f"{view.contract.table} has drifted from {pin.reference}: {', '.join(moved)}."


def _tried(cases: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The same cases in every run, and none kept between runs; not shrunk, for each writes tables."""
    return settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _split(view: type[Table], rows: Sequence[Row], at: datetime) -> tuple[list[Row], list[Row]]:
    """Rows known at the instant, and rows known only later; of one key the first stays, as in a table."""
    computed = view if issubclass(view, FeatureView) else None
    contract = view.contract
    before: list[Row] = []
    after: list[Row] = []
    keys: set[tuple[object, ...]] = set()
    for row in rows:
        if computed:
            times = [computed.declaration.clock, *filter(None, [computed.declaration.created])]
            # A row's stamp is the end of a day: what happens at the very instant is not in it.
            (before if max(map(_time, (row[name] for name in times))) < at else after).append(row)
            continue
        key = tuple(row[name] for name in contract.key)
        if key not in keys:
            keys.add(key)
            (before if _time(row[event_time(contract)]) <= at else after).append(row)
    return before, after


def _time(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value


def _entities(view: type[Table], table: pa.Table, at: datetime) -> pa.Table:
    """Every entity of the table, asked for at the instant."""
    keys = list(join_keys(view.contract))
    entities = table.select(keys).group_by(keys).aggregate([])
    return entities.append_column(_INSTANT, pa.array([at] * entities.num_rows, pa.timestamp("us", tz="UTC")))


def _lookup(pin: Snapshot[Table]) -> Lookup:
    """The view's part of a join."""
    contract = pin.row.contract
    return Lookup(
        snapshot=pin,
        keys=tuple((key, key) for key in join_keys(contract)),
        features=tuple((name, name) for name in feature_columns(contract)),
        known_at=event_time(contract),
        ttl=pin.row.declaration.ttl if issubclass(pin.row, FeatureView) else None,
    )


def _write(folder: Path, view: type[Table], rows: pa.Table) -> Snapshot[Table]:
    from deltalake import DeltaTable, write_deltalake

    path = folder / view.contract.table
    write_deltalake(path, rows.cast(arrow_schema(view.contract)), mode="overwrite")
    return Snapshot(str(path), DeltaTable(path).version(), view)


def _assert_equal_paths(store: FeatureStore, name: str, pin: Snapshot[Table]) -> None:
    keys = list(join_keys(pin.row.contract))
    report = check_parity(store, name, pin.arrow(keys).group_by(keys).aggregate([]))
    assert not report.different, (
        f"{report.different} of {report.compared} online values of {report.reference} differ from the offline ones at "
        f"{report.at.isoformat()}: {'; '.join(report.examples)}."
    )


def _resolved(against: str | Snapshot[Table], lake: Lakehouse | None) -> Snapshot[Table]:
    return (lake or Lakehouse.open()).resolve(against) if isinstance(against, str) else against
