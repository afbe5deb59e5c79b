"""Which features are computed from interactions? A view of users and one of movies, a row an active day."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from features.aggregations import ActiveDays, Count, LastTime, Mean
from features.feature_view import DaysSince, FeatureView
from lakehouse.contracts.table import EventTime, Key, References, Subject
from lakehouse.tables import Rating

#: The length of the window behind ``recent_count``, in days.
RECENT_DAYS = 30


class UserStats(FeatureView, name="user_stats", source=Rating):
    """What a user's ratings say up to the end of one UTC day on which they rated."""

    user_id: Annotated[int, Key(), Subject(), References("users.user_id"), Field(description="Whose ratings.")]
    computed_at: Annotated[
        datetime, Key(), EventTime(), Field(description="End of the day (UTC): from here on the row is known.")
    ]
    ratings_count: Annotated[int, Count(), Field(ge=1, description="Ratings given so far.")]
    mean_rating: Annotated[
        float, Mean("rating"), Field(ge=0.5, le=5, description="Mean of all ratings given so far, in stars.")
    ]
    active_days: Annotated[int, ActiveDays(), Field(ge=1, description="UTC days so far with at least one rating.")]
    last_rated_us: Annotated[
        int, LastTime(), Field(ge=0, description="Time of the latest rating, in microseconds since 1970-01-01 UTC.")
    ]

    days_since_rating: ClassVar[DaysSince] = DaysSince(
        "last_rated_us", description="Days from the latest rating of the days before to the instant asked about."
    )


class ItemStats(FeatureView, name="item_stats", source=Rating):
    """What a movie's ratings say up to the end of one UTC day on which it was rated."""

    item_id: Annotated[int, Key(), References("movies.item_id"), Field(description="The movie that was rated.")]
    computed_at: Annotated[
        datetime, Key(), EventTime(), Field(description="End of the day (UTC): from here on the row is known.")
    ]
    ratings_count: Annotated[int, Count(), Field(ge=1, description="Ratings received so far.")]
    mean_rating: Annotated[
        float, Mean("rating"), Field(ge=0.5, le=5, description="Mean of all ratings received so far, in stars.")
    ]
    recent_count: Annotated[
        int,
        Count(days=RECENT_DAYS),
        Field(ge=1, description=f"Ratings received in the {RECENT_DAYS} days up to computed_at."),
    ]
