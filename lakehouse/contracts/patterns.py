r"""Does a pattern mean the same to every engine? If it keeps to the common part of Rust's, Java's and JSON Schema's.

pydantic checks by Rust's engine, Deequ by Java's. They differ in what ``\d``, ``\w`` and ``\s`` hold, in the end of a
line, and in all that only one of them has. What is left: literals, ``.``, classes such as ``[^a-z0-9_.-]``, groups,
``|``, ``^``, ``$`` and the quantifiers ``*``, ``+``, ``?``, ``{2}``, ``{2,}``, ``{2,5}``, each of which may be lazy
(``+?``). A pattern may match anywhere in the value; ``^`` and ``$`` tie it to the ends.
"""

from __future__ import annotations

import re

from lakehouse.errors import ContractError

#: What may follow a backslash: characters that would otherwise mean something.
_ESCAPED = r"\^$.*+?()[]{}|/-"
_QUANTIFIER = re.compile(r"[*+?]|\{\d{1,3}(?:,\d{0,3})?\}")

_CLASSES = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[A-Za-z0-9_]",
    "W": "[^A-Za-z0-9_]",
    "s": "[ ]",
    "S": "[^ ]",
    "A": "^",
    "Z": "$",
    "z": "$",
}


def check_pattern(where: str, pattern: str) -> None:
    """ContractError for a pattern that engines would read differently, or not at all.

    Args:
        where: the column, for the message.
        pattern: as given to ``Field(pattern=…)``.
    """
    try:
        _parts(pattern)
        re.compile(pattern)
    except (re.error, _NotCommonError) as error:
        reason, fix = (
            error.args if isinstance(error, _NotCommonError) else (f"it is no regular expression: {error}", "")
        )
        raise ContractError(
            f"{where} has the pattern {pattern!r}, which can't be checked the same everywhere: {reason}.",
            fix=fix or "Mend the pattern.",
        ) from error


def engine_pattern(pattern: str) -> str:
    """A checked pattern for Java and Rust alike, in which ``$`` is the very end and ``.`` all but a line feed."""
    return "".join({"$": r"\z", ".": r"[^\n]"}.get(part, part) for part in _parts(pattern))


def json_pattern(pattern: str) -> str:
    """A checked pattern for JSON Schema, whose engine (ECMA-262) has more line ends and takes no ``\\-`` alone."""
    return "".join({".": r"[^\n]", r"\-": "-"}.get(part, part) for part in _parts(pattern))


class _NotCommonError(Exception):
    """Why a pattern is refused, and the way out."""


def _parts(pattern: str) -> list[str]:
    """The pattern in its parts: characters, escapes, classes, openings of groups, quantifiers."""
    parts: list[str] = []
    quantifiable = False
    place = 0
    while place < len(pattern):
        char = pattern[place]
        quantifier = _QUANTIFIER.match(pattern, place)
        if quantifier is not None:
            if not quantifiable:
                raise _NotCommonError(
                    f"{quantifier[0]!r} follows nothing that can be repeated", "Put it in a group: (…)+"
                )
            part = quantifier[0] + "?" * pattern.startswith("?", quantifier.end())
            quantifiable = False
        elif char == "[":
            part, quantifiable = _class(pattern, place), True
        elif char == "\\":
            part, quantifiable = _escape(pattern, place), True
        elif char == "(":
            part, quantifiable = _opening(pattern, place), False
        elif char in "{}]":
            raise _NotCommonError(f"{char!r} stands alone", f"Write \\{char}.")
        else:
            part, quantifiable = char, char not in "^$|"
        parts.append(part)
        place += len(part)
    return parts


def _escape(pattern: str, place: int) -> str:
    char = pattern[place + 1 : place + 2]
    if char in _ESCAPED and char:
        return "\\" + char
    if char in _CLASSES and char:
        raise _NotCommonError(f"\\{char} holds other characters to each engine", f"Write {_CLASSES[char]}.")
    raise _NotCommonError(
        f"\\{char} is not known to all of them", "Write the character itself, or a class such as [a-z]."
    )


def _opening(pattern: str, place: int) -> str:
    if not pattern.startswith("(?", place):
        return "("
    if pattern.startswith("(?:", place):
        return "(?:"
    raise _NotCommonError(
        f"{pattern[place : place + 4]!r} is not known to all of them",
        "Use plain groups (…) or (?:…); look-around, flags and named groups are left out.",
    )


def _class(pattern: str, place: int) -> str:
    end = place + 2 if pattern.startswith("[^", place) else place + 1
    start = end
    while end < len(pattern) and (pattern[end] != "]" or end == start):
        char = pattern[end]
        if char == "\\":
            end += len(_escape(pattern, end))
            continue
        if char in "[]" or char == pattern[end + 1 : end + 2] in ("&", "-", "~", "|"):
            raise _NotCommonError(f"{char!r} within […] means other things to each engine", f"Write \\{char}.")
        end += 1
    return pattern[place : end + 1]
