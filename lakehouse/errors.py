"""What can go wrong, as types: each error names the thing, says how many, gives examples and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

#: How many offending values a message shows; the whole set stays in the quarantine table.
MAX_EXAMPLES = 5


class MillraceError(Exception):
    """Base of every error a user can meet.

    Attributes:
        code: stable identifier, explained in docs/errors.md.
        message: one sentence that names the thing.
        fix: one sentence that says what to do.
    """

    code: ClassVar[str] = "MR-ERROR"

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix} [{self.code}]"

    def explain(self) -> str:
        """Three lines for a person: what is wrong, what to do, where to read more."""
        return f"error: {self.message}\n  fix: {self.fix}\n code: {self.code}"


class ContractError(MillraceError):
    """A row model declares something that no engine here can keep."""

    code = "MR-CONTRACT"


class ContractMismatchError(MillraceError):
    """A table on disk does not have the columns its row model declares."""

    code = "MR-CONTRACT-MISMATCH"

    @classmethod
    def between(cls, table: str, version: int, differences: Sequence[str]) -> ContractMismatchError:
        return cls(
            f"Table {table!r} at version {version} differs from its row model: {examples(differences)}.",
            fix="Declare the columns as they stand, or write the data to a new table name.",
        )


class WrongTableError(MillraceError):
    """A snapshot of one table was given where another is declared."""

    code = "MR-WRONG-TABLE"

    @classmethod
    def given(cls, *, where: str, expected: str, got: str) -> WrongTableError:
        return cls(
            f"{where} takes a snapshot of table {expected!r} but was given one of {got!r}.",
            fix=f"Pass a snapshot of {expected!r}.",
        )


class UnknownTableError(MillraceError):
    """No table of that name is declared or stored."""

    code = "MR-TABLE-UNKNOWN"

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> UnknownTableError:
        names = sorted(known)
        return cls(f"There is no table {name!r} in this lake.", fix=suggestion(name, names, what="Tables"))


class UnknownVersionError(MillraceError):
    """The table exists, the version asked for does not."""

    code = "MR-VERSION-UNKNOWN"

    @classmethod
    def numbered(cls, table: str, version: int, latest: int) -> UnknownVersionError:
        return cls(
            f"Table {table!r} has no version {version}.",
            fix=f"Its versions are 0 to {latest}; `millrace history {table}` lists them.",
        )

    @classmethod
    def vacuumed(cls, table: str, version: int) -> UnknownVersionError:
        return cls(
            f"Version {version} of table {table!r} can no longer be read: its log or files are gone.",
            fix=f"`millrace history {table}` lists the versions that are left.",
        )


class NotPublishedError(MillraceError):
    """The table has no published version (at that day)."""

    code = "MR-NOT-PUBLISHED"

    @classmethod
    def at_all(cls, table: str) -> NotPublishedError:
        return cls(
            f"Table {table!r} has no published version yet.",
            fix="Run the nightly job first, or name a version by number (such as "
            f"{table}@1) to read one that was not published.",
        )

    @classmethod
    def by_day(cls, table: str, day: str, first: str) -> NotPublishedError:
        return cls(
            f"Table {table!r} had no published version by the end of {day}.",
            fix=f"Its first published day is {first}.",
        )

    @classmethod
    def version(cls, table: str, version: int) -> NotPublishedError:
        return cls(
            f"Version {version} of table {table!r} was never published.",
            fix=f"Choose a published one: `millrace history {table}` lists them.",
        )


class ReferenceSyntaxError(MillraceError):
    """A table reference that is neither name, name@version nor name@date."""

    code = "MR-REFERENCE"

    @classmethod
    def of(cls, text: str) -> ReferenceSyntaxError:
        return cls(
            f"{text!r} is not a table reference.",
            fix="Write a name (ratings), a version (ratings@12), a day (ratings@1998-03-01), "
            "an instant (ratings@2026-01-31T12:00:00Z) or a tag (ratings@golden).",
        )

    @classmethod
    def system(cls, text: str) -> ReferenceSyntaxError:
        return cls(
            f"{text!r} asks a system table for a day, instant or tag; these tables are not published.",
            fix="Name a version, or none for the newest.",
        )


class BatchSchemaError(MillraceError):
    """A batch lacks a required column or brings one that nobody declared."""

    code = "MR-BATCH-SCHEMA"

    @classmethod
    def columns(
        cls, table: str, batch: str, rows: int, *, missing: Sequence[str], unknown: Sequence[str], known: Sequence[str]
    ) -> BatchSchemaError:
        parts = []
        if missing:
            parts.append(f"lacks the required column(s) {examples(missing)}")
        if unknown:
            parts.append(f"brings the unknown column(s) {examples(unknown)}")
        return cls(
            f"Batch {batch!r} for table {table!r} ({rows} rows) {' and '.join(parts)}; nothing was published.",
            fix=f"Send these columns: {', '.join(known)}. The batch as it came is kept in staging.",
        )


class BatchConflictError(MillraceError):
    """A batch id that already stands for other rows."""

    code = "MR-BATCH-CONFLICT"

    @classmethod
    def differs(cls, table: str, batch: str, stored: str, given: str) -> BatchConflictError:
        return cls(
            f"Batch {batch!r} of table {table!r} was staged before with other rows "
            f"(digest {stored[:12]}, now {given[:12]}).",
            fix="Give the new rows a batch id of their own.",
        )


class AuditError(MillraceError):
    """The table as a whole failed its check, so the new version was not published."""

    code = "MR-AUDIT"

    @classmethod
    def failed(cls, table: str, version: int, failures: Sequence[str], published: int | None) -> AuditError:
        stays = "no version is published" if published is None else f"version {published} stays the published one"
        return cls(
            f"Version {version} of table {table!r} failed {len(failures)} check(s): {examples(failures)}; {stays}.",
            fix=f"Read it as {table}@{version}, mend the source, and send the rows as a new batch.",
        )


class NoDataForDayError(MillraceError):
    """The source has nothing for that day."""

    code = "MR-DAY"

    @classmethod
    def outside(cls, day: str, first: str, last: str) -> NoDataForDayError:
        return cls(f"The source has no data for {day}.", fix=f"Choose a day from {first} to {last} (--day {last}).")


class DayOrderError(MillraceError):
    """A day before the one that the lake has already reached."""

    code = "MR-DAY-ORDER"

    @classmethod
    def before(cls, day: str, reached: str) -> DayOrderError:
        return cls(
            f"The lake already stands at the end of {reached}, so it can't be brought to {day}.",
            fix=f"Read the past with a reference such as ratings@{day}, or set LAKEHOUSE_ROOT to an empty folder.",
        )


class SourceError(MillraceError):
    """The source archive is missing or is not the one expected."""

    code = "MR-SOURCE"


class JavaMissingError(MillraceError):
    """Spark needs a Java runtime and none was found."""

    code = "MR-JAVA"


class SparkStartError(MillraceError):
    """Spark or the libraries it downloads could not be had."""

    code = "MR-SPARK"


class StorageError(MillraceError):
    """The disk is full, a folder can't be written, or a file of a table is damaged or gone."""

    code = "MR-STORAGE"


