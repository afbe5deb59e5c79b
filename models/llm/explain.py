"""Why this movie for this history? One sentence that names and cites only movies of the history."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from models.llm.component import MAX_ENTRIES, PROMPTS, Component, Sampling, one_line
from models.llm.titles import Catalogue, spoken

#: Of the history's first movies, pairs may be cited too.
_PAIRED = 4
#: Stars from which a movie counts as liked.
_LIKED = 3.5
#: What may follow the opening: no capital, digit or quotation mark, so that it can hardly name a movie, up to the first
#: full stop. Its length is bounded by the sampling: xgrammar fails on a bounded repetition of a class ({30,160}), and
#: takes seconds to compile one of words.
_REST = r", [a-z][a-z ,'-]+\."


class ExplainedMovie(BaseModel):
    """The movie that is recommended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: int
    title: str
    year: int | None = None
    genres: list[str] = []

    @field_validator("title")
    @classmethod
    def _as_spoken(cls, title: str) -> str:
        return spoken(title)


class SeenMovie(BaseModel):
    """A movie of the history; it is cited by its ``item_id``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: int
    title: str
    rating: Annotated[float | None, Field(description="Stars; None if it was seen and not rated.")] = None

    @field_validator("title")
    @classmethod
    def _nameable(cls, title: str) -> str:
        """As it can stand in a sentence and in a JSON string: one line, no quotation mark, bracket or backslash."""
        return re.sub(r"\s+", " ", re.sub(r'["\\<>\[\]{}|\u2028\u2029]', " ", one_line(spoken(title)))).strip()


class ExplainInput(BaseModel):
    """What is recommended to whom: the movie, and what they have seen, the most telling first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item: ExplainedMovie
    history: Annotated[
        list[SeenMovie], Field(min_length=1, description=f"The first {MAX_ENTRIES} are looked at; each item once.")
    ]

    @field_validator("history")
    @classmethod
    def _each_once(cls, history: list[SeenMovie]) -> list[SeenMovie]:
        first: dict[int, SeenMovie] = {}
        for movie in history:
            first.setdefault(movie.item_id, movie)
        return list(first.values())[:MAX_ENTRIES]


class ExplainOutput(BaseModel):
    """The reason, and the movies of the history that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cites: Annotated[list[int], Field(min_length=1, max_length=2, description="Items of the history.")]
    reason: Annotated[str, Field(min_length=1, max_length=600)]


def explain(catalogue: Catalogue) -> Component[ExplainInput, ExplainOutput]:
    """The component; an answer that names another movie of the ``catalogue`` is none."""

    def ungrounded(row: ExplainInput, answer: ExplainOutput) -> str | None:
        return _ungrounded(row, answer, catalogue)

    return Component(
        name="explain",
        template=PROMPTS / "explain.txt",
        input=ExplainInput,
        output=ExplainOutput,
        sampling=Sampling(max_tokens=96),
        narrow=_only_the_history,
        check=ungrounded,
    )


def _only_the_history(schema: Mapping[str, JsonValue], row: ExplainInput) -> dict[str, JsonValue]:
    """One alternative for each movie that may be cited: its number, and a sentence that opens with its title.

    Number and title stand in one alternative, so that a sentence can't cite one movie and speak of another.
    """
    singles: list[tuple[SeenMovie, ...]] = [(movie,) for movie in row.history]
    pairs: list[tuple[SeenMovie, ...]] = list(combinations(row.history[:_PAIRED], 2))
    return {"anyOf": [_alternative(movies) for movies in (*singles, *pairs)]}


def _alternative(movies: tuple[SeenMovie, ...]) -> dict[str, JsonValue]:
    ids: list[JsonValue] = [movie.item_id for movie in movies]
    # Not re.escape: the grammar's dialect knows escapes of these only.
    named = re.sub(r"([.^$*+?()/-])", r"\\\1", " and ".join(_name(movie) for movie in movies))
    liked = all(movie.rating is not None and movie.rating >= _LIKED for movie in movies)
    return {
        "type": "object",
        "properties": {
            "cites": {
                "type": "array",
                "prefixItems": [{"const": number} for number in ids],
                "items": False,
                "minItems": len(ids),
                "maxItems": len(ids),
            },
            "reason": {"type": "string", "pattern": f"^Because you {'liked' if liked else 'saw'} {named}{_REST}$"},
        },
        "required": ["cites", "reason"],
        "additionalProperties": False,
    }


def _name(movie: SeenMovie) -> str:
    return movie.title or f"movie number {movie.item_id}"


def _ungrounded(row: ExplainInput, answer: ExplainOutput, catalogue: Catalogue) -> str | None:
    """What in the answer does not rest on the history."""
    seen = {movie.item_id: movie for movie in row.history}
    foreign = [number for number in answer.cites if number not in seen]
    if foreign:
        return f"Item {foreign[0]} is not in the history."
    unnamed = [number for number in answer.cites if _name(seen[number]) not in answer.reason]
    if unnamed:
        return f"The reason cites item {unnamed[0]} and does not name it."
    cited = [_name(seen[number]) for number in answer.cites]
    others = catalogue.named_in(answer.reason, except_for=[*cited, row.item.title])
    return f"The reason names {others[0]!r}, which it does not cite." if others else None
