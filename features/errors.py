"""What can go wrong in the feature store, as types."""

from __future__ import annotations

import difflib
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

    @classmethod
    def no_source(cls, view: str) -> ViewDeclarationError:
        return cls(
            f"Feature view {view!r} does not say which table its features are computed from.",
            fix=f'Name the row model of the events: class …(FeatureView, name="{view}", source=…).',
        )

    @classmethod
    def aggregations(cls, column: str, count: int) -> ViewDeclarationError:
        return cls(
            f"Column {column!r} carries {count} aggregations, so it is not known how to compute it.",
            fix="Write exactly one beside it, such as Annotated[int, Count()]; mark the entity's columns with Key().",
        )

    @classmethod
    def feature(cls, column: str, problem: str) -> ViewDeclarationError:
        return cls(
            f"Column {column!r} of a feature view {problem}.",
            fix="Declare it so that it can be computed; features/aggregations.py lists what there is.",
        )


class EntityColumnsError(MillraceError):
    """A table of entities lacks a column, or a column has the wrong type or nulls."""

    code = "MR-ENTITY-COLUMNS"

    @classmethod
    def missing(cls, columns: Sequence[str], given: Sequence[str]) -> EntityColumnsError:
        near = difflib.get_close_matches(columns[0], given, n=1, cutoff=0.7)
        return cls(
            f"The table of entities lacks the column(s) {examples(columns)}; it has {examples(given)}.",
            fix=f"Did you mean {near[0]!r}? Rename it to {columns[0]!r}."
            if near
            else "Give each view's key column(s), and event_timestamp for a training set.",
        )

    @classmethod
    def no_time(cls, given: Sequence[str]) -> EntityColumnsError:
        return cls(
            f"No column of the entities says at which instant each row asks; they have {examples(given)}.",
            fix="Add the column event_timestamp, a timestamp with a time zone.",
        )

    @classmethod
    def mixed(cls, column: str, kinds: Sequence[str]) -> EntityColumnsError:
        return cls(
            f"The entities' column {column!r} mixes {' and '.join(kinds)}, so its values can't be compared with a key.",
            fix="Give all values of one type, that of the view's key.",
        )

    @classmethod
    def taken(cls, columns: Sequence[str]) -> EntityColumnsError:
        return cls(
            f"The entities have column(s) called as a feature that was asked for: {examples(columns)}.",
            fix="Ask for full feature names (view__feature), or rename the entities' columns.",
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
            f"The entities were given as {kind}, which this offline store does not read.",
            fix="Give a DataFrame, an Arrow table, a Snapshot, SQL on the lake, or None with start_date and end_date.",
        )

    @classmethod
    def on_demand(cls, views: Sequence[str]) -> OfflineSourceError:
        return cls(
            f"The on-demand view(s) {examples(views)} are computed from the whole result, which a stream never holds.",
            fix="Ask for the result with to_arrow().",
        )

    @classmethod
    def columns(cls, reference: str, missing: Sequence[str]) -> OfflineSourceError:
        return cls(
            f"{reference} lacks the column(s) {examples(missing)}, which a feature view reads.",
            fix="Apply the view again from a snapshot of the table as it stands.",
        )


class UnknownFeatureError(MillraceError):
    """The view has no feature of that name."""

    code = "MR-FEATURE-UNKNOWN"

    @classmethod
    def named(cls, view: str, feature: str, known: Iterable[str]) -> UnknownFeatureError:
        return cls(
            f"Feature view {view!r} has no feature {feature!r}.",
            fix=suggestion(feature, list(known), what="Features"),
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

    @classmethod
    def half_written(cls, name: str) -> NotMaterializedError:
        return cls(
            f"Feature view {name!r} is half-written in the online store: a materialization was cut off, or goes on.",
            fix="Materialize the day again; only what is missing is written.",
        )

    @classmethod
    def other_contract(cls, name: str) -> NotMaterializedError:
        return cls(
            f"Feature view {name!r} was materialized under another declaration of its table.",
            fix="Materialize the day again: its rows are then replaced.",
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

    @classmethod
    def empty(cls, columns: Sequence[str]) -> DriftColumnError:
        return cls(
            f"There is nothing to draw of {examples(columns)}: one of the two sides has no value.",
            fix="Compare versions or windows that have rows.",
        )


class OnlineStoreError(MillraceError):
    """The online store does not answer, refuses, or was named wrongly; what it holds is as its record says."""

    code = "MR-ONLINE-STORE"

    @classmethod
    def url(cls) -> OnlineStoreError:
        return cls(
            "MILLRACE_ONLINE_STORE is no URL of an online store that is known here.",
            fix="Write redis://host:6379/0, rediss://… or postgresql://user:password@host:5432/database; "
            "special characters as %XX, and for Redis no comma in the password.",
        )

    @classmethod
    def unreachable(cls, place: str, reason: str) -> OnlineStoreError:
        return cls(
            f"The online store at {place} can't be used: {_one_line(reason)}.",
            fix="See that it runs, can be reached and has room, then run again; what was cut off is made good.",
        )

    @classmethod
    def refused(cls, place: str, reason: str) -> OnlineStoreError:
        return cls(
            f"The online store at {place} refuses the login: {_one_line(reason)}.",
            fix="Correct user and password in MILLRACE_ONLINE_STORE.",
        )

    @classmethod
    def contended(cls, view: str, place: str) -> OnlineStoreError:
        return OnlineStoreBusyError(
            f"Another process has materialized feature view {view!r} at {place} in the meantime.",
            fix="Run again once it is done; one process at a time can write a view.",
        )


class OnlineStoreBusyError(OnlineStoreError):
    """Another process wrote the view meanwhile; nothing of it was overwritten."""


def _one_line(text: str) -> str:
    """A server's message without line breaks and its own full stop."""
    return " ".join(text.split()).rstrip(".")


class TrainingSetError(MillraceError):
    """A training set that can't be made again as it was, or saved as asked."""

    code = "MR-TRAINING-SET"

    @classmethod
    def differs(cls, part: str, digest: str, rebuilt: str) -> TrainingSetError:
        return cls(
            f"Made again from its recipe, the training set's part {part!r} has the digest {rebuilt[:12]} "
            f"and not {digest[:12]}.",
            fix="Code or libraries have changed, or its SQL names tables without a version: make a new training set.",
        )

    @classmethod
    def other_table(cls, reference: str) -> TrainingSetError:
        return cls(
            f"{reference} is not the table that the training set was made from: another one lies at its place.",
            fix="Open the lake in which the training set was made.",
        )

    @classmethod
    def declared(cls, table: str) -> TrainingSetError:
        return cls(
            f"Table {table!r} is declared by a row model, so a training set can't be saved under that name.",
            fix="Choose another name, such as training_set.",
        )

    @classmethod
    def no_part(cls, part: str, known: Iterable[str]) -> TrainingSetError:
        return cls(f"The training set has no part {part!r}.", fix=suggestion(part, list(known), what="Parts"))


class ServingLogError(MillraceError):
    """A table that is no log of what was served."""

    code = "MR-SERVING-LOG"

    @classmethod
    def missing(cls, columns: Sequence[str]) -> ServingLogError:
        return cls(
            f"The serving log lacks the column(s) {examples(columns)}.",
            fix="Write it with features.serving_log.served, whose schema is SERVED.",
        )

    @classmethod
    def wrong_type(cls, column: str, expected: str, got: str) -> ServingLogError:
        return cls(
            f"The serving log's column {column!r} must be {expected} but is {got}.", fix=f"Cast it to {expected} first."
        )
