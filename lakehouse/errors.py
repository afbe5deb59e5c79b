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


class ReferenceSyntaxError(MillraceError):
    """A table reference that is neither name, name@version nor name@date."""

    code = "MR-REFERENCE"

    @classmethod
    def of(cls, text: str) -> ReferenceSyntaxError:
        return cls(
            f"{text!r} is not a table reference.",
            fix="Write a name (ratings), a version (ratings@12) or a day (ratings@1998-03-01).",
        )

    @classmethod
    def system(cls, text: str) -> ReferenceSyntaxError:
        return cls(
            f"{text!r} asks a system table for a day; these tables are not published by day.",
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