class QueryError(MillraceError):
    """A SQL statement that is not a read, or that the engine can't run."""

    code = "MR-QUERY"


def examples(values: Sequence[object]) -> str:
    """At most five of the values, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:MAX_EXAMPLES])
    rest = len(values) - MAX_EXAMPLES
    return f"{shown} and {rest} more" if rest > 0 else shown


def suggestion(name: str, known: Sequence[str], *, what: str) -> str:
    """The nearest known name, else the known names."""
    if not known:
        return f"{what}: none yet; run the nightly job first."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"{what}: {', '.join(known)}."


def first_line(error: BaseException) -> str:
    """What another library's error says first, without its trailing period."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


class MissingPackageError(MillraceError):
    """Something needs a package of an extra that is not installed."""

    code = "MR-PACKAGE"

    @classmethod
    def for_extra(cls, what: str, extra: str) -> MissingPackageError:
        return cls(f"{what} needs packages that are not installed.", fix=f"Run pip install 'millrace[{extra}]'.")


class TableBusyError(MillraceError):
    """Another writer is at work on the table; the same act succeeds when it is done."""

    code = "MR-TABLE-BUSY"

    @classmethod
    def underway(cls, table: str, version: int) -> TableBusyError:
        return cls(
            f"Version {version} of table {table!r} was written a moment ago and is not published yet.",
            fix="Wait until its batch is published, or publish the batch again if that was interrupted; then repeat.",
        )

    @classmethod
    def changed(cls, table: str, reason: str) -> TableBusyError:
        return cls(
            f"Another writer changed table {table!r} at the same time; nothing was done: {reason}.",
            fix="Repeat the command.",
        )


class RestoreError(MillraceError):
    """The version can't be brought back."""

    code = "MR-RESTORE"

    @classmethod
    def system(cls, table: str) -> RestoreError:
        return cls(
            f"{table!r} belongs to the ledger, which is only ever added to.",
            fix="Restore a table of data, such as ratings@12.",
        )

    @classmethod
    def redacted(cls, table: str, version: int) -> RestoreError:
        return cls(
            f"Version {version} of table {table!r} is a redacted twin: a person was erased from it.",
            fix=f"Choose a version published since; `millrace history {table}` lists them.",
        )


class PinError(MillraceError):
    """A pin that is not there, or that can't be released by hand."""

    code = "MR-PIN"

    @classmethod
    def unknown(cls, reference: str, holder: str) -> PinError:
        return cls(
            f"{reference} has no pin held by {holder!r}.",
            fix="`millrace pins` lists them; those of runs, models and tags are released by their owners.",
        )


