"""How do other tools learn what happened here? By OpenLineage events, made from the ledger's rows.

By specification 2-0-2: each publication and each run is a START event and one that ends it, COMPLETE, or FAIL for a
version that was refused. Ids are UUIDs made from the ledger's own (version 5), so that an event sent again is the same
event. ``MILLRACE_OPENLINEAGE_URL`` says where events go: to an http(s) endpoint (``/api/v1/lineage`` if no path is
given) or to a file, a line an event. What could not be sent is sent by ``millrace lineage --emit`` later: the ledger
has it all.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import logging
import math
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, JsonValue

from lakehouse.contracts.table import declared_tables
from lakehouse.errors import MillraceError, OpenLineageError, first_line
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Metric, Publication, Run
from lakehouse.settings import Settings

SPECIFICATION = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: Each facet's own version of the specification.
FACETS = {
    "schema": "1-0-0/SchemaDatasetFacet",
    "version": "1-0-0/DatasetVersionDatasetFacet",
    "dataQualityMetrics": "1-0-0/DataQualityMetricsDatasetFacet",
    "dataQualityAssertions": "1-0-1/DataQualityAssertionsDatasetFacet",
    "outputStatistics": "1-0-1/OutputStatisticsOutputDatasetFacet",
    "jobType": "2-0-3/JobTypeJobFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
}
#: Seconds that an endpoint may take for one event.
TIMEOUT = 5.0

_ENDPOINT = "/api/v1/lineage"
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:millrace:openlineage")
#: Deequ's metrics that the specification has a word for.
_COLUMN_METRICS = {"Minimum": "min", "Maximum": "max", "Sum": "sum", "ApproxCountDistinct": "distinctCount"}

Facets = dict[str, JsonValue]
_LOG = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class RunPart(_Part):
    """Which run: its UUID, and what is said of it."""

    runId: str  # noqa: N815  # the specification's names
    facets: Facets = {}


class JobPart(_Part):
    """Of which job."""

    namespace: str
    name: str
    facets: Facets = {}


class InputDataset(_Part):
    """What it read."""

    namespace: str
    name: str
    facets: Facets = {}
    inputFacets: Facets = {}  # noqa: N815


class OutputDataset(_Part):
    """What it wrote."""

    namespace: str
    name: str
    facets: Facets = {}
    outputFacets: Facets = {}  # noqa: N815


class RunEvent(_Part):
    """One OpenLineage event."""

    eventType: Literal["START", "COMPLETE", "FAIL"]  # noqa: N815
    eventTime: str  # noqa: N815
    run: RunPart
    job: JobPart
    inputs: tuple[InputDataset, ...] = ()
    outputs: tuple[OutputDataset, ...] = ()
    producer: str
    schemaURL: str = SPECIFICATION  # noqa: N815


def announce(lake: Lakehouse, row: Publication | Run) -> None:
    """Send a fresh ledger row's events to where the settings say; a failure is logged as a warning, never raised."""
    target = Settings().openlineage_url
    if not target:
        return
    try:
        send(target, events_of(lake, [row]))
    except (MillraceError, OSError, ValueError) as error:  # a publication never fails for it
        _LOG.warning("%s Send the events later with `millrace lineage --emit`.", getattr(error, "message", error))


def emit(lake: Lakehouse, target: str) -> int:
    """Send the events of everything in the ledger, oldest first; how many were sent.

    Sending again is safe: ids are the same, and a file gets no event twice.

    Raises:
        OpenLineageError: the target can't be reached or refuses an event.
    """
    rows: list[Publication | Run] = [*lake.publications(), *lake.ledger.read(Run)]
    rows.sort(key=lambda row: row.published_at if isinstance(row, Publication) else row.finished_at)
    return send(target, events_of(lake, rows))


def events_of(lake: Lakehouse, rows: Sequence[Publication | Run]) -> Iterator[RunEvent]:
    """The events of some ledger rows, two each."""
    wanted = {(row.table_name, row.version) for row in rows if isinstance(row, Publication)}
    metrics = [metric for metric in lake.ledger.read(Metric) if (metric.table_name, metric.version) in wanted]
    for row in rows:
        if isinstance(row, Publication):
            own = [m for m in metrics if (m.table_name, m.version) == (row.table_name, row.version)]
            yield from _publication_events(lake, row, own)
        else:
            yield from _run_events(lake, row)


