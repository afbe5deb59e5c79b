"""How is a person's data removed for good? From every table, version and file, with a certificate of what was done.

The order of the steps, each of which may be repeated after a kill, and which the same command goes through again:

1. the tombstone: one row in the ledger; from here on the gate refuses the person
2. of each table, those that refer to others first: a published version without the person
3. of each table: redacted twins of the pinned versions that held the person, then deletion of every such file
4. quarantine, staged batches and captured answers
5. the certificate: the second row in the ledger

What is left: aggregates in the ledger, such as the mean of a version that held the person. Models, training sets and
the online store lie outside the lake: the certificate names the models that were trained on the person.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import declared_tables
from lakehouse.errors import ErasureError
from lakehouse.gate.staging import let_go
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Erasure, Promotion, Run
from lakehouse.privacy.redaction import Match, Person, count, delete_from_newest, remove_traces, traces
from lakehouse.privacy.subjects import columns_of_subject
from lakehouse.privacy.tombstones import digest_of, salt_of
from lakehouse.query.reading import stream
from lakehouse.snapshot import open_delta
from lakehouse.upkeep.acts import conflicts_explained, refuse_if_underway, settle
from lakehouse.upkeep.fates import fates, twin_uri
from lakehouse.upkeep.pins import pins
from lakehouse.upkeep.restore import withdrawn

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: What a quarantined row becomes whose content was a person's: the same that the gate writes when it refuses them.
_ERASED = {"row": "'{}'", "rules": "make_array('erased')"}
_ANSWERS = "llm_responses"


class TrainedModel(BaseModel):
    """A model that was trained on versions which held the person."""

    model_config = ConfigDict(frozen=True)

    digest: str
    run_id: str
    promoted: bool


class Survey(BaseModel):
    """Where a person's data lies in the lake.

    Attributes:
        rows: rows in each table's published version (of a table that has none, in its newest).
        versions: versions of each table that hold the person.
        quarantined: refused rows by table.
        staged: batches that wait or waited at the gate, as table/batch.
        answers: captured answers of the language model.
        files: Parquet files that hold any of it.
        models: models trained on these versions.
        unexamined: stored tables that are not declared in this process: nobody knows whether they name a person.
    """

    model_config = ConfigDict(frozen=True)

    rows: dict[str, int] = {}
    versions: dict[str, list[int]] = {}
    quarantined: dict[str, int] = {}
    staged: list[str] = []
    answers: int = 0
    files: int = 0
    models: list[TrainedModel] = []
    unexamined: list[str] = []


class Certificate(BaseModel):
    """What an erasure found and did.

    Attributes:
        erasure_id: its row in the ledger's ``erasures``.
        columns: where the person's values were looked for, as table.column.
        requested_by, reason: as stated.
        requested_at, finished_at: UTC.
        found: what there was before.
        new_versions: the version that readers of each table get since.
        removed: old versions by table that can no longer be read.
        redacted: pinned versions by table that are now read from a twin without the person.
        remains: what this erasure did not touch.
    """

    model_config = ConfigDict(frozen=True)

    erasure_id: str
    columns: list[str]
    requested_by: str
    reason: str
    requested_at: datetime
    finished_at: datetime
    found: Survey
    new_versions: dict[str, int]
    removed: dict[str, list[int]]
    redacted: dict[str, list[int]]
    remains: list[str]


def survey(lake: Lakehouse, *, subject: str, value: str | int) -> Survey:
    """Look for a person in every file; nothing is changed.

    Args:
        lake: the lake.
        subject: name of a column marked ``Subject()``.
        value: what names the person in it.

    Raises:
        ErasureError: no such column, or a value that it can't hold.
    """
    people = _people(subject, value)
    rows, versions, quarantined, staged, files = {}, {}, {}, [], 0
    for name, person in people.items():
        if name in lake.names():
            uri = lake.uri(name)
            found = traces(uri, person.columns, person.mask)
            held = found.versions | {v for v, twin in fates(uri).twins.items() if _in_twin(uri, twin, person)}
            if held or found.marked:
                published = [p.version for p in lake.publications(name) if p.published]
                rows[name] = count(uri, person, max(published, default=found.files.newest))
                versions[name] = sorted(v for v in held if not fates(uri).is_removed(v))
                files += len(found.marked)
        refused = _refused(lake, name, person)
        if refused:
            quarantined[name] = len(refused)
        staged += [f"{name}/{batch_id}" for batch_id, _ in _staged(lake, name, person)]
    return Survey(
        rows=rows,
        versions=versions,
        quarantined=quarantined,
        staged=staged,
        answers=len(_answers(lake, people)),
        files=files + len(staged),
        models=_models(lake, versions),
        unexamined=[n for n in lake.names() if not lake.is_system(n) and n not in declared_tables()],
    )


def erase(lake: Lakehouse, *, subject: str, value: str | int, reason: str, requested_by: str) -> Certificate:
    """Remove a person from the lake, and refuse them from then on; who was erased already is looked for again.

    Raises:
        ErasureError: no such column, a value that it can't hold, or a file that can't be cleaned.
        TableBusyError: a batch is being published; nothing but the tombstone was written.
        StorageError: a table can't be read or written; the same command goes on from there.
    """
    people = _people(subject, value)
    columns = sorted(f"{name}.{column}" for name, person in people.items() for column in person.columns)
    digest = digest_of(salt_of(lake), value)
    own = [row for row in lake.ledger.read(Erasure) if row.digest == digest and set(row.columns) & set(columns)]
    done = {row.erasure_id: row for row in own if row.state == "done"}
    request = next((row for row in own if row.state == "requested" and row.erasure_id not in done), None)
    if request is None:
        found = survey(lake, subject=subject, value=value)
        if done and not (found.rows or found.quarantined or found.staged or found.answers):
            return Certificate.model_validate_json(list(done.values())[-1].certificate)
        request = Erasure(
            erasure_id=f"{digest[:16]}/{len(done) + 1}",
            state="requested",
            digest=digest,
            columns=columns,
            reason=reason,
            requested_by=requested_by,
            certificate=found.model_dump_json(),
            recorded_at=datetime.now(UTC),
        )
        lake.ledger.append([request])
    _remove(lake, people)
    return _certify(lake, request, list(people))


def _remove(lake: Lakehouse, people: dict[str, Person]) -> None:
    stored = [name for name in people if name in lake.names()]
    for name in stored:
        refuse_if_underway(lake, name, settle(lake, name))
    for name in stored:
        delete_from_newest(lake, name, people[name])
    for name in stored:
        pinned = {pin.version for pin in pins(lake, name)}
        remove_traces(lake.uri(name), people[name].columns, people[name].mask, pinned)
    for name, person in people.items():
        refused = _refused(lake, name, person)
        if refused:
            _merge_rows(lake.quarantine_uri(name), "quarantine_id", refused, _ERASED)
        if name in lake.storage.tables("_quarantine"):
            remove_traces(lake.quarantine_uri(name), ("row",), _in_json("row", person), set())
        for key in list(
            lake.storage.keys(f"_states/{name}")
        ):  # of metrics, to go on from: extremes may be the person's
            lake.storage.delete(key)
        publications = lake.publications(name)
        gone_again = withdrawn(publications)
        published = {p.batch_id for p in publications if p.publication_id not in gone_again}
        for batch_id, rest in _staged(lake, name, person):
            let_go(lake, name, batch_id, rest=None if batch_id in published else rest)
    answers = _answers(lake, people)
    if answers:
        _merge_rows(lake.uri(_ANSWERS), "answer_key", answers, None)
    if _ANSWERS in lake.names():
        for person in people.values():
            remove_traces(lake.uri(_ANSWERS), ("input",), _in_json("input", person), set())


def _certify(lake: Lakehouse, request: Erasure, tables: list[str]) -> Certificate:
    found = Survey.model_validate_json(request.certificate)
    removed, redacted, new_versions = {}, {}, {}
    for name, versions in found.versions.items():
        known = fates(lake.uri(name))
        removed[name] = [v for v in versions if known.is_removed(v)]
        redacted[name] = [v for v in versions if v in known.twins]
    for p in lake.publications():
        if p.kind == "erase" and p.table_name in tables and p.published_at >= request.recorded_at:
            new_versions[p.table_name] = p.version
    certificate = Certificate(
        erasure_id=request.erasure_id,
        columns=request.columns,
        requested_by=request.requested_by,
        reason=request.reason,
        requested_at=request.recorded_at,
        finished_at=datetime.now(UTC),
        found=found,
        new_versions=new_versions,
        removed={name: versions for name, versions in removed.items() if versions},
        redacted={name: versions for name, versions in redacted.items() if versions},
        remains=_remains(found),
    )
    update = {"state": "done", "certificate": certificate.model_dump_json(), "recorded_at": certificate.finished_at}
    lake.ledger.append([request.model_copy(update=update)])
    return certificate


def _remains(found: Survey) -> list[str]:
    remains = [
        "Metrics and counts of earlier versions stay in the ledger: aggregates over all rows.",
        "The online store, training sets and reports lie outside the lake: materialize and train anew.",
    ]
    if found.models:
        digests = ", ".join(model.digest[:12] for model in found.models)
        remains.append(f"{len(found.models)} model(s) were trained on the person: {digests}.")
    if found.unexamined:
        remains.append(f"Tables that nobody declared were not examined: {', '.join(found.unexamined)}.")
    return remains


def _people(subject: str, value: str | int) -> dict[str, Person]:
    """Who to look for in each table, in the type of the table's own columns."""
    people = {}
    for name, columns in columns_of_subject(subject).items():
        kind = declared_tables()[name].contract.column(columns[0]).type.kind
        try:
            typed = int(value) if kind == "int" else str(value)
        except ValueError:
            raise ErasureError.value(f"{name}.{columns[0]}", value, kind) from None
        if kind not in ("int", "str"):
            raise ErasureError.value(f"{name}.{columns[0]}", value, "int or str")
        people[name] = Person(columns, typed)
    return people


