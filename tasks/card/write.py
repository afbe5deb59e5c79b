"""What does a model card say, and what a technical file? Sections of words and of facts cited from the ledger.

The card follows M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The technical file has the nine
headings of Annex IV of the EU AI Act, with what the ledger knows under each. It has that shape so that whoever needs
such a file has a beginning. It is no statement that the law asks for one here, nor that anything conforms.
"""

from __future__ import annotations

from lakehouse.lake import Lakehouse
from models.use import intended_use
from tasks.card.facts import Document, Fact, Section, check, cite, cited, names_in
from tasks.card.record import ModelRecord, gather

#: What the title is, in both documents.
SUBJECT = "Millrace's movie recommender"


def model_card(lake: Lakehouse, reference: str = "champion") -> Document:
    """The model card of a registered version.

    Raises:
        RegistryError: there is no such version.
        UnsourcedError: no run of this lake made it, or something in the document has no source.
    """
    record, use = gather(lake, reference), intended_use()
    sections = (
        Section(heading="Model", text=(*_WHAT, *_standing(record)), facts=tuple(_identity(record))),
        *(Section(heading=heading, text=sentences) for heading, sentences in use.parts()),
        Section(heading="Training data", text=_DATA, facts=tuple(_data(record))),
        Section(heading="Evaluation", text=_EVALUATION, facts=tuple(_metrics(record))),
        Section(heading="By group", text=_GROUPS, facts=tuple(_gates(record, "fair by"))),
        Section(heading="Gates", text=_GATES, facts=tuple(_verdicts(record))),
        Section(heading="Drift of the input at that time", facts=tuple(_drift(record))),
        Section(heading="Cost of the run", text=_COSTS, facts=tuple(_costs(record))),
        Section(heading="Approvals", text=_said(record), facts=tuple(_approvals(record))),
        Section(heading="In service", text=_served(record), facts=tuple(_deployments(record))),
    )
    return check(Document(kind="model card", title=SUBJECT, sections=sections), lake.ledger)


def technical_file(lake: Lakehouse, reference: str = "champion") -> Document:
    """The technical file of a registered version, in the shape of Annex IV.

    Raises:
        RegistryError: there is no such version.
        UnsourcedError: no run of this lake made it, or something in the document has no source.
    """
    record, use = gather(lake, reference), intended_use()
    sections = (
        Section(heading="About this file", text=_ABOUT),
        Section(
            heading="I. General description",
            text=(*_WHAT, *_standing(record), *use.intended, *_INTERFACE),
            facts=(*_identity(record), *cited(record.run, ("lock_digest", "commit"))),
        ),
        Section(
            heading="II. Elements and development: design",
            text=_DESIGN,
            facts=tuple(cite(record.run, "parameters", name) for name in names_in(record.run, "parameters")),
        ),
        Section(heading="II. Elements and development: data", text=_DATA, facts=(*_data(record), *_quality(record))),
        Section(heading="II. Elements and development: resources", text=_COSTS, facts=tuple(_costs(record))),
        Section(
            heading="II. Elements and development: validation and testing",
            text=(*_EVALUATION, *_GROUPS),
            facts=(*_metrics(record), *_gates(record, "")),
        ),
        Section(heading="II. Elements and development: human oversight", text=use.oversight),
        Section(heading="II. Elements and development: cybersecurity", text=_SECURITY),
        Section(
            heading="III. Monitoring, functioning and control",
            text=(*use.limits, *_CONTROL),
            facts=(*_gates(record, "fair by"), *_drift(record)),
        ),
        Section(heading="IV. Appropriateness of the metrics", text=_METRICS),
        Section(heading="V. Risk management", text=(*_RISKS, *(f"Out of scope: {one}" for one in use.out_of_scope))),
        Section(heading="VI. Changes through the life cycle", text=_CHANGES, facts=tuple(_versions(record))),
        Section(heading="VII. Harmonised standards", text=("None has been applied.",)),
        Section(heading="VIII. EU declaration of conformity", text=("None has been made.",)),
        Section(
            heading="IX. Performance after it is put into service",
            text=(*_AFTER, *_served(record), *_said(record)),
            facts=(*_deployments(record), *_approvals(record)),
        ),
    )
    return check(Document(kind="technical file", title=SUBJECT, sections=sections), lake.ledger)


def _identity(record: ModelRecord) -> list[Fact]:
    run, promotion = record.run, record.promotion
    facts = [cite(run, "artifacts", "model", label="digest of the model's files")]
    if promotion is not None:
        facts += cited(promotion, ("registry_version", "day", "trained_until", "promoted_at"))
    else:
        facts += [cite(row, "model_version", label="registry version") for row in record.approvals[:1]]
    return [
        *facts,
        *cited(run, ("run_id", "verdict", "finished_at", "code_digest", "seed")),
        cite(run, "inputs", label="trained on"),
        cite(run, "artifacts", "training_set", label="digest of the training set"),
    ]


def _data(record: ModelRecord) -> list[Fact]:
    columns = ("version", "rows_total", "rows_in", "rows_quarantined", "rows_duplicate", "day", "fingerprint")
    return [fact for p in record.publications for fact in cited(p, columns, prefix=f"{p.table_name}: ")]


def _quality(record: ModelRecord) -> list[Fact]:
    return [
        cite(m, "value", label=f"{m.table_name}: {m.metric} of {'the table' if m.column == '*' else m.column}")
        for m in record.metrics
    ]


def _metrics(record: ModelRecord) -> list[Fact]:
    return [cite(record.run, "metrics", name) for name in names_in(record.run, "metrics")]


