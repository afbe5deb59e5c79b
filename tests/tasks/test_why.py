"""`why` names the part of a task's key that changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lakehouse import Lakehouse
from lakehouse.ledger import Cost, Run
from tasks.errors import NotRecordedError
from tasks.key import Key, changes
from tasks.why import why

AT = datetime(2026, 1, 1, tzinfo=UTC)
RATINGS = {"table": "ratings", "version": 2, "table_id": "t", "fingerprint": "f", "uri": "lake/ratings"}
KEY = Key(
    code={"tasks/train.py": "a", "models/recommender.py": "b"},
    contracts={"ratings": "f"},
    lock="l",
    engines={"torch": "2.13.0"},
    inputs={"ratings": RATINGS, "seed": 0, "set": {"digest": "d", "rows": 5}, "views": [{"different": 0}]},
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"code": {"tasks/train.py": "x", "models/recommender.py": "b"}}, ("code", "tasks/train.py", "a", "x")),
        ({"code": {"tasks/train.py": "a"}}, ("code", "models/recommender.py", "b", None)),
        ({"contracts": {"ratings": "g"}}, ("contract", "ratings", "f", "g")),
        ({"lock": "m"}, ("environment lock", "requirements.lock", "l", "m")),
        ({"engines": {"torch": "2.14.0"}}, ("engine version", "torch", "2.13.0", "2.14.0")),
        ({"ratings": {**RATINGS, "version": 3}}, ("input version", "ratings", "ratings@2", "ratings@3")),
        (
            {"ratings": {**RATINGS, "table_id": "u"}},
            ("input version", "ratings", "ratings@2 (table_id t)", "ratings@2 (table_id u)"),
        ),
        ({"ratings": {**RATINGS, "fingerprint": "g"}}, ("contract", "ratings", "f", "g")),
        ({"seed": 1}, ("parameter", "seed", "0", "1")),
        ({"set": {"digest": "e", "rows": 5}}, ("parameter", "set.digest", '"d"', '"e"')),
        ({"views": [{"different": 1}]}, ("parameter", "views[0].different", "0", "1")),
    ],
)
def test_one_change_is_named_by_part_and_name(changed: dict[str, object], expected: tuple[object, ...]) -> None:
    fields = {name: value for name, value in changed.items() if name in Key.model_fields}
    inputs = {**KEY.inputs, **{name: value for name, value in changed.items() if name not in fields}}
    (found,) = changes(KEY, KEY.model_copy(update={**fields, "inputs": inputs}))
    assert (found.part, found.name, found.before, found.after) == expected


def test_equal_keys_have_no_change() -> None:
    assert changes(KEY, KEY.model_copy()) == []


def record(lake: Lakehouse, number: int, **changed: object) -> None:
    key = KEY.model_copy(update=changed)
    used = {"seconds": 1.0, "cpu_seconds": 1.0, "peak_mib": 1.0}
    started = AT + timedelta(hours=number)
    name = "elsewhere.train.train"
    row = Cost(
        cost_id=str(number), execution=f"e{number}", task=name, started_at=started, key=key.model_dump_json(), **used
    )
    lake.ledger.append([row])


def run(number: int, execution: str) -> Run:
    texts = ("workflow", "code_digest", "commit", "lock_digest", "verdict", "report")
    objects = ("parameters", "artifacts", "metrics")
    return Run(
        run_id=f"r{number}",
        execution=execution,
        day=AT.date(),
        seed=0,
        seconds=1.0,
        inputs=[],
        outputs=[],
        finished_at=AT + timedelta(hours=number, minutes=30),
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(objects, "{}"),
    )


def test_the_newest_execution_is_compared_with_the_one_before(lake: Lakehouse) -> None:
    record(lake, 1)
    first = why(lake, "train")
    assert (first.against, first.changes) == (None, [])
    record(lake, 2, lock="m")
    record(lake, 3, lock="m", gone="models/x is gone")
    again = why(lake, "elsewhere.train.train")
    assert again.against is not None and again.against.execution == "e2"
    assert (again.changes, again.gone) == ([], "models/x is gone")


def test_a_run_that_was_answered_from_the_cache_stands_on_the_execution_before_its_end(lake: Lakehouse) -> None:
    record(lake, 1)
    record(lake, 3, lock="m")
    found = why(lake, "train", run(3, "e3"), run(2, "answered by the cache"))
    assert found.against is not None and found.against.execution == "e1"
    assert [change.part for change in found.changes] == ["environment lock"]


def test_a_task_that_is_not_recorded_is_one_sentence(lake: Lakehouse) -> None:
    with pytest.raises(NotRecordedError, match="No execution of any task"):
        why(lake, "train")
    record(lake, 3)
    with pytest.raises(NotRecordedError, match="No execution of a task 'trian'"):
        why(lake, "trian")
    with pytest.raises(NotRecordedError, match="before the end of run r1"):
        why(lake, "train", run(1, "e1"))