class ErasureError(MillraceError):
    """A subject that nobody declared, or data of a person that can't be removed as asked."""

    code = "MR-ERASURE"

    @classmethod
    def no_subject(cls, name: str, known: Sequence[str]) -> ErasureError:
        return cls(
            f"No declared table has a column {name!r} that identifies a person.",
            fix=suggestion(name, known, what="Columns marked Subject()"),
        )

    @classmethod
    def value(cls, column: str, value: object, kind: str) -> ErasureError:
        return cls(f"{value!r} can't be a value of {column}.", fix=f"Give one of type {kind}, as user_id=42.")

    @classmethod
    def mapped(cls, table: str) -> ErasureError:
        return cls(
            f"Table {table!r} maps its columns to other names inside its files, where a person can't be looked for.",
            fix="Write the table anew without column mapping, vacuum the old one, and repeat.",
        )

    @classmethod
    def partitioned(cls, table: str, column: str) -> ErasureError:
        return cls(
            f"Table {table!r} is partitioned by {column!r}: its folders and its log are named after people.",
            fix="Write the table anew with another partitioning, and remove the old one.",
        )

    @classmethod
    def remains(cls, table: str, files: Sequence[str]) -> ErasureError:
        return cls(
            f"{len(files)} file(s) of table {table!r} still hold rows of the subject: {examples(files)}.",
            fix="Repeat when no other process writes the table. If deletion vectors hide the rows, rewrite its files "
            "first, in Spark: REORG TABLE … APPLY (PURGE).",
        )


class UnreadableFeatureError(MillraceError):
    """The table uses a Delta feature that the readers here don't know; guessing would give wrong rows."""

    code = "MR-FEATURE"

    @classmethod
    def of(cls, table: str, version: int | None, features: str) -> UnreadableFeatureError:
        at = "" if version is None else f" at version {version}"
        return cls(
            f"Table {table!r}{at} needs the table feature(s) {features}, which can't be read here.",
            fix="Read it with Spark, or drop the feature there (ALTER TABLE … DROP FEATURE).",
        )


class UnknownColumnError(MillraceError):
    """A column that the table does not have."""

    code = "MR-COLUMN-UNKNOWN"

    @classmethod
    def named(cls, table: str, column: str, known: Sequence[str]) -> UnknownColumnError:
        return cls(f"Table {table!r} has no column {column!r}.", fix=suggestion(column, known, what="Columns"))


class TagError(MillraceError):
    """A tag that is not there, or a word that can't be one."""

    code = "MR-TAG"

    @classmethod
    def unknown(cls, table: str, tag: str, known: Sequence[str]) -> TagError:
        way = suggestion(tag, known, what="Tags") if known else f"Set it with `millrace tag {table}@VERSION {tag}`."
        return cls(f"Table {table!r} has no tag {tag!r}.", fix=way)

    @classmethod
    def system(cls, table: str) -> TagError:
        return cls(
            f"{table!r} belongs to the ledger, which has no tags.", fix="Tag a table of data, such as ratings@12."
        )

    @classmethod
    def malformed(cls, tag: str) -> TagError:
        return cls(
            f"{tag!r} can't be a tag.", fix="Tags are small letters, digits and _, at most 60, and start with a letter."
        )


class DiffError(MillraceError):
    """Two versions that can't be compared."""

    code = "MR-DIFF"

    @classmethod
    def of_two_tables(cls, before: str, after: str) -> DiffError:
        return cls(
            f"{before} and {after} are versions of two tables.", fix="Compare two versions of one table, as ratings@1."
        )

    @classmethod
    def without_key(cls, table: str, missing: Sequence[str]) -> DiffError:
        return cls(
            f"A version of table {table!r} lacks the key column(s) {examples(missing)}.",
            fix="Compare without a key: rows are then added or removed, never changed.",
        )


class EvolutionError(MillraceError):
    """The declaration differs from the table in a way that the stored rows can't follow."""

    code = "MR-EVOLUTION"

    @classmethod
    def refused(cls, table: str, changes: Sequence[str]) -> EvolutionError:
        more = f" and {len(changes) - MAX_EXAMPLES} more" if len(changes) > MAX_EXAMPLES else ""
        return cls(
            f"Table {table!r} can't become what is declared: {'; '.join(changes[:MAX_EXAMPLES])}{more}. "
            "Nothing was changed.",
            fix="Declare these as they are stored (a column that is no longer filled as optional), or declare the new "
            f"form under a new table name and publish the rows into it; `millrace plan {table}` shows every change.",
        )


