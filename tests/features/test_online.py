"""Each online store holds what Feast's SDK reads, comes to any state from any other, and survives being cut off."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.encoding import Layout, decoder, encode_keys, encode_rows
from features.errors import EntityColumnsError, NotMaterializedError, OnlineStoreError, UnknownFeatureError
from features.intervals import Interval, Record, State
from features.materialize import Materialized
from features.online import Change, online_config
from features.point_in_time import latest_rows
from features.store import FeatureStore, end_of
from features.views import feature_columns
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import ColumnType, EventTime, Key, Table
from lakehouse.snapshot import Snapshot
from lakehouse.upkeep.fates import Fates, write_fates

Write = Callable[..., Snapshot[Table]]
OpenStore = Callable[[str], FeatureStore]
STORES = ["sqlite", "redis", "postgres"]
midnight = datetime(2026, 1, 1, tzinfo=UTC)


class Account(Table, name="accounts"):
    account_id: Annotated[int, Key()]
    region: Annotated[str, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    orders: int | None
    spent: float | None
    active: bool | None
    plan: str | None
    sizes: list[int] | None
    rates: list[float] | None
    flags: list[bool] | None
    tags: list[str] | None


FEATURES = feature_columns(Account.contract)


@pytest.fixture
def open_store(tmp_path: Path, request: pytest.FixtureRequest) -> OpenStore:
    """A feature store on a kind of online store, which is empty; opened again it is the same one."""

    def open_store(kind: str) -> FeatureStore:
        url = None if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
        return FeatureStore(tmp_path / "features", url)

    return open_store


def account(number: int, hour: int, orders: int | None = 1, **values: object) -> Account:
    empty = dict.fromkeys(FEATURES)
    row = {"account_id": number, "region": "north", "known_at": midnight + timedelta(hours=hour), "orders": orders}
    return Account.model_validate({**empty, **row, **values})


def read(store: FeatureStore, *numbers: int) -> list[object]:
    """The orders of accounts, as the reader has them."""
    answer = store.reader(["accounts"]).read({"account_id": numbers, "region": ["north"] * len(numbers)})
    return list(answer.values["accounts__orders"])


def states(store: FeatureStore) -> tuple[State, ...]:
    record = store._tables.record("accounts")
    assert record is not None
    return Record.model_validate_json(record).states


def by_feast(store: FeatureStore, keys: list[tuple[int, str]]) -> dict[str, list[object]]:
    asked = {"account_id": [key for key, _ in keys], "region": [region for _, region in keys]}
    references = [f"accounts:{name}" for name in FEATURES]
    answer = store._feast.get_online_features(references, asked).to_dict()
    return {name: answer[name] for name in FEATURES}


numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, width=64)
texts = st.text(st.characters(codec="utf-8"), max_size=200)
accounts = st.lists(
    st.builds(
        account,
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 23),
        orders=st.none() | numbers,
        spent=st.none() | floats,
        active=st.none() | st.booleans(),
        plan=st.none() | texts,
        sizes=st.none() | st.lists(numbers, max_size=3),
        rates=st.none() | st.lists(floats, max_size=3),
        flags=st.none() | st.lists(st.booleans(), max_size=3),
        tags=st.none() | st.lists(texts, max_size=3),
        region=texts.filter(lambda text: len(text) < 20),
    ),
    max_size=6,
    unique_by=lambda row: (row.account_id, row.region),
)


@pytest.mark.parametrize("kind", STORES)
def test_feast_reads_the_same_values_as_the_reader_and_the_lake(open_store: OpenStore, write: Write, kind: str) -> None:
    store = open_store(kind)

    @settings(derandomize=True, deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
    @given(rows=accounts)
    def check(rows: list[Account]) -> None:
        store.apply([write(Account, rows)])
        store.materialize(date(2026, 1, 1))
        keys = [(row.account_id, row.region) for row in rows] + [(7, "nobody")]
        mine = store.reader(["accounts"]).read(
            {"account_id": [key for key, _ in keys], "region": [region for _, region in keys]}
        )
        theirs = by_feast(store, keys)
        for name in FEATURES:
            expected = [*(getattr(row, name) for row in rows), None]
            assert mine.values[f"accounts__{name}"] == expected
            assert theirs[name] == expected

    check()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(rows=accounts)
def test_the_bytes_are_those_that_feasts_own_code_makes(rows: list[Account]) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import extract_text_and_num
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    from lakehouse.contracts.arrow import to_arrow

    layout = Layout.of(Account.contract)
    encoded = encode_rows(to_arrow(Account, rows), Account.contract)
    plain = encode_keys(
        layout, {"account_id": [row.account_id for row in rows], "region": [row.region for row in rows]}
    )
    kinds = [ValueType.INT64, ValueType.DOUBLE, ValueType.BOOL, ValueType.STRING]
    types = dict(zip(FEATURES, [*kinds, *(ValueType[f"{kind.name}_LIST"] for kind in kinds)], strict=True))
    for row, key in zip(rows, plain, strict=True):
        message = EntityKey(
            join_keys=["region", "account_id"],
            entity_values=[Value(string_val=row.region), Value(int64_val=row.account_id)],
        )
        assert key == serialize_entity_key(message, entity_key_serialization_version=3)
        place = encoded.keys.index(key)
        for name in FEATURES:
            value = getattr(row, name)
            (proto,) = python_values_to_proto_values([value], types[name]) if value is not None else (Value(),)
            assert encoded.features[name][place] == proto.SerializeToString()
            assert encoded.texts[name][place] == extract_text_and_num(proto, False)[0]
    assert encoded.keys == sorted(plain)


def test_timestamps_in_feasts_layout_are_read_as_instants() -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    data = Value(unix_timestamp_val=int(midnight.timestamp())).SerializeToString()
    assert decoder(ColumnType("datetime"))(data) == midnight
    assert decoder(ColumnType("datetime"))(None) is None


@pytest.mark.parametrize("kind", STORES)
def test_late_rows_corrections_removals_and_steps_back_reach_the_store_and_nothing_is_written_twice(
    open_store: OpenStore, write: Write, kind: str
) -> None:
    store = open_store(kind)
    row = st.builds(account, st.integers(1, 4), st.integers(0, 71), st.integers(0, 2))
    version = st.lists(row, max_size=8, unique_by=lambda row: (row.account_id, row.known_at))
    held: dict[object, object] = {}

    @settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(rows=version, day=st.integers(1, 3), new_version=st.booleans())
    def check(rows: list[Account], day: int, new_version: bool) -> None:
        if new_version or not held:
            store.apply([write(Account, rows)])
        pin = store.pins()["accounts"]
        at = end_of(date(2026, 1, day))
        known = latest_rows(pin, ["account_id"], FEATURES, "known_at", end=at)
        wanted = dict(zip(known["account_id"].to_pylist(), known.select(FEATURES).to_pylist(), strict=True))
        times = dict(zip(known["account_id"].to_pylist(), known["known_at"].to_pylist(), strict=True))
        (done,) = store.materialize(date(2026, 1, day))
        now = {key: (times[key], value) for key, value in wanted.items()}
        before = {key: value for key, value in held.items() if key != "first"}
        assert done.written == sum(1 for key, value in now.items() if before.get(key) != value)
        assert done.removed == len(before.keys() - now.keys())
        assert not done.replaced
        assert read(store, 1, 2, 3, 4) == [wanted.get(key, {}).get("orders") for key in (1, 2, 3, 4)]
        held.clear()
        held.update(now, first=True)

    check()


@pytest.mark.parametrize("kind", STORES)
def test_an_entity_that_is_gone_leaves_no_bytes(open_store: OpenStore, write: Write, kind: str) -> None:
    store = open_store(kind)
    store.apply([write(Account, [account(1, 1, 5), account(2, 1, 6)])])
    store.materialize(date(2026, 1, 1))
    store.apply([write(Account, [account(1, 1, 5)])])
    (done,) = store.materialize(date(2026, 1, 1))
    assert (done.written, done.removed) == (0, 1)
    assert in_store(store, kind) == set(encode_keys(Layout.of(Account.contract), one(1)))


@pytest.mark.parametrize("kind", STORES)
def test_someone_who_was_erased_from_the_version_that_the_store_holds_is_taken_out_of_it(
    open_store: OpenStore, write: Write, tmp_path: Path, kind: str
) -> None:
    from deltalake import write_deltalake

    from lakehouse.contracts.arrow import to_arrow

    store = open_store(kind)
    pin = write(Account, [account(1, 1, 5), account(2, 1, 6)])
    store.apply([pin])
    store.materialize(date(2026, 1, 1))
    # The version is redacted, as erasure does it: read again, it looks as if nobody had been taken out.
    kept = to_arrow(Account, [account(1, 1, 5)]).cast(arrow_schema(Account.contract))
    write_deltalake(tmp_path / "lake" / "_redacted" / "accounts" / "twin", kept)
    write_fates(pin.uri, Fates(twins={pin.version: "twin"}))
    # By then a version without them is published, and the view is pinned to it.
    store.apply([write(Account, [account(1, 1, 5)])])
    (done,) = store.materialize(date(2026, 1, 1))
    assert (done.written, done.replaced) == (1, True)
    assert in_store(store, kind) == set(encode_keys(Layout.of(Account.contract), one(1)))
    assert store.materialize(date(2026, 1, 1))[0].written == 0


@pytest.mark.parametrize("kind", STORES)
def test_rows_without_a_record_are_replaced(open_store: OpenStore, write: Write, kind: str) -> None:
    """A store that Feast wrote, or whose record was lost."""
    store = open_store(kind)
    store.apply([write(Account, [account(1, 1, 5), account(2, 1, 6)])])
    store._feast.materialize(midnight - timedelta(days=1), midnight + timedelta(days=1))
    with pytest.raises(NotMaterializedError, match="has not been materialized"):
        read(store, 1)
    store.apply([write(Account, [account(1, 1, 5), account(3, 1, 7)])])
    store.materialize(date(2026, 1, 1))
    assert read(store, 1, 2, 3) == [5, None, 7]
    assert in_store(store, kind) == set(encode_keys(Layout.of(Account.contract), one(1, 3)))


@pytest.mark.parametrize("kind", STORES)
def test_two_writers_do_not_mix(
    open_store: OpenStore, write: Write, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(kind), open_store(kind)
    store.apply([write(Account, [account(1, 1, 5)])])
    store.materialize(date(2026, 1, 1))
    store.apply([write(Account, [account(1, 1, 6)])])
    write_change = type(store._tables).write

    def overtaken(tables: object, change: Change) -> None:
        monkeypatch.setattr(type(store._tables), "write", write_change)
        other.materialize(date(2026, 1, 2))
        write_change(tables, change)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store._tables), "write", overtaken)
    with pytest.raises(OnlineStoreError, match="Another process has materialized feature view 'accounts'"):
        store.materialize(date(2026, 1, 1))
    assert states(store)[0].interval.end == end_of(date(2026, 1, 2))
    assert read(store, 1) == [6]


@pytest.mark.parametrize("kind", STORES)
def test_of_two_writers_who_want_the_same_neither_fails(
    open_store: OpenStore, write: Write, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(kind), open_store(kind)
    store.apply([write(Account, [account(1, 1, 5)])])
    write_change = type(store._tables).write

    def overtaken(tables: object, change: Change) -> None:
        monkeypatch.setattr(type(store._tables), "write", write_change)
        assert [done.written for done in other.materialize(date(2026, 1, 1))] == [1]
        write_change(tables, change)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store._tables), "write", overtaken)
    assert [done.written for done in store.materialize(date(2026, 1, 1))] == [0]
    assert read(store, 1) == [5]


KILLED = """
    import os, signal, sys
    from datetime import date
    from pathlib import Path
    import features.{module} as module
    from features.store import FeatureStore

    def dying(*given, real=module.{function}, calls=[]):
        calls.append(1)
        if len(calls) == {calls}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    module.{function} = dying
    FeatureStore(Path(sys.argv[1]), sys.argv[2] or None).materialize(date(2026, 1, 2))
