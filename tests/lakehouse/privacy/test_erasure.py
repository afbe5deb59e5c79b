from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import Key, Lakehouse, References, Table
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.errors import ErasureError, RestoreError, TableBusyError, UnknownVersionError
from lakehouse.gate.quarantine import QUARANTINE
from lakehouse.gate.staging import stage, staged
from lakehouse.ledger import Erasure, Promotion, Run
from lakehouse.privacy.erasure import Certificate, erase, survey
from lakehouse.privacy.subjects import columns_of_subject
from lakehouse.privacy.tombstones import erased_values
from lakehouse.snapshot import open_delta
from lakehouse.storage import LocalStorage
from lakehouse.tables import Movie, Rating, User
from lakehouse.upkeep.pins import pin
from lakehouse.upkeep.restore import restore

Put = Callable[..., int]
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
DAY = date(1998, 3, 1)

#: The person to erase, and words that only their rows hold.
WHO = 424242
WORDS = ("beekeeper42", "zip42zip42")


class Note(Table, name="notes"):
    """Who said what of whom; refers to users, and marks nobody as a subject."""

    note_id: Annotated[int, Key()]
    author: Annotated[int | None, References("users.user_id")]
    text: str


def rating(user: int, item: int = 1, stars: float = 4.0) -> Rating:
    return Rating(user_id=user, item_id=item, rating=stars, rated_at=NOON)


def user(number: int, occupation: str = "artist", zip_code: str = "02139") -> User:
    return User(user_id=number, age=30, gender="F", occupation=occupation, zip_code=zip_code, joined_at=NOON)


def refused(number: int, row: dict[str, object]) -> dict[str, object]:
    return {
        "quarantine_id": f"b/{number}",
        "batch_id": "b",
        "row_number": number,
        "row": json.dumps(row),
        "rules": ["rating le 5"],
        "day": DAY,
        "quarantined_at": NOON,
    }


@pytest.fixture
def ratings(seed_folder: Path, tmp_path: Path, own_state: None, put: Put) -> Lakehouse:
    """Versions 2 to 5 of ratings, all but the first with the person; one refused row and one staged one of theirs.

    ratings@3 is pinned. ratings@4 has a file of the person's rows alone.
    """
    shutil.copytree(seed_folder, tmp_path / "lake")
    lake = Lakehouse.open(tmp_path / "lake")
    assert put(lake, [rating(1), rating(2)]) == 2
    assert put(lake, [rating(WHO), rating(3)]) == 3
    assert put(lake, [rating(WHO, item=2)]) == 4
    assert put(lake, [rating(WHO, stars=1.0), rating(5)]) == 5
    pin(lake, "ratings@3", holder="paper", reason="figure 2")
    refusals = [refused(0, {"user_id": str(WHO), "rating": "9"}), refused(1, {"user_id": WHO + 1, "rating": 9})]
    write_deltalake(
        lake.quarantine_uri("ratings"), pa.Table.from_pylist(refusals, schema=arrow_schema(QUARANTINE)), mode="append"
    )
    rows = pa.table({"user_id": [f" {WHO}", "2"], "item_id": ["1", "1"], "note": ["said in private", "x"]})
    stage(lake, Rating, rows, batch_id="waits", day=DAY)
    return lake


@pytest.fixture
def lake(ratings: Lakehouse, put: Put) -> Lakehouse:
    """The person in users, in notes and in a captured answer as well."""
    put(ratings, [user(WHO, *WORDS), user(7)])
    put(ratings, [user(8)])
    put(ratings, [Note(note_id=1, author=WHO, text="said in private"), Note(note_id=2, author=None, text="x")])
    answers = {
        "answer_key": ["a", "b"],
        "input": [json.dumps({"row": {"user_id": WHO}}), json.dumps({"item_id": WHO})],
        "output": ["said in private", "x"],
    }
    write_deltalake(ratings.uri("ratings").replace("/ratings", "/_ledger/llm_responses"), pa.table(answers))
    return ratings