class LineageError(MillraceError):
    """The ledger doesn't know the thing whose lineage was asked for."""

    code = "MR-LINEAGE"

    @classmethod
    def unknown(cls, what: str, near: Sequence[str]) -> LineageError:
        return cls(
            f"The ledger knows no version, batch, run or model {what!r}.",
            fix=f"Did you mean {examples([repr(name) for name in near])}?"
            if near
            else "Name a version (ratings@12), a batch (ratings/1998-04-20), a run's id or a model's digest.",
        )

    @classmethod
    def ambiguous(cls, what: str, found: Sequence[str]) -> LineageError:
        return cls(f"{len(found)} things begin with {what!r}: {examples(found)}.", fix="Give more of the digits.")

    @classmethod
    def unpublished(cls, reference: str) -> LineageError:
        name = reference.partition("@")[0]
        return cls(
            f"{reference} is a step of a publication, and no row of the ledger tells of it.",
            fix=f"Name a version that a publication ended in: `millrace history {name}` lists them.",
        )


class OpenLineageError(MillraceError):
    """OpenLineage events could not be sent."""

    code = "MR-OPENLINEAGE"

    @classmethod
    def unreachable(cls, target: str, reason: str) -> OpenLineageError:
        return cls(
            f"OpenLineage events can't be sent to {target}: {reason}.",
            fix="Check MILLRACE_OPENLINEAGE_URL and that the endpoint is up, then run `millrace lineage --emit`.",
        )

    @classmethod
    def scheme(cls, target: str) -> OpenLineageError:
        return cls(
            f"OpenLineage events can't be sent to {target}.",
            fix="Set MILLRACE_OPENLINEAGE_URL to an http:// or https:// URL or to the path of a file.",
        )

    @classmethod
    def nowhere(cls) -> OpenLineageError:
        return cls(
            "No place for OpenLineage events is set.",
            fix="Set MILLRACE_OPENLINEAGE_URL to an http:// or https:// URL or to the path of a file.",
        )


class UndeclaredError(MillraceError):
    """A table without a row model, where one is needed."""

    code = "MR-UNDECLARED"

    @classmethod
    def table(cls, name: str) -> UndeclaredError:
        return cls(
            f"No row model declares table {name!r}, so there is nothing to check it against.",
            fix="Declare it, or look at it with `millrace describe` and `millrace sql`.",
        )


class QuarantineError(MillraceError):
    """A quarantined row that is not there, was decided about, or can't be corrected so."""

    code = "MR-QUARANTINE"

    @classmethod
    def unknown(cls, table: str, row: str) -> QuarantineError:
        return cls(
            f"The quarantine of table {table!r} has no row {row!r}.",
            fix=f"`millrace quarantine list {table}` lists the refused rows.",
        )

    @classmethod
    def decided(cls, table: str, row: str, fate: str) -> QuarantineError:
        return cls(
            f"Row {row!r} in the quarantine of table {table!r} is not open: it was {fate}.",
            fix='See what became of it in the ledger: `millrace sql "select * from quarantine_fates"`.',
        )

    @classmethod
    def erased(cls, table: str, row: str) -> QuarantineError:
        return cls(
            f"Row {row!r} in the quarantine of table {table!r} named an erased person; its content was not kept.",
            fix="Discard it: it can be neither corrected nor shown.",
        )

    @classmethod
    def column(cls, table: str, column: str, known: Sequence[str]) -> QuarantineError:
        message = f"Table {table!r} has no column {column!r} to correct."
        return cls(message, fix=suggestion(column, known, what="Columns"))

    @classmethod
    def mixed(cls, table: str, column: str) -> QuarantineError:
        return cls(
            f"The rows for table {table!r} have values of different kinds in column {column!r}.",
            fix="Requeue them one by one.",
        )

    @classmethod
    def nothing(cls, table: str) -> QuarantineError:
        return cls(
            f"No row in the quarantine of table {table!r} was named.",
            fix=f"`millrace quarantine list {table}` lists the refused rows.",
        )

    @classmethod
    def reason(cls, table: str) -> QuarantineError:
        return cls(f"Rows of table {table!r} are not discarded without a reason.", fix="Say why, in a few words.")

    @classmethod
    def file(cls, path: str, reason: str) -> QuarantineError:
        return cls(
            f"Corrected rows can't be read from {path!r}: {reason}.",
            fix="Give JSON (an array of objects), CSV or Parquet with a column quarantine_id and those to change.",
        )


class BudgetError(MillraceError):
    """Work is expected to cost more than it may."""

    code = "MR-BUDGET"

    @classmethod
    def exceeded(cls, expected: float, budget: float, runs: int, history: int) -> BudgetError:
        nights = "One night" if runs == 1 else f"{runs} nights"
        return cls(
            f"{nights} will take about {expected:.0f} CPU seconds, and {budget:.0f} are allowed.",
            fix=f"Allow more or ask for fewer nights; the estimate is the median of {history} runs (`millrace cost`).",
        )
