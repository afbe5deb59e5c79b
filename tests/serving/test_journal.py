"""An event that was acknowledged survives a kill, once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import JournalError
from serving.journal import Journal, read, segments, whole_bytes
from tests.serving.conftest import API_KEY, Night, command


def records(folder: Path) -> list[object]:
    return [found.record["n"] for name in segments(folder) for found in read(folder, name)]


def test_records_come_back_in_order_over_segments_and_restarts(tmp_path: Path) -> None:
    for start in (0, 50):
        journal = Journal(tmp_path, segment_bytes=400)
        for n in range(start, start + 50):
            journal.append([{"n": n, "text": "ü\n"}]).result(30)
        journal.close()
    assert records(tmp_path) == list(range(100))
    assert len(segments(tmp_path)) > 3


def test_one_process_owns_the_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="Another service"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 300), junk=st.binary(max_size=20))
def test_whatever_is_cut_off_at_the_end_whole_records_before_it_stay(
    cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    journal = Journal(folder)
    journal.append([{"n": n} for n in range(10)]).result(30)
    journal.close()
    (name,) = segments(folder)
    whole = (folder / name).read_bytes()
    kept = whole[: min(cut, len(whole))]
    (folder / name).write_bytes(kept + junk.replace(b"\n", b""))
    before = kept.count(b"\n")
    journal = Journal(folder)
    journal.append([{"n": 99}]).result(30)
    journal.close()
    assert records(folder) == [*range(before), 99]


def test_damage_before_the_end_is_an_error_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([{"n": n} for n in range(10)]).result(30)
    journal.close()
    (name,) = segments(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[12] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JournalError, match="damaged at byte 0"):
        Journal(tmp_path)
    assert (tmp_path / name).read_bytes() == bytes(content)


def test_a_write_that_fails_is_reported_and_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append([{"n": 1}]).result(30)
    real = os.fdatasync

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(JournalError, match="No space left"):
        journal.append([{"n": 2}]).result(30)
    monkeypatch.setattr(os, "fdatasync", real)
    journal.append([{"n": 3}]).result(30)
    journal.close()
    assert records(tmp_path)[0] == 1 and records(tmp_path)[-1] == 3
    assert whole_bytes(tmp_path / segments(tmp_path)[0]) == (tmp_path / segments(tmp_path)[0]).stat().st_size


def test_a_service_killed_under_load_loses_no_acknowledged_event_and_doubles_none(night: Night, tmp_path: Path) -> None:
    state = tmp_path / "state"
    acknowledged: set[str] = set()
    enough = threading.Event()
    headers = {"authorization": f"Bearer {API_KEY}"}

    def send(url: str, sender: int) -> None:
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http:
            for number in range(100_000):
                ids = [f"{sender}-{number}-{part}" for part in range(5)]
                events = [
                    {"event_id": one, "kind": "click", "user_id": night.users[sender], "item_id": 50} for one in ids
                ]
                try:
                    answer = http.post("/feedback", json={"events": events})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                acknowledged.update(ids)
                if len(acknowledged) > 500:
                    enough.set()

    with command(night, state, MILLRACE_RATE_BURST="1000000") as (process, url):
        senders = [threading.Thread(target=send, args=(url, sender)) for sender in range(4)]
        for sender in senders:
            sender.start()
        assert enough.wait(120)
        process.kill()
        for sender in senders:
            sender.join(60)
    folder = state / "serving" / "feedback"
    Journal(folder).close()  # cuts away what the kill cut off
    logged = [str(found.record["event_id"]) for name in segments(folder) for found in read(folder, name)]
    assert acknowledged <= set(logged)
    assert len(logged) == len(set(logged))
    with command(night, state) as (_, url), httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
        one = sorted(acknowledged)[0]
        sender = int(one.partition("-")[0])
        event = {"event_id": one, "kind": "click", "user_id": night.users[sender], "item_id": 50}
        assert http.post("/feedback", json={"events": [event]}, timeout=60).json()["duplicates"] == 1
