"""Which features are computed from interactions? A row model for users and one for items, a row an active day."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from lakehouse.table import EventTime, Key, References, Subject, Table

#: The length of the window behind ``recent_count``, in days.
RECENT_DAYS = 30


class UserStats(Table, name="user_stats"):
    """What a user's ratings say up to the end of one UTC day on which they rated."""

    user_id: Annotated[int, Key(), Subject(), References("users.user_id"), Field(description="Whose ratings.")]
    computed_at: Annotated[
        datetime, Key(), EventTime(), Field(description="End of the day (UTC): from here on the row is known.")
    ]
    ratings_count: Annotated[int, Field(ge=1, description="Ratings given so far.")]
    mean_rating: Annotated[float, Field(ge=0.5, le=5, description="Mean of all ratings given so far, in stars.")]
    active_days: Annotated[int, Field(ge=1, description="UTC days so far with at least one rating.")]


class ItemStats(Table, name="item_stats"):
    """What a movie's ratings say up to the end of one UTC day on which it was rated."""

    item_id: Annotated[int, Key(), References("movies.item_id"), Field(description="The movie that was rated.")]
    computed_at: Annotated[
        datetime, Key(), EventTime(), Field(description="End of the day (UTC): from here on the row is known.")
    ]
    ratings_count: Annotated[int, Field(ge=1, description="Ratings received so far.")]
    mean_rating: Annotated[float, Field(ge=0.5, le=5, description="Mean of all ratings received so far, in stars.")]
    recent_count: Annotated[
        int, Field(ge=1, description=f"Ratings received in the {RECENT_DAYS} days up to computed_at.")
    ]