def _in_twin(uri: str, twin: str, person: Person) -> bool:
    return bool(traces(twin_uri(uri, twin), person.columns, person.mask).marked)


def _in_json(column: str, person: Person) -> Match:
    def match(rows: pa.Table) -> pa.Array:
        return pa.array([person.is_in(text) for text in rows.column(column).to_pylist()], pa.bool_())

    return match


def _refused(lake: Lakehouse, name: str, person: Person) -> list[str]:
    """Ids of the quarantined rows that name the person."""
    if name not in lake.storage.tables("_quarantine"):
        return []
    table = open_delta(lake.quarantine_uri(name))
    return _keys_of(table, "quarantine_id", "row", person)


def _answers(lake: Lakehouse, people: dict[str, Person]) -> list[str]:
    """Keys of the captured answers to questions that name the person."""
    if _ANSWERS not in lake.names():
        return []
    table = open_delta(lake.uri(_ANSWERS))
    return sorted({key for person in people.values() for key in _keys_of(table, "answer_key", "input", person)})


def _keys_of(table: DeltaTable, key: str, text: str, person: Person) -> list[str]:
    found = []
    for batch in stream(table, [key, text], []):
        rows = zip(batch.column(key).to_pylist(), batch.column(text).to_pylist(), strict=True)
        found += [name for name, content in rows if person.is_in(content)]
    return found