"""


@pytest.mark.parametrize(
    ("kind", "function", "calls"),
    [
        ("sqlite", "_record", 2),  # inside the transaction
        ("redis", "_exchange", 7),  # between two blocks of rows
    ],
)
def test_killed_while_writing_and_run_again_the_store_is_as_if_nothing_had_happened(
    open_store: OpenStore, write: Write, request: pytest.FixtureRequest, kind: str, function: str, calls: int
) -> None:
    store = open_store(kind)
    pins = begin(store, write)
    store.apply(pins)
    url = "" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    code = textwrap.dedent(KILLED).format(module=f"online_{kind}", function=function, calls=calls)
    if kind == "redis":
        code = code.replace("def dying", "module._ROWS = 7\ndef dying", 1)
    killed = subprocess.run(
        [sys.executable, "-c", SHARED + code, str(store.folder), url], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(states(store)) == (2 if kind == "redis" else 1)
    assert_made_good(store, kind)


def test_cut_off_at_any_exchange_with_redis_the_next_run_makes_it_good(
    open_store: OpenStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    from features import online_redis

    monkeypatch.setattr(online_redis, "_ROWS", 7)
    exchange = online_redis._exchange
    cuts = 0
    for cut in range(1, 30):
        calls: list[int] = []

        def dying(*given: object, cut: int = cut, calls: list[int] = calls) -> object:
            calls.append(1)
            if len(calls) == cut:
                raise redis.ConnectionError("the server went away")
            return exchange(*given)  # type: ignore[arg-type]

        store = open_store("redis")
        store.apply(begin(store, write))
        with monkeypatch.context() as broken:
            broken.setattr(online_redis, "_exchange", dying)
            try:
                store.materialize(date(2026, 1, 2))
            except OnlineStoreError:
                cuts += 1
            else:
                break  # there are not so many
        if len(states(store)) > 1:
            with pytest.raises(NotMaterializedError, match="half-written"):
                read(store, 1)
        assert_made_good(store, "redis")
    assert cuts == 18


def begin(store: FeatureStore, write: Write) -> list[Snapshot[Table]]:
    """Forty rows in the store; and the version to come to, in which half of them have changed and some are gone."""
    first = [account(number, 1, number) for number in range(40)]
    store.apply([write(Account, first)])
    store.materialize(date(2026, 1, 1))
    assert read(store, *range(40)) == list(range(40))
    return [write(Account, [account(number, 2, 10 * number) for number in range(10, 30)] + [first[39]])]


def assert_made_good(store: FeatureStore, kind: str) -> None:
    """A run for another day than the one that was cut off leaves what an undisturbed one would."""
    (done,) = store.materialize(date(2026, 1, 3))
    assert (done.written, done.removed, done.replaced) == (20, 19, False)
    expected = [10 * number if 10 <= number < 30 else 39 if number == 39 else None for number in range(40)]
    assert read(store, *range(40)) == expected
    assert len(in_store(store, kind)) == 21
    assert [state.interval.end for state in states(store)] == [end_of(date(2026, 1, 3))]


SHARED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import importlib.util
spec = importlib.util.spec_from_file_location("online_accounts", {__file__!r})
module = importlib.util.module_from_spec(spec)
sys.modules["online_accounts"] = module
spec.loader.exec_module(module)
"""


