"""One task again, on inputs from the ledger: ``python -m tasks.step`` reads a request and prints both answers as JSON.

A process of its own, started in the folder of the code that is to run.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib import import_module
from typing import cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from tasks.kept import without_places
from tasks.key import as_json
from tasks.lake import Lake


def main() -> None:
    """Answer one request: ``task``, its ``inputs`` and the ``answer`` that it gave, as the ledger has them."""
    request = json.loads(sys.stdin.read())
    module, _, name = request["task"].rpartition(".")
    function = getattr(import_module(module), name).task_function
    hints = get_type_hints(function)
    if Lake in hints.values():
        reply: dict[str, object] = {"refused": "it writes into the lake"}
    else:
        inputs = {key: from_json(hints[key], value) for key, value in request["inputs"].items()}
        then = from_json(hints["return"], request["answer"])
        reply = {
            name: as_json(without_places(answer)) for name, answer in (("then", then), ("now", function(**inputs)))
        }
    print(json.dumps(reply))


def from_json(hint: object, value: object) -> object:
    """What ``as_json`` wrote, as a value of the type that a task's signature says."""
    if get_origin(hint) is Snapshot:
        assert isinstance(value, dict)
        row = next((one for one in get_args(hint) if isinstance(one, type) and issubclass(one, Table)), Table)
        return Snapshot(str(value["uri"]), int(value["version"]), row)
    if get_origin(hint) is list:
        assert isinstance(value, list)
        return [from_json(get_args(hint)[0], item) for item in value]
    if isinstance(hint, type) and hasattr(hint, "_fields"):
        assert isinstance(value, dict)
        return hint(**{name: from_json(kind, value[name]) for name, kind in get_type_hints(hint).items()})
    if hint is datetime:
        return datetime.fromisoformat(str(value))
    return TypeAdapter(cast("type[object]", hint)).validate_python(value)


if __name__ == "__main__":
    main()