def _merge_rows(uri: str, key: str, values: list[str], updates: dict[str, str] | None) -> None:
    """Change or delete the rows with these keys; the log names the key's column and no value."""
    table = open_delta(uri)
    merge = table.merge(
        pa.table({key: values}),
        predicate=f"stored.{key} = chosen.{key}",
        source_alias="chosen",
        target_alias="stored",
    )
    with conflicts_explained(uri.rpartition("/")[2]):
        (merge.when_matched_update(updates) if updates else merge.when_matched_delete()).execute()


def _staged(lake: Lakehouse, name: str, person: Person) -> Iterator[tuple[str, pa.Table]]:
    """Staged batches that hold the person, each with the rest of its rows."""
    for key in sorted(lake.storage.keys(f"_staging/{name}")):
        if key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(lake.storage.read(key)))
            mask = person.mask(rows)
            if pc.any(mask).as_py():
                yield key.rpartition("/")[2].removesuffix(".parquet"), rows.filter(pc.invert(mask))


def _models(lake: Lakehouse, versions: dict[str, list[int]]) -> list[TrainedModel]:
    held = {f"{name}@{version}" for name, own in versions.items() for version in own}
    promoted = {row.model_digest for row in lake.ledger.read(Promotion)}
    found = {}
    for run in lake.ledger.read(Run):
        digest = str(json.loads(run.artifacts).get("model", ""))
        if digest and held & set(run.inputs):
            found[digest] = TrainedModel(digest=digest, run_id=run.run_id, promoted=digest in promoted)
    return list(found.values())