def send(target: str, events: Iterable[RunEvent]) -> int:
    """Send events to an http(s) endpoint or append them to a file; how many were sent.

    Raises:
        OpenLineageError: the target can't be reached, written, or refuses an event.
    """
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise OpenLineageError.scheme(target.partition("@")[2] or target) from error
    if parts.scheme in ("http", "https"):
        return sum(_post(parts, event) for event in events)
    if "://" in target:
        raise OpenLineageError.scheme(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    return _append(Path(target), events)


def _post(target: SplitResult, event: RunEvent) -> int:
    credentials, _, place = target.netloc.rpartition("@")
    url = target._replace(netloc=place, path=_ENDPOINT if target.path in ("", "/") else target.path)
    headers = {"Content-Type": "application/json"}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(credentials).encode()).decode()}"
    try:
        request = urllib.request.Request(url.geturl(), _json(event).encode(), headers, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310  # http or https, see send()
            answer.read()
    except (OSError, HTTPException, ValueError) as error:
        # A query may hold a key.
        reason = getattr(error, "reason", error)
        words = first_line(reason) if isinstance(reason, Exception) else first_line(error)
        raise OpenLineageError.unreachable(url._replace(query="").geturl(), words) from error
    return 1


def _append(path: Path, events: Iterable[RunEvent]) -> int:
    try:
        known = set(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else set()
        fresh = [line for line in map(_json, events) if line not in known]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in fresh))
    except OSError as error:
        raise OpenLineageError.unreachable(str(path), error.strerror or first_line(error)) from error
    return len(fresh)


