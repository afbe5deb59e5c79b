"""Does a new version find its way where it runs? It looks at the engines, the lake and one row of each table."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tasks.cache import engine_versions, environment_digest, project_digest
from tasks.lake import Lake
from tasks.typed import task


class Sight(BaseModel):
    """What was seen.

    Attributes:
        code: SHA-256 over the project's sources.
        lock: SHA-256 of the environment's lock.
        engines: version by package.
        tables: the published version of each table, as table@version, one row of which was read.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    lock: str
    engines: dict[str, str]
    tables: list[str]


@task(cached=False, retries=0, memory="1Gi")
def look(lake: Lake) -> Sight:
    """Read one row of every published table, and say which code and engines did it; writes its cost alone."""
    lakehouse = lake.open()
    seen = []
    for table in lakehouse.tables():
        if table.published is None or table.system:
            continue
        snapshot = lakehouse.resolve(table.name)
        for batch in snapshot.scan(snapshot.columns()[:1]):
            if batch.num_rows:
                break
        seen.append(snapshot.reference)
    return Sight(code=project_digest(), lock=environment_digest(), engines=engine_versions(), tables=seen)
