"""What can go wrong in the feature store, as types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lakehouse.errors import MillraceError, examples, suggestion


class UnknownViewError(MillraceError):
    """No feature view of that name is registered."""

    code = "MR-VIEW-UNKNOWN"

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> UnknownViewError:
        names = sorted(known)
        return cls(f"There is no feature view {name!r} in this store.", fix=suggestion(name, names, what="Views"))


class ViewDeclarationError(MillraceError):
    """A row model from which no feature view can be derived."""

    code = "MR-VIEW-DECLARATION"

    @classmethod
    def no_event_time(cls, table: str) -> ViewDeclarationError:
        return cls(
            f"Table {table!r} has no event time, so nothing says from when on its features are known.",
            fix="Mark its datetime column with EventTime().",
        )

    @classmethod
    def no_entity(cls, table: str) -> ViewDeclarationError:
        return cls(
            f"Table {table!r} has no key beside its event time, so its features belong to no entity.",
            fix="Mark the column(s) that identify the entity with Key().",
        )

    @classmethod
    def no_features(cls, table: str) -> ViewDeclarationError:
        return cls(
            f"Table {table!r} has no column beside its key and event time, so it holds no feature.",
            fix="Declare the feature columns, or leave the table out of the views.",
        )

    @classmethod
    def undeclared(cls, table: str) -> ViewDeclarationError:
        return cls(
            f"Table {table!r} has no row model in this process, so no feature view can be derived from it.",
            fix="Import the module that declares it.",
        )

    @classmethod
    def column_type(cls, column: str, kind: str) -> ViewDeclarationError:
        return cls(
            f"Column {column!r} has the type {kind}, which the feature store does not keep without loss.",
            fix="Use int, float, bool, str or a list of one of these for features, int or str for keys.",
        )


class EntityColumnsError(MillraceError):
    """A table of entities lacks a column, or a column has the wrong type or nulls."""

    code = "MR-ENTITY-COLUMNS"

    @classmethod
    def missing(cls, columns: Sequence[str], given: Sequence[str]) -> EntityColumnsError:
        return cls(
            f"The table of entities lacks the column(s) {examples(columns)}; it has {examples(given)}.",
            fix="Give each view's key column(s), and event_timestamp for a training set.",
        )

    @classmethod
    def wrong_type(cls, column: str, expected: str, got: str) -> EntityColumnsError:
        return cls(
            f"The entities' column {column!r} must be {expected} but is {got}.", fix=f"Cast it to {expected} first."
        )

    @classmethod
    def nulls(cls, column: str, count: int) -> EntityColumnsError:
        return cls(
            f"The entities' column {column!r} is null in {count} row(s).", fix="Leave those rows out or fill them in."
        )


class NaiveTimestampError(MillraceError):
    """Timestamps without a time zone where an instant is needed."""

    code = "MR-NAIVE-TIMESTAMP"

    @classmethod
    def column(cls, name: str, got: str) -> NaiveTimestampError:
        return cls(
            f"The entities' column {name!r} is {got}: not an instant, because it has no time zone.",
            fix="Give timestamps in UTC, such as pyarrow's timestamp('us', tz='UTC').",
        )


class OfflineSourceError(MillraceError):
    """The offline store was asked for something that it does not do."""

    code = "MR-OFFLINE-SOURCE"

    @classmethod
    def not_delta(cls, view: str, kind: str) -> OfflineSourceError:
        return cls(
            f"Feature view {view!r} reads a {kind}, but this offline store reads pinned Delta tables only.",
            fix="Give the view a DeltaSource, or choose another offline store.",
        )

    @classmethod
    def entity_frame(cls, kind: str) -> OfflineSourceError:
        return cls(
            f"The entities were given as {kind}, but this offline store takes a pandas DataFrame.",
            fix="Read the entities into a DataFrame first.",
        )

    @classmethod
    def columns(cls, reference: str, missing: Sequence[str]) -> OfflineSourceError:
        return cls(
            f"{reference} lacks the column(s) {examples(missing)}, which a feature view reads.",
            fix="Apply the view again from a snapshot of the table as it stands.",
        )


class NotMaterializedError(MillraceError):
    """A view whose features have not been written to the online store."""

    code = "MR-NOT-MATERIALIZED"

    @classmethod
    def view(cls, name: str) -> NotMaterializedError:
        return cls(
            f"Feature view {name!r} has not been materialized, so the online store has nothing to compare or serve.",
            fix="Materialize a day first.",
        )


class DriftColumnError(MillraceError):
    """A column that can't be compared between two tables."""

    code = "MR-DRIFT-COLUMN"

    @classmethod
    def missing(cls, column: str, side: str, known: Iterable[str]) -> DriftColumnError:
        return cls(
            f"The {side} table has no column {column!r} to compare.",
            fix=suggestion(column, sorted(known), what="Columns"),
        )

    @classmethod
    def wrong_type(cls, column: str, kind: str) -> DriftColumnError:
        return cls(
            f"Column {column!r} is {kind}, for which drift is not defined here.",
            fix="Compare columns of numbers, booleans, strings or lists of these.",
        )
