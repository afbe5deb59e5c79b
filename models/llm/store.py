"""Which questions have been answered, and what was the answer? A Delta table, one row an answer, never changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AwareDatetime, BaseModel, ConfigDict

from models.llm.component import Component
from models.llm.errors import ResponseStoreError

if TYPE_CHECKING:
    from deltalake import DeltaTable

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


class Answer(BaseModel):
    """One question and what the model wrote.

    Attributes:
        answer_key: SHA-256 over component, model, prompt, schema, sampling, determinism class and row.
        determinism: what is promised to repeat, see ``models.llm.determinism``; None in rows older than the column.
        batch: digest of the keys that were asked together, in their order; None for an answer given online.
        place: which of them this was, from 0.
        input: what was asked of the row, JSON.
        raw: the model's text, as it came.
        output: the validated answer, JSON; None if the text did not validate.
        error: why it did not; None if it did.
        tokens_in, tokens_out: tokens of prompt and answer, repairs included.
        asked_at: UTC.
    """

    model_config = ConfigDict(frozen=True)

    answer_key: str
    component: str
    model_digest: str
    prompt_digest: str
    schema_digest: str
    sampling_digest: str
    row_digest: str
    determinism: str | None = None
    batch: str | None = None
    place: int | None = None
    input: str
    raw: str
    output: str | None
    error: str | None
    tokens_in: int
    tokens_out: int
    asked_at: AwareDatetime

    def parsed(self, component: Component[In, Out]) -> Out | None:
        """The answer as the component's output model; None if there was no valid one."""
        return None if self.output is None else component.output.model_validate_json(self.output)


#: Columns of the table; times are microseconds, UTC.
SCHEMA = pa.schema(
    [
        pa.field("answer_key", pa.string(), nullable=False),
        pa.field("component", pa.string(), nullable=False),
        pa.field("model_digest", pa.string(), nullable=False),
        pa.field("prompt_digest", pa.string(), nullable=False),
        pa.field("schema_digest", pa.string(), nullable=False),
        pa.field("sampling_digest", pa.string(), nullable=False),
        pa.field("row_digest", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
        pa.field("output", pa.string()),
        pa.field("error", pa.string()),
        pa.field("tokens_in", pa.int64(), nullable=False),
        pa.field("tokens_out", pa.int64(), nullable=False),
        pa.field("asked_at", pa.timestamp("us", tz="UTC"), nullable=False),
        # A table that was made before these get them with its next answers.
        pa.field("determinism", pa.string()),
        pa.field("batch", pa.string()),
        pa.field("place", pa.int64()),
    ]
)
_LATER = ("determinism", "batch", "place")


class ResponseStore:
    """The answers in one Delta table, which is made with the first of them.

    Args:
        uri: path or URL of the table's folder.
    """

    #: How often an append that lost to another writer is tried again.
    TRIES = 20

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def known(self, keys: Collection[str]) -> dict[str, Answer]:
        """The stored answers among ``keys``, by key.

        Raises:
            ResponseStoreError: the folder holds another table.
        """
        table = self._open()
        if table is None or not keys:
            return {}
        rows = _rows(table, keys, _columns(table)).to_pylist()
        return {row["answer_key"]: Answer.model_validate(row) for row in rows}

    def version(self) -> int:
        """The table's newest version; -1 if nothing was stored yet."""
        table = self._open()
        return -1 if table is None else table.version()

    def of(self, components: Collection[str], model_digest: str) -> list[Answer]:
        """Every stored answer of one model to the questions of some components.

        Raises:
            ResponseStoreError: the folder holds another table.
        """
        table = self._open()
        if table is None:
            return []
        rows = _read(table, _columns(table))
        chosen = pc.and_(
            pc.equal(rows["model_digest"], model_digest),
            pc.is_in(rows["component"], value_set=pa.array(components, pa.string())),
        )
        return [Answer.model_validate(row) for row in rows.filter(chosen).to_pylist()]

    def append(self, answers: Sequence[Answer]) -> int:
        """Store the answers whose keys are new, in one commit; how many that were.

        A key that another writer stored in the meantime keeps that writer's answer.

        Raises:
            ResponseStoreError: other writers won every time, the folder can't be written, or it holds another table.
        """
        from deltalake import CommitProperties, DeltaTable, write_deltalake
        from deltalake.exceptions import DeltaError

        # Delta lets appends pass each other. Without retries a commit lands right after the version that was searched
        # for its keys, or not at all.
        alone = CommitProperties(max_commit_retries=0)
        waiting = {answer.answer_key: answer for answer in answers}
        for _ in range(self.TRIES):
            table = self._open()
            if table is not None:
                landed = set(_rows(table, waiting, ["answer_key"])["answer_key"].to_pylist())
                waiting = {key: answer for key, answer in waiting.items() if key not in landed}
            if not waiting:
                return 0
            try:
                if table is None:
                    # Then look again: another writer's table may have come first, with answers in it.
                    DeltaTable.create(self.uri, SCHEMA, mode="ignore", commit_properties=alone)
                    continue
                rows = pa.Table.from_pylist([answer.model_dump() for answer in waiting.values()], schema=SCHEMA)
                write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=alone)
            except DeltaError as error:
                if not self._moved_on(table):
                    raise ResponseStoreError.not_written(self.uri, len(waiting), str(error)) from error
                continue
            except OSError as error:
                raise ResponseStoreError.not_written(self.uri, len(waiting), str(error)) from error
            return len(waiting)
        raise ResponseStoreError.contended(self.uri, self.TRIES, len(waiting))

    def _open(self) -> DeltaTable | None:
        from deltalake import DeltaTable

        if not DeltaTable.is_deltatable(self.uri):
            return None
        table = DeltaTable(self.uri)
        present = {field.name for field in table.schema().fields}
        lacking = [name for name in SCHEMA.names if name not in present and name not in _LATER]
        if lacking:
            raise ResponseStoreError.not_ours(self.uri, lacking)
        return table

    def _moved_on(self, seen: DeltaTable | None) -> bool:
        """Whether another writer has committed since ``seen``."""
        now = self._open()
        return now is not None and (seen is None or now.version() > seen.version())


def _columns(table: DeltaTable) -> list[str]:
    """Those of our columns that the table has."""
    present = {field.name for field in table.schema().fields}
    return [name for name in SCHEMA.names if name in present]


def _rows(table: DeltaTable, keys: Collection[str], columns: list[str]) -> pa.Table:
    """The rows of ``keys``."""
    return _read(table, columns, pa.array(keys, pa.string()))


def _read(table: DeltaTable, columns: list[str], keys: pa.Array | None = None) -> pa.Table:
    """The rows, or those of ``keys``, read a batch at a time: the table outgrows memory before its keys do."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    found = []
    for batch in pa.RecordBatchReader.from_stream(table.scan(columns=columns)):
        # The reader gives string views, which Arrow can't filter yet.
        rows = pa.Table.from_batches([batch]).cast(schema)
        found.append(rows if keys is None else rows.filter(pc.is_in(rows["answer_key"], value_set=keys)))
    return pa.concat_tables(found) if found else schema.empty_table()
