"""How does a simulated day reach a lake? Through the real gate, into a lake that is thrown away afterwards."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.contracts.table import Table
from lakehouse.errors import AuditError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.movielens import Archive
from lakehouse.tables import Rating
from tasks.simulation.incidents import Corrupt
from tasks.simulation.model import Incident

if TYPE_CHECKING:
    import pyarrow as pa


class Feed:
    """A lake that is brought from day to day.

    What nothing is planted in passes the gate as it is; so days are published together up to the next one that
    matters, as a backfill does.
    """

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.lake = Lakehouse.open(folder, create=True)
        self._archive = archive
        self._until: date | None = None

    def bring_to(self, day: date) -> None:
        """Publish what the lake lacks up to the end of a day."""
        for row_model, rows in self._archive.batches(day, self._until):
            self._publish(row_model, rows, day, day.isoformat())
        self._until = day

    def let_in(self, corrupt: Corrupt, incident: Incident) -> Incident:
        """Send the day's ratings as the broken feed has them; what the gate said."""
        day = corrupt.day
        self.bring_to(day - timedelta(days=1))
        for row_model, rows in self._archive.batches(day, self._until):
            if row_model is not Rating:
                self._publish(row_model, rows, day, day.isoformat())
        self._until = day
        with suppress(AuditError):  # it may refuse the whole version too
            self._publish(Rating, corrupt.sent, day, day.isoformat())
        verdict = self._verdict()
        if verdict.published and not verdict.rows_quarantined:
            return incident
        counts = (
            f"{verdict.rows_in} rows in, {verdict.rows_published} published, {verdict.rows_quarantined} in quarantine"
        )
        rules = [f"{rule}: {rows} rows" for rule, rows in sorted(json.loads(verdict.broken_rules).items())]
        return incident.model_copy(
            update={
                "noticed_on": day,
                "noticed_by": "the publishing gate",
                "said": [counts, *rules, *verdict.failed_checks],
            }
        )

    def send_again(self, corrupt: Corrupt, incident: Incident) -> Incident:
        """Send the broken rows as they should have been; what the gate said."""
        self._publish(Rating, corrupt.right, corrupt.day, f"{corrupt.day}-again")
        verdict = self._verdict()
        after = (
            f"The rows come again the next day: {verdict.rows_published} of {verdict.rows_in} are published, "
            f"{verdict.rows_quarantined} go to quarantine."
        )
        return incident.model_copy(update={"after": after})

    def _publish(self, row_model: type[Table], rows: pa.Table, day: date, batch_id: str) -> None:
        from lakehouse.gate.publish import publish
        from lakehouse.gate.staging import stage

        publish(self.lake, row_model, stage(self.lake, row_model, rows, batch_id=batch_id, day=day))

    def _verdict(self) -> Publication:
        return self.lake.publications(Rating.contract.table)[-1]
