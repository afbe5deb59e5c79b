"""How does a table follow its declaration? Additive and widening changes are applied, breaking ones are refused.

| change | kind | what is done |
| --- | --- | --- |
| column added, optional | additive | the schema alone; stored rows have null |
| optional field added to a nested model | widening | rows written anew: readers disagree about files that lack one |
| column added, required, with a default in the row model | widening | rows written anew, with the default |
| column becomes optional, rule loosened, description | additive | the schema alone |
| type widened (int32 to int64, float to double, a larger decimal) | widening | rows written anew, in one commit |
| rule or nullability tightened | additive if every stored row keeps it | else breaking, with how many and which |
| column added and required, removed, renamed, narrowed; key, event time, partitioning | breaking | nothing |

Each commit carries the act (``lakehouse/upkeep/acts.py``), so that a kill between commit and ledger loses nothing;
repeated, a change that was made is not found again. Rows are never changed: what readers get is the same version of
the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.arrow import as_type
from lakehouse.contracts.completing import default_of, filled, has_default
from lakehouse.contracts.delta_schema import CHANGE_FEED, check_constraints
from lakehouse.contracts.differences import Change, differences
from lakehouse.contracts.stored_rules import broken_constraint, broken_rule
from lakehouse.contracts.stored_schema import METADATA_KEY, declared_column, stored_schema
from lakehouse.contracts.table import Contract, Table, declared_tables
from lakehouse.errors import MAX_EXAMPLES, EvolutionError, TableBusyError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Promotion, Publication, Run
from lakehouse.snapshot import open_delta, schema_of
from lakehouse.upkeep.acts import Act, conflicts_explained, publish_act, settle

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

__all__ = ["Change", "Plan", "Touched", "apply", "bring_up", "differences", "plan"]

#: How often a publication tries again when another writer commits in between.
ATTEMPTS = 5


class Touched(BaseModel):
    """What depends on a table, by name.

    Attributes:
        tables: those that reference it, or whose published rows were made from it.
        tasks: those that take a snapshot of it.
        feature_views: those that read it.
        models: digests of promoted models whose run read it.
        prompts: the language model's components that read its rows.
    """

    model_config = ConfigDict(frozen=True)

    tables: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    feature_views: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


class Plan(BaseModel):
    """How a declared table differs from the stored one, and what that touches.

    Attributes:
        table: its name.
        version: the version that was compared, the newest; None if the table is not there yet.
        changes: in the order of the columns.
        touches: what depends on the table.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    version: int | None
    changes: tuple[Change, ...]
    touches: Touched

    @property
    def verdict(self) -> Literal["new", "equal", "additive", "widening", "breaking"]:
        """The gravest of the changes."""
        if self.version is None:
            return "new"
        kinds = {change.kind for change in self.changes}
        for kind in ("breaking", "widening", "additive"):
            if kind in kinds:
                return kind
        return "equal"

    @property
    def breaking(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind == "breaking")


def plan(lake: Lakehouse, row_model: type[Table]) -> Plan:
    """Compare a row model with its table's newest version; rules that became stricter are held against every row.

    Tasks, feature views and prompts are known to the layers above; ``millrace plan`` adds them.
    """
    contract = row_model.contract
    touches = _touched(lake, contract.table)
    table = _stored(lake, contract.table)
    if table is None:
        return Plan(table=contract.table, version=None, changes=(), touches=touches)
    changes = tuple(_checked(lake, table, row_model, change) for change in _found(table, contract))
    return Plan(table=contract.table, version=table.version(), changes=changes, touches=touches)


