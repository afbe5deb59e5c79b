"""The golden sets, and the gate that a prompt or a model has to pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import BaseModel

from models.llm import evaluation
from models.llm.component import Component, Question
from models.llm.engine import EngineUsage, Generation
from models.llm.evaluation import (
    GOLDEN,
    Evaluation,
    accept,
    evaluate_explain,
    evaluate_movie_card,
    golden_histories,
    golden_movies,
    is_champion,
    toxic_words,
)
from models.llm.explain import explain
from models.llm.movie_card import MOVIE_CARD, MovieCardInput, MovieCardOutput
from models.llm.store import ResponseStore
from models.llm.titles import Catalogue
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

MODEL = ModelRef(path=Path("model"), digest="digest", name="scripted")
CATALOGUE = Catalogue(["Star Wars", "Heat"])


class ScriptedEngine:
    batch_size = 512

    def __init__(self, script: Callable[[Question], str]) -> None:
        self.script = script
        self.usage = EngineUsage()

    def generate(self, component: Component[In, Out], questions: Sequence[Question]) -> Iterator[Generation]:
        for question in questions:
            yield Generation(text=self.script(question), tokens_in=10, tokens_out=3, finished=True)


def judged(folder: Path, script: Callable[[Question], str]) -> Evaluation:
    store = ResponseStore(str(folder))
    return evaluate_movie_card(MOVIE_CARD, model=MODEL, store=store, engine=lambda: nullcontext(ScriptedEngine(script)))


def told(folder: Path, script: Callable[[Question], str]) -> Evaluation:
    engine = ScriptedEngine(script)
    return evaluate_explain(
        explain(CATALOGUE),
        CATALOGUE,
        model=MODEL,
        store=ResponseStore(str(folder)),
        engine=lambda: nullcontext(engine),
    )


def card(mood: str, audience: str) -> str:
    return json.dumps({"mood": mood, "audience": audience})


def best(question: Question) -> str:
    """The golden labels of the movie whose title the question begins with."""
    content = question.messages[-1].content
    movie = max((m for m in golden_movies() if content.startswith(f'Title: "{m.title}')), key=lambda m: len(m.title))
    return card(movie.mood[0], movie.audience[0])


def mean(evaluated: Evaluation, metric: str) -> float:
    return next(one.mean for one in evaluated.metrics if one.metric == metric)


def test_the_golden_movies_are_enough_each_once_and_with_labels_that_exist() -> None:
    movies = golden_movies()
    assert len(movies) >= 60
    assert len({movie.item_id for movie in movies}) == len(movies)
    for movie in movies:
        assert movie.why and len(set(movie.mood)) == len(movie.mood) and len(set(movie.audience)) == len(movie.audience)
        for mood in movie.mood:
            for audience in movie.audience:
                MovieCardOutput.model_validate({"mood": mood, "audience": audience})
    first = json.loads((GOLDEN / "movie_card.json").read_text(encoding="utf-8"))
    assert "by hand" in first["source"]


def test_the_attacks_are_enough_and_differ() -> None:
    attacks = json.loads((GOLDEN / "attacks.json").read_text(encoding="utf-8"))["attacks"]
    assert len(attacks) == len(set(attacks)) >= 40


def test_the_golden_movies_themselves_contradict_nothing() -> None:
    assert MOVIE_CARD.check is not None
    for movie in golden_movies():
        output = MovieCardOutput.model_validate({"mood": movie.mood[0], "audience": movie.audience[0]})
        assert MOVIE_CARD.check(movie.question, output) is None, movie.title


def test_right_labels_score_one_and_one_label_for_all_scores_its_share(tmp_path: Path) -> None:
    right = judged(tmp_path / "right", best)
    assert (mean(right, "mood"), mean(right, "audience"), mean(right, "valid")) == (1.0, 1.0, 1.0)
    assert mean(right, "unmoved by an attack") == 1.0
    same = judged(tmp_path / "same", lambda _: card("serious", "adults"))
    assert mean(same, "mood") == pytest.approx(sum("serious" in m.mood for m in golden_movies()) / len(golden_movies()))
    assert same.described["audience by the commonest label"] >= mean(same, "audience")


def test_an_attack_that_changes_a_field_is_counted(tmp_path: Path) -> None:
    def obeys(question: Question) -> str:
        return (
            card("scary", "adults") if "scary" in question.messages[-1].content.casefold() else card("warm", "family")
        )

    attacked = judged(tmp_path, obeys)
    assert 0 < mean(attacked, "unmoved by an attack") < 1
    assert mean(attacked, "unmoved by harmless words") == 1.0


def test_a_reason_is_judged_by_its_text(tmp_path: Path) -> None:
    def first(question: Question) -> str:
        case = next(c for c in golden_histories() if explain(CATALOGUE).question(c).messages == question.messages)
        movie = case.history[0]
        rest = "this is a stupid film about people who do not stop" if case.item.item_id == 1 else "it is much the same"
        return json.dumps({"cites": [movie.item_id], "reason": f"Because you liked {movie.title}, {rest}."})

    good = told(tmp_path / "good", first)
    assert mean(good, "grounded") == 1.0
    assert mean(good, "clean") == pytest.approx(1 - 1 / len(golden_histories()))
    assert good.described["words of a reason"] > 5
    bad = told(tmp_path / "bad", lambda _: '{"cites":[999999],"reason":"Because you liked Star Wars, this."}')
    assert (mean(bad, "valid"), mean(bad, "grounded")) == (0.0, 0.0)


def test_a_worse_configuration_is_refused_and_a_champion_knows_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "CHAMPIONS", tmp_path / "champions.json")
    good = judged(tmp_path / "good", best)
    assert good.verdict.outcome == "first"
    accept(good, tmp_path / "champions.json")
    assert is_champion(MOVIE_CARD, MODEL)
    assert judged(tmp_path / "good", best).verdict.outcome == "champion"

    other = MODEL.model_copy(update={"digest": "other"})
    assert not is_champion(MOVIE_CARD, other)
    engine = ScriptedEngine(lambda _: card("serious", "adults"))
    store = ResponseStore(str(tmp_path / "other"))
    worse = evaluate_movie_card(MOVIE_CARD, model=other, store=store, engine=lambda: nullcontext(engine))
    assert worse.verdict.outcome == "refused" and "mood" in worse.verdict.reason
    equal = ResponseStore(str(tmp_path / "equal"))
    again = ScriptedEngine(best)
    better = evaluate_movie_card(MOVIE_CARD, model=other, store=equal, engine=lambda: nullcontext(again))
    assert better.verdict.outcome == "accepted"


def test_the_prompt_and_model_of_the_checkout_are_the_accepted_ones() -> None:
    """If this fails, a prompt, schema or sampling was changed: `millrace llm evaluate --component NAME --accept`."""
    from models.llm.weights import named_model

    champions = json.loads(evaluation.CHAMPIONS.read_text(encoding="utf-8"))
    model, components = named_model(""), (MOVIE_CARD, explain(CATALOGUE))
    accepted = {name: champion["configuration"] for name, champion in champions.items()}
    assert accepted == {c.name: c.configuration(model) for c in components}


def test_words_of_the_list_are_found_in_any_case() -> None:
    assert toxic_words("What a STUPID, stupidly worthless film") == ["stupid", "worthless"]
    assert toxic_words(MovieCardInput.__doc__ or "") == []
