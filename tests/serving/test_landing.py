"""Feedback reaches the lake through the gate, exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.tables import Feedback, Rating
from serving import landing
from serving.journal import Journal, Record
from serving.landing import land, unlanded_bytes
from tests.serving.conftest import Night


def event(number: int, user: int, kind: str = "click", **more: object) -> Record:
    return {
        "event_id": f"e-{number}",
        "kind": kind,
        "user_id": user,
        "item_id": 50,
        "rating": None,
        "position": 2,
        "shown": [1, 50],
        "request_id": "r-1",
        "model_version": 1,
        "model_digest": "d",
        "slot": "blue",
        "canary": False,
        "occurred_at": "1998-04-21T00:10:00+00:00",
        "received_at": "1998-04-21T00:10:00+00:00",
        "skew_seconds": 0.0,
        "digest": "00",
        **more,
    }


def test_events_land_once_with_what_was_shown_and_ratings_become_ratings(
    own_lake: Lakehouse, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, user = tmp_path / "log", night.users[0]
    before = own_lake.latest(Rating).count()
    journal = Journal(folder)
    new = {"rating": 4.5, "item_id": 50, "kind": "rating"}
    journal.append(
        [
            event(1, user, "impression", item_id=None, position=None),
            event(2, user),
            event(2, user),  # logged twice, as after a lost acknowledgement
            event(3, user, **new),
            event(4, 10**6, **new),  # a user the lake does not know
            event(5, user, item_id=10**7),  # an item the lake does not know
        ]
    ).result(30)

    real, calls = landing.publish, 0

    def killed(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt  # between the two tables
        return real(*args, **kwargs)

    monkeypatch.setattr(landing, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        land(own_lake, folder)
    monkeypatch.setattr(landing, "publish", real)
    assert unlanded_bytes(own_lake, folder) > 0
    journal.append([event(6, user)]).result(30)  # the log grows before the landing is tried again

    landed = land(own_lake, folder)
    assert landed.events == 7 and landed.ratings == 2 and len(landed.batches) == 2
    assert landed.quarantined == 3  # the unknown user in both tables, the unknown item
    rows = {row.event_id: row for row in own_lake.latest(Feedback).rows()}
    assert sorted(rows) == ["e-1", "e-2", "e-3", "e-6"]
    assert rows["e-1"].shown == [1, 50] and rows["e-2"].position == 2 and rows["e-2"].model_version == 1
    (given,) = [r for r in own_lake.latest(Rating).rows() if r.user_id == user and r.item_id == 50]
    assert given.rating == 4.5
    assert own_lake.latest(Rating).count() - before in (0, 1)
    for table in ("feedback", "ratings"):
        for one in own_lake.publications(table):
            assert one.rows_in == one.rows_published + one.rows_quarantined + one.rows_duplicate
    assert own_lake.publications("ratings")[-1].inputs[0].startswith("feedback@")

    again = land(own_lake, folder)
    assert again.batches == [] and unlanded_bytes(own_lake, folder) == 0
    journal.close()
