"""What does Deequ say of a batch, row by row, and of a table as a whole?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from lakehouse.table import Contract, Rule

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Prefix of columns that judging adds; no contract's column can start so.
RAW = "__raw_"
REFERENCE = "__ref_"
KEY = "__key"


@dataclass(frozen=True)
class Verdict:
    """What a check of a whole table found.

    Attributes:
        failed: names of the checks that did not hold, each with Deequ's own message.
        metrics: (metric, column, value) as Deequ computed them.
    """

    failed: tuple[str, ...]
    metrics: tuple[tuple[str, str, float], ...]


def judge_rows(batch: DataFrame, rules: Sequence[Rule], day: date) -> DataFrame:
    """Add one boolean column for each rule, named by the rule: whether the row keeps it.

    Args:
        batch: the contract's columns in their declared types, ``__raw_<column>`` as the value came where a cast was
            needed, and ``__ref_<column>`` (bool) where a column references another table.
        rules: what to check.
        day: the day whose end the batch describes; no event may be later.
    """
    from pydeequ.checks import Check, CheckLevel
    from pydeequ.verification import VerificationResult, VerificationSuite

    spark = batch.sparkSession
    suite = VerificationSuite(spark).onData(batch)
    for rule in rules:
        # A check of its own for each rule: Deequ's row-level result has one column a check.
        check = Check(spark, CheckLevel.Error, rule.name)
        condition = row_condition(rule, raw=RAW + rule.column in batch.columns, day=day)
        suite = suite.addCheck(check.satisfies(condition, rule.name))
    result = suite.run()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="DataFrame constructor is internal")  # pydeequ calls it
        judged: DataFrame = VerificationResult.rowLevelResultsAsDataFrame(spark, result, batch)
    return judged


def audit_table(table: DataFrame, contract: Contract) -> Verdict:
    """Check a table as a whole: it has rows, its key is unique, required columns are complete."""
    from pydeequ.analyzers import AnalysisRunner, AnalyzerContext, Completeness, Mean, Size
    from pydeequ.checks import Check, CheckLevel
    from pydeequ.verification import VerificationResult, VerificationSuite
    from pyspark.sql import functions as F

    spark = table.sparkSession
    keyed = table.withColumn(KEY, F.to_json(F.struct(*[F.col(f"`{name}`") for name in contract.key])))
    check = Check(spark, CheckLevel.Error, contract.table).isUnique(KEY)
    runner = AnalysisRunner(spark).onData(table).addAnalyzer(Size())
    for column in contract.columns:
        if column.type.kind == "list":  # Deequ measures the completeness of scalars alone
            if not column.nullable:
                check = check.satisfies(f"`{column.name}` IS NOT NULL", f"{column.name} required")
        elif not column.nullable:
            check = check.isComplete(column.name)
        else:
            runner = runner.addAnalyzer(Completeness(column.name))
        if column.type.kind in ("int", "float", "decimal") and not column.key:
            runner = runner.addAnalyzer(Mean(column.name))
    result = VerificationSuite(spark).onData(keyed).addCheck(check).run()
    failed = [
        f"{row['constraint']}: {row['constraint_message']}"
        for row in VerificationResult.checkResultsAsJson(spark, result)
        if row["constraint_status"] != "Success"
    ]
    # Counting and averaging have no verdict of their own; as checks they would need a Python callback a piece.
    measured = [
        *VerificationResult.successMetricsAsJson(spark, result),
        *AnalyzerContext.successMetricsAsJson(spark, runner.run()),
    ]
    metrics = [
        (str(row["name"]), "key" if row["instance"] == KEY else str(row["instance"]), float(row["value"]))
        for row in measured
    ]
    if next(value for name, _, value in metrics if name == "Size") == 0:
        failed = ["Size: the table is empty"]  # what the other checks say of no rows helps nobody
    return Verdict(failed=tuple(failed), metrics=tuple(sorted(metrics)))


def row_condition(rule: Rule, *, raw: bool, day: date) -> str:
    """The rule as a Spark SQL condition; a null passes all rules but ``required``."""
    column = f"`{rule.column}`"
    value = rule.value
    if rule.kind == "type":
        kept = f"`{RAW}{rule.column}` IS NULL OR {column} IS NOT NULL" if raw else "true"
        # A list[str] has no place for a null either.
        whole = f"({column} IS NULL OR NOT exists({column}, item -> item IS NULL))"
        return f"({kept}) AND {whole}" if str(value).startswith("list[") else kept
    if rule.kind == "required":
        # A value of the wrong type breaks the rule on types, not this one.
        return f"`{RAW}{rule.column}` IS NOT NULL" if raw else f"{column} IS NOT NULL"
    if rule.kind == "references":
        return f"{column} IS NULL OR `{REFERENCE}{rule.column}`"
    if rule.kind == "known_by":
        end = datetime.combine(day + timedelta(days=1), time.min, UTC)
        # What is stamped with the very end of the day (a day's statistics) is known by then.
        return f"{column} IS NULL OR {column} <= TIMESTAMP '{end.strftime('%Y-%m-%d %H:%M:%S')}'"
    if rule.kind == "one_of":
        assert isinstance(value, tuple)
        return f"{column} IS NULL OR {column} IN ({', '.join(spark_text(item) for item in value)})"
    if rule.kind == "pattern":
        return f"{column} IS NULL OR {column} RLIKE {spark_text(str(value))}"
    if rule.kind in ("min_length", "max_length"):
        sign = ">=" if rule.kind == "min_length" else "<="
        return f"{column} IS NULL OR length({column}) {sign} {int(str(value))}"
    sign = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}[rule.kind]
    # NaN counts as larger than any number in Spark, so a lower bound alone would let it through.
    return f"{column} IS NULL OR (NOT isnan({column}) AND {column} {sign} {float(str(value))!r})"


def spark_text(value: str) -> str:
    """A string as a Spark SQL literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