def test_a_store_that_is_down_is_a_typed_error_and_the_record_stays(tmp_path: Path, write: Write) -> None:
    store = FeatureStore(tmp_path / "features", "redis://127.0.0.1:1/0")
    with pytest.raises(OnlineStoreError, match=r"redis://127\.0\.0\.1:1/0 can't be used: .*refused"):
        store.apply([write(Account, [account(1, 1)])])
    down = FeatureStore(tmp_path / "others", "postgresql://me:secret@127.0.0.1:1/features")
    with pytest.raises(OnlineStoreError, match=r"postgresql://127\.0\.0\.1:1/features can't be used") as caught:
        down.apply([write(Account, [account(1, 1)])])
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_typed_error(tmp_path: Path, write: Write) -> None:
    store = FeatureStore(tmp_path / "features")
    store.folder.mkdir()
    (store.folder / "online.db").write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(OnlineStoreError, match=r"online\.db can't be used: file is not a database"):
        store.apply([write(Account, [account(1, 1)])])


def test_a_wrong_password_is_said_without_showing_it(
    tmp_path: Path, write: Write, redis_url: str, postgres_url: str
) -> None:
    import redis

    client = redis.Redis.from_url(redis_url)
    client.config_set("requirepass", "right,not")
    try:
        for url in (redis_url.replace("//", "//:wrong-one@"), redis_url):
            store = FeatureStore(tmp_path / "features", url)
            with pytest.raises(OnlineStoreError, match="refuses the login") as caught:
                store.apply([write(Account, [account(1, 1)])])
            assert "wrong-one" not in str(caught.value)
    finally:
        client.config_set("requirepass", "")
    store = FeatureStore(tmp_path / "others", postgres_url.replace(":right@", ":wrong-one@"))
    with pytest.raises(OnlineStoreError, match="refuses the login") as caught:
        store.apply([write(Account, [account(1, 1)])])
    assert "wrong-one" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:6379", "mysql://a/b", "redis://", "redis://:a%2Cb@host/0", "redis://host/zero", "redis://h:x/0"]
)
def test_a_url_that_names_no_online_store_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(OnlineStoreError, match="MILLRACE_ONLINE_STORE") as caught:
        online_config(url)
    assert "a%2Cb" not in str(caught.value)


