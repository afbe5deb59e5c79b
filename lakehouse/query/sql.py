"""How is a lake asked in SQL? ``query(lake, statement)``: DuckDB over pinned Delta versions, reads only.

DuckDB itself opens no file. It asks pyarrow for the columns and rows that a statement needs, or reads a stream where a
table's features leave pyarrow out (``lakehouse.query.reading``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakehouse.contracts.table import Contract, Table, declared_tables
from lakehouse.errors import (
    MillraceError,
    QueryError,
    UnknownTableError,
)
from lakehouse.lake import Lakehouse
from lakehouse.ledger import SYSTEM_TABLES
from lakehouse.query.references import AT
from lakehouse.snapshot import Snapshot, open_delta, quote_name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

#: The schema that the quarantine tables answer in.
QUARANTINE = "quarantine"

# A name with what pins it, as it stands in a statement; what follows must not continue the number.
_PINNED = re.compile(rf"[A-Za-z_][A-Za-z0-9_]*@{AT}(?!\w|-[0-9])".encode())
_MISSING_TABLE = re.compile(r'Table with name "?(?P<name>.+?)"? does not exist')
_BROKEN_STREAM = re.compile(r"reading the stream registered as '(?P<name>.+?)' failed: ")
# Words that ask for the catalog itself, so every table must be in it.
_CATALOG_WORDS = {"show", "information_schema", "duckdb_columns", "duckdb_tables", "duckdb_views"}

# Set in this order: the last one makes the others final.
_SAFETY = (
    "SET TimeZone = 'UTC'",
    "SET temp_directory = ''",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def query(lake: Lakehouse, statement: str) -> pa.Table:
    """Run one reading statement and return its rows.

    Tables answer to ``ratings`` (latest published), ``ratings@12``, ``ratings@1998-03-01``, ``ratings@golden`` (a tag),
    ``quarantine.ratings`` and the system tables' names; only those that the statement names are opened. The engine has
    no access to files or the network and can't be given any by the statement. Times are UTC.

    Returns:
        The rows with their types as DuckDB gives them; of two columns with one name the later gets a number.

    Raises:
        QueryError: not exactly one statement, not a read, or DuckDB refuses it.
        UnknownTableError, UnknownVersionError, NotPublishedError: a table or version that is not there.
    """
    import duckdb

    text, names = _pin_references(statement)
    sources, failures = _resolve(lake, names)
    with duckdb.connect(":memory:") as connection:
        try:
            _register(connection, sources)
            for setting in _SAFETY:
                connection.execute(setting)
            return _unique_names(connection.sql(_single_read(connection, text)).to_arrow_table())
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C
                raise KeyboardInterrupt from None
            raise
        except duckdb.Error as error:
            raise _unreadable(sources, error) or _query_error(error, lake, failures) from None


def connection_to(lake: Lakehouse) -> duckdb.DuckDBPyConnection:
    """See ``lakehouse.connect``."""
    import duckdb

    from lakehouse.query.tags import tags

    tagged = {f"{tag.table_name}@{tag.tag}" for tag in tags(lake)}
    sources, _ = _resolve(lake, {*lake.names(), *SYSTEM_TABLES, *tagged, QUARANTINE})
    connection = duckdb.connect(":memory:")
    _register(connection, sources)
    for setting in _SAFETY:
        connection.execute(setting)
    return connection


class _Source:
    """A table for DuckDB, where it must be a stream: each scan of it starts a new one over the same version."""

    def __init__(self, snapshot: Snapshot[Table]) -> None:
        self.snapshot = snapshot
        self.error: MillraceError | None = None

    def scannable(self) -> object:
        """What DuckDB reads; a version that can't be had is found out when it is scanned."""
        try:
            return self.snapshot.source() or self
        except MillraceError:
            return self

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        try:
            return self.snapshot.scan().__arrow_c_stream__(requested_schema)
        except MillraceError as error:
            self.error = error  # the engine would turn it into a message of its own
            raise


class _Empty:
    """A table that nobody has written to yet: the ledger's, or a quarantine."""

    error = None

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def scannable(self) -> object:
        """Itself."""
        return self

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        from lakehouse.contracts.arrow import arrow_schema

        return arrow_schema(self.contract).empty_table().__arrow_c_stream__(requested_schema)


#: What a statement may read, by schema and name.
Sources = dict[tuple[str, str], _Source | _Empty]


def _pin_references(statement: str) -> tuple[str, set[str]]:
    """The statement with each ``name@version`` as a quoted identifier, and every identifier in lower case.

    DuckDB's own tokenizer decides what is an identifier, so strings and comments stay as they are.
    """
    import duckdb

    try:
        data = statement.encode()
    except UnicodeEncodeError:
        raise QueryError("The statement is not valid UTF-8.", fix="Send the statement as UTF-8 text.") from None
    if b"\0" in data:
        raise QueryError("The statement holds a NUL character.", fix="Remove it.")
    tokens = duckdb.tokenize(statement)  # offsets count bytes
    ends = [*(offset for offset, _ in tokens[1:]), len(data)]
    parts: list[bytes] = []
    names: set[str] = set()
    done = 0
    for (offset, kind), end in zip(tokens, ends, strict=False):
        if offset < done or kind not in (duckdb.token_type.identifier, duckdb.token_type.keyword):
            continue
        pinned = _PINNED.match(data, offset)
        if pinned:
            name = pinned[0].decode().lower()
            parts += [data[done:offset], quote_name(name).encode()]
            done = pinned.end()
        else:
            name = _unquote(data[offset:end].decode().strip()).lower()
        names.add(name)
    return b"".join([*parts, data[done:]]).decode(), names


