"""What goes wrong in a simulation? Four things, drawn with a seed and planted into the archive before it is played."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.store import end_of
from lakehouse.movielens import Archive
from models.interactions import instants, microseconds, positions
from tasks.simulation.model import Incident, Script
from tasks.simulation.world import Late, start_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Days that a simulation with incidents needs.
MIN_DAYS = 7
#: Where in the days each begins, as a share of them: the shift needs weeks to be noticed and learned.
_BEGIN = {"corrupt feed": 0.2, "preference shift": 0.35, "bad challenger": 0.75, "bad release": 0.85}
#: A day with fewer ratings is no day to corrupt.
_ENOUGH = 20
#: Of so many kinds a row of the corrupt feed is one; the first three are broken.
_KINDS = 5
_UNKNOWN_ITEM = 1_000_000
_OLD_SHARE = 0.1


class Corrupt(NamedTuple):
    """A day's ratings as a broken feed sends them.

    Attributes:
        day: the day.
        sent: all of its ratings, some of them broken.
        right: the broken ones as they should have been.
    """

    day: date
    sent: pa.Table
    right: pa.Table


class Planted(NamedTuple):
    """An archive with what was planted in it.

    Attributes:
        archive: the archive, tastes moved.
        corrupt: the broken feed.
        late: its ratings, which the lake has a day later.
        shifted_on, spoiled_on, released_on: the days of the other incidents.
        incidents: what was planted, none of it noticed yet.
    """

    archive: Archive
    corrupt: Corrupt | None = None
    late: Late | None = None
    shifted_on: date | None = None
    spoiled_on: date | None = None
    released_on: date | None = None
    incidents: tuple[Incident, ...] = ()


def plant(archive: Archive, script: Script) -> Planted:
    """Plant what the script ask for."""
    if not script.incidents:
        return Planted(archive)
    days = script.days()
    on = {kind: days[int(share * len(days))] for kind, share in _BEGIN.items()}
    rng = np.random.default_rng(script.seed)
    shifted, pairs = shift(archive, start_of(on["preference shift"]))
    corrupt, late = _corrupt(shifted, on["corrupt feed"], on["preference shift"], rng)
    broken, sent = corrupt.right.num_rows, corrupt.sent.num_rows
    return Planted(
        archive=shifted,
        corrupt=corrupt,
        late=late,
        shifted_on=on["preference shift"],
        spoiled_on=on["bad challenger"],
        released_on=on["bad release"],
        incidents=(
            Incident(
                kind="corrupt feed",
                day=corrupt.day,
                what=f"{broken} of the day's {sent} ratings come broken: stars on another scale, items that nobody "
                "knows, no time.",
            ),
            Incident(
                kind="preference shift",
                day=on["preference shift"],
                what=f"The oldest movies and the most rated others trade places, for good: {pairs} pairs.",
            ),
            Incident(
                kind="bad challenger",
                day=on["bad challenger"],
                what="Whoever trains tonight learns from ratings whose item numbers are of another catalogue.",
            ),
            Incident(
                kind="bad release",
                day=on["bad release"],
                what="A damaged copy of the nightly policy's champion is staged by hand, past the gates.",
            ),
        ),
    )


def shift(archive: Archive, at: datetime) -> tuple[Archive, int]:
    """From an instant on the oldest movies and the newer ones trade places, the most rated with the most rated and so
    on; and how many pairs do. The oldest are those of a tenth of the ratings: old and new halves are rated alike.

    Only movies that were rated before the instant take part, so that none is rated before it is there. A rating that
    would repeat a user's earlier one of the same movie is left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ratings, movies = archive.ratings, archive.movies
    items = np.asarray(ratings["item_id"].to_numpy(), dtype=np.int64)
    users = np.asarray(ratings["user_id"].to_numpy(), dtype=np.int64)
    after = instants(ratings, "ratings") >= microseconds(at)
    dated = movies.filter(pc.is_valid(movies["year"]))
    numbers, years = (np.asarray(dated[name].to_numpy(), dtype=np.int64) for name in ("item_id", "year"))
    rated = np.bincount(items[~after], minlength=int(max(items.max(), numbers.max())) + 1)[numbers]
    numbers, years, rated = numbers[rated > 0], years[rated > 0], rated[rated > 0]
    order = np.lexsort((numbers, -rated))
    counts = np.bincount(years, weights=rated)
    edge = int(np.searchsorted(np.cumsum(counts), _OLD_SHARE * counts.sum()))
    old, new = numbers[order][years[order] <= edge], numbers[order][years[order] > edge]
    pairs = min(len(old), len(new))
    before, instead = np.concatenate([old[:pairs], new[:pairs]]), np.concatenate([new[:pairs], old[:pairs]])
    place = positions(before, items)
    moved = np.where(after & (place >= 0), instead[place], items)
    # Rows are in time order: of two of one user and movie the first stays.
    _, first = np.unique(np.stack([users, moved]), axis=1, return_index=True)
    column = ratings.schema.get_field_index("item_id")
    shifted = ratings.set_column(column, ratings.schema.field(column), pa.array(moved)).take(pa.array(np.sort(first)))
    return Archive(archive.users, movies, shifted), pairs


def relabelled(rows: pa.Table, seed: int) -> pa.Table:
    """Ratings with another catalogue's item numbers: each item is called by the number of a drawn other one."""
    import pyarrow as pa

    items = np.asarray(rows["item_id"].to_numpy(), dtype=np.int64)
    known = np.unique(items)
    other = np.random.default_rng(seed).permutation(known)
    column = rows.schema.get_field_index("item_id")
    return rows.set_column(column, rows.schema.field(column), pa.array(other[positions(known, items)]))


def _corrupt(archive: Archive, wanted: date, before: date, rng: np.random.Generator) -> tuple[Corrupt, Late]:
    """The first day from the wanted one on with ratings enough, else the busiest of those days, as a broken feed."""
    import pyarrow as pa

    ratings = archive.ratings
    given = instants(ratings, "ratings")
    days = [wanted + timedelta(days=n) for n in range((before - wanted).days)]
    spans = [np.searchsorted(given, [microseconds(start_of(day)), microseconds(end_of(day))]) for day in days]
    counts = [int(high - low) for low, high in spans]
    chosen = next((n for n, count in enumerate(counts) if count >= _ENOUGH), int(np.argmax(counts)))
    low, high = (int(bound) for bound in spans[chosen])
    sent = ratings.slice(low, high - low)
    kind = rng.integers(0, _KINDS, len(sent))
    stars, items = (np.asarray(sent[name].to_numpy()) for name in ("rating", "item_id"))
    times = pa.array(sent["rated_at"].to_pylist(), sent.schema.field("rated_at").type, mask=kind == 2)
    broken = pa.table(
        {
            "user_id": sent["user_id"],
            "item_id": np.where(kind == 1, items + _UNKNOWN_ITEM, items),
            "rating": np.where(kind == 0, stars * 20, stars),
            "rated_at": times,
        }
    )
    wrong = np.zeros(ratings.num_rows, dtype=np.bool_)
    wrong[low:high] = kind < 3
    right = sent.filter(pa.array(kind < 3))
    return Corrupt(days[chosen], broken, right), Late(wrong, end_of(days[chosen] + timedelta(days=1)))
