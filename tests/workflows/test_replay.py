"""A night done again gives the same, to the last row and digest; where it does not, the first difference is named."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest
from deltalake import DeltaTable

from lakehouse import Lakehouse
from lakehouse.ledger import Run
from lakehouse.upkeep.vacuum import vacuum

pytestmark = pytest.mark.nightly


def run_of(first_night) -> str:
    """The night's own run, whatever else has run in its lake since."""
    return next(Lakehouse.open(first_night[0].state / "lake").ledger.read(Run)).run_id


def test_a_whole_run_and_a_step_are_equal_when_they_are_done_again_weeks_later_after_a_vacuum(
    first_night, workplace_at, tmp_path
) -> None:
    place = workplace_at(tmp_path)
    shutil.copytree(first_night[0].state / "lake", place.state / "lake")
    lake = Lakehouse.open(place.state / "lake")
    for name in lake.names():
        vacuum(lake, name, dry_run=False, retention=timedelta(0), now=datetime.now(UTC) + timedelta(weeks=6))
    for options in ((), ("--step", "train")):
        done = place.run("millrace", "replay", run_of(first_night), *options)
        assert (done.returncode, done.stdout) == (0, "equal\n"), done.stdout + done.stderr


def test_a_step_that_differs_is_named_with_its_field_and_one_that_writes_is_refused(
    first_night, workplace_at, tmp_path
) -> None:
    place = workplace_at(tmp_path)
    shutil.copytree(first_night[0].state / "lake", place.state / "lake")
    costs = DeltaTable(str(place.state / "lake" / "_ledger" / "costs"))
    costs.update(updates={"key": "replace(key, '\"seed\":0', '\"seed\":1')"}, predicate="task = 'tasks.train.train'")
    done = place.run("millrace", "replay", run_of(first_night), "--step", "train")
    assert done.returncode == 3
    assert done.stdout.startswith("train: digest: ")
    done = place.run("millrace", "replay", run_of(first_night), "--step", "publish")
    assert (done.returncode, "writes into the lake" in done.stderr) == (1, True)


def test_a_run_whose_code_is_lost_is_refused_in_one_sentence(first_night, workplace_at, tmp_path) -> None:
    place = workplace_at(tmp_path)
    shutil.copytree(first_night[0].state / "lake", place.state / "lake")
    runs = DeltaTable(str(place.state / "lake" / "_ledger" / "runs"))
    runs.update(new_values={"code_digest": "other", "commit": "0123456789abcdef+"})
    done = place.run("millrace", "replay", run_of(first_night))
    assert done.returncode == 1
    assert done.stderr.startswith("error: The code of run") and "MR-REPLAY" in done.stderr
    runs.update(new_values={"commit": "0123456789abcdef0123456789abcdef01234567"})
    done = place.run("millrace", "replay", run_of(first_night))
    assert done.returncode == 1
    assert "can't be checked out" in done.stderr
