"""Which tables does the project keep? MovieLens as it arrives; everything downstream is derived from these classes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from lakehouse.contracts.expectations import Expectation, RateOfChange
from lakehouse.contracts.table import EventTime, Key, References, Subject, Table

#: Closed sets, so that a card can be a feature as it stands.
Mood = Literal["funny", "scary", "exciting", "romantic", "serious", "warm"]
Audience = Literal["children", "family", "teens", "adults"]


class User(Table, name="users"):
    """One person who rates movies, as described when they signed up."""

    user_id: Annotated[int, Key(), Subject(), Field(ge=1, description="Number of the user.")]
    age: Annotated[int, Field(ge=1, le=120, description="Age in years.")]
    gender: Annotated[Literal["F", "M"], Field(description="As stated by the user.")]
    occupation: Annotated[str, Field(min_length=1, max_length=40, description="One of MovieLens's occupations.")]
    zip_code: Annotated[str, Field(max_length=10, description="Postal code, as written by the user.")]
    joined_at: Annotated[datetime, EventTime(), Field(description="When the user first rated (UTC).")]


class Movie(Table, name="movies"):
    """One movie that can be rated and recommended."""

    item_id: Annotated[int, Key(), Field(ge=1, description="Number of the movie.")]
    title: Annotated[str, Field(min_length=1, max_length=200, description="Title without its year.")]
    year: Annotated[int | None, Field(ge=1880, le=2100, description="Year of release.")]
    genres: Annotated[list[str], Field(description="Genres, in MovieLens's own words.")]
    added_at: Annotated[datetime, EventTime(), Field(description="When the movie entered the catalogue (UTC).")]


class MovieCard(Table, name="movie_cards"):
    """What a language model made of a movie's title, year and genres."""

    item_id: Annotated[int, Key(), References("movies.item_id"), Field(description="The movie.")]
    mood: Annotated[Mood, Field(description="Prevailing mood.")]
    audience: Annotated[Audience, Field(description="Whom it is made for.")]
    answer_key: Annotated[str, Field(description="The answer in llm_responses that this card was made from.")]
    added_at: Annotated[datetime, EventTime(), Field(description="When its movie entered the catalogue (UTC).")]


class Rating(
    Table,
    name="ratings",
    fresh_within=timedelta(days=2),
    expectations=(
        # The archive's own mean stays between 3.51 and 3.75 from its first day to its last.
        Expectation("Mean", ("rating",), ge=2.5, le=4.5),
        # Ratings are added and corrected, and erasure takes away one person's: 737 of 100,000 at most.
        Expectation("Size", history=RateOfChange(ge=0.9)),
    ),
):
    """One user's rating of one movie."""

    user_id: Annotated[int, Key(), Subject(), References("users.user_id"), Field(description="Who rated.")]
    item_id: Annotated[int, Key(), References("movies.item_id"), Field(description="What was rated.")]
    rating: Annotated[float, Field(ge=0.5, le=5, description="Stars, from 0.5 to 5.")]
    rated_at: Annotated[datetime, EventTime(), Field(description="When the rating was given (UTC).")]


class Feedback(Table, name="feedback"):
    """What a user did with recommendations: what was shown, where, by which model, and what became of it."""

    event_id: Annotated[
        str, Key(), Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9._:-]+$", description="The sender's own id.")
    ]
    kind: Annotated[
        Literal["impression", "click", "rating"], Field(description="A list that was shown, or one item of it.")
    ]
    user_id: Annotated[
        int | None,
        Subject(),
        References("users.user_id"),
        Field(ge=1, description="Who; null for a visitor without an account."),
    ]
    item_id: Annotated[
        int | None, References("movies.item_id"), Field(description="The item; null for an impression, see shown.")
    ]
    rating: Annotated[float | None, Field(ge=0.5, le=5, description="Of a rating: stars, from 0.5 to 5.")]
    position: Annotated[int | None, Field(ge=1, description="Place of the item in what was shown, from 1.")]
    shown: Annotated[list[int], Field(description="Items that were shown, in order; empty where that is not known.")]
    request_id: Annotated[str | None, Field(max_length=64, description="The answer that was shown.")]
    model_version: Annotated[int | None, Field(ge=1, description="Registry version that made the answer.")]
    model_digest: Annotated[str | None, Field(max_length=64, description="SHA-256 over that model's files.")]
    slot: Annotated[Literal["blue", "green"] | None, Field(description="The slot that answered.")]
    canary: Annotated[bool | None, Field(description="Whether the answer was part of a canary's share.")]
    occurred_at: Annotated[
        datetime, EventTime(), Field(description="When it happened (UTC), never later than received_at.")
    ]
    received_at: Annotated[datetime, Field(description="When the service took it (UTC).")]
    skew_seconds: Annotated[
        float, Field(ge=0, description="By how much the sender's clock was ahead of the service's; 0 if it was not.")
    ]
