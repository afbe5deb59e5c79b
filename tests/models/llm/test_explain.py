"""A reason may cite the history and nothing else: the schema says so, the check says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from models.llm.explain import ExplainedMovie, ExplainInput, ExplainOutput, SeenMovie, explain
from models.llm.movie_card import MOVIE_CARD, MovieCardInput, MovieCardOutput
from models.llm.titles import Catalogue
from models.llm.weights import ModelRef

CATALOGUE = Catalogue(["Heat", "Fargo", "Star Wars", "Lion King, The", "Se7en"])
EXPLAIN = explain(CATALOGUE)
REST = ", this one is a slow story of thieves who can not stop."


def row(*history: SeenMovie, title: str = "Star Wars") -> ExplainInput:
    return ExplainInput(item=ExplainedMovie(item_id=50, title=title, genres=["Sci-Fi"]), history=list(history))


HISTORY = (
    SeenMovie(item_id=7, title="Heat", rating=5.0),
    SeenMovie(item_id=9, title="Lion King, The", rating=2.0),
    SeenMovie(item_id=3, title='A "b" [c] <d>\n\\e (f)? $1.50+', rating=None),
)


def allows(history: tuple[SeenMovie, ...], answer: dict[str, object]) -> bool:
    return bool(Draft202012Validator(EXPLAIN.schema_of(row(*history))).is_valid(answer))


def test_the_schema_of_a_row_lets_only_its_history_be_cited_each_with_its_own_title() -> None:
    assert allows(HISTORY, {"cites": [7], "reason": f"Because you liked Heat{REST}"})
    assert allows(HISTORY, {"cites": [9], "reason": f"Because you saw The Lion King{REST}"})
    assert allows(HISTORY, {"cites": [3], "reason": f"Because you saw A b c d e (f)? $1.50+{REST}"})
    assert allows(HISTORY, {"cites": [7, 9], "reason": f"Because you saw Heat and The Lion King{REST}"})
    assert not allows(HISTORY, {"cites": [50], "reason": f"Because you liked Star Wars{REST}"})
    assert not allows(HISTORY, {"cites": [9], "reason": f"Because you liked Heat{REST}"})
    assert not allows(HISTORY, {"cites": [9], "reason": f"Because you liked The Lion King{REST}"})  # two stars
    assert not allows(HISTORY, {"cites": [7], "reason": "Because you liked Heat, this one is like Star Wars in all."})
    assert not allows(HISTORY, {"cites": [], "reason": f"Because you liked Heat{REST}"})


def test_whatever_the_schema_allows_is_the_components_output() -> None:
    answer = json.dumps({"cites": [7, 9], "reason": f"Because you saw Heat and The Lion King{REST}"})
    parsed = EXPLAIN.output.model_validate_json(answer)
    assert EXPLAIN.check is not None and EXPLAIN.check(row(*HISTORY), parsed) is None


@pytest.mark.parametrize(
    ("cites", "reason", "problem"),
    [
        ([50], f"Because you liked Heat{REST}", "Item 50 is not in the history."),
        ([9], f"Because you liked Heat{REST}", "cites item 9 and does not name it"),
        ([7], "Because you liked Heat, it has the sweep of star wars and more.", None),  # the movie itself
        ([7], "Because you liked Heat, it is as dark as se7en and fargo are, or Fargo.", "'Fargo'"),
        ([7], "Because you liked Heat, it is as warm as the lion king.", "'The Lion King'"),
    ],
)
def test_an_answer_must_rest_on_what_it_cites(cites: list[int], reason: str, problem: str | None) -> None:
    assert EXPLAIN.check is not None
    found = EXPLAIN.check(row(*HISTORY), ExplainOutput(cites=cites, reason=reason))
    assert found is None if problem is None else problem in (found or "")


def test_the_history_is_cut_cleaned_and_each_item_told_once() -> None:
    many = [SeenMovie(item_id=number % 20, title=f"Film {number}") for number in range(100)]
    assert [movie.item_id for movie in row(*many).history] == list(range(16))
    again = row(HISTORY[0], HISTORY[1], HISTORY[0].model_copy(update={"rating": 1.0}))
    assert again.history == [HISTORY[0], HISTORY[1]]
    told = EXPLAIN.messages(row(*HISTORY))[-1].content.splitlines()
    assert told[1:] == [
        "Seen: ",
        '- item_id 7, title "Heat", rating 5.0',
        '- item_id 9, title "The Lion King", rating 2.0',
        '- item_id 3, title "A b c d e (f)? $1.50+"',
    ]


def test_the_key_holds_the_history_and_not_the_items_number() -> None:
    model = ModelRef(path=Path("m"), digest="m", name="m")
    base = EXPLAIN.answer_key(row(*HISTORY), model)
    other = row(*HISTORY)
    assert (
        EXPLAIN.answer_key(other.model_copy(update={"item": other.item.model_copy(update={"item_id": 1})}), model)
        == base
    )
    assert EXPLAIN.answer_key(row(*HISTORY[:2]), model) != base
    assert EXPLAIN.answer_key(row(*reversed(HISTORY)), model) != base


def test_an_empty_title_is_called_by_its_number() -> None:
    answer = {"cites": [4], "reason": f"Because you saw movie number 4{REST}"}
    assert allows((SeenMovie(item_id=4, title="\x00"),), answer)


@pytest.mark.parametrize(
    ("card", "genres", "problem"),
    [
        (MovieCardOutput(mood="scary", audience="children"), [], "not scary"),
        (MovieCardOutput(mood="funny", audience="children"), ["Comedy", "Crime"], "genre Crime"),
        (MovieCardOutput(mood="scary", audience="adults"), ["Horror"], None),
        (MovieCardOutput(mood="warm", audience="children"), ["Animation"], None),
    ],
)
def test_a_card_may_not_contradict_itself_or_its_movie(
    card: MovieCardOutput, genres: list[str], problem: str | None
) -> None:
    assert MOVIE_CARD.check is not None
    found = MOVIE_CARD.check(MovieCardInput(item_id=1, title="x", genres=genres), card)
    assert found is None if problem is None else problem in (found or "")
