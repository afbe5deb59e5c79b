"""What is a contract to those who send rows as JSON? A JSON Schema (2020-12) of one row.

JSON has fewer types than a contract, so some are written as text, in the way in which ``Table.model_dump_json`` writes
them: dates, instants (with their offset from UTC), and decimals, as a JSON number is read as a double by most and would
lose digits. A text can't be bounded by a number: bounds of decimals stand in ``x-bounds``, for people. NaN and the
infinities can't be written in JSON at all.

What holds for more than one value is said in ``x-`` keywords, which validators pass over: of the table ``x-key``,
``x-event-time``, ``x-partition-by``, ``x-cluster-by``, ``x-fresh-within-seconds`` and ``x-expectations``, of a column
``x-subject`` and ``x-references``.
"""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.contracts.contract import Column, ColumnType, Contract, Rule
from lakehouse.contracts.patterns import json_pattern

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, object]


def json_schema(contract: Contract) -> Schema:
    """The JSON Schema of one row: an object that has every required column and none that is unknown.

    An optional column, or field of a nested model, may be null or left out, as in a batch.
    """
    whole: Schema = {
        "x-key": list(contract.key),
        "x-event-time": contract.event_time,
        "x-partition-by": list(contract.partition_by),
        "x-cluster-by": list(contract.cluster_by),
        "x-change-feed": contract.change_feed,
        "x-fresh-within-seconds": contract.fresh_within.total_seconds() if contract.fresh_within else None,
        "x-expectations": [expectation.name for expectation in contract.expectations],
    }
    return {
        "$schema": DIALECT,
        "title": contract.table,
        **({"description": contract.description} if contract.description else {}),
        "type": "object",
        "properties": {column.name: _column(column) for column in contract.columns},
        "required": [column.name for column in contract.columns if not column.nullable],
        "additionalProperties": False,
        **{keyword: value for keyword, value in whole.items() if value},
    }


def _column(column: Column) -> Schema:
    schema = _place(column.rules, column.name, column.type, column.nullable, column.description)
    if column.subject:
        schema["x-subject"] = True
    if column.references:
        schema["x-references"] = column.references.target
    return schema


def json_type(column_type: ColumnType) -> Schema:
    """The JSON Schema of a type alone, without rules."""
    return _place((), "", column_type, False, "")


def _place(rules: Sequence[Rule], path: str, kind: ColumnType, nullable: bool, description: str) -> Schema:
    """The schema of a column, of a list's elements or of a nested model's field: what lies at a path."""
    schema: Schema
    if kind.item is not None:
        schema = {"type": "array", "items": _place(rules, f"{path}[]", kind.item, False, "")}
    elif kind.kind == "struct":
        fields = {m.name: _place(rules, f"{path}.{m.name}", m.type, m.nullable, m.description) for m in kind.members}
        required = [member.name for member in kind.members if not member.nullable]
        schema = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
    else:
        schema = _scalar(kind)
    if nullable:
        schema["type"] = [schema["type"], "null"]
    if description:
        schema["description"] = description
    more: list[Schema] = []
    bounds: Schema = {}
    for rule in (rule for rule in rules if rule.column == path):
        if kind.kind == "decimal" and rule.kind in _BOUNDS:
            bounds[rule.kind] = str(rule.value)
            continue
        said = _rule(rule, kind, nullable)
        if schema.keys() & said.keys():  # a second bound or pattern: both must hold
            more.append(said)
        else:
            schema.update(said)
    if more:
        schema["allOf"] = more
    if bounds:
        schema["x-bounds"] = bounds
    return schema


def _scalar(column_type: ColumnType) -> Schema:
    if column_type.kind == "decimal":
        before, after = column_type.precision - column_type.scale, column_type.scale
        whole = f"(0|[1-9][0-9]{{0,{before - 1}}})" if before else "0"
        fraction = rf"(\.[0-9]{{1,{after}}})?" if after else ""
        # Python writes 0.0000001 as 1E-7.
        small = r"|[0-9](\.[0-9]+)?E-[0-9]{1,2}" if after > 6 else ""
        return {"type": "string", "pattern": f"^-?({whole}{fraction}{small})$"}
    return dict(_SCALARS[column_type.kind])


_SCALARS: dict[str, Schema] = {
    "int": {"type": "integer", "format": "int64"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _rule(rule: Rule, kind: ColumnType, nullable: bool) -> Schema:
    """What a rule adds to its column's schema; nothing for those that the type or an ``x-`` keyword says."""
    if rule.kind in _BOUNDS:
        return {_BOUNDS[rule.kind]: rule.value}
    if rule.kind == "multiple_of":
        return {"multipleOf": rule.value}
    if rule.kind in ("min_length", "max_length"):
        least = rule.kind == "min_length"
        if kind.kind == "list":
            return {"minItems" if least else "maxItems": rule.value}
        return {"minLength" if least else "maxLength": rule.value}
    if rule.kind == "pattern":
        return {"pattern": json_pattern(str(rule.value))}
    if rule.kind == "one_of":
        assert isinstance(rule.value, tuple)
        return {"enum": [*rule.value, *([None] if nullable else [])]}
    return {}
