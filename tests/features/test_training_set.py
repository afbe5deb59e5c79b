"""A training set is a value: its recipe gives the same bytes again, and the lake keeps it where that is asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from features.errors import TrainingSetError, UnknownFeatureError
from features.store import FeatureStore
from features.training_set import Part, TrainingSet, _write, build
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.errors import UnknownVersionError
from lakehouse.query.sql import query
from lakehouse.snapshot import Snapshot

noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
hour = timedelta(hours=1)
Save = Callable[..., Snapshot[Table]]


class Visit(Table, name="training_visits"):
    """A guest came to a shop."""

    guest_id: Annotated[int, Key()]
    came_at: Annotated[datetime, Key(), EventTime()]
    shop_id: int


class Shop(Table, name="training_shops"):
    """What was known about a shop."""

    shop_id: Annotated[int, Key()]
    seen_at: Annotated[datetime, Key(), EventTime()]
    sales: float
    tags: list[str]


@pytest.fixture
def save(lake: Lakehouse) -> Save:
    def save(row: type[Table], rows: list[tuple[object, ...]], mode: str = "overwrite") -> Snapshot[Table]:
        names = row.contract.names
        records = [dict(zip(names, values, strict=True)) for values in rows]
        uri = lake.uri(row.contract.table)
        write_deltalake(uri, pa.Table.from_pylist(records, arrow_schema(row.contract)), mode=mode)  # type: ignore[call-overload]
        return Snapshot(uri, DeltaTable(uri).version(), row)

    return save


VISITS = [(guest, noon + (guest * 7 % 5) * hour, 1 + guest % 2) for guest in range(20)]
SHOPS = [(1, noon, 5.0, ["new"]), (1, noon + 3 * hour, 6.0, []), (2, noon + 2 * hour, 7.0, ["old", "big"])]


def parts(visits: Snapshot[Table], shops: Snapshot[Table]) -> list[Part]:
    return [
        Part.of("visits", visits, [shops]),
        Part.of("shops", shops, [shops], columns=["shop_id", "sales"], as_of=noon + 2 * hour),
    ]


@pytest.fixture
def made(save: Save, tmp_path: Path) -> TrainingSet:
    return build(parts(save(Visit, VISITS), save(Shop, SHOPS)), tmp_path / "sets")


def test_each_row_is_joined_at_its_own_instant_or_at_the_recipes(made: TrainingSet) -> None:
    visits = made.read("visits")
    assert visits.column_names == [*Visit.contract.names, "training_shops__sales", "training_shops__tags"]
    assert visits["came_at"].to_pylist() == sorted(visits["came_at"].to_pylist())
    first = visits.to_pylist()[0]
    assert (first["guest_id"], first["shop_id"], first["training_shops__sales"]) == (0, 1, 5.0)
    for row in visits.to_pylist():
        known = [shop for shop in SHOPS if shop[0] == row["shop_id"] and shop[1] <= row["came_at"]]
        assert row["training_shops__sales"] == (known[-1][2] if known else None)
        assert row["training_shops__tags"] == (known[-1][3] if known else None)
    assert made.read("shops")["training_shops__sales"].to_pylist() == [5.0, 5.0, 7.0]
    assert (made.rows, made.sources) == (20, ["training_visits@0", "training_shops@0"])


def test_the_same_recipe_gives_the_same_bytes_however_the_rows_are_stored(
    save: Save, made: TrainingSet, tmp_path: Path
) -> None:
    visits = save(Visit, VISITS[12:])
    visits = save(Visit, VISITS[:12][::-1], mode="append")  # the same rows, in other files and another order
    again = build(parts(visits, made.parts[1].views[0].source.snapshot()), tmp_path / "elsewhere")
    assert again.digest == made.digest and again.folder != made.folder
    assert again.recipe != made.recipe  # it names another version
    for part in made.digests:
        files = [(Path(one.folder) / f"{part}.parquet").read_bytes() for one in (made, again)]
        assert files[0] == files[1]


def test_the_order_of_a_fields_metadata_changes_no_byte(tmp_path: Path) -> None:
    notes = {b"comment": b"Who rated.", b"millrace.column": b"{}"}
    found = set()
    for number, metadata in enumerate((notes, dict(reversed(notes.items())))):
        schema = pa.schema([pa.field("user_id", pa.int64(), metadata=metadata)], metadata=metadata)
        path = tmp_path / f"{number}.parquet"
        _write(path, pa.table([[1, 2]], schema=schema))
        found.add(path.read_bytes())
    assert len(found) == 1


def test_another_process_makes_the_same_bytes(made: TrainingSet, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom features.training_set import TrainingSet, build\n"
        "import importlib.util\nspec = importlib.util.spec_from_file_location('rows', sys.argv[3])\n"
        "sys.modules['rows'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(sys.modules['rows'])\n"
        "given = TrainingSet.model_validate_json(sys.argv[1])\n"
        "print(build(given.parts, Path(sys.argv[2])).digest)"
    )
    command = [sys.executable, "-c", code, made.model_dump_json(), str(tmp_path / "other"), __file__]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.stdout.strip() == made.digest, result.stderr


def test_a_changed_row_version_feature_or_instant_changes_recipe_and_digest(
    save: Save, made: TrainingSet, tmp_path: Path
) -> None:
    visits, shops = made.parts[0].entities, made.parts[0].views[0].source
    assert visits is not None
    newer = save(Shop, [*SHOPS, (2, noon + hour, 8.0, [])])
    others = [
        parts(visits.snapshot(), newer),
        parts(save(Visit, VISITS[1:]), shops.snapshot()),
        [made.parts[0], made.parts[1].model_copy(update={"as_of": noon + 3 * hour})],
        [made.parts[0].model_copy(update={"columns": ("shop_id", "came_at")}), made.parts[1]],
    ]
    found = [build(other, tmp_path / "sets") for other in others]
    assert len({one.recipe for one in (made, *found)}) == len({one.digest for one in (made, *found)}) == 5


def test_files_that_are_gone_are_made_again_to_the_same_bytes(made: TrainingSet) -> None:
    before = made.read("visits")
    shutil.rmtree(made.folder)
    assert made.read("visits").equals(before)
    shutil.rmtree(made.folder)
    made.rebuild()
    assert made.read("shops").num_rows == 3


def test_a_rebuilt_set_that_differs_is_refused(
    lake: Lakehouse, save: Save, made: TrainingSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("features.training_set._ROW_GROUP", 7)  # another writer's setting
        with pytest.raises(TrainingSetError, match="part 'visits' has the digest"):
            made.rebuild()
    asked = "SELECT guest_id, came_at, shop_id FROM training_visits{} WHERE shop_id = 1"
    shops = made.parts[0].views[0].source.snapshot()
    pinned = build([Part.of("asked", asked.format("@0"), [shops], lake=lake.root)], tmp_path / "sets")
    save(Visit, VISITS[:3])
    shutil.rmtree(pinned.folder)
    assert pinned.read("asked").num_rows == 10
    other = pinned.model_copy(
        update={
            "parts": (Part.of("asked", asked.format("@1"), [shops], lake=lake.root),),
            "folder": str(tmp_path / "x"),
        }
    )
    with pytest.raises(TrainingSetError, match="part 'asked'"):
        other.rebuild()


def test_a_recipe_whose_table_was_replaced_or_version_is_gone_is_refused(
    save: Save, made: TrainingSet, lake: Lakehouse
) -> None:
    shutil.rmtree(made.folder)
    uri = lake.uri("training_shops")
    shutil.move(uri, f"{uri}_kept")
    save(Shop, SHOPS)
    with pytest.raises(TrainingSetError, match="training_shops@0 is not the table"):
        made.rebuild()
    shutil.rmtree(uri)
    shutil.move(f"{uri}_kept", uri)
    gone = made.model_copy(
        update={"parts": (made.parts[0].model_copy(update={"entities": _at(made.parts[0], 7)}), made.parts[1])}
    )
    with pytest.raises(UnknownVersionError, match="no version 7"):
        gone.rebuild()
    with pytest.raises(TrainingSetError, match="Did you mean 'visits'"):
        made.read("visit")


def _at(part: Part, version: int) -> object:
    assert part.entities is not None
    return part.entities.model_copy(update={"version": version})


def test_a_set_saved_in_the_lake_is_published_once_and_asked_in_sql(
    made: TrainingSet, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = made.save(lake, "visits", "training_set")
    assert saved.arrow().equals(made.read("visits"))
    assert made.save(lake, "visits", "training_set") == saved == lake.resolve("training_set")
    (publication,) = lake.publications("training_set")
    assert publication.inputs == made.sources and publication.batch_id == made.digests["visits"][:32]
    assert query(lake, "SELECT count(*) AS n FROM training_set@0").to_pylist() == [{"n": 20}]
    assert [line.published for line in lake.history("training_set")] == [True]

    def killed(*_: object) -> None:
        raise SystemExit("killed between commit and publication")

    with monkeypatch.context() as broken:
        broken.setattr("lakehouse.ledger.Ledger.append", killed)
        with pytest.raises(SystemExit):
            made.save(lake, "shops", "training_set")
    assert made.save(lake, "shops", "training_set").version == 1 == lake.resolve("training_set").version
    assert DeltaTable(lake.uri("training_set")).version() == 1
    assert made.save(lake, "visits", "training_set").version == 0  # an earlier one is still there


def test_a_declared_tables_name_and_what_is_no_name_are_refused(made: TrainingSet, lake: Lakehouse) -> None:
    with pytest.raises(TrainingSetError, match="'training_shops' is declared"):
        made.save(lake, "visits", "training_shops")
    from lakehouse.errors import ReferenceSyntaxError

    with pytest.raises(ReferenceSyntaxError, match=r"\.\./x"):
        made.save(lake, "visits", "../x")


def test_flyte_carries_the_value_and_its_cache_key_follows_the_digest(made: TrainingSet) -> None:
    from flytekit import FlyteContextManager
    from flytekit.core.type_engine import TypeEngine

    context = FlyteContextManager.current_context()
    kind = TypeEngine.to_literal_type(TrainingSet)
    literal = TypeEngine.to_literal(context, made, TrainingSet, kind)
    assert TypeEngine.to_python_value(context, literal, TrainingSet) == made
    other = TypeEngine.to_literal(context, made.model_copy(update={"digest": "0"}), TrainingSet, kind)
    assert literal.to_flyte_idl() != other.to_flyte_idl()


def test_single_features_are_asked_for_by_view_and_name(save: Save, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    store.apply([save(Shop, SHOPS)])
    entities = pa.table({"shop_id": [1], "event_timestamp": pa.array([noon], pa.timestamp("us", tz="UTC"))})
    found = store.training_set(entities, ["training_shops:tags"])
    assert found.column_names == ["shop_id", "event_timestamp", "training_shops__tags"]
    with pytest.raises(UnknownFeatureError, match=r"no feature 'sale'\. Did you mean 'sales'"):
        store.training_set(entities, ["training_shops:sale"])
