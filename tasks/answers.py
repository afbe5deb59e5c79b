"""How do a language model's answers become rows of a table? As a batch for the gate, refused ones among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from lakehouse.contracts.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

    from models.llm.store import Answer


def as_rows(row_model: type[Table], answers: Sequence[tuple[Answer, Mapping[str, int | str | datetime]]]) -> pa.Table:
    """Answers and the other columns of their rows, in the columns of the table.

    A question without a valid answer becomes a row whose answer columns are empty. The gate refuses it, so that it
    waits in the quarantine; its text and what was wrong with it stand in ``llm_responses`` under its ``answer_key``.
    """
    import pyarrow as pa

    from lakehouse.contracts.arrow import arrow_schema

    # Nothing is required here: what is missing, the gate sees.
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(row_model.contract)])
    records = [
        {**columns, **(json.loads(answer.output) if answer.output else {}), "answer_key": answer.answer_key}
        for answer, columns in answers
    ]
    return pa.Table.from_pylist(records, schema=schema)
