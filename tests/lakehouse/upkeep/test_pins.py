from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import PinError, UnknownTableError, UnknownVersionError
from lakehouse.ledger import Promotion, Run
from lakehouse.query.tags import tag, untag
from lakehouse.tables import Movie
from lakehouse.upkeep.pins import pin, pins, release

Put = Callable[..., int]
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=400)


@pytest.fixture
def movies(lake: Lakehouse, put: Put) -> list[int]:
    """Three versions of movies."""
    row = {"title": "A", "year": 1996, "genres": ["Drama"], "added_at": LONG_AGO}
    return [put(lake, [Movie.model_validate({"item_id": n, **row})]) for n in (1, 2, 3)]


def run(run_id: str, inputs: list[str], *, finished_at: datetime = NOW, model: str | None = None) -> Run:
    return Run(
        run_id=run_id,
        execution="e",
        workflow="nightly",
        day=date(1998, 3, 1),
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=inputs,
        outputs=[],
        artifacts=json.dumps({"model": model} if model else {}),
        metrics="{}",
        verdict="kept",
        report="",
        seconds=1,
        finished_at=finished_at,
    )


def promotion(model: str) -> Promotion:
    return Promotion(
        promotion_id=f"1998-03-01/{model}",
        day=date(1998, 3, 1),
        model_digest=model,
        model_path="m",
        registry_version=1,
        trained_until=LONG_AGO,
        promoted_at=LONG_AGO,
    )


def held(lake: Lakehouse) -> list[tuple[str, str]]:
    return [(one.reference, one.holder) for one in pins(lake)]


def test_a_kept_run_pins_what_it_read_and_wrote(lake: Lakehouse, movies: list[int]) -> None:
    one = run("r1", [f"movies@{movies[0]}"]).model_copy(update={"outputs": [f"movies@{movies[1]}", "a report"]})
    lake.ledger.append([one])
    assert held(lake) == [(f"movies@{movies[0]}", "run r1"), (f"movies@{movies[1]}", "run r1")]
    assert pins(lake)[0].kept_until == pytest.approx(NOW + timedelta(days=90), abs=timedelta(seconds=1))


def test_a_run_is_kept_for_so_many_days(lake: Lakehouse, movies: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    lake.ledger.append([run("r1", [f"movies@{movies[0]}"])])
    assert pins(lake, now=NOW + timedelta(days=89))
    assert not pins(lake, now=NOW + timedelta(days=91))
    monkeypatch.setenv("MILLRACE_KEEP_RUNS_DAYS", "100")
    assert pins(lake, now=NOW + timedelta(days=91))


def test_a_promoted_model_pins_what_it_was_trained_on_for_good(lake: Lakehouse, movies: list[int]) -> None:
    old = [run("r1", [f"movies@{movies[0]}"], finished_at=LONG_AGO, model="a" * 64)]
    lake.ledger.append([*old, run("r2", [f"movies@{movies[1]}"], finished_at=LONG_AGO, model="b" * 64)])
    lake.ledger.append([promotion("a" * 64)])
    assert held(lake) == [(f"movies@{movies[0]}", "model aaaaaaaaaaaa")]
    assert pins(lake)[0].reason == "promoted on 1998-03-01, trained by run r1"


def test_a_tag_pins_its_version_until_it_is_removed(lake: Lakehouse, movies: list[int]) -> None:
    tag(lake, f"movies@{movies[1]}", "golden")
    assert held(lake) == [(f"movies@{movies[1]}", "tag golden")]
    untag(lake, "movies", "golden")
    assert not pins(lake)


def test_a_pin_by_hand_stands_until_it_is_released_or_ends(lake: Lakehouse, movies: list[int]) -> None:
    pin(lake, f"movies@{movies[0]}", holder="paper", reason="figure 2")
    pin(lake, f"movies@{movies[0]}", holder="audit", reason="", kept_until=NOW + timedelta(days=1))
    assert held(lake) == [(f"movies@{movies[0]}", "audit"), (f"movies@{movies[0]}", "paper")]
    assert [one.holder for one in pins(lake, now=NOW + timedelta(days=2))] == ["paper"]
    release(lake, f"movies@{movies[0]}", holder="paper")
    assert [one.holder for one in pins(lake)] == ["audit"]
    pin(lake, f"movies@{movies[0]}", holder="paper", reason="again")
    assert [one.reason for one in pins(lake) if one.holder == "paper"] == ["again"]


def test_a_name_without_version_pins_what_it_stands_for_now(lake: Lakehouse, movies: list[int]) -> None:
    assert pin(lake, "movies", holder="paper", reason="").version == movies[2]
    assert [one.version for one in pins(lake, "movies")] == [movies[2]]
    assert not pins(lake, "users")


def test_what_is_not_there_can_not_be_pinned_nor_released(lake: Lakehouse, movies: list[int]) -> None:
    with pytest.raises(UnknownVersionError):
        pin(lake, "movies@99", holder="paper", reason="")
    with pytest.raises(UnknownTableError):
        pin(lake, "moviez@1", holder="paper", reason="")
    lake.ledger.append([run("r1", [f"movies@{movies[0]}"])])
    with pytest.raises(PinError, match="no pin held by 'run r1'"):
        release(lake, f"movies@{movies[0]}", holder="run r1")
    assert held(lake) == [(f"movies@{movies[0]}", "run r1")]
