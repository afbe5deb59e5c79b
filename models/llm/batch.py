"""How are many rows answered, each of them asked once, ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from models.llm.component import Component, Question
from models.llm.engine import EngineUsage, TextEngine
from models.llm.errors import PromptTooLongError
from models.llm.judging import MAX_REPAIRS, Attempt, answer_of, judge, recheck
from models.llm.store import Answer, ResponseStore
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


class Completion(BaseModel):
    """Answers to a batch of rows.

    Attributes:
        answers: one a row, in the rows' order; rows that ask the same share one.
        asked: distinct questions that went to the engine.
        reused: distinct questions that the store had answered before.
        failed: answers, old or new, without a valid output.
        usage: what the engine cost; all zero if it never started.
    """

    model_config = ConfigDict(frozen=True)

    answers: list[Answer]
    asked: int
    reused: int
    failed: int
    usage: EngineUsage


def complete(
    component: Component[In, Out],
    rows: Sequence[In],
    *,
    model: ModelRef,
    store: ResponseStore,
    engine: Callable[[], AbstractContextManager[TextEngine]],
    progress: Callable[[int, int], None] | None = None,
) -> Completion:
    """Answer every row, from the store where it can, and store each new batch of answers as soon as it is there.

    An answer that does not fit the schema, or contradicts itself or its row, is asked again ``MAX_REPAIRS`` times with
    what was wrong; if that fails too, the text and the error are stored, and the row's ``output`` is None: nothing is
    made up to fill a hole. A killed run keeps the batches that it stored.

    Args:
        component: the question.
        rows: what it is asked of.
        model: the model that answers; part of the key.
        store: answers so far.
        engine: opens an engine on ``model``; not called if the store has every answer.
        progress: called with (answered, to ask) after each batch.

    Raises:
        EngineStartError, EngineStoppedError, PromptTooLongError: from the engine.
        ResponseStoreError: from the store.
    """
    keys = [component.answer_key(row, model) for row in rows]
    by_key = dict(zip(keys, rows, strict=True))
    known = store.known(set(keys))
    unseen = {key: row for key, row in by_key.items() if key not in known}
    reused, asked, usage = len(known), len(unseen), EngineUsage()
    if unseen:
        with engine() as running:
            for answers in ask_in_batches(component, list(unseen.values()), model, running):
                store.append(answers)
                known.update((answer.answer_key, answer) for answer in answers)
                if progress is not None:
                    progress(len(known) - reused, asked)
            usage = running.usage
        # Where another writer was faster, its answer is the record.
        known.update(store.known(unseen.keys()))
    checked = {key: recheck(component, by_key[key], answer) for key, answer in known.items()}
    failed = sum(answer.output is None for answer in checked.values())
    return Completion(answers=[checked[key] for key in keys], asked=asked, reused=reused, failed=failed, usage=usage)


def ask_in_batches(
    component: Component[In, Out], rows: Sequence[In], model: ModelRef, engine: TextEngine
) -> Iterator[list[Answer]]:
    """Answers to rows, ``engine.batch_size`` at a time, repairs included; nothing is looked up or stored."""
    for first in range(0, len(rows), engine.batch_size):
        batch = rows[first : first + engine.batch_size]
        attempts = _attempt(component, batch, [component.question(row) for row in batch], engine)
        for _ in range(MAX_REPAIRS):
            bad = [index for index, attempt in enumerate(attempts) if attempt.problem is not None]
            questions = [component.repair(batch[i], attempts[i].raw, attempts[i].problem or "") for i in bad]
            try:
                again = _attempt(component, [batch[i] for i in bad], questions, engine)
            except PromptTooLongError:
                break  # There is no room to show what was wrong; it stays as it is.
            for index, attempt in zip(bad, again, strict=True):
                attempts[index] = attempt.after(attempts[index])
        now = datetime.now(UTC)
        name = component.batch_digest(batch, model)
        yield [
            answer_of(component, row, model, attempt, now, batch=name, place=place)
            for place, (row, attempt) in enumerate(zip(batch, attempts, strict=True))
        ]


def _attempt(
    component: Component[In, Out], rows: Sequence[In], questions: Sequence[Question], engine: TextEngine
) -> list[Attempt]:
    generations = engine.generate(component, questions)
    return [judge(component, row, generation) for row, generation in zip(rows, generations, strict=True)]