def run(run_id: str, inputs: list[str], model: str) -> Run:
    return Run(
        run_id=run_id,
        execution="e",
        workflow="nightly",
        day=DAY,
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=inputs,
        outputs=[],
        artifacts=json.dumps({"model": model}),
        metrics="{}",
        verdict="kept",
        report="",
        seconds=1,
        finished_at=NOON,
    )


def erase_them(lake: Lakehouse) -> Certificate:
    return erase(lake, subject="user_id", value=str(WHO), reason="asked by letter", requested_by="desk")


def numbers(lake: Lakehouse, reference: str) -> list[int]:
    return sorted(lake.resolve(reference).arrow(["user_id"])["user_id"].to_pylist())


def traces_of_the_person(root: str) -> Iterator[str]:
    """Every place below the root where the person can be found, by reading whatever is there."""
    for path in Path(root).rglob("*"):
        if not path.is_file():
            continue
        place = path.relative_to(root).as_posix()
        if path.suffix == ".parquet":
            text = json.dumps(pq.read_table(path, partitioning=None).to_pylist(), default=str)
        else:
            text = path.read_bytes().decode("latin-1")
        for word in (str(WHO), *WORDS, "said in private"):
            if word in re.sub(rf'item_id[\\": ]+{WHO}|{WHO + 1}', "", text):  # a movie, and somebody else
                yield f"{place}: {word}"


def test_no_file_of_the_lake_holds_anything_of_the_person_afterwards(lake: Lakehouse) -> None:
    for name in ("ratings", "users"):
        open_delta(lake.uri(name)).create_checkpoint()
    before = list(traces_of_the_person(lake.root))
    for place in ("ratings/_delta_log", "ratings/part", "users/part", "notes/part", "_quarantine/", "_staging/", "llm"):
        assert any(place in trace for trace in before), f"the test looks into {place}"
    assert any(".checkpoint.parquet" in trace for trace in before)
    erase_them(lake)
    assert list(traces_of_the_person(lake.root)) == []


def test_everybody_else_stays(lake: Lakehouse) -> None:
    erase_them(lake)
    assert numbers(lake, "ratings") == [1, 2, 3, 5]
    assert numbers(lake, "users") == [1, 2, 3, 4, 5, 7, 8]
    assert lake.resolve("notes").arrow().to_pylist() == [{"note_id": 2, "author": None, "text": "x"}]
    assert lake.resolve("movies").count() == 5
    refusals = open_delta(lake.quarantine_uri("ratings")).to_pyarrow_table().sort_by("row_number").to_pylist()
    assert [row["rules"] for row in refusals] == [["erased"], ["rating le 5"]]
    assert [row["row"] for row in refusals] == ["{}", json.dumps({"user_id": WHO + 1, "rating": 9})]
    answers = lake.resolve("llm_responses").arrow().to_pylist()
    assert [row["answer_key"] for row in answers] == ["b"], "the number of a movie is not the person"


def test_the_new_versions_are_published_and_say_what_they_are(lake: Lakehouse) -> None:
    certificate = erase_them(lake)
    assert set(certificate.new_versions) == {"ratings", "users", "notes"}
    for name, version in certificate.new_versions.items():
        assert lake.resolve(name).version == version
        (one,) = [p for p in lake.publications(name) if p.kind == "erase"]
        assert (one.version, one.published, one.rows_in) == (version, True, 0)
    assert certificate.new_versions["ratings"] == 6


def test_pinned_versions_become_redacted_twins_and_the_others_are_gone(lake: Lakehouse) -> None:
    certificate = erase_them(lake)
    assert certificate.redacted == {"ratings": [3]}
    assert certificate.removed["ratings"] == [4, 5]
    twin = lake.resolve("ratings@3")
    assert (twin.reference, twin.redacted) == ("ratings@3", True)
    assert numbers(lake, "ratings@3") == [1, 2, 3]
    assert twin.count() == 3
    for version in (4, 5):
        with pytest.raises(UnknownVersionError):
            lake.resolve(f"ratings@{version}")
    before = lake.resolve("ratings@2")
    assert (before.redacted, numbers(lake, "ratings@2")) == (False, [1, 2]), "it never held the person"
    with pytest.raises(RestoreError, match="redacted twin"):
        restore(lake, "ratings@3")


