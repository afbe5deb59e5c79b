"""What is a movie about, and why would one see it? Two themes and one line; asked online, and no part of the night.

A line takes about four times as many tokens as a card, which the cold night's three minutes do not hold for all movies
(docs/benchmarks.md), and no feature is made of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.llm.component import PROMPTS, Component, Sampling
from models.llm.movie_card import MovieCardInput
from models.llm.titles import Catalogue, spoken

Theme = Literal[
    "adventure", "betrayal", "coming of age", "crime", "evil", "faith", "family", "freedom", "friendship", "identity",
    "justice", "love", "loss", "power", "revenge", "survival", "war", "work",
]  # fmt: skip


class MoviePitchOutput(BaseModel):
    """Two themes of a movie and one line that makes somebody want to see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    themes: Annotated[list[Theme], Field(min_length=2, max_length=2)]
    # One sentence; xgrammar takes no length beside a pattern, the sampling bounds it.
    pitch: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z ,'-]+\.$")]


def movie_pitch(catalogue: Catalogue) -> Component[MovieCardInput, MoviePitchOutput]:
    """The component; a line that names another movie of the ``catalogue`` is no answer."""

    def wrong(movie: MovieCardInput, answer: MoviePitchOutput) -> str | None:
        if answer.themes[0] == answer.themes[1]:
            return f"The theme {answer.themes[0]!r} stands twice."
        others = catalogue.named_in(answer.pitch, except_for=[movie.title, spoken(movie.title)])
        return f"The line names {others[0]!r}." if others else None

    return Component(
        name="movie_pitch",
        template=PROMPTS / "movie_pitch.txt",
        input=MovieCardInput,
        output=MoviePitchOutput,
        sampling=Sampling(max_tokens=64),
        check=wrong,
    )
