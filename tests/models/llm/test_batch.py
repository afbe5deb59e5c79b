"""Each row is asked once, ever; what does not validate is repaired once or kept as it came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import BaseModel

from models.llm.batch import Completion, complete
from models.llm.component import Component, Question
from models.llm.engine import EngineUsage, Generation
from models.llm.errors import EngineStoppedError
from models.llm.movie_card import MOVIE_CARD, MovieCardInput, MovieCardOutput
from models.llm.replay import Replayed, replay
from models.llm.store import ResponseStore
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

GOOD = '{"mood":"funny","audience":"teens"}'
MODEL = ModelRef(path=Path("model"), digest="digest", name="scripted")


class ScriptedEngine:
    """Answers from a function, to bring about what a real engine does rarely."""

    batch_size = 2

    def __init__(self, script: Callable[[str], str]) -> None:
        self.script = script
        self.usage = EngineUsage()
        self.asked: list[str] = []

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def generate(self, component: Component[In, Out], questions: Sequence[Question]) -> Iterator[Generation]:
        for question in questions:
            asked = question.messages[-1].content
            self.asked.append(asked)
            yield Generation(text=self.script(asked), tokens_in=10, tokens_out=3, finished=False)


def movies(*titles: str) -> list[MovieCardInput]:
    return [
        MovieCardInput(item_id=number, title=title, year=None, genres=["Comedy"]) for number, title in enumerate(titles)
    ]


def ask(rows: list[MovieCardInput], folder: Path, engine: ScriptedEngine | None) -> Completion:
    def opened() -> ScriptedEngine:
        assert engine is not None, "nothing is unseen, so no engine may start"
        return engine

    return complete(MOVIE_CARD, rows, model=MODEL, store=ResponseStore(str(folder)), engine=opened)


def test_a_second_call_is_answered_from_the_store_without_an_engine(tmp_path: Path) -> None:
    rows = movies("Big", "Heat", "Fargo")
    first = ask(rows, tmp_path, ScriptedEngine(lambda _: GOOD))
    again = ask(rows, tmp_path, None)
    assert (first.asked, first.reused, again.asked, again.reused) == (3, 0, 0, 3)
    assert again.answers == first.answers
    assert first.answers[0].parsed(MOVIE_CARD) == MovieCardOutput(mood="funny", audience="teens")


def test_one_new_row_asks_one(tmp_path: Path) -> None:
    ask(movies("Big"), tmp_path, ScriptedEngine(lambda _: GOOD))
    engine = ScriptedEngine(lambda _: GOOD)
    done = ask(movies("Big", "Heat"), tmp_path, engine)
    assert len(engine.asked) == done.asked == 1
    assert "Heat" in engine.asked[0]


def test_rows_that_ask_the_same_share_one_answer_in_the_rows_order(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: GOOD)
    done = ask(movies("Big", "Heat", "Big"), tmp_path, engine)
    assert len(engine.asked) == 2
    assert [json.loads(answer.input)["title"] for answer in done.answers] == ["Big", "Heat", "Big"]


def test_no_rows_need_no_engine(tmp_path: Path) -> None:
    assert ask([], tmp_path, None).answers == []


def test_an_unusable_answer_is_asked_again_once_with_what_was_wrong(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda text: GOOD if "not a valid answer" in text else '{"mood":"odd","audience":"teens"}')
    done = ask(movies("Big"), tmp_path, engine)
    assert len(engine.asked) == 2
    assert "mood" in engine.asked[1]
    assert (done.failed, done.answers[0].raw, done.answers[0].error) == (0, GOOD, None)
    assert (done.answers[0].tokens_in, done.answers[0].tokens_out) == (20, 6)


def test_an_answer_that_stays_unusable_is_kept_with_its_error_and_never_asked_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda text: "{" if "Big" in text or "valid" in text else GOOD)
    done = ask(movies("Big", "Heat"), tmp_path, engine)
    big, heat = done.answers
    assert (big.raw, big.output, done.failed) == ("{", None, 1)
    assert big.error is not None and "cut off at 32 tokens" in big.error
    assert big.parsed(MOVIE_CARD) is None
    assert heat.output == GOOD
    assert len(engine.asked) == 3
    assert ask(movies("Big"), tmp_path, None).failed == 1


def test_a_run_that_is_stopped_keeps_the_batches_it_paid_for(tmp_path: Path) -> None:
    def script(text: str) -> str:
        if "Fargo" in text:
            raise EngineStoppedError.during("movie_card", 1, "killed")
        return GOOD

    rows = movies("Big", "Heat", "Fargo")
    with pytest.raises(EngineStoppedError):
        ask(rows, tmp_path, ScriptedEngine(script))
    engine = ScriptedEngine(lambda _: GOOD)
    done = ask(rows, tmp_path, engine)
    assert (done.asked, done.reused) == (1, 2)


def test_progress_counts_what_is_asked(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ask(movies("Big"), tmp_path, ScriptedEngine(lambda _: GOOD))
    complete(
        MOVIE_CARD,
        movies("Big", "Heat", "Fargo", "Babe"),
        model=MODEL,
        store=ResponseStore(str(tmp_path)),
        engine=lambda: ScriptedEngine(lambda _: GOOD),
        progress=lambda answered, total: seen.append((answered, total)),
    )
    assert seen == [(2, 3), (3, 3)]


def test_a_replay_asks_whole_batches_in_their_order_and_finds_what_differs(tmp_path: Path) -> None:
    rows, store = movies("Big", "Heat", "Fargo"), ResponseStore(str(tmp_path))
    ask(rows, tmp_path, ScriptedEngine(lambda _: GOOD))

    def replayed(rows: list[MovieCardInput], script: Callable[[str], str]) -> tuple[Replayed, list[str]]:
        engine = ScriptedEngine(script)
        return replay(MOVIE_CARD, rows, model=MODEL, store=store, engine=lambda: engine, batches=5), engine.asked

    same, asked = replayed(rows[::-1], lambda _: GOOD)
    assert (same.batches, same.answers, same.skipped, same.different) == (2, 3, 0, [])
    assert [text.splitlines()[0] for text in asked] == ['Title: "Big"', 'Title: "Heat"', 'Title: "Fargo"']
    other = GOOD.replace("funny", "warm")
    differs, _ = replayed(rows, lambda text: other if "Heat" in text else GOOD)
    assert [(before, now) for _, before, now in differs.different] == [(GOOD, other)]
    half, asked = replayed(rows[:1], lambda _: GOOD)
    assert (half.batches, half.skipped, asked) == (0, 1, [])
