"""What does the console say of a task's inputs? Each name means one thing in all tasks; the types say the rest.

A task's docstring describes an input of its own in a Google-style ``Args`` section. An input that it leaves out is
described by the words below, else by its type: the table of a snapshot, the first line of a model's docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_args, get_origin, get_type_hints

from docstring_parser import parse
from pydantic import BaseModel

from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot

#: Inputs that are plain numbers, texts and times, by name.
WORDS = {
    "day": "the day (UTC); the world is meant as at its end.",
    "holdout_days": "the newest days, kept from training and used to compare models.",
    "kickoff": "when the schedule fired (UTC).",
    "model": "folder of a Hugging Face model; empty for the small default one.",
    "retrain_after_days": "retrain once the champion is this many days behind what could be learned.",
    "retrain_after_ratings": "retrain once there are so many ratings that the champion has not seen.",
    "seed": "seeds everything random.",
}


def described(function: Callable[..., object]) -> str:
    """The function's docstring, with a line for each input."""
    text = inspect.getdoc(function) or ""
    told = {parameter.arg_name for parameter in parse(text).params}
    hints = get_type_hints(function)
    lines = [
        f"    {name}: {words}"
        for name in inspect.signature(function).parameters
        if name not in told and (words := _words(name, hints.get(name)))
    ]
    if not lines:
        return text
    return "\n".join([text, *([] if told else ["", "Args:"]), *lines])


def _words(name: str, hint: object) -> str:
    if get_origin(hint) is Snapshot:
        row = next((one for one in get_args(hint) if isinstance(one, type) and issubclass(one, Table)), None)
        return f"one version of {row.contract.table}: {_first_line(row)}" if row else "one version of a table."
    if get_origin(hint) is list and get_args(hint):
        return _words(name, get_args(hint)[0])
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return _first_line(hint)
    return WORDS.get(name, "")


def _first_line(declared: type) -> str:
    return (inspect.getdoc(declared) or "").partition("\n")[0]