def _gates(record: ModelRecord, prefix: str) -> list[Fact]:
    """The numbers behind each gate of that name."""
    return [
        fact
        for decision in record.decisions
        if decision.gate.startswith(prefix)
        for fact in (
            cite(decision, "reason", label=decision.gate),
            *(cite(decision, "inputs", n, label=f"{decision.gate}: {n}") for n in names_in(decision, "inputs")),
        )
    ]


def _verdicts(record: ModelRecord) -> list[Fact]:
    return [
        fact
        for decision in record.decisions
        for fact in (
            cite(decision, "passed", label=f"{decision.gate}: passed"),
            cite(decision, "reason", label=f"{decision.gate}: reason"),
        )
    ]


def _drift(record: ModelRecord) -> list[Fact]:
    columns = ("psi", "adjusted_p_value", "threshold", "drifted")
    return [fact for row in record.drift for fact in cited(row, columns, prefix=f"{row.feature}: ")]


def _costs(record: ModelRecord) -> list[Fact]:
    tasks = [
        fact
        for cost in record.costs
        for fact in cited(cost, ("seconds", "cpu_seconds", "peak_mib"), prefix=f"{cost.task.rpartition('.')[2]}: ")
    ]
    columns = ("model", "asked", "reused", "failed", "tokens_in", "tokens_out", "watt_hours", "money", "currency")
    asked = [fact for cost in record.llm_costs for fact in cited(cost, columns, prefix=f"{cost.component}: ")]
    return [cite(record.run, "seconds", label="seconds of the whole run"), *tasks, *asked]


def _approvals(record: ModelRecord) -> list[Fact]:
    return [fact for row in record.approvals for fact in cited(row, ("approved", "by", "note", "approved_at"))]


def _deployments(record: ModelRecord) -> list[Fact]:
    return [fact for row in record.deployments for fact in cited(row, ("act", "slot", "reason", "acted_at"))]


def _versions(record: ModelRecord) -> list[Fact]:
    columns = ("registry_version", "day", "model_digest", "trained_until", "promoted_at")
    return [fact for promotion in record.promotions for fact in cited(promotion, columns)]


def _standing(record: ModelRecord) -> tuple[str, ...]:
    if record.promotion is not None:
        return ()
    return ("This version never became champion. Its number stands in the model registry, not in the ledger.",)


def _said(record: ModelRecord) -> tuple[str, ...]:
    return () if record.approvals else ("Nobody has approved or refused this version.",)


def _served(record: ModelRecord) -> tuple[str, ...]:
    return () if record.deployments else ("No service of this lake has answered with it.",)


_WHAT = (
    "A two-stage recommender: signals from past interactions, weighed together with features of users and items by a "
    "small network that is trained on which new items people met next.",
)
_INTERFACE = (
    "It answers over HTTP (the OpenAPI document lists the routes) and on one page for a browser; instructions are in "
    "the guide on serving. It runs on an ordinary computer without a graphics card. Whoever serves it enters here who "
    "the provider is: the ledger does not know.",
)
_DESIGN = (
    "Every table is declared once as a row model; the gate judges each batch against it; a run is pinned to table "
    "versions, code, environment and seed, and can be replayed. The parameters below are those of the run.",
    "Pre-trained parts: the movie cards come from a language model, whose digest and cost stand under resources.",
)
_DATA = (
    "The table versions that the run read, as the publishing gate counted them. Rows that broke a rule wait in the "
    "quarantine with the rule; each table's rules are on the reference page of tables.",
)
_COSTS = ("Measured by the run itself. Energy and money of the language model are estimates by formula.",)
_EVALUATION = (
    "Trained on what was known at the cutoff and tested on the interactions after it; the whole catalogue is ranked, "
    "seen items left out. Means over users; their intervals are in the night's report and not in the ledger.",
)
_GROUPS = (
    "The ratio of the worst to the best group's metric, with a bootstrap interval. An attribute is unfair only if the "
    "whole interval lies below the limit; groups with few users are shown and not judged.",
)
_GATES = ("Each condition of promotion, with the numbers that decided. No person has to agree.",)
_METRICS = (
    "The main metric weighs a hit by its place in the list, because a reader begins at the top; recall and the "
    "reciprocal rank stand beside it. All of them count only what people rated, and "
    "so say nothing of what they were never shown.",
    "Baselines are what people would pick instead: popularity, recent popularity, neighbours, a linear model.",
)
_SECURITY = (
    "Models are read from files without executable content and refused if their digest differs. Keys are needed beyond "
    "the machine itself. The page on security lists what is guarded against and what is not.",
)
_CONTROL = (
    "Input that breaks a rule does not reach training. Online, what can't be used is refused with a sentence, and a "
    "person who is not known is shown what is popular.",
)
_RISKS = (
    "No risk management system in the sense of the Act is kept. What is known to be able to go wrong stands in the "
    "runbooks, in the page on security and here.",
)
_CHANGES = ("Every version that became champion in this lake. The decisions of each night are in the ledger.",)
_AFTER = (
    "The monitor compares freshness, drift, click rate, latency and errors with bounds, and launches a night when a "
    "rule fires twice. Ratings given to recommendations land in the lake and are learned from.",
)
_ABOUT = (
    "Made from the ledger, in the shape of Annex IV of the EU AI Act. Each value names the row that it comes from.",
    "It is no statement that the Act asks for such a file here, that it is complete, or that anything conforms. "
    "What is missing is said to be missing.",
)
