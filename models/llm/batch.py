"""How are many rows answered, each of them asked once, ever?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from models.llm.component import Component, Message
from models.llm.engine import EngineUsage, Generation, TextEngine
from models.llm.store import Answer, ResponseStore
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

#: How often a row is asked again when its answer does not validate.
MAX_REPAIRS = 1


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

    An answer that does not validate is asked again once, with what was wrong; if that fails too, the text and the
    error are stored, and the row's ``output`` is None: nothing is made up to fill a hole. A killed run keeps the
    batches that it stored.

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
    keys = [component.answer_key(row, model.digest) for row in rows]
    known = store.known(set(keys))
    unseen = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
    reused, asked, usage = len(known), len(unseen), EngineUsage()
    if unseen:
        with engine() as running:
            for answers in _ask(component, list(unseen.values()), model, running):
                store.append(answers)
                known.update((answer.answer_key, answer) for answer in answers)
                if progress is not None:
                    progress(len(known) - reused, asked)
            usage = running.usage
        # Where another writer was faster, its answer is the record.
        known.update(store.known(unseen.keys()))
    answered = [known[key] for key in keys]
    failed = sum(answer.output is None for answer in known.values())
    return Completion(answers=answered, asked=asked, reused=reused, failed=failed, usage=usage)


class _Attempt(BaseModel):
    """A row's answer so far; ``problem`` is None once the text validates."""

    raw: str
    output: str | None
    problem: str | None
    tokens_in: int
    tokens_out: int


def _ask(
    component: Component[In, Out], rows: Sequence[In], model: ModelRef, engine: TextEngine
) -> Iterator[list[Answer]]:
    for first in range(0, len(rows), engine.batch_size):
        batch = rows[first : first + engine.batch_size]
        attempts = _attempt(component, [component.messages(row) for row in batch], engine)
        for _ in range(MAX_REPAIRS):
            bad = [index for index, attempt in enumerate(attempts) if attempt.problem is not None]
            talks = [component.repair(batch[i], attempts[i].raw, attempts[i].problem or "") for i in bad]
            for index, again in zip(bad, _attempt(component, talks, engine), strict=True):
                paid = attempts[index]
                attempts[index] = again.model_copy(
                    update={
                        "tokens_in": paid.tokens_in + again.tokens_in,
                        "tokens_out": paid.tokens_out + again.tokens_out,
                    }
                )
        now = datetime.now(UTC)
        yield [_answer(component, row, model, attempt, now) for row, attempt in zip(batch, attempts, strict=True)]


def _attempt(
    component: Component[In, Out], conversations: Sequence[Sequence[Message]], engine: TextEngine
) -> list[_Attempt]:
    return [_judge(component, generation) for generation in engine.generate(component, conversations)]


def _judge(component: Component[In, Out], generation: Generation) -> _Attempt:
    output, problem = None, None
    try:
        output = component.output.model_validate_json(generation.text).model_dump_json()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        cut = "" if generation.finished else f" (cut off at {component.sampling.max_tokens} tokens)"
        problem = f"{where}: {first['msg']}{cut}" if where else f"{first['msg']}{cut}"
    return _Attempt(
        raw=generation.text,
        output=output,
        problem=problem,
        tokens_in=generation.tokens_in,
        tokens_out=generation.tokens_out,
    )


def _answer(component: Component[In, Out], row: In, model: ModelRef, attempt: _Attempt, asked_at: datetime) -> Answer:
    return Answer(
        answer_key=component.answer_key(row, model.digest),
        component=component.name,
        model_digest=model.digest,
        prompt_digest=component.prompt_digest,
        schema_digest=component.schema_digest,
        sampling_digest=component.sampling_digest,
        row_digest=component.row_digest(row),
        input=component.canonical_input(row),
        raw=attempt.raw,
        output=attempt.output,
        error=attempt.problem,
        tokens_in=attempt.tokens_in,
        tokens_out=attempt.tokens_out,
        asked_at=asked_at,
    )
