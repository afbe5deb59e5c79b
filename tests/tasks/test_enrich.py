"""Answers become rows: valid ones are published, the others wait in the quarantine; a worse model is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.gate.publish import publish_rows
from lakehouse.gate.quarantine import refused_rows
from lakehouse.ledger import Decision
from lakehouse.tables import Movie, MovieCard
from models.llm import evaluation
from models.llm.component import Question
from models.llm.engine import EngineUsage, Generation
from models.llm.errors import ConfigurationRefusedError
from models.llm.movie_card import MOVIE_CARD
from models.llm.store import Answer
from models.llm.weights import ModelRef
from tasks.answers import as_rows
from tasks.enrich import _judged_before
from tasks.llm_gate import admit_movie_card

NOW = datetime(1998, 3, 1, tzinfo=UTC)
MODEL = ModelRef(path=Path("model"), digest="other", name="other-model")


def answer(key: str, output: str | None) -> Answer:
    return Answer(
        answer_key=key,
        component="movie_card",
        model_digest="m",
        prompt_digest="p",
        schema_digest="s",
        sampling_digest="a",
        row_digest="r",
        input="{}",
        raw="what the model wrote",
        output=output,
        error=None if output else "mood: wrong",
        tokens_in=1,
        tokens_out=1,
        asked_at=NOW,
    )


def test_a_question_without_an_answer_is_quarantined_and_sent_only_once(lake: Lakehouse) -> None:
    movies = [Movie(item_id=i, title=str(i), year=1990, genres=["Drama"], added_at=NOW) for i in (1, 2)]
    publish_rows(lake, Movie, lambda: to_arrow(Movie, movies), batch_id="movies", day=date(1998, 3, 1))
    answers = [answer("k1", '{"mood":"warm","audience":"family"}'), answer("k2", None)]
    columns = [{"item_id": movie.item_id, "added_at": movie.added_at} for movie in movies]
    rows = as_rows(MovieCard, list(zip(answers, columns, strict=True)))
    cards = publish_rows(lake, MovieCard, lambda: rows, batch_id="cards", day=date(1998, 3, 1))
    assert [(card.item_id, card.mood, card.answer_key) for card in cards.rows()] == [(1, "warm", "k1")]
    (refused,) = refused_rows(lake, "movie_cards")
    assert refused.values["item_id"] == 2 and refused.values["answer_key"] == "k2"
    (publication,) = lake.publications("movie_cards")
    assert (publication.rows_in, publication.rows_published, publication.rows_quarantined) == (2, 1, 1)
    assert _judged_before(lake) == {(1, "k1"), (2, "k2")}


class _Engine(AbstractContextManager["_Engine"]):
    """Calls every movie serious and for adults."""

    usage, batch_size = EngineUsage(), 1000

    def __init__(self, model: ModelRef) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def generate(self, component: object, questions: Sequence[Question]) -> Iterator[Generation]:
        for _ in questions:
            text = json.dumps({"mood": "serious", "audience": "adults"})
            yield Generation(text=text, tokens_in=1, tokens_out=1, finished=True)


def test_a_model_that_is_worse_than_the_champion_is_not_asked(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {str(m.item_id): {"valid": 1.0, "mood": 1.0, "audience": 1.0} for m in evaluation.golden_movies()}
    champion = evaluation.Champion(configuration="c", model="m", scores=right)
    file = tmp_path / "champions.json"
    file.write_text(json.dumps({"movie_card": champion.model_dump(mode="json")}))
    monkeypatch.setattr(evaluation, "CHAMPIONS", file)
    monkeypatch.setattr("models.llm.engine.Engine", _Engine)
    with pytest.raises(ConfigurationRefusedError, match=r"other-model.*mood"):
        admit_movie_card(lake, MODEL)
    (decision,) = lake.ledger.read(Decision)
    assert (decision.gate, decision.passed) == ("llm movie_card", False)
    assert "mood" in json.loads(decision.inputs)["minus the champion"]


def test_the_champion_is_asked_without_more_ado(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = evaluation.Champion(configuration=MOVIE_CARD.configuration(MODEL), model="m", scores={})
    file = tmp_path / "champions.json"
    file.write_text(json.dumps({"movie_card": champion.model_dump(mode="json")}))
    monkeypatch.setattr(evaluation, "CHAMPIONS", file)
    admit_movie_card(lake, MODEL)
    assert list(lake.ledger.read(Decision)) == []
