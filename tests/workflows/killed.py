"""pyflyte, killed (signal 9) when the task that KILLED_IN names has done its work and nobody knows its answer yet."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from flytekit.clis.sdk_in_container.pyflyte import main

from lakehouse.contracts.table import Table
from lakehouse.ledger import Cost, Ledger

_append = Ledger.append


def _append_or_die(self: Ledger, rows: Sequence[Table]) -> None:
    if any(isinstance(row, Cost) and row.task == os.environ["KILLED_IN"] for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    _append(self, rows)


Ledger.append = _append_or_die  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