@pytest.mark.parametrize("portion", [1, 500_000])
def test_a_twin_loses_the_next_person_too(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    monkeypatch.setattr("lakehouse.privacy.redaction._PORTION", portion)
    erase_them(lake)
    second = erase(lake, subject="user_id", value=3, reason="", requested_by="desk")
    assert second.redacted == {"ratings": [3]}
    assert numbers(lake, "ratings@3") == [1, 2]
    left = {path.relative_to(lake.root).parts[2] for path in Path(lake.root).glob("_redacted/ratings/*/_delta_log/*")}
    assert left == {"3-2"}, "the first twin held them"
    assert list(traces_of_the_person(lake.root)) == []


def test_the_certificate_says_what_was_found_done_and_left(lake: Lakehouse) -> None:
    lake.ledger.append([run("r1", ["ratings@3"], "a" * 64), run("r2", ["ratings@2"], "b" * 64)])
    lake.ledger.append(
        [
            Promotion(
                promotion_id="p",
                day=DAY,
                model_digest="a" * 64,
                model_path="m",
                registry_version=1,
                trained_until=NOON,
                promoted_at=NOON,
            )
        ]
    )
    write_deltalake(lake.uri("ratings").replace("ratings", "elsewhere"), pa.table({"a": [1]}))
    planned = survey(lake, subject="user_id", value=WHO)
    certificate = erase_them(lake)
    assert certificate.found == planned
    assert planned.rows == {"notes": 1, "ratings": 2, "users": 1}
    assert planned.versions["ratings"] == [3, 4, 5]
    assert (planned.quarantined, planned.staged, planned.answers) == ({"ratings": 1}, ["ratings/waits"], 1)
    assert [(m.digest, m.run_id, m.promoted) for m in planned.models] == [("a" * 64, "r1", True)]
    assert planned.unexamined == ["elsewhere"]
    assert (certificate.reason, certificate.requested_by) == ("asked by letter", "desk")
    assert {"notes.author", "ratings.user_id", "users.user_id"} <= set(certificate.columns)
    kept = [row for row in lake.ledger.read(Erasure) if row.state == "done"]
    assert [Certificate.model_validate_json(row.certificate) for row in kept] == [certificate]


def test_a_survey_changes_nothing(lake: Lakehouse) -> None:
    before = {path: path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file()}
    survey(lake, subject="user_id", value=WHO)
    assert {path: path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file()} == before


def test_erasing_again_does_nothing_unless_the_person_is_back(lake: Lakehouse) -> None:
    first = erase_them(lake)
    assert erase_them(lake) == first
    assert len(list(lake.ledger.read(Erasure))) == 2
    rows = pa.table({"user_id": [WHO], "item_id": [1]})
    stage(lake, Rating, rows, batch_id="again", day=DAY)
    second = erase_them(lake)
    assert second.found.staged == ["ratings/again"]
    assert second.erasure_id != first.erasure_id
    assert list(traces_of_the_person(lake.root)) == []


def test_a_staged_batch_keeps_the_others_rows_and_its_name(lake: Lakehouse) -> None:
    erase_them(lake)
    rows = pa.table({"user_id": [f" {WHO}", "2"], "item_id": ["1", "1"], "note": ["said in private", "x"]})
    batch = stage(lake, Rating, rows, batch_id="waits", day=DAY)
    assert batch.rows == 1
    assert staged(lake, Rating, batch_id="waits", day=DAY) == batch
    left = pq.read_table(Path(lake.root) / batch.path).to_pylist()
    assert left == [{"user_id": "2", "item_id": "1", "note": "x", "__row": 1}]


def test_the_gate_knows_the_person_by_a_digest_alone(lake: Lakehouse) -> None:
    assert erased_values(lake, Rating.contract) == {}
    erase_them(lake)
    for contract, column in ((Rating.contract, "user_id"), (User.contract, "user_id"), (Note.contract, "author")):
        tombstones = erased_values(lake, contract)
        assert list(tombstones) == [column]
        assert WHO in tombstones[column]
        assert f" {WHO}" in tombstones[column]
        assert WHO + 1 not in tombstones[column]
        assert None not in tombstones[column]
    assert erased_values(lake, Movie.contract) == {}
    assert str(WHO) not in repr(list(lake.ledger.read(Erasure)))


def test_spark_finds_the_same_values_erased(lake: Lakehouse) -> None:
    from lakehouse.spark import spark_session

    erase_them(lake)
    condition = erased_values(lake, Rating.contract)["user_id"].condition("the`id")
    spark = spark_session(lake.root).newSession()  # as the gate has it; Feast sets options of the session that it finds
    for kind in ("bigint", "string"):
        frame = spark.createDataFrame([(str(WHO),), (str(WHO + 1),), (None,)], "`the``id` string")
        cast = frame.selectExpr(f"cast(`the``id` as {kind}) as `the``id`").selectExpr(condition)
        assert [row[0] for row in cast.collect()] == [True, False, False]


def test_plain_spark_reads_what_is_left(lake: Lakehouse) -> None:
    """The log was rewritten in part: checkpoints and commits must still be what Spark accepts."""
    from lakehouse.spark import spark_session

    spark = spark_session(lake.root)
    uri = lake.uri("ratings")
    frame = spark.createDataFrame(
        [(WHO, 4, 4.0, NOON), (1, 4, 4.0, NOON)], "user_id long, item_id long, rating double, rated_at timestamp"
    )
    frame.write.format("delta").mode("append").save(uri)  # with checksums of Hadoop's and Spark's own
    like = max(lake.publications("ratings"), key=lambda p: p.version)
    change: dict[str, Any] = {"version": 6, "batch_id": "spark", "publication_id": "ratings/spark@6"}
    lake.ledger.append([like.model_copy(update=change)])
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, uri).checkpoint()  # type: ignore[union-attr]
    assert any(".checkpoint.parquet" in trace for trace in traces_of_the_person(lake.root))
    erase_them(lake)
    assert list(traces_of_the_person(lake.root)) == []
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    assert sorted(row.user_id for row in spark.read.format("delta").load(uri).collect()) == [1, 1, 2, 3, 5]
    old = spark.read.format("delta").option("versionAsOf", 2).load(uri)
    assert sorted(row.user_id for row in old.collect()) == [1, 2]
    assert spark.sql(f"describe history delta.`{uri}`").count() == 8


