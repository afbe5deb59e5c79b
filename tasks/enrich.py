"""What does the language model add? A card for each movie that has none yet, as an ordinary published table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict

from lakehouse import Snapshot
from lakehouse.lake import Lakehouse
from lakehouse.ledger import LlmCost
from lakehouse.tables import Movie, MovieCard
from tasks.answers import as_rows
from tasks.lake import Lake
from tasks.llm_gate import admit_movie_card, answer_store
from tasks.meter import spent
from tasks.progress import bar
from tasks.show import show
from tasks.typed import execution_id, task

if TYPE_CHECKING:
    from models.llm.batch import Completion
    from models.llm.weights import ModelRef


class LlmUsage(BaseModel):
    """What asking the model took; a question that was answered before costs nothing.

    Attributes:
        asked: distinct questions that went to the engine.
        reused: distinct questions answered from the response store.
        failed: movies without a valid answer; they have no card.
        start_seconds: until the engine had loaded the model.
        seconds: generating.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    model: str
    model_digest: str
    prompt_digest: str
    asked: int
    reused: int
    failed: int
    tokens_in: int
    tokens_out: int
    start_seconds: float
    seconds: float
    peak_mib: float


class Enriched(NamedTuple):
    """The cards, and what making them took."""

    cards: Snapshot[MovieCard]
    usage: LlmUsage


@task(cpu="2", memory="6Gi", deck=True, timeout=timedelta(hours=6))
def enrich(lake: Lake, movies: Snapshot[Movie], day: datetime, model: str) -> Enriched:
    """Ask the language model for the cards that are missing; publish those that are new or changed.

    ``model`` is the folder of any Hugging Face model; empty for the small default one.
    """
    import pyarrow as pa

    from lakehouse.gate.publish import publish_rows
    from models.llm.batch import complete
    from models.llm.engine import Engine
    from models.llm.movie_card import MOVIE_CARD, MovieCardInput
    from models.llm.weights import named_model

    lakehouse = lake.open()
    weights = named_model(model)
    rows = sorted(movies.rows(), key=lambda movie: movie.item_id)
    questions = [MovieCardInput(item_id=m.item_id, title=m.title, year=m.year, genres=m.genres) for m in rows]
    admit_movie_card(lakehouse, weights)
    completion = complete(
        MOVIE_CARD,
        questions,
        model=weights,
        store=answer_store(lakehouse),
        engine=lambda: Engine(weights),
        progress=bar("movie cards"),
    )

    def fresh() -> pa.Table:
        known = _judged_before(lakehouse)
        return as_rows(
            MovieCard,
            [
                (answer, {"item_id": movie.item_id, "added_at": movie.added_at})
                for movie, answer in zip(rows, completion.answers, strict=True)
                if (movie.item_id, answer.answer_key) not in known
            ],
        )

    cards = publish_rows(
        lakehouse,
        MovieCard,
        fresh,
        batch_id=f"{day.date()}.movies-{movies.version}.{MOVIE_CARD.digest(weights)[:16]}",
        day=day.date(),
        inputs=[movies.reference],
    )
    usage = completion.usage
    lakehouse.ledger.append([_cost(MOVIE_CARD.name, weights, completion)])
    spent(usage.tokens_in, usage.tokens_out)
    made = Enriched(
        cards=cards,
        usage=LlmUsage(
            component=MOVIE_CARD.name,
            model=weights.name,
            model_digest=weights.digest,
            prompt_digest=MOVIE_CARD.prompt_digest,
            asked=completion.asked,
            reused=completion.reused,
            failed=completion.failed,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            start_seconds=usage.start_seconds,
            seconds=usage.generate_seconds,
            peak_mib=usage.peak_rss_mib,
        ),
    )
    show("language model", [made.usage.model_dump()])
    return made


def _judged_before(lakehouse: Lakehouse) -> set[tuple[object, object]]:
    """Movies and answers that the gate has seen: their card is published, or waits in the quarantine."""
    from lakehouse.gate.quarantine import refused_rows

    name = MovieCard.contract.table
    published = any(p.published for p in lakehouse.publications(name))
    cards = {(card.item_id, card.answer_key) for card in lakehouse.latest(MovieCard).rows()} if published else set()
    refused = {(row.values["item_id"], row.values["answer_key"]) for row in refused_rows(lakehouse, name)}
    return cards | refused


def _cost(component: str, model: ModelRef, completion: Completion) -> LlmCost:
    """What the answers took, energy and money included."""
    from models.llm.pricing import default_prices, price

    usage, now = completion.usage, datetime.now(UTC)
    priced = price(usage.start_seconds + usage.generate_seconds, usage.peak_rss_mib, default_prices())
    return LlmCost(
        llm_cost_id=f"{execution_id()}/{component}/{now.isoformat()}",
        execution=execution_id(),
        component=component,
        model=model.name,
        model_digest=model.digest,
        asked=completion.asked,
        reused=completion.reused,
        failed=completion.failed,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        start_seconds=usage.start_seconds,
        generate_seconds=usage.generate_seconds,
        watt_hours=priced.watt_hours,
        money=priced.money,
        currency=priced.currency,
        price_table=priced.table,
        asked_at=now,
    )
