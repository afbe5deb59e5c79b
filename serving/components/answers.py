"""How is a request answered? From memory where the question was answered before, in a batch or here, else by the model.

The keys are those of the batch store, whose answers are read at the start and now and then, so that batch and online
give one answer to one question. What the model answers here is stored in the background, within a second or so; where
another writer stored an answer first, that one counts from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from pydantic import BaseModel

from models.llm.component import Component, Question, Sampling
from models.llm.errors import (
    AnswerTimeoutError,
    NoAnswerError,
    OverloadedError,
    ResponseStoreError,
)
from models.llm.judging import MAX_REPAIRS, Attempt, answer_of, judge, recheck
from models.llm.protocol import Generation
from models.llm.store import Answer, ResponseStore
from models.llm.weights import ModelRef
from serving.components.metrics import Metrics

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

#: Seconds between looks at the store, and seconds that answers wait for others to be stored with them.
_REFRESH, _GATHER = 30.0, 0.5

log = logging.getLogger(__name__)


class Asks(Protocol):
    """What answering needs of a server's client."""

    async def generate(self, component: str, question: Question, sampling: Sampling) -> Generation: ...

    def stream(self, component: str, question: Question, sampling: Sampling) -> AsyncIterator[str | Generation]: ...


class Answers:
    """Answers of one model to the questions of some components.

    Args:
        model: the model that is asked; part of each key.
        client: asks it.
        store: answers so far, and where new ones go.
        metrics: what is counted.
        max_waiting: questions that may wait for the model at once; more are refused.
        timeout: seconds that a request may take, repairs included.
    """

    def __init__(
        self,
        model: ModelRef,
        client: Asks,
        store: ResponseStore,
        metrics: Metrics,
        *,
        max_waiting: int,
        timeout: float,
    ) -> None:
        self.model = model
        self._client, self._store, self._metrics = client, store, metrics
        self._max_waiting, self._timeout = max_waiting, timeout
        self._known: dict[str, Answer] = {}
        self._asking: dict[str, asyncio.Task[Answer]] = {}
        self._waiting = 0
        self._seconds = 1.0  # a running mean of how long the model takes
        self._unstored: asyncio.Queue[Answer] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._version = -1

    async def start(self, components: Sequence[str]) -> None:
        """Read the stored answers, and keep storing and reading in the background."""
        await self._read(components)
        self._tasks = [asyncio.create_task(self._keep_reading(components)), asyncio.create_task(self._keep_storing())]

    async def close(self) -> None:
        """Store what is not stored yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._put(self._gathered())

    async def answer(self, component: Component[In, Out], row: In) -> Out:
        """The answer for a row.

        Raises:
            NoAnswerError: the model gave none, now or when it was asked before.
            OverloadedError: too many questions wait.
            AnswerTimeoutError, PromptTooLongError, EngineStoppedError: the model did not answer.
        """
        key = component.answer_key(row, self.model)
        known = self._known.get(key)
        if known is None:
            asking = self._asking.get(key)
            if asking is None:  # else somebody is asking the same, and there will be one answer for both
                self._admit()
                asking = self._asking[key] = asyncio.create_task(self._ask(component, row, key))
                asking.add_done_callback(lambda _: self._asking.pop(key, None))
            # It goes on if this request is given up: the answer is paid for.
            known = await asyncio.shield(asking)
        else:
            self._metrics.from_store.labels(component.name).inc()
        return _given(component, row, known)

    async def stream(self, component: Component[In, Out], row: In) -> AsyncIterator[str | Out]:
        """The text in pieces as the model writes it, then the validated answer; errors as of ``answer``.

        The pieces are provisional: what they come to is judged at the end, and a text that is no answer ends in an
        error (a stream is not asked again, as its reader has seen the first text).
        """
        key = component.answer_key(row, self.model)
        known = self._known.get(key)
        if known is None:
            self._admit()
            started, whole = time.monotonic(), None
            self._waiting += 1
            try:
                async with asyncio.timeout(self._timeout):
                    question = component.question(row)
                    async for piece in self._client.stream(component.name, question, component.sampling):
                        if isinstance(piece, Generation):
                            whole = piece
                        else:
                            yield piece
            except TimeoutError as error:
                raise AnswerTimeoutError.after(component.name, self._timeout) from error
            finally:
                self._waiting -= 1
                self._took(time.monotonic() - started)
            assert whole is not None
            known = self._keep(component, row, key, judge(component, row, whole))
        else:
            self._metrics.from_store.labels(component.name).inc()
            if known.output is not None:
                yield known.output
        yield _given(component, row, known)

    def _admit(self) -> None:
        if self._waiting >= self._max_waiting:
            # Those that wait are decoded side by side: about when a place is free again.
            raise OverloadedError.waiting(self._waiting, max(1, round(self._seconds)))

    async def _ask(self, component: Component[In, Out], row: In, key: str) -> Answer:
        started = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                attempt = await self._attempt(component, row, component.question(row))
                for _ in range(MAX_REPAIRS):
                    if attempt.problem is None:
                        break
                    self._metrics.repaired.labels(component.name).inc()
                    again = component.repair(row, attempt.raw, attempt.problem)
                    attempt = (await self._attempt(component, row, again)).after(attempt)
        except TimeoutError as error:
            raise AnswerTimeoutError.after(component.name, self._timeout) from error
        finally:
            self._waiting -= 1
            self._took(time.monotonic() - started)
        return self._keep(component, row, key, attempt)

    async def _attempt(self, component: Component[In, Out], row: In, question: Question) -> Attempt:
        return judge(component, row, await self._client.generate(component.name, question, component.sampling))

    def _keep(self, component: Component[In, Out], row: In, key: str, attempt: Attempt) -> Answer:
        answer = answer_of(component, row, self.model, attempt, datetime.now(UTC))
        self._metrics.tokens.labels(component.name, "in").inc(answer.tokens_in)
        self._metrics.tokens.labels(component.name, "out").inc(answer.tokens_out)
        self._known[key] = answer
        self._unstored.put_nowait(answer)
        return answer

    def _took(self, seconds: float) -> None:
        self._seconds += 0.1 * (seconds - self._seconds)

    async def _keep_storing(self) -> None:
        while True:
            first = await self._unstored.get()
            try:
                await asyncio.sleep(_GATHER)
            finally:  # ended meanwhile: it is stored with the rest
                self._unstored.put_nowait(first)
            await self._put(self._gathered())

    def _gathered(self) -> list[Answer]:
        return [self._unstored.get_nowait() for _ in range(self._unstored.qsize())]

    async def _put(self, answers: list[Answer]) -> None:
        if not answers:
            return
        try:
            stored = await asyncio.to_thread(self._store.append, answers)
            if stored < len(answers):  # another writer's answer is the record
                self._known.update(await asyncio.to_thread(self._store.known, [one.answer_key for one in answers]))
        except ResponseStoreError as error:
            self._metrics.unstored.inc(len(answers))
            log.error("%s", error)

    async def _keep_reading(self, components: Sequence[str]) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            with contextlib.suppress(OSError):
                await self._read(components)

    async def _read(self, components: Sequence[str]) -> None:
        version = await asyncio.to_thread(self._store.version)
        if version != self._version:
            answers = await asyncio.to_thread(self._store.of, components, self.model.digest)
            self._known.update((answer.answer_key, answer) for answer in answers)
            self._version = version


def _given(component: Component[In, Out], row: In, answer: Answer) -> Out:
    checked = recheck(component, row, answer)
    output = checked.parsed(component)
    if output is None:
        raise NoAnswerError.judged(component.name, answer.answer_key, checked.error or "")
    return output
