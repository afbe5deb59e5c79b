"""What does Deequ say of a batch, row by row, and of a table's rows together?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from lakehouse.contracts.expectations import Expectation
from lakehouse.contracts.patterns import engine_pattern
from lakehouse.contracts.spark_schema import without_gaps
from lakehouse.contracts.table import ColumnType, Contract, Rule
from lakehouse.gate.metric_states import Kind, State, States

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Prefix of columns that judging adds; no contract's column can start so.
RAW = "__raw_"
REFERENCE = "__ref_"

#: Of an approximate quantile's rank.
QUANTILE_ERROR = 0.01

_SCALARS = ("int", "float", "decimal", "str", "bool", "date", "datetime")

#: Deequ's states that one can go on from: what they are called here, and their numbers.
_STATES: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "NumMatches": ("count", ("numMatches",)),
    "NumMatchesAndCount": ("share", ("numMatches", "count")),
    "MeanState": ("mean", ("sum", "count")),
    "SumState": ("sum", ("sum",)),
    "StandardDeviationState": ("deviation", ("n", "avg", "m2")),
    "MinState": ("min", ("minValue",)),
    "MaxState": ("max", ("maxValue",)),
    "ApproxCountDistinctState": ("distinct", ("words",)),
}
#: Analyzers that group rows or keep what can't be added up; they always see the whole table.
_WITHOUT_STATE = ("Uniqueness", "Distinctness", "Entropy", "Correlation", "ApproxQuantile")


@dataclass(frozen=True)
class Analyzer:
    """One of Deequ's analyzers.

    Attributes:
        name: as Deequ prints it.
        additive: whether its state can be kept and gone on from.
        java: Deequ's own object.
    """

    name: str
    additive: bool
    java: Any


@dataclass(frozen=True)
class Measured:
    """One metric of a set of rows.

    Attributes:
        metric: Deequ's name, such as Completeness.
        column: the column or columns, * for the whole table.
        value: None where no row had a value.
    """

    metric: str
    column: str
    value: float | None


def judge_rows(batch: DataFrame, contract: Contract, day: date) -> DataFrame:
    """Add one boolean column for each rule, named by the rule: whether the row keeps it.

    Args:
        batch: the contract's columns in their declared types, ``__raw_<column>`` as the value came where a cast was
            needed, and ``__ref_<column>`` (bool) where a column references another table.
        contract: its rules are what to check.
        day: the day whose end the batch describes; no event may be later.
    """
    from pydeequ.checks import Check, CheckLevel
    from pydeequ.verification import VerificationResult, VerificationSuite

    spark = batch.sparkSession
    suite = VerificationSuite(spark).onData(batch)
    for rule in contract.rules:
        # A check of its own for each rule: Deequ's row-level result has one column a check.
        check = Check(spark, CheckLevel.Error, rule.name)
        declared = contract.column(rule.top).type
        condition = row_condition(rule, declared, raw=RAW + rule.top in batch.columns, day=day)
        suite = suite.addCheck(check.satisfies(condition, rule.name))
    result = suite.run()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="DataFrame constructor is internal")  # pydeequ calls it
        judged: DataFrame = VerificationResult.rowLevelResultsAsDataFrame(spark, result, batch)
    return judged


def analyzer(spark: SparkSession, wanted: Expectation) -> Analyzer:
    """Deequ's analyzer of an expectation, without its bounds."""
    jvm: Any = spark._jvm
    kinds = jvm.com.amazon.deequ.analyzers
    nothing = jvm.scala.Option.apply(None)
    metric, columns = wanted.metric, wanted.columns
    if metric == "Size":
        java = kinds.Size(nothing)
    elif metric == "Compliance":
        condition = wanted.condition or "true"
        empty = getattr(getattr(jvm.scala.collection.immutable, "Nil$"), "MODULE$")
        # Rows that the condition is null of don't keep it; alone they would have no state to be added or taken away.
        never_null = f"coalesce(({condition}), false)"
        java = kinds.Compliance(columns[0] if columns else condition, never_null, nothing, empty, nothing)
    elif metric == "ApproxQuantile":
        java = kinds.ApproxQuantile(columns[0], float(wanted.quantile or 0.5), QUANTILE_ERROR, nothing)
    elif metric == "Uniqueness":
        java = kinds.Uniqueness(_seq(jvm, columns), nothing, nothing)
    elif metric == "Distinctness":
        java = kinds.Distinctness(_seq(jvm, columns), nothing)
    elif metric in ("Completeness", "Minimum", "Maximum", "MinLength", "MaxLength"):
        java = getattr(kinds, metric)(columns[0], nothing, nothing)
    else:
        java = getattr(kinds, metric)(*columns, nothing)
    return Analyzer(java.toString(), metric not in _WITHOUT_STATE, java)


