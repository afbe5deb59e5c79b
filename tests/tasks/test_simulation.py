"""The past played again: each planted incident is noticed, none is where nothing was planted, and policies differ."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from cli.main import main
from features.store import end_of
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.errors import NoDataForDayError
from lakehouse.movielens import Archive
from lakehouse.tables import Movie, Rating, User
from models.movielens import movielens_config
from models.recommender import Recommender, RecommenderConfig, fit
from serving.clock import VirtualClock
from tasks.errors import SimulationError
from tasks.simulation import trainings
from tasks.simulation.feed import Feed
from tasks.simulation.incidents import Corrupt, plant, relabelled, shift
from tasks.simulation.model import Incident, Script, Simulation, Training
from tasks.simulation.page import render
from tasks.simulation.play import require, simulate
from tasks.simulation.release import release
from tasks.simulation.summary import trailing
from tasks.simulation.trainings import lighter
from tasks.simulation.world import Late, World, start_of

BEGIN = date(1998, 1, 1)
DAYS = 64
SCRIPT = Script(first=date(1998, 2, 20), last=date(1998, 3, 4), holdout_days=5, seed=1)
CALM = SCRIPT.model_copy(update={"incidents": False})


@pytest.fixture(scope="module")
def archive() -> Archive:
    """300 users with two tastes and 120 movies of 1931 to 1998, the newer ones mostly rated; some 50 ratings a day."""
    rng = np.random.default_rng(5)
    users, items = np.arange(1, 301), np.arange(1, 121)
    taste, kind = rng.integers(0, 2, len(users)), rng.integers(0, 2, len(items))
    years = 1930 + np.sort(rng.integers(1, 69, len(items)))
    appeal = np.exp((years - 1998) / 18) * rng.lognormal(0, 0.6, len(items))
    rows: dict[tuple[int, int], dict[str, object]] = {}
    for day in range(DAYS):
        for user in rng.choice(users, 7, replace=False):
            liked = appeal * np.where(kind == taste[user - 1], 6.0, 1.0)
            visit = datetime(1998, 1, 1, 10, tzinfo=UTC) + timedelta(days=day, minutes=int(user))
            for place, item in enumerate(rng.choice(items, 8, replace=False, p=liked / liked.sum())):
                stars = float(np.clip(round(rng.normal(3.6, 1.0)), 1, 5))
                given = {"user_id": int(user), "item_id": int(item), "rating": stars}
                rows.setdefault((int(user), int(item)), {**given, "rated_at": visit + timedelta(seconds=place)})
    ratings = list(rows.values())
    met = {row["item_id"] for row in ratings}

    def first(key: str, number: int) -> object:
        return min(row["rated_at"] for row in ratings if row[key] == number)  # type: ignore[type-var]

    people = [
        {
            "user_id": int(user),
            "age": 20 + int(user) % 40,
            "gender": "F" if user % 2 else "M",
            "occupation": "artist",
            "zip_code": "02139",
            "joined_at": first("user_id", user),
        }
        for user in users
        if any(row["user_id"] == user for row in ratings)
    ]
    movies = [
        {
            "item_id": int(item),
            "title": f"Movie {item}",
            "year": int(years[item - 1]),
            "genres": ["Drama" if kind[item - 1] else "Comedy"],
            "added_at": first("item_id", item),
        }
        for item in items
        if item in met
    ]

    def table(row: type[User] | type[Movie] | type[Rating], records: list[dict[str, object]]) -> pa.Table:
        order = [(row.contract.event_time, "ascending"), *((key, "ascending") for key in row.contract.key)]
        return pa.Table.from_pylist(records, schema=arrow_schema(row.contract)).sort_by(order)

    return Archive(table(User, people), table(Movie, movies), table(Rating, ratings))


@pytest.fixture(scope="module")
def config() -> RecommenderConfig:
    small = {"epochs": 6, "anchors": 4, "ridge": 20.0, "horizon_days": 5.0}
    return lighter(movielens_config(0)).model_copy(update=small)


@pytest.fixture(scope="module")
def played(archive: Archive, config: RecommenderConfig, tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(SCRIPT, archive, config, tmp_path_factory.mktemp("played"))


@pytest.fixture(scope="module")
def calm(archive: Archive, config: RecommenderConfig, tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(CALM, archive, config, tmp_path_factory.mktemp("calm"))


def incident(simulation: Simulation, kind: str) -> Incident:
    return next(one for one in simulation.incidents if one.kind == kind)


def trained(simulation: Simulation, policy: str) -> list[Training]:
    return [one for one in simulation.trainings if one.policy == policy and one.cause != "start"]


def test_the_gate_keeps_the_corrupt_rows_back_and_takes_them_when_they_come_right(played: Simulation) -> None:
    found = incident(played, "corrupt feed")
    assert found.noticed_on == found.day and found.noticed_by == "the publishing gate"
    came, published, kept = (int(number) for number in re.findall(r"\d+", found.said[0]))
    assert came == published + kept and 0 < kept < came
    assert {line.partition(":")[0] for line in found.said[1:]} == {
        "item_id references movies.item_id",
        "rated_at required",
        "rating le 5",
    }
    assert f"{kept} of {kept} are published, 0 go to quarantine" in found.after


def test_the_shift_shows_as_drift_and_the_policy_on_drift_answers_it(played: Simulation) -> None:
    found = incident(played, "preference shift")
    assert found.noticed_on is not None and found.day <= found.noticed_on
    assert found.noticed_by == "the drift statistic" and found.said[0].startswith("year: PSI ")
    answers = trained(played, "on drift")
    assert answers[0].day == found.noticed_on and answers[0].cause == "drift"
    assert all(not day.drifted for day in played.drift if day.day < found.day)
    assert all(not day.unshifted for day in played.drift)


def test_the_gates_refuse_the_bad_challenger_and_let_others_pass(played: Simulation) -> None:
    found = incident(played, "bad challenger")
    assert found.noticed_on == found.day and found.noticed_by == "the gates" and not found.after
    that_night = [one for one in played.trainings if one.day == found.day]
    assert {"nightly"} <= {one.policy for one in that_night} and not any(one.promoted for one in that_night)
    assert any(line.startswith("nightly: ") for line in found.said)
    assert any(one.promoted for one in trained(played, "nightly"))


def test_the_service_speaks_against_the_bad_release_and_takes_it_back(played: Simulation) -> None:
    found = incident(played, "bad release")
    assert found.noticed_on == found.day
    assert found.noticed_by == "the shadow replay and the automatic roll-back"
    assert "it could not answer" in found.said[0] and "was taken back" in found.said[1]
    failed, answered = (int(number) for number in re.findall(r"\d+", found.after))
    assert 0 < failed <= answered <= 60


def test_where_nothing_is_planted_nothing_is_noticed(calm: Simulation) -> None:
    assert calm.incidents == [] and all(not day.drifted and day.psi == day.unshifted_psi for day in calm.drift)
    assert trained(calm, "on drift") == []
    never, on_drift = ([one for one in calm.served if one.policy == name] for name in ("never", "on drift"))
    assert [one.ndcg for one in never] == [one.ndcg for one in on_drift]


def test_a_right_feed_passes_and_a_good_release_stays(
    archive: Archive, config: RecommenderConfig, tmp_path: Path
) -> None:
    day = SCRIPT.first
    rows = World(archive, tmp_path / "views").happened(end_of(day))
    at = archive.ratings["rated_at"]
    own = archive.ratings.filter(
        pc.and_(pc.greater_equal(at, pa.scalar(start_of(day), at.type)), pc.less(at, pa.scalar(end_of(day), at.type)))
    )
    feed = Feed(tmp_path / "lake", archive)
    planted = Incident(kind="corrupt feed", day=day, what="")
    assert own.num_rows and feed.let_in(Corrupt(day, own, own.slice(0, 0)), planted) == planted
    good = fit(rows, rows, config=config)
    other = fit(rows, rows, config=config.model_copy(update={"epochs": 2}))
    clock = VirtualClock(end_of(day))
    found = release(feed.lake, tmp_path, day, good, other, clock)
    assert (found.refusal, found.failed, found.taken_back) == ("", 0, "") and found.answered == 200
    assert found.told(planted, day) == planted


def test_each_policy_trains_by_its_rule_and_pays_for_each_of_its_trainings(calm: Simulation) -> None:
    nights = len(CALM.days())
    assert [len(trained(calm, name)) for name in ("never", "nightly")] == [0, nights]
    weekly = [one.day for one in trained(calm, "weekly") if one.promoted]
    assert all((later - sooner).days >= 7 for sooner, later in pairwise(weekly))
    assert {one.cause for one in trained(calm, "weekly")} == {"age"}
    for summary in calm.policies:
        own = [one for one in calm.trainings if one.policy == summary.policy]
        assert summary.trainings == len(own) == summary.promoted + summary.refused
        assert summary.cpu_seconds == pytest.approx(sum(one.cpu_seconds for one in own))
    age = {summary.policy: summary.mean_age_days for summary in calm.policies}
    assert age["nightly"] < age["weekly"] < age["never"]


def test_a_model_is_trained_once_for_all_policies(
    archive: Archive, config: RecommenderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(rows: pa.Table, *args: object, **kwargs: RecommenderConfig) -> Recommender:
        made.append(rows.num_rows)
        return fit(rows, rows, **kwargs)

    monkeypatch.setattr("models.recommender.fit", counted)
    last = CALM.first + timedelta(days=7)
    found = simulate(CALM.model_copy(update={"last": last}), archive, config, tmp_path)
    assert len(made) == len(set(made)) == 9  # the first, and one a night
    assert sum(one.cause != "start" for one in found.trainings) > 8


def test_the_same_seed_gives_the_same_play_and_another_seed_another_one(
    archive: Archive, config: RecommenderConfig, calm: Simulation, tmp_path: Path
) -> None:
    again = simulate(CALM, archive, config, tmp_path / "again")
    assert without_time(again) == without_time(calm)
    assert plant(archive, SCRIPT).archive.ratings.equals(plant(archive, SCRIPT).archive.ratings)
    sent = [plant(archive, SCRIPT.model_copy(update={"seed": seed})).corrupt for seed in (1, 1, 2)]
    assert all(one is not None for one in sent)
    assert sent[0].sent.equals(sent[1].sent) and not sent[0].sent.equals(sent[2].sent)  # type: ignore[union-attr]


def without_time(simulation: Simulation) -> object:
    def bare(value: object) -> object:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key != "cpu_seconds"}
        return [bare(item) for item in value] if isinstance(value, list) else value

    return bare(simulation.model_dump(mode="json"))


def test_what_a_night_sees_is_what_it_would_have_made_of_the_past_alone(archive: Archive, tmp_path: Path) -> None:
    until = end_of(date(1998, 2, 10))
    past = Archive(
        *(
            table.filter(pc.less(table[row.contract.event_time], pa.scalar(until, table.schema.field(-1).type)))
            for row, table in ((User, archive.users), (Movie, archive.movies), (Rating, archive.ratings))
        )
    )
    then, now = World(past, tmp_path / "then"), World(archive, tmp_path / "now")
    assert now.happened(until).equals(then.happened(until)) and then.happened(until).num_rows == past.ratings.num_rows
    for entities in ("users", "items"):
        assert getattr(now, entities)(until, until).equals(getattr(then, entities)(until, until))


def test_rows_that_come_late_are_known_late(archive: Archive, tmp_path: Path) -> None:
    until = end_of(date(1998, 2, 10))
    rows = np.zeros(archive.ratings.num_rows, dtype=np.bool_)
    rows[100:120] = True
    world = World(archive, tmp_path, Late(rows, until))
    before = until - timedelta(days=1)
    assert world.known(before).num_rows == world.happened(before).num_rows - 20
    assert world.known(until).num_rows == world.happened(until).num_rows


def test_a_shift_moves_no_rating_before_it_and_repeats_none_after_it(archive: Archive) -> None:
    at = start_of(date(1998, 2, 10))
    shifted, pairs = shift(archive, at)
    assert 5 < pairs <= len(archive.movies) // 2
    before = pc.less(archive.ratings["rated_at"], pa.scalar(at, archive.ratings.schema.field("rated_at").type))
    count = pc.sum(before).as_py()
    assert shifted.ratings.slice(0, count).equals(archive.ratings.filter(before))
    keys = list(zip(shifted.ratings["user_id"].to_pylist(), shifted.ratings["item_id"].to_pylist(), strict=True))
    assert len(keys) == len(set(keys))
    assert not shifted.ratings.slice(count)["item_id"].equals(archive.ratings.slice(count)["item_id"])


def test_other_numbers_are_a_permutation_of_the_catalogue(archive: Archive) -> None:
    found = relabelled(archive.ratings, 3)
    pairs = {*zip(archive.ratings["item_id"].to_pylist(), found["item_id"].to_pylist(), strict=True)}
    assert len(pairs) == len({new for _, new in pairs}) == len({old for old, _ in pairs})
    assert any(old != new for old, new in pairs)


def test_a_virtual_clock_stands_still_and_never_goes_back() -> None:
    start = start_of(BEGIN)
    clock = VirtualClock(start)
    assert clock.now() == clock.now() == start and clock.replays
    clock.move_to(start + timedelta(days=1))
    assert clock.now() == start + timedelta(days=1)
    with pytest.raises(AssertionError):
        clock.move_to(start)


def test_a_line_is_the_mean_of_the_users_of_its_last_days(calm: Simulation) -> None:
    never = [one for one in calm.served if one.policy == "never"]
    found = trailing(never, 3)
    assert [served for served, _ in found] == never
    pooled = [value for one in never[2:5] for value in one.ndcg]
    assert (never[4].day - never[2].day).days == 2
    assert found[4][1] == pytest.approx(sum(pooled) / len(pooled))


def test_the_page_is_whole_and_says_what_was_noticed(played: Simulation, calm: Simulation) -> None:
    page = render(played)
    assert page == render(Simulation.model_validate_json(played.model_dump_json()))
    assert not re.search(r"https?://|<script|src=|@import|url\(", page.replace("http://www.w3.org/2000/svg", ""))
    assert page.count("<svg") == 3 and 'role="img"' in page
    assert "4 of 4 incidents noticed" in page and "preference shift: noticed after" in page
    for policy in ("never", "weekly", "nightly", "on-drift"):
        assert f'class="line {policy}"' in page
    quiet = render(calm)
    assert "no incidents" in quiet and "<h2>Incidents</h2>" not in quiet
    missed = [one.model_copy(update={"noticed_on": None, "noticed_by": "", "said": []}) for one in played.incidents]
    unnoticed = render(played.model_copy(update={"incidents": missed}))
    assert "0 of 4 incidents noticed" in unnoticed and "preference shift: not noticed" in unnoticed


def test_days_that_cannot_be_played_are_refused(archive: Archive) -> None:
    day = SCRIPT.first
    with pytest.raises(SimulationError, match="is after its last one"):
        require(Script(first=day, last=day - timedelta(days=1)), archive)
    with pytest.raises(SimulationError, match="6 days are too few"):
        require(Script(first=day, last=day + timedelta(days=5)), archive)
    require(Script(first=day, last=day + timedelta(days=5), incidents=False), archive)
    with pytest.raises(SimulationError, match="Begin on 1998-01-22 or later"):
        require(Script(first=date(1998, 1, 21), last=day), archive)
    with pytest.raises(NoDataForDayError):
        require(Script(first=day, last=date(1999, 1, 1)), archive)


def test_the_command_prints_a_table_or_json_and_writes_the_page(
    archive: Archive, config: RecommenderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("lakehouse.movielens.movielens", lambda: archive)
    monkeypatch.setattr(trainings, "lighter", lambda full: config)
    words = ["simulate", "--from", "1998-02-20", "--to", "1998-02-22", "--holdout-days", "5", "--no-incidents"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert all(text in shown.output for text in ("policy", "nightly", "on drift", "over never", "CPU seconds"))
    page = tmp_path / "state" / "reports" / "simulation-1998-02-20-1998-02-22-0.html"
    assert page.read_text().startswith("<!doctype html>") and str(page) in shown.stderr
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["reports"]
    printed = CliRunner().invoke(main, [*words, "--format", "json", "--report", str(tmp_path / "own.html")])
    assert Simulation.model_validate(json.loads(printed.stdout)).script.last == date(1998, 2, 22)
    assert (tmp_path / "own.html").is_file()
    refused = CliRunner().invoke(main, ["simulate", "--from", "1998-02-22", "--to", "1998-02-20"])
    assert refused.exit_code == 1 and "MR-SIMULATION" in refused.output