def test_what_was_never_published_is_cleaned_too(lake: Lakehouse, put: Put) -> None:
    refused_version = put(lake, [rating(WHO, item=3)], published=False)
    certificate = erase_them(lake)
    assert refused_version in certificate.removed["ratings"]
    assert numbers(lake, "ratings") == [1, 2, 3, 5]
    assert list(traces_of_the_person(lake.root)) == []


def test_nothing_is_erased_under_a_batch_on_its_way(lake: Lakehouse) -> None:
    from deltalake import CommitProperties, Transaction

    table = open_delta(lake.uri("ratings"))
    merged = CommitProperties(app_transactions=[Transaction("millrace/ratings/x", 0)])
    table.delete("user_id = 1", commit_properties=merged)
    version = table.version()
    with pytest.raises(TableBusyError):
        erase_them(lake)
    assert DeltaTable(table.table_uri).version() == version
    assert WHO in erased_values(lake, Rating.contract)["user_id"], "the tombstone stands already"


class Killed(BaseException):
    """As by kill -9: nothing of the code runs after it."""


def test_a_kill_at_any_step_is_made_good_by_the_next_try(
    ratings: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every durable call is a point: the process ends before it, for the first, the second, … until none is left."""
    from deltalake.table import TableMerger

    steps, deadly = 0, 0

    def step(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == deadly:
                raise Killed
            return real(*args, **options)

        return counted

    def delete(storage: LocalStorage, key: str) -> None:
        if (storage.folder / key).exists():
            (counted_delete if "_delta_log" not in key else real_delete)(storage, key)

    real_delete = LocalStorage.delete
    counted_delete = step(real_delete)
    monkeypatch.setattr(LocalStorage, "delete", delete)
    monkeypatch.setattr(LocalStorage, "write", step(LocalStorage.write))
    monkeypatch.setattr(TableMerger, "execute", step(TableMerger.execute))
    monkeypatch.setattr(DeltaTable, "create", step(DeltaTable.create))
    monkeypatch.setattr("deltalake.write_deltalake", step(write_deltalake))
    found = survey(ratings, subject="user_id", value=WHO)
    for number in range(1, 100):
        shutil.copytree(ratings.root, tmp_path / "copy")
        lake = Lakehouse.open(tmp_path / "copy")
        steps, deadly = 0, number
        try:
            erase_them(lake)
            break  # it went through
        except Killed:
            deadly = 0
        certificate = erase_them(lake)
        assert certificate.found == found, "what was there before the kill is in the certificate"
        assert certificate.redacted == {"ratings": [3]}
        assert certificate.removed == {"ratings": [4, 5]}
        assert certificate.new_versions == {"ratings": 6}
        assert list(traces_of_the_person(lake.root)) == []
        assert numbers(lake, "ratings") == [1, 2, 3, 5]
        assert numbers(lake, "ratings@3") == [1, 2, 3]
        shutil.rmtree(lake.root)
    assert number > 15, "the test has gone through the steps"


# Which columns


def test_references_are_followed_both_ways_and_referring_tables_come_first() -> None:
    columns = columns_of_subject("user_id")
    assert columns["notes"] == ("author",)
    assert columns["ratings"] == columns["users"] == ("user_id",)
    assert "movies" not in columns
    assert list(columns)[-1] == "users"
    assert columns_of_subject("users.user_id") == columns


@pytest.mark.parametrize(
    ("subject", "value", "message"),
    [
        ("item_id", "1", "No declared table has a column 'item_id' that identifies a person"),
        ("user_id", "forty-two", "'forty-two' can't be a value of"),
    ],
)
def test_who_can_not_be_a_person_is_refused(lake: Lakehouse, subject: str, value: str, message: str) -> None:
    with pytest.raises(ErasureError, match=message):
        erase(lake, subject=subject, value=value, reason="", requested_by="desk")
    assert not list(lake.ledger.read(Erasure))


def test_a_table_partitioned_by_person_is_refused(lake: Lakehouse) -> None:
    uri = lake.uri("notes")
    write_deltalake(
        uri,
        pa.table({"note_id": [1], "author": [WHO], "text": ["x"]}),
        mode="overwrite",
        partition_by=["author"],
        schema_mode="overwrite",
    )
    with pytest.raises(ErasureError, match="partitioned by 'author'"):
        erase_them(lake)


def test_rows_that_a_deletion_vector_hides_are_found(lake: Lakehouse) -> None:
    """Delta takes them for deleted; their file still holds them, and delta-rs can't rewrite it."""
    from lakehouse.spark import spark_session

    uri = lake.uri("notes")
    spark = spark_session(lake.root)
    spark.sql(f"alter table delta.`{uri}` set tblproperties ('delta.enableDeletionVectors' = true)")
    spark.sql(f"delete from delta.`{uri}` where note_id = 1")
    (like,) = lake.publications("notes")
    version = DeltaTable(uri).version()
    lake.ledger.append([like.model_copy(update={"version": version, "publication_id": f"notes/x@{version}"})])
    with pytest.raises(ErasureError, match="still hold rows of the subject"):
        erase_them(lake)
    assert not [row for row in lake.ledger.read(Erasure) if row.state == "done"]


def test_erased_versions_stay_known_after_a_vacuum(lake: Lakehouse) -> None:
    from lakehouse.upkeep.vacuum import vacuum

    erase_them(lake)
    report = vacuum(lake, "ratings", dry_run=False, now=datetime.now(UTC) + timedelta(days=30))
    assert numbers(lake, "ratings@3") == [1, 2, 3], "the twin is pinned"
    assert report.removed == [], "the files of version 2 are the newest version's too"
