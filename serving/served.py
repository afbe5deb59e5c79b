"""What was served, to be compared with the lake later: a sample of the users' features that went into answers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from features.online import OnlineAnswer
from serving.turning import TurningLog, lines_of

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = "served.log"


class ServedRow(BaseModel):
    """A row of ``features.serving_log.SERVED``."""

    model_config = ConfigDict(frozen=True)

    served_at: datetime
    view: str
    table_id: str
    version: int
    known_at: datetime
    entity: str
    values: str


class ServedSample:
    """Keeps a share of what the online store said.

    Args:
        folder: where the log is kept; made if it is not there.
        share: of the answers that are kept, 0 to 1.
    """

    def __init__(self, folder: Path, share: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._share = share
        self._log = TurningLog(folder / _NAME)

    def note(self, answer: OnlineAnswer, entity: Mapping[str, int], at: datetime) -> None:
        """Perhaps keep what the store said of one entity, whose key columns are those of every view in the answer."""
        if random.random() >= self._share:  # noqa: S311
            return
        from features.serving_log import served

        keys = {view: list(entity) for view in answer.states}
        for row in served(answer, {name: [value] for name, value in entity.items()}, keys, at).to_pylist():
            self._log.add(ServedRow(**row).model_dump_json().encode())
        self._log.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._log.close()


def read_served(folder: Path) -> pa.Table:
    """The sample as ``features.serving_log.SERVED``, oldest first; empty if nothing was served."""
    import pyarrow as pa

    from features.serving_log import SERVED

    rows = []
    for line in lines_of(folder / _NAME):
        with suppress(ValidationError):
            rows.append(ServedRow.model_validate_json(line).model_dump())
    return pa.Table.from_pylist(rows, SERVED)
