"""How does Spark start faster? A short publishing session is rehearsed once, and the JVM keeps the classes it loaded.

    python -m lakehouse.rehearsal

Part of the set-up: it also downloads Spark's libraries.
"""

from __future__ import annotations

import os
import tempfile
from datetime import date
from pathlib import Path

from lakehouse.gate.publish import publish
from lakehouse.gate.staging import stage
from lakehouse.lake import Lakehouse
from lakehouse.movielens import movielens
from lakehouse.spark import class_archive, library_jars, spark_session, stop_spark

#: MovieLens's first days: a first batch, and one that is merged.
DAYS = (date(1997, 9, 20), date(1997, 9, 21))


def rehearse() -> Path:
    """Publish two small days into a lake that is thrown away, and archive the classes that this took."""
    archive = class_archive()
    part = archive.with_name(f"{archive.name}.{os.getpid()}")
    spark_session(record_classes=part)
    try:
        with tempfile.TemporaryDirectory() as folder:
            lake = Lakehouse.open(Path(folder), create=True)
            before: date | None = None
            for day in DAYS:
                for row_model, rows in movielens().batches(day, before):
                    publish(lake, row_model, stage(lake, row_model, rows, batch_id=day.isoformat(), day=day))
                before = day
    finally:
        stop_spark()
    part.replace(archive)
    return archive


def main() -> None:
    print(f"{len(library_jars())} Spark libraries in place", flush=True)
    if not class_archive().is_file():
        print(f"class archive: {rehearse().stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