def test_urls_become_feasts_own_configuration() -> None:
    assert online_config("redis://:12%333@cache:6380/2") == {
        "type": "redis",
        "connection_string": 'cache:6380,db=2,password="1233"',
    }
    assert online_config("rediss://me:pass@cache") == {
        "type": "redis",
        "connection_string": 'cache:6379,db=0,username="me",password="pass",ssl=true',
    }
    assert online_config("postgresql://me:p%40ss@db/features?sslmode=require") == {
        "type": "postgres",
        "host": "db",
        "port": 5432,
        "database": "features",
        "user": "me",
        "password": "p@ss",
        "sslmode": "require",
    }


def test_features_and_keys_that_are_not_there_are_named(tmp_path: Path, write: Write) -> None:
    store = FeatureStore(tmp_path / "features")
    store.apply([write(Account, [account(1, 1)])])
    store.materialize(date(2026, 1, 1))
    with pytest.raises(UnknownFeatureError, match="Did you mean 'orders'"):
        store.reader(["accounts"], {"accounts": ["order"]})
    with pytest.raises(EntityColumnsError, match="Did you mean 'accountid'"):
        store.reader(["accounts"]).read({"accountid": [1], "region": ["north"]})
    narrow = store.reader(["accounts"], {"accounts": ["plan", "orders"]})
    answer = narrow.read({"account_id": [1], "region": ["north"]})
    assert answer.values == {"accounts__plan": [None], "accounts__orders": [1]}