def apply(lake: Lakehouse, plan: Plan) -> int | None:
    """Make the changes of a plan; the version that they ended in, None if there was nothing to do.

    The new version is published at once if the one before was what readers got; else the next batch publishes it.

    Raises:
        EvolutionError: a change is breaking; nothing was done.
        TableBusyError: another writer changed the table since the plan was made, or at the same time.
    """
    if plan.breaking:
        raise EvolutionError.refused(plan.table, [change.text for change in plan.breaking])
    publications = settle(lake, plan.table)
    if not plan.changes:
        return None
    row_model = declared_tables()[plan.table]
    table = open_delta(lake.uri(plan.table))
    if table.version() != plan.version:
        raise TableBusyError.changed(plan.table, f"the plan was made for version {plan.version}")
    act = None
    if _readers_get(publications, table.version()):
        act = Act(kind="evolve", parent=table.version(), fingerprint=row_model.contract.fingerprint)
    with conflicts_explained(plan.table):
        _change(table, row_model, plan.changes, act)
    if act is not None:
        publish_act(lake, plan.table, table.version(), act)
    return table.version()


def bring_up(lake: Lakehouse, contract: Contract) -> None:
    """Before a batch is published: make the stored table what its contract declares.

    Raises:
        EvolutionError: a change is breaking; the table stays as it is.
    """
    for attempt in range(1, ATTEMPTS + 1):
        table = _stored(lake, contract.table)
        if table is None:
            return
        if not _found(table, contract):
            settle(lake, contract.table)
            return
        try:
            apply(lake, plan(lake, declared_tables()[contract.table]))
        except TableBusyError:
            if attempt == ATTEMPTS:
                raise


def bring_up_ledger(root: str, table: DeltaTable, row_model: type[Table]) -> None:
    """Make a table of the ledger what its row model declares; nobody judges or publishes it.

    Raises:
        EvolutionError: a change is breaking; nothing was done.
        CommitFailedError: another process was quicker; open the table anew.
    """
    contract = row_model.contract
    lake = Lakehouse.open(root)
    changes = tuple(_checked(lake, table, row_model, c) for c in differences(contract, schema_of(table)))
    breaking = [change.text for change in changes if change.kind == "breaking"]
    if breaking:
        raise EvolutionError.refused(contract.table, breaking)
    _change(table, row_model, changes, None)


def _stored(lake: Lakehouse, name: str) -> DeltaTable | None:
    from deltalake import DeltaTable

    uri = lake.uri(name)
    return open_delta(uri) if DeltaTable.is_deltatable(uri) else None


def _found(table: DeltaTable, contract: Contract) -> tuple[Change, ...]:
    metadata = table.metadata()
    return differences(
        contract,
        schema_of(table),
        metadata.configuration,
        partition_by=metadata.partition_columns,
        description=metadata.description or "",
    )


def _checked(lake: Lakehouse, table: DeltaTable, row_model: type[Table], change: Change) -> Change:
    """A change that became stricter, held against the rows: additive (or widening) if they keep it, else breaking."""
    if change.kind == "breaking" and change.action == "add column" and has_default(row_model, change.column):
        default = default_of(row_model, change.column)
        text = f"column {change.column} is new and required, and the stored rows get its default {default!r}"
        return change.model_copy(update={"kind": "widening", "text": text})
    if change.kind != "tightening":
        return change
    if change.constraint is not None:
        sql = check_constraints(row_model.contract)[change.constraint]
        count, keys = broken_constraint(table, row_model.contract, sql)
    else:
        assert change.rule is not None
        count, keys = broken_rule(lake, table, row_model, change.rule)
    if not count:
        # Nullability is the type's: Delta takes a stricter one only with rows written anew.
        kind: Literal["additive", "widening"] = "widening" if change.action == "require" else "additive"
        return change.model_copy(update={"kind": kind})
    shown = ", ".join(keys[:MAX_EXAMPLES])
    text = f"{change.text}, which {count} stored row(s) break ({shown}{', …' if count > len(keys) else ''})"
    return change.model_copy(update={"kind": "breaking", "text": text, "breaks": count, "examples": keys})


def _readers_get(publications: Sequence[Publication], version: int) -> bool:
    latest = max((p.version for p in publications if p.published), default=None)
    return latest == version


