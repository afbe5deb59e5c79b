"""What does the nightly report show? Every number and sentence on the page, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from graphlib import CycleError, TopologicalSorter
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Verdict = Literal["promoted", "registered", "kept", "failed"]
NodeKind = Literal["table", "view", "training_set", "model", "registry", "llm"]


class Part(BaseModel):
    """Base of every part of the report: frozen, finite numbers only, and strict about its fields' names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchVerdict(Part):
    """One batch's way through the gate."""

    table: str
    batch_id: str
    version: int = Field(ge=0, description="Delta version the batch ended in.")
    published: bool = Field(description="Whether readers of the latest version get it.")
    rows_in: int = Field(ge=0)
    rows_published: int = Field(ge=0)
    rows_quarantined: int = Field(ge=0)
    rows_duplicate: int = Field(ge=0)
    rows_total: int = Field(ge=0, description="Rows of the table at this version.")
    broken_rules: Mapping[str, int] = Field(default={}, description="Rows by the rule they broke.")
    examples: tuple[str, ...] = Field(default=(), description="A few quarantined rows, as text.")
    failed_checks: tuple[str, ...] = Field(default=(), description="Table-level checks that failed.")

    @property
    def conserved(self) -> bool:
        """Whether no row was lost: rows in = published + quarantined + duplicates."""
        return self.rows_in == self.rows_published + self.rows_quarantined + self.rows_duplicate


class QualityMetric(Part):
    """One Deequ metric of a table at one version."""

    table: str
    version: int = Field(ge=0)
    column: str = Field(description="Column, or * for the whole table.")
    metric: str = Field(description="Deequ's name, such as Completeness.")
    value: float


class DayCount(Part):
    """How many ratings were given on one UTC day."""

    day: date
    count: int = Field(ge=0)


class RatingCount(Part):
    """How many ratings have this many stars."""

    rating: float
    count: int = Field(ge=0)


class Score(Part):
    """One metric of one contender: the mean over users and its 95 % interval."""

    contender: str = Field(description='Such as "challenger", "champion", "popularity", "item-kNN".')
    metric: str = Field(description='Such as "NDCG@10".')
    value: float
    low: float
    high: float
    users: int = Field(ge=0)


class GroupResult(Part):
    """The model's NDCG@10 in one group of users."""

    attribute: str = Field(description="What the groups differ in.")
    group: str
    users: int = Field(ge=0)
    value: float
    judged: bool = Field(description="Whether it has users enough to be compared.")


class ListResult(Part):
    """What one contender's lists are like, beside accurate."""

    contender: str
    coverage: float = Field(ge=0, le=1, description="Share of the catalogue that somebody is shown.")
    novelty_bits: float = Field(ge=0)
    diversity: float = Field(ge=0, le=1)
    miscalibration: float = Field(ge=0)


class EvaluationResult(Part):
    """The comparison on the newest interactions. Contenders and metrics are shown in the order given."""

    window_from: date
    window_to: date
    interactions: int = Field(ge=0, description="Targets in the window.")
    scores: tuple[Score, ...]
    groups: tuple[GroupResult, ...] = ()
    lists: tuple[ListResult, ...] = ()

    def score(self, contender: str, metric: str) -> Score | None:
        """The score of one contender by one metric, if it was measured."""
        return next((s for s in self.scores if (s.contender, s.metric) == (contender, metric)), None)

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(score.metric for score in self.scores))

    @property
    def contenders(self) -> list[str]:
        return list(dict.fromkeys(score.contender for score in self.scores))


class FormerChampion(Part):
    """A champion of an earlier night on the newest interactions; 0 nights ago: the one after this night."""

    nights_ago: int = Field(ge=0, description="Since it was promoted.")
    name: str
    trained_until: date
    scores: tuple[Score, ...]

    def score(self, metric: str) -> Score | None:
        """Its score by one metric, if it was measured."""
        return next((score for score in self.scores if score.metric == metric), None)


class StalenessResult(Part):
    """What the champions of earlier nights would have scored today, the newest first."""

    champions: tuple[FormerChampion, ...]
    left_out: tuple[str, ...] = Field(default=(), description="Those that can't be asked, each with the reason.")

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(score.metric for one in self.champions for score in one.scores))


class FeatureDrift(Part):
    """How far one feature moved from its reference, and whether chance explains it."""

    feature: str
    psi: float = Field(ge=0)
    test: str
    adjusted_p_value: float = Field(ge=0, le=1)
    drifted: bool
    reference_rows: int = Field(ge=0)
    current_rows: int = Field(ge=0)


class DriftResult(Part):
    """Drift of every feature, and what was decided from it."""

    threshold: float = Field(ge=0, description="PSI from which a feature counts as drifted.")
    features: tuple[FeatureDrift, ...]
    retrain: bool
    reason: str = Field(description="One sentence with the numbers that decided.")


class GateVerdict(Part):
    """One gate on the way to promotion."""

    gate: str
    passed: bool
    reason: str


class ParityResult(Part):
    """How many values of one feature view agreed between the online and the offline path."""

    view: str
    compared: int = Field(ge=0)
    different: int = Field(ge=0)
    examples: tuple[str, ...] = ()


class AnswerShare(Part):
    """How often the LLM gave one value for one field, over all stored answers."""

    field: str
    value: str
    count: int = Field(ge=0)


class AnswerExample(Part):
    """One answer of the LLM, as field name to value."""

    title: str
    answer: Mapping[str, str]