def table_metrics(contract: Contract) -> list[Expectation]:
    """What is measured of every version: rows, completeness of each column, the mean of each that is a number."""
    found = [Expectation("Size")]
    for column in contract.columns:
        if column.type.kind in _SCALARS:
            found.append(Expectation("Completeness", (column.name,)))
        elif not column.nullable:  # Deequ measures the completeness of scalars alone
            condition = f"`{column.name}` IS NOT NULL"
            found.append(Expectation("Compliance", (f"{column.name} required",), condition=condition))
        if column.type.kind in ("int", "float", "decimal") and not column.key:
            found.append(Expectation("Mean", (column.name,)))
    return found


def measure(rows: DataFrame, analyzers: Sequence[Analyzer]) -> tuple[dict[str, Measured], States]:
    """The analyzers' metrics and states, by analyzer; what can share a pass over the rows does.

    Raises:
        RuntimeError: Deequ could not compute one, and not for want of values.
    """
    jvm: Any = rows.sparkSession._jvm
    nothing = jvm.scala.Option.apply(None)
    states = jvm.com.amazon.deequ.analyzers.InMemoryStateProvider()
    context = jvm.com.amazon.deequ.analyzers.runners.AnalysisRunner.run(
        rows._jdf,
        jvm.com.amazon.deequ.analyzers.Analysis(_seq(jvm, [a.java for a in analyzers])),
        nothing,
        jvm.scala.Option.apply(states),
        jvm.org.apache.spark.storage.StorageLevel.MEMORY_AND_DISK(),
    )
    measured = {a.name: _measured(context.metric(a.java).get()) for a in analyzers}
    return measured, {a.name: _state(states.load(a.java)) for a in analyzers if a.additive}


def metrics_of(
    spark: SparkSession, analyzers: Sequence[Analyzer], states: Mapping[str, State | None]
) -> list[Measured]:
    """What Deequ makes of states: the metrics of those analyzers that have one."""
    jvm: Any = spark._jvm
    return [
        _measured(a.java.computeMetricFrom(jvm.scala.Option.apply(_java_state(spark, states[a.name]))))
        for a in analyzers
        if a.name in states
    ]


def row_condition(rule: Rule, declared: ColumnType, *, raw: bool, day: date) -> str:
    """The rule as a Spark SQL condition; a null passes all rules but ``required``.

    Args:
        rule: what must hold.
        declared: the type of its column.
        raw: whether the row has the value as it came, too, because it was cast.
        day: the day whose end the batch describes.
    """
    column = f"`{rule.top}`"
    if rule.kind == "type":
        kept = f"`{RAW}{rule.top}` IS NULL OR {column} IS NOT NULL" if raw else "true"
        return f"({kept}) AND {without_gaps(column, declared)}"
    if rule.kind == "required" and rule.column == rule.top:
        # A value of the wrong type breaks the rule on types, not this one.
        return f"`{RAW}{rule.top}` IS NOT NULL" if raw else f"{column} IS NOT NULL"
    return _everywhere(rule, column, declared, rule.steps[1:], day)


