"""Nights without an engine: the language model's answers are there already."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path


def answer_every_question(lake_folder: Path) -> None:
    """Store an answer for each movie of the source, as the engine would have, so that no engine is started."""
    from lakehouse import Lakehouse
    from lakehouse.ledger import LEDGER_FOLDER
    from lakehouse.movielens import movielens
    from models.llm.judging import Attempt, answer_of
    from models.llm.movie_card import MOVIE_CARD, MovieCardInput
    from models.llm.store import ResponseStore
    from models.llm.weights import default_model_folder, ensure_weights

    weights = ensure_weights(default_model_folder())
    lake = Lakehouse.open(lake_folder, create=True)
    batches = {model.contract.table: rows for model, rows in movielens().batches(date(1998, 4, 20), None)}
    schema = MOVIE_CARD.output.model_json_schema()
    choices = {name: _choices(schema, field) for name, field in schema["properties"].items()}
    answers = []
    for row in batches["movies"].to_pylist():
        asked = MovieCardInput(**{name: row[name] for name in MovieCardInput.model_fields})
        output = MOVIE_CARD.output(**{name: words[row["item_id"] % len(words)] for name, words in choices.items()})
        text = output.model_dump_json()
        attempt = Attempt(raw=text, output=text, problem=None, tokens_in=50, tokens_out=20)
        answers.append(answer_of(MOVIE_CARD, asked, weights, attempt, datetime(1998, 1, 1, tzinfo=UTC)))
    ResponseStore(f"{lake.root}/{LEDGER_FOLDER}/llm_responses").append(answers)


def _choices(schema: dict, field: dict) -> list[str]:  # type: ignore[type-arg]
    found = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    return list(found["enum"])