class LlmUse(Part):
    """What the LLM component was asked and what it cost."""

    component: str
    model: str
    asked: int = Field(ge=0, description="Rows sent to the model in this run.")
    from_store: int = Field(ge=0, description="Rows whose answer was already stored.")
    failed: int = Field(ge=0, description="Rows without a valid answer.")
    tokens_in: int = Field(ge=0)
    tokens_out: int = Field(ge=0)
    start_seconds: float = Field(ge=0, description="Seconds until the engine was ready.")
    seconds: float = Field(ge=0, description="Seconds of generation, engine start apart.")
    shares: tuple[AnswerShare, ...] = ()
    examples: tuple[AnswerExample, ...] = ()

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens a second, None where nothing was generated."""
        return self.tokens_out / self.seconds if self.seconds and self.tokens_out else None


class LineageNode(Part):
    """One pinned thing: a table at a version, a feature view, a training set, a model, a registry version."""

    id: str
    label: str
    detail: str = ""
    kind: NodeKind


class Lineage(Part):
    """From table versions to the model: a directed acyclic graph. Edges are (source id, derived id)."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str], ...]

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        known = {node.id for node in self.nodes}
        if len(known) < len(self.nodes):
            raise ValueError("two nodes of the lineage share an id")
        unknown = sorted({end for edge in self.edges for end in edge} - known)
        if unknown:
            raise ValueError(f"an edge of the lineage names the unknown node {unknown[0]!r}")
        try:
            self.order()
        except CycleError as error:
            raise ValueError(f"the lineage goes round in a circle: {error.args[1]}") from error
        return self

    def order(self) -> list[str]:
        """Ids of all nodes, every source before what is derived from it."""
        sorter: TopologicalSorter[str] = TopologicalSorter({node.id: [] for node in self.nodes})
        for source, derived in self.edges:
            sorter.add(derived, source)
        return list(sorter.static_order())


class TaskCost(Part):
    """What one task of this run took; one answered from the cache took nothing and has no start."""

    task: str
    cached: bool = False
    started_at: AwareDatetime | None = None
    seconds: float = Field(default=0, ge=0, description="Wall-clock seconds.")
    cpu_seconds: float = Field(default=0, ge=0)
    peak_mib: float = Field(default=0, ge=0, description="Peak resident memory of the process tree, MiB.")


class TableChange(Part):
    """A table's published version then and now; None where it did not exist."""

    table: str
    before: int | None
    after: int
    rows_before: int | None
    rows_after: int


class MetricChange(Part):
    """A metric of the promoted model (or of the challenger, as named) then and now."""

    metric: str
    before: float | None
    after: float | None


class Changes(Part):
    """What differs from the run before."""

    previous_run: str
    previous_day: date
    tables: tuple[TableChange, ...] = ()
    metrics: tuple[MetricChange, ...] = ()
    champion_before: str | None = None
    champion_after: str | None = None


class UserRecommendations(Part):
    """What one user would be shown, beside what they rated last (newest first)."""

    user_id: int
    ratings: int = Field(ge=0, description="How many ratings the user has given by the end of the day.")
    history: tuple[str, ...]
    recommended: tuple[str, ...]


class Contribution(Part):
    """What one thing adds to a score."""

    what: str
    history: bool = Field(description="Whether it is an item of the user's history; else it is an input, by name.")
    value: float


class WorkedExample(Part):
    """Why one user would be recommended one film; the contributions and the rest add up to the margin."""

    user_id: int
    title: str
    margin: float = Field(description="Score less that of the average film, for this user.")
    contributions: tuple[Contribution, ...]
    rest: float


class ExplanationResult(Part):
    """What moves the model's scores, in general and in a few examples."""

    model: str = Field(description='"challenger" or "champion".')
    importances: tuple[Score, ...] = Field(description="Mean size of each input's contributions, largest first.")
    faithful: tuple[Score, ...] = Field(
        description='Score lost without the item "named", a "random" one; "difference".'
    )
    examples: tuple[WorkedExample, ...] = ()

    def lost(self, without: str) -> Score | None:
        """What a score loses without the item named, a random one, or the difference."""
        return next((score for score in self.faithful if score.contender == without), None)


class Environment(Part):
    """What it takes to do the run again."""

    code_digest: str
    lock_digest: str
    commit: str = Field(default="", description="Git commit, with + if files differed; empty outside a checkout.")
    seed: int
    parameters: Mapping[str, str] = {}
    packages: Mapping[str, str] = {}


class NightReport(Part):
    """One night, as the report shows it. A section that is empty or None is said to be so, in a sentence."""

    workflow: str = "nightly"
    day: date
    run_id: str
    verdict: Verdict
    reason: str = Field(description="One sentence that explains the verdict.")
    finished_at: AwareDatetime
    seconds: float = Field(ge=0, description="From the first task's start to the last one's end.")
    changes: Changes | None = None
    evaluation: EvaluationResult | None = None
    staleness: StalenessResult | None = None
    gates: tuple[GateVerdict, ...] = ()
    drift: DriftResult | None = None
    batches: tuple[BatchVerdict, ...] = ()
    ratings_per_day: tuple[DayCount, ...] = ()
    rating_histogram: tuple[RatingCount, ...] = ()
    quality: tuple[QualityMetric, ...] = ()
    parity: tuple[ParityResult, ...] = ()
    llm: LlmUse | None = None
    recommendations: tuple[UserRecommendations, ...] = ()
    explanations: ExplanationResult | None = None
    lineage: Lineage | None = None
    costs: tuple[TaskCost, ...] = ()
    environment: Environment | None = None