def _everywhere(rule: Rule, place: str, declared: ColumnType, steps: Sequence[str], day: date) -> str:
    """The rule's condition for every value that the rest of its path leads to; what is not there breaks none."""
    if not steps:
        return _condition(rule, place, declared, day)
    step, *rest = steps
    if step == "[]":
        assert declared.item is not None
        item = f"item{len(steps)}"
        return f"{place} IS NULL OR forall({place}, {item} -> {_everywhere(rule, item, declared.item, rest, day)})"
    below = f"{place}.`{step}`"
    if rule.kind == "required" and not rest:
        return f"{place} IS NULL OR {below} IS NOT NULL"
    member = next(member for member in declared.members if member.name == step)
    return _everywhere(rule, below, member.type, rest, day)


def _condition(rule: Rule, place: str, declared: ColumnType, day: date) -> str:
    """The rule's condition for one value."""
    value = rule.value
    if rule.kind == "references":
        return f"{place} IS NULL OR `{REFERENCE}{rule.top}`"
    if rule.kind == "known_by":
        end = datetime.combine(day + timedelta(days=1), time.min, UTC)
        # What is stamped with the very end of the day (a day's statistics) is known by then.
        return f"{place} IS NULL OR {place} <= TIMESTAMP '{end.strftime('%Y-%m-%d %H:%M:%S')}'"
    if rule.kind == "one_of":
        assert isinstance(value, tuple)
        return f"{place} IS NULL OR {place} IN ({', '.join(spark_text(item) for item in value)})"
    if rule.kind == "pattern":
        return f"{place} IS NULL OR {place} RLIKE {spark_text(engine_pattern(str(value)))}"
    if rule.kind in ("min_length", "max_length"):
        sign = ">=" if rule.kind == "min_length" else "<="
        measure = "size" if declared.kind == "list" else "length"
        return f"{place} IS NULL OR {measure}({place}) {sign} {int(str(value))}"
    if rule.kind == "multiple_of":
        return f"{place} IS NULL OR {place} % {int(str(value))} = 0"
    sign = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}[rule.kind]
    # NaN counts as larger than any number in Spark, so a lower bound alone would let it through.
    return f"{place} IS NULL OR (NOT isnan({place}) AND {place} {sign} {value})"


def spark_text(value: str) -> str:
    """A string as a Spark SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _measured(metric: Any) -> Measured:
    value = metric.value()
    if value.isSuccess():
        return Measured(metric.name(), metric.instance(), float(value.get()))
    reason = value.failed().get()
    if reason.getClass().getSimpleName() != "EmptyStateException":
        raise RuntimeError(f"Deequ can't compute {metric.name()} of {metric.instance()}: {reason.getMessage()}")
    return Measured(metric.name(), metric.instance(), None)


def _state(loaded: Any) -> State | None:
    if loaded.isEmpty():
        return None
    java = loaded.get()
    kind, names = _STATES[java.getClass().getSimpleName()]
    if kind == "distinct":
        return State(kind=kind, values=tuple(java.words()))
    return State(kind=kind, values=tuple(getattr(java, name)() for name in names))


def _java_state(spark: SparkSession, state: State | None) -> Any:
    if state is None:
        return None
    jvm: Any = spark._jvm
    name = next(name for name, (kind, _) in _STATES.items() if kind == state.kind)
    java = getattr(jvm.com.amazon.deequ.analyzers, name)
    if state.kind == "distinct":
        gateway: Any = spark.sparkContext._gateway
        words = gateway.new_array(jvm.long, len(state.values))
        for place, word in enumerate(state.values):
            words[place] = int(word)
        return java(words)
    nothing = jvm.scala.Option.apply(None)
    return java(*state.values, nothing) if state.kind in ("share", "min", "max") else java(*state.values)


def _seq(jvm: Any, items: Sequence[Any]) -> Any:
    return jvm.PythonUtils.toSeq(list(items))
