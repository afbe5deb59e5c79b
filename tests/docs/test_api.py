"""What others may build on is written down, and a change of it is a change of that list."""

from __future__ import annotations

import difflib
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def found(api: ModuleType) -> str:
    return str(api.listing())


def test_the_public_interface_is_the_one_that_is_written_down(api: ModuleType, found: str) -> None:
    written = api.LIST.read_text(encoding="utf-8")
    changes = difflib.unified_diff(
        written.splitlines(), found.splitlines(), "docs/api.txt", "sources", n=0, lineterm=""
    )
    assert written == found, "`make api` writes the list anew:\n" + "\n".join(changes)


def test_functions_classes_methods_and_constants_have_their_lines(found: str) -> None:
    lines = {line.strip() for line in found.splitlines()}
    assert "publish_rows" in {line.partition("(")[0] for line in lines}
    for line in (
        "lakehouse.snapshot",
        "Table = lakehouse.contracts.table.Table",
        "class Table(BaseModel)",
        "Snapshot.reference: str",
        "Snapshot.rows() -> Iterator[Row]",
        "Snapshot.of(table: DeltaTable, uri: str, row: type[Row]) -> Snapshot[Row]",
        "MIN_USERS",
    ):
        assert line in lines
    assert not any(part.startswith("_") for line in lines for part in line.partition("(")[0].split("."))