def _json(event: RunEvent) -> str:
    document = event.model_dump(mode="json")
    return json.dumps(document, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _publication_events(lake: Lakehouse, row: Publication, metrics: Sequence[Metric]) -> Iterator[RunEvent]:
    inputs = [_table_input(lake, reference) for reference in row.inputs]
    if row.kind in ("batch", "requeue"):
        inputs.append(_batch(lake, row))
    namespace, name = _place(lake, row.table_name)
    output = OutputDataset(
        namespace=namespace,
        name=name,
        facets=_version(row.version) | _schema(lake, row) | _metrics(metrics),
        outputFacets=_facet("outputStatistics", rowCount=row.rows_published),
    )
    job = JobPart(namespace=f"millrace:{lake.id}", name=f"publish.{row.table_name}", facets=_job_type("PUBLICATION"))
    ended: Literal["COMPLETE", "FAIL"] = "COMPLETE" if row.published else "FAIL"
    failure: Facets = {}
    if not row.published:
        message = f"{row.table_name}@{row.version} was refused: {'; '.join(row.failed_checks)}"
        failure = _facet("errorMessage", message=message, programmingLanguage="PYTHON")
    run_id = _run_id(lake, row.publication_id)
    # The ledger keeps the decision's time alone.
    yield _event("START", row.published_at, run_id, job)
    yield _event(ended, row.published_at, run_id, job, inputs, [output], failure)


def _run_events(lake: Lakehouse, row: Run) -> Iterator[RunEvent]:
    job = JobPart(namespace=f"millrace:{lake.id}", name=row.workflow, facets=_job_type("WORKFLOW"))
    inputs = [_table_input(lake, reference) for reference in row.inputs]
    artifacts: dict[str, str] = json.loads(row.artifacts)
    outputs = [
        OutputDataset(namespace=f"millrace:{lake.id}", name=f"{name}/{digest}", facets=_version(digest))
        for name, digest in sorted(artifacts.items())
        if name in ("training_set", "model")
    ]
    for reference in row.outputs:
        if reference not in row.inputs:
            table, _, version = reference.partition("@")
            namespace, name = _place(lake, table)
            outputs.append(OutputDataset(namespace=namespace, name=name, facets=_version(version)))
    run_id = _run_id(lake, row.run_id)
    yield _event("START", row.finished_at - timedelta(seconds=row.seconds), run_id, job)
    if row.verdict.startswith("failed"):
        failure = _facet("errorMessage", message=row.verdict, programmingLanguage="PYTHON")
        yield _event("FAIL", row.finished_at, run_id, job, inputs, outputs, failure)
    else:
        yield _event("COMPLETE", row.finished_at, run_id, job, inputs, outputs)


def _event(
    kind: Literal["START", "COMPLETE", "FAIL"],
    at: datetime,
    run_id: str,
    job: JobPart,
    inputs: Sequence[InputDataset] = (),
    outputs: Sequence[OutputDataset] = (),
    facets: Facets | None = None,
) -> RunEvent:
    return RunEvent(
        eventType=kind,
        eventTime=at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        run=RunPart(runId=run_id, facets=facets or {}),
        job=job,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        producer=_producer(),
    )


def _run_id(lake: Lakehouse, name: str) -> str:
    return str(uuid.uuid5(_IDS, f"{lake.id}/{name}"))


def _producer() -> str:
    try:
        return f"urn:millrace:{importlib.metadata.version('millrace')}"
    except importlib.metadata.PackageNotFoundError:
        return "urn:millrace:source"


def _place(lake: Lakehouse, name: str, *, folder: str = "") -> tuple[str, str]:
    """Namespace and name of what lies in the lake, as the specification names files and objects."""
    path = f"{lake.root}/{folder}{name}"
    if "://" not in path:
        return "file", path
    parts = urlsplit(path)
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")


def _table_input(lake: Lakehouse, reference: str) -> InputDataset:
    table, _, version = reference.partition("@")
    namespace, name = _place(lake, table)
    return InputDataset(namespace=namespace, name=name, facets=_version(version))


def _batch(lake: Lakehouse, row: Publication) -> InputDataset:
    """The batch as it came, with the verdict on each rule that a row of it broke."""
    namespace, name = _place(lake, f"{row.table_name}/{row.batch_id}", folder="_staging/")
    broken: dict[str, int] = json.loads(row.broken_rules)
    declared = declared_tables().get(row.table_name)
    rules = {rule.name: rule.top for rule in declared.contract.rules} if declared else {}
    assertions: list[JsonValue] = []
    for rule in dict.fromkeys([*rules, *broken]):
        verdict: dict[str, JsonValue] = {"assertion": rule, "success": rule not in broken}
        assertions.append(verdict | ({"column": rules[rule]} if rule in rules else {}))
    quality: Facets = _facet("dataQualityAssertions", assertions=assertions) if assertions else {}
    return InputDataset(namespace=namespace, name=name, facets=_version(row.batch_id), inputFacets=quality)


def _version(version: int | str) -> Facets:
    return _facet("version", datasetVersion=str(version))


def _schema(lake: Lakehouse, row: Publication) -> Facets:
    """The columns, by the declaration if it is the one that judged, else as stored; nothing if that is gone."""
    from lakehouse.snapshot import open_delta, schema_of

    declared = declared_tables().get(row.table_name)
    if declared is not None and declared.contract.fingerprint == row.fingerprint:
        fields = [(c.name, str(c.type), c.description) for c in declared.contract.columns]
    else:
        try:
            stored = schema_of(open_delta(lake.uri(row.table_name), row.version))
        except MillraceError:
            return {}
        fields = [(f.name, str(f.type), (f.metadata or {}).get(b"comment", b"").decode()) for f in stored]
    columns: list[JsonValue] = []
    for name, kind, said in fields:
        columns.append({"name": name, "type": kind, "description": said})
    return _facet("schema", fields=columns)


def _metrics(metrics: Sequence[Metric]) -> Facets:
    """Deequ's metrics of the version, as far as the specification has words for them."""
    size = next((int(m.value) for m in metrics if m.metric == "Size"), None)
    columns: dict[str, JsonValue] = {}
    for metric in metrics:
        if not math.isfinite(metric.value):
            continue  # JSON has no word for it
        found: dict[str, JsonValue] = {}
        if metric.metric in _COLUMN_METRICS:
            whole = metric.metric == "ApproxCountDistinct"
            found = {_COLUMN_METRICS[metric.metric]: int(metric.value) if whole else metric.value}
        elif metric.metric == "Completeness" and size is not None:
            found = {"nullCount": round((1 - metric.value) * size)}
        if found:
            known = columns.setdefault(metric.column, {})
            assert isinstance(known, dict)
            known |= found
    if size is None:
        return {}
    return _facet("dataQualityMetrics", rowCount=size, columnMetrics=columns)


def _job_type(kind: str) -> Facets:
    return _facet("jobType", processingType="BATCH", integration="MILLRACE", jobType=kind)


def _facet(name: str, **content: JsonValue) -> Facets:
    schema = f"https://openlineage.io/spec/facets/{FACETS[name]}.json"
    return {name: {"_producer": _producer(), "_schemaURL": schema, **content}}