def test_a_view_with_a_ttl_lets_go_of_what_is_too_old(tmp_path: Path, write: Write) -> None:
    from features.materialize import bring_to

    store = FeatureStore(tmp_path / "features")
    pin = write(Account, [account(1, 1, 5), account(2, 30, 6)])
    store.apply([pin])

    def bring(day: int) -> Materialized:
        return bring_to(store._tables, pin, midnight + timedelta(days=day), timedelta(days=1))

    assert (bring(1).written, read(store, 1, 2)) == (1, [5, None])
    done = bring(2)
    assert (done.written, done.removed, read(store, 1, 2)) == (1, 1, [None, 6])


def test_a_materialization_under_another_declaration_is_refused_until_it_is_done_again(
    tmp_path: Path, write: Write
) -> None:
    store = FeatureStore(tmp_path / "features")
    pin = write(Account, [account(1, 1, 5)])
    store.apply([pin])
    store.materialize(date(2026, 1, 1))
    record = store._tables.record("accounts")
    assert record is not None
    layout = Layout.of(Account.contract)
    other = record.replace(Account.contract.fingerprint, "0" * 64)
    nothing = encode_rows(arrow_schema(Account.contract).empty_table(), Account.contract)
    store._tables.write(Change(layout, nothing, [], False, (), record, record, other))
    with pytest.raises(NotMaterializedError, match="under another declaration"):
        read(store, 1)
    assert store.materialize(date(2026, 1, 1))[0].replaced
    assert read(store, 1) == [5]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=4, max_size=4), st.integers(0, 30))
def test_what_one_interval_has_and_another_lacks(bounds: list[int | None], instant: int) -> None:
    def interval(start: int | None, end: int | None) -> Interval:
        last = max(start or 0, end or 0)
        first = None if start is None else midnight + timedelta(microseconds=start)
        return Interval(start=first, end=midnight + timedelta(microseconds=last))

    def has(one: Interval, moment: datetime) -> bool:
        return (one.start is None or one.start <= moment) and moment <= one.end

    one, two = interval(*bounds[:2]), interval(*bounds[2:])
    moment = midnight + timedelta(microseconds=instant)
    found = [part for part in one.without(two) if has(part, moment)]
    assert len(found) == (has(one, moment) and not has(two, moment))


def one(*numbers: int) -> dict[str, list[int] | list[str]]:
    return {"account_id": list(numbers), "region": ["north"] * len(numbers)}


def in_store(store: FeatureStore, kind: str) -> set[bytes]:
    """The entity keys that hold anything of the view, by the store's own means."""
    config = store._config()
    if kind == "sqlite":
        import sqlite3

        with sqlite3.connect(config.online_store.path) as connection:
            return {row[0] for row in connection.execute("SELECT entity_key FROM millrace_accounts")}
    if kind == "postgres":
        from feast.infra.utils.postgres.connection_utils import _get_conn

        with _get_conn(config.online_store) as connection:
            return {bytes(row[0]) for row in connection.execute("SELECT entity_key FROM millrace_accounts")}
    from feast.infra.online_stores.redis import RedisOnlineStore

    client = RedisOnlineStore()._get_client(config.online_store)
    return {key[: -len(b"millrace")] for key in client.scan_iter("*") if not key.startswith(b"millrace:")}
