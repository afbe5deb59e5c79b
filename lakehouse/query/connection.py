"""How does one work with a lake in DuckDB? ``lakehouse.connect()``: every table a view, and nothing can be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.lake import Lakehouse

if TYPE_CHECKING:
    import duckdb


def connect(root: Path | str | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the lake's tables as they are now.

    A view ``ratings`` reads the latest published version, ``"ratings@golden"`` the version that a tag stands for,
    ``quarantine.ratings`` the refused rows, and the system tables answer to their names. Columns and filters are pushed
    down to the files. Versions are chosen here once: what is published later needs a new connection. The connection
    lives in memory and reaches no file, network or setting; tables made in it end with it. Times are UTC.

    Args:
        root: the lake's folder or URL; default the settings'.

    Raises:
        StorageError: there is no lake.
    """
    from lakehouse.query.sql import connection_to

    return connection_to(Lakehouse.open(root))