def _unquote(identifier: str) -> str:
    quoted = len(identifier) > 1 and identifier[0] == identifier[-1] == '"'
    return identifier[1:-1].replace('""', '"') if quoted else identifier


def _resolve(lake: Lakehouse, names: set[str]) -> tuple[Sources, dict[str, MillraceError]]:
    """A source for each identifier that can be a table, by schema and name; and why others could not be had.

    An identifier may as well be a column or an alias, so a failure counts only once DuckDB misses the table.
    """
    sources: Sources = {}
    failures: dict[str, MillraceError] = {}
    stored = set(lake.names())
    known = stored | set(SYSTEM_TABLES) | set(declared_tables())
    if names & _CATALOG_WORDS:
        names = names | stored
    for name in names:
        base = name.partition("@")[0]
        if name in SYSTEM_TABLES and name not in stored:
            sources["main", name] = _Empty(SYSTEM_TABLES[name].contract)
        elif base in known or "@" in name:
            try:
                sources["main", name] = _Source(lake.resolve(name).as_stored())
            except MillraceError as error:
                failures[name] = error
        if QUARANTINE in names and base in known and base not in SYSTEM_TABLES:
            try:
                sources[QUARANTINE, name] = _quarantined(lake, name)
            except MillraceError as error:
                failures[name] = error
    return sources, failures


def _quarantined(lake: Lakehouse, name: str) -> _Source | _Empty:
    from deltalake import DeltaTable

    base, _, at = name.partition("@")
    uri = lake.quarantine_uri(base)
    if at and not at.isdigit():
        raise QueryError(
            f"The quarantine of table {base!r} is not published by day.",
            fix=f"Name a version, such as {QUARANTINE}.{base}@1, or filter by a column.",
        )
    if not at and not DeltaTable.is_deltatable(uri):
        from lakehouse.gate.quarantine import QUARANTINE as CONTRACT

        return _Empty(CONTRACT)
    return _Source(Snapshot.of(open_delta(uri, int(at) if at else None), uri, Table))


def _register(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    connection.execute(f"CREATE SCHEMA {QUARANTINE}")
    for (schema, name), source in sources.items():
        if schema == QUARANTINE:
            # Only a temporary view can be registered; the view in the schema refers to it.
            connection.register(f"{QUARANTINE}.{name}", source.scannable())
            hidden = quote_name(f"{QUARANTINE}.{name}")
            connection.execute(f"CREATE VIEW {QUARANTINE}.{quote_name(name)} AS SELECT * FROM {hidden}")  # noqa: S608
        else:
            connection.register(name, source.scannable())


def _single_read(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """The one statement of the text; QueryError unless it reads."""
    import duckdb

    statements = connection.extract_statements(text)
    if len(statements) != 1:
        count = len(statements) or "no"
        raise QueryError(f"The text holds {count} statements.", fix="Give one statement at a time.")
    kind = statements[0].type
    if kind == duckdb.StatementType.MULTI:  # a PIVOT that would first make a type of the values
        raise QueryError(
            "PIVOT without a list of values is refused.", fix="Name the values: PIVOT ratings ON rating IN (1, 2, 3) …"
        )
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(
            f"The statement's kind is {kind.name}, and SQL here only reads.",
            fix="Use SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN.",
        )
    return statements[0]


def _unreadable(sources: Sources, error: Exception) -> MillraceError | None:
    """The source whose file is at fault, if one is."""
    for source in sources.values():
        if source.error:
            return source.error
    broken = _BROKEN_STREAM.search(str(error))
    for (schema, name), source in sources.items() if broken else ():
        if broken and broken["name"] in (name, f"{schema}.{name}") and isinstance(source, _Source):
            return source.snapshot.fault(error)
    return None


def _query_error(error: Exception, lake: Lakehouse, failures: dict[str, MillraceError]) -> MillraceError:
    """DuckDB's error as one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    missing = _MISSING_TABLE.search(lines[0])
    if missing:
        name = missing["name"].lower()
        if name in failures:
            return failures[name]
        return UnknownTableError.named(name, {*lake.names(), *SYSTEM_TABLES})
    hints = [line.rstrip(".") + "." for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))]
    if "file system operations are disabled" in lines[0]:
        hints = ["SQL here reads the lake's tables only; `millrace tables` lists them."]
    return QueryError(f"{lines[0].rstrip('.!')}.", fix=" ".join(hints) or "Mend the statement and run it again.")


def _unique_names(table: pa.Table) -> pa.Table:
    names: list[str] = []
    for name in table.column_names:
        unique, number = name, 1
        while unique in names:
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return table.rename_columns(names)