def _change(table: DeltaTable, row_model: type[Table], changes: Sequence[Change], act: Act | None) -> None:
    """Some commits, each right after the one before, or CommitFailedError: nobody else's rows come in between."""
    from deltalake import CommitProperties, write_deltalake

    contract = row_model.contract

    def carrying() -> CommitProperties:
        if act is None:
            return CommitProperties(max_commit_retries=0)
        return act.model_copy(update={"follows": table.version()}).commit_properties()

    target = stored_schema(contract)
    declared = check_constraints(contract)
    constraints = [change.constraint for change in changes if change.constraint is not None]
    present = {key.removeprefix("delta.constraints.") for key in table.metadata().configuration}
    for name in present.intersection(constraints):
        table.alter.drop_constraint(name, commit_properties=carrying())
    for change in changes:
        if change.action == "allow nulls" and change.kind == "additive":
            table.alter.drop_column_not_null(change.column, commit_properties=carrying())
    before = table.version()
    if any(change.kind == "widening" for change in changes):
        _rewrite(table, row_model, target, carrying())
        table.load_as_version(before + 1)
    elif any(change.action == "add column" for change in changes):
        # Delta-rs merges no metadata: columns that are there come with what they have.
        stored = {field.name: field.metadata for field in schema_of(table)}
        empty = pa.schema([f.with_metadata(stored.get(f.name, f.metadata)) for f in target]).empty_table()
        write_deltalake(table, empty, mode="append", schema_mode="merge", commit_properties=carrying())
        table.load_as_version(before + 1)
    missing = {name: declared[name] for name in constraints if name in declared}
    if missing:
        table.alter.add_constraint(missing, commit_properties=carrying())
    if any(change.action == "change feed" for change in changes):
        table.alter.set_table_properties({CHANGE_FEED: "true"}, commit_properties=carrying())
    # Last, since it is by them that the changes before are found: a kill in between leaves them to be found again.
    for column in contract.columns:
        wanted = {"comment": column.description, METADATA_KEY: declared_column(contract, column).stored()}
        found = schema_of(table).field(column.name).metadata or {}
        kept = {"comment": "", METADATA_KEY: "{}"} | {key.decode(): value.decode() for key, value in found.items()}
        if kept | wanted != kept:
            table.alter.set_column_metadata(column.name, wanted, commit_properties=carrying())
    if (table.metadata().description or "") != contract.description:
        table.alter.set_table_description(contract.description, commit_properties=carrying())


def _rewrite(table: DeltaTable, row_model: type[Table], target: pa.Schema, properties: CommitProperties) -> None:
    """All rows anew in the declared types, batch by batch, as one commit."""
    from deltalake import write_deltalake

    stored = pa.RecordBatchReader.from_stream(table.scan())
    batches = (
        pa.RecordBatch.from_arrays([_column(batch, row_model, field) for field in target], schema=target)
        for batch in stored
    )
    write_deltalake(
        table,
        pa.RecordBatchReader.from_batches(target, batches),
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=table.metadata().partition_columns or None,
        commit_properties=properties,
    )


def _column(batch: pa.RecordBatch, row_model: type[Table], field: pa.Field) -> pa.Array:
    if field.name not in batch.schema.names:
        return filled(row_model, field, batch.num_rows)
    return as_type(batch.column(field.name), field.type)


def _touched(lake: Lakehouse, name: str) -> Touched:
    """Tables and models, from the declarations and the ledger."""
    referencing = {
        table
        for table, row_model in declared_tables().items()
        for column in row_model.contract.columns
        if column.references is not None and column.references.table == name
    }
    made_from = {
        publication.table_name
        for publication in lake.ledger.read(Publication)
        if any(_table_of(reference) == name for reference in publication.inputs)
    }
    readers = [run for run in lake.ledger.read(Run) if any(_table_of(reference) == name for reference in run.inputs)]
    promoted = {promotion.model_digest for promotion in lake.ledger.read(Promotion)}
    models = {digest for digest in promoted if any(digest in run.artifacts for run in readers)}
    return Touched(tables=tuple(sorted((referencing | made_from) - {name})), models=tuple(sorted(models)))


def _table_of(reference: str) -> str:
    return reference.partition("@")[0]
