"""What does the language model say about a movie, from its title and genres?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.llm.component import Component, Sampling

Mood = Literal["funny", "scary", "exciting", "romantic", "serious", "warm"]
Audience = Literal["children", "family", "teens", "adults"]


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


MOVIE_CARD: Component[MovieCardInput, MovieCardOutput] = Component(
    name="movie_card",
    template=Path(__file__).parent / "prompts" / "movie_card.txt",
    input=MovieCardInput,
    output=MovieCardOutput,
    sampling=Sampling(max_tokens=32),
)
