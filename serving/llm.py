"""How is a language model asked for a reason? By the endpoint of `millrace llm serve`; its citations are checked."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import ExplanationError
from serving.metrics import Metrics

#: Seconds that a caller waits for a reason.
_DEADLINE = 20.0
#: History items that are told to the model, the most telling first.
TOLD = 20


class ToldItem(BaseModel):
    """The item to explain."""

    model_config = ConfigDict(frozen=True)

    item_id: int
    title: str
    year: int | None
    genres: list[str]


class ToldEvent(BaseModel):
    """One item that the user has met; the rating where it is known."""

    model_config = ConfigDict(frozen=True)

    item_id: int
    title: str
    rating: float | None


class Reason(BaseModel):
    """What the component answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str = Field(min_length=1, max_length=2000)
    cites: list[int]


class Explainer:
    """Asks the component ``explain``.

    Args:
        url: where the component server listens; None if there is none.
    """

    def __init__(self, url: str | None, metrics: Metrics) -> None:
        self._metrics = metrics
        self._client = None if url is None else httpx.AsyncClient(base_url=url.rstrip("/"), timeout=_DEADLINE)

    @property
    def configured(self) -> bool:
        """Whether there is one to ask."""
        return self._client is not None

    async def explain(self, item: ToldItem, history: Sequence[ToldEvent]) -> Reason:
        """A reason that cites the history only. Raises ExplanationError."""
        if self._client is None:
            raise ExplanationError.not_configured()
        started = time.perf_counter()
        try:
            reason = await self._asked(self._client, item, history)
        except ExplanationError:
            self._metrics.explanations.labels("failed").inc()
            self._metrics.up.labels("llm").set(0)
            raise
        self._metrics.llm_seconds.observe(time.perf_counter() - started)
        self._metrics.explanations.labels("answered").inc()
        self._metrics.up.labels("llm").set(1)
        return reason

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _asked(self, client: httpx.AsyncClient, item: ToldItem, history: Sequence[ToldEvent]) -> Reason:
        body = {"item": item.model_dump(), "history": [event.model_dump() for event in history]}
        try:
            answer = await client.post("/components/explain", json=body)
        except httpx.TimeoutException:
            raise ExplanationError.unavailable(f"no answer within {_DEADLINE:g} s") from None
        except httpx.HTTPError as error:
            raise ExplanationError.unavailable(f"no connection ({type(error).__name__})") from None
        if answer.status_code != 200:
            raise ExplanationError.unavailable(f"its server answered {answer.status_code}")
        try:
            reason = Reason.model_validate_json(answer.content)
        except ValidationError:
            raise ExplanationError.unavailable("its answer is not of the declared form") from None
        foreign = sorted(set(reason.cites) - {event.item_id for event in history})
        if foreign:
            raise ExplanationError.unavailable(f"it cites {len(foreign)} item(s) that the user has not met")
        return reason
