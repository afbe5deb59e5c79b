"""What does the language model say about a movie, from its title and genres?"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lakehouse.tables import Audience, Mood
from models.llm.component import PROMPTS, Component, Sampling


class MovieCardInput(BaseModel):
    """One movie; ``item_id`` says which, and is not part of the question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: int
    title: str
    year: Annotated[int | None, Field(description="Year of release; None where it is not known.")] = None
    genres: list[str]


class MovieCardOutput(BaseModel):
    """The labels of one movie. Both sets are closed, so that a card can be a feature as it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The mood comes first: decided after the audience, it hardly depends on the movie any more.
    mood: Mood
    audience: Audience


#: Genres that no movie for children has.
_GROWN_UP = {"Crime", "Film-Noir", "Horror", "War"}


def _contradiction(movie: MovieCardInput, card: MovieCardOutput) -> str | None:
    """What in the card can't be true together, or of such a movie."""
    if card.audience != "children":
        return None
    if card.mood in ("scary", "romantic"):
        return f"A movie for children is not {card.mood}."
    wrong = sorted(_GROWN_UP.intersection(movie.genres))
    return f"A movie with the genre {wrong[0]} is not for children." if wrong else None


MOVIE_CARD: Component[MovieCardInput, MovieCardOutput] = Component(
    name="movie_card",
    template=PROMPTS / "movie_card.txt",
    input=MovieCardInput,
    output=MovieCardOutput,
    sampling=Sampling(max_tokens=32),
    check=_contradiction,
)
