"""What does the language model add? A card for each movie that has none yet, as an ordinary published table."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lakehouse import Snapshot
from lakehouse.ledger import LEDGER_FOLDER
from lakehouse.tables import Movie, MovieCard
from tasks.lake import Lake
from tasks.meter import spent
from tasks.progress import bar
from tasks.show import show
from tasks.typed import task


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


def default_model_folder() -> Path:
    """Where `make setup` puts the default model's weights: in this Python environment."""
    return Path(sys.prefix) / "share" / "millrace" / "smollm2-135m-instruct"


@task(cpu="2", memory="6Gi", deck=True, timeout=timedelta(hours=6))
def enrich(lake: Lake, movies: Snapshot[Movie], day: datetime, model: str) -> Enriched:
    """Ask the language model for the cards that are missing; publish those that are new or changed.

    ``model`` is the folder of any Hugging Face model; empty for the small default one.
    """
    import pyarrow as pa

    from lakehouse.contracts.arrow import to_arrow
    from lakehouse.gate.publish import publish_rows
    from models.llm.batch import complete
    from models.llm.engine import Engine
    from models.llm.movie_card import MOVIE_CARD, MovieCardInput
    from models.llm.store import ResponseStore
    from models.llm.weights import ensure_weights, open_weights

    lakehouse = lake.open()
    weights = open_weights(Path(model)) if model else ensure_weights(default_model_folder())
    rows = sorted(movies.rows(), key=lambda movie: movie.item_id)
    questions = [MovieCardInput(item_id=m.item_id, title=m.title, year=m.year, genres=m.genres) for m in rows]
    completion = complete(
        MOVIE_CARD,
        questions,
        model=weights,
        store=ResponseStore(f"{lakehouse.root}/{LEDGER_FOLDER}/llm_responses"),
        engine=lambda: Engine(weights),
        progress=bar("movie cards"),
    )

    def fresh() -> pa.Table:
        published = "movie_cards" in {p.table_name for p in lakehouse.publications() if p.published}
        known = {c.item_id: c.answer_key for c in lakehouse.latest(MovieCard).rows()} if published else {}
        cards = []
        for movie, answer in zip(rows, completion.answers, strict=True):
            output = answer.parsed(MOVIE_CARD)
            if output is not None and known.get(movie.item_id) != answer.answer_key:
                cards.append(
                    MovieCard(
                        item_id=movie.item_id,
                        mood=output.mood,
                        audience=output.audience,
                        answer_key=answer.answer_key,
                        added_at=movie.added_at,
                    )
                )
        return to_arrow(MovieCard, cards)

    asked_with = f"{weights.digest[:8]}{MOVIE_CARD.prompt_digest[:8]}"
    cards = publish_rows(
        lakehouse,
        MovieCard,
        fresh,
        batch_id=f"{day.date()}.movies-{movies.version}.{asked_with}",
        day=day.date(),
        inputs=[movies.reference],
    )
    usage = completion.usage
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
