"""What does the service answer? A typed endpoint for each component, health and metrics; errors as everywhere else.

``POST /components/{name}`` takes the component's input and gives its output, ``POST /components/{name}/stream`` gives
the same as server-sent events: ``delta`` with a piece of text, then ``answer`` with the output, or ``error``.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict

from lakehouse.errors import MillraceError
from models.llm.component import Component
from models.llm.errors import (
    AnswerTimeoutError,
    EngineStoppedError,
    LlmRequestError,
    NoAnswerError,
    OverloadedError,
    PromptTooLongError,
)
from serving.components.answers import Answers
from serving.components.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

#: Bytes that a request may have.
MAX_BODY = 64 * 1024

_STATUS: dict[type[MillraceError], int] = {
    LlmRequestError: 422,
    PromptTooLongError: 413,
    OverloadedError: 429,
    NoAnswerError: 502,
    EngineStoppedError: 503,
    AnswerTimeoutError: 504,
}


class ErrorBody(BaseModel):
    """Any error: its code, what is wrong and what to do."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    fix: str


class Health(BaseModel):
    """Whether the model answers; without it, only what was answered before is."""

    model_config = ConfigDict(frozen=True)

    status: str
    model: str
    model_digest: str
    components: list[str]


def make_app(
    components: Sequence[Component[In, Out]],
    answers: Answers,
    metrics: Metrics,
    *,
    healthy: Callable[[], Awaitable[bool]],
    engine_metrics: Callable[[], Awaitable[str]],
    lifespan: Callable[[FastAPI], object],
) -> FastAPI:
    """The application.

    Args:
        components: what can be asked.
        answers: answers.
        metrics: what is counted.
        healthy: whether the model's server answers.
        engine_metrics: that server's own metrics, in Prometheus's text.
        lifespan: starts and ends what the application needs, as FastAPI takes it.
    """
    app = FastAPI(
        title="Millrace: language model components",
        description=__doc__ or "",
        lifespan=lifespan,  # type: ignore[arg-type]  # an async context manager
        responses={status: {"model": ErrorBody} for status in sorted(set(_STATUS.values()))},
    )
    app.add_middleware(_Limited)

    @app.exception_handler(MillraceError)
    async def explained(request: Request, error: MillraceError) -> Response:
        return _explained(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        name = request.url.path.removeprefix("/components/").partition("/")[0]
        metrics.requests.labels(name, LlmRequestError.code).inc()
        return _explained(_invalid(name, error))

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        up = await healthy()
        body = Health(
            status="ok" if up else "the model does not answer",
            model=answers.model.name,
            model_digest=answers.model.digest,
            components=[component.name for component in components],
        )
        return JSONResponse(body.model_dump(), status_code=200 if up else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def measured() -> str:
        return metrics.text() + await engine_metrics()

    for component in components:
        _add(app, component, answers, metrics)
    return app


def _add(app: FastAPI, component: Component[In, Out], answers: Answers, metrics: Metrics) -> None:
    async def answer(row: In) -> Out:
        with _Counted(metrics, component.name):
            return await answers.answer(component, row)

    async def stream(row: In) -> StreamingResponse:
        return StreamingResponse(_events(component, row, answers, metrics), media_type="text/event-stream")

    # The component's models are known only here; FastAPI reads the annotations when the routes are added.
    answer.__annotations__ = {"row": component.input, "return": component.output}
    stream.__annotations__ = {"row": component.input}
    about = " ".join((component.output.__doc__ or "").split())
    path = f"/components/{component.name}"
    app.add_api_route(
        path,
        answer,
        methods=["POST"],
        response_model=component.output,
        operation_id=component.name,
        summary=component.name,
        description=about,
    )
    app.add_api_route(
        f"{path}/stream",
        stream,
        methods=["POST"],
        response_class=StreamingResponse,
        operation_id=f"{component.name}_stream",
        summary=f"{component.name}, as it is written",
        description="Server-sent events: delta, then answer or error.",
    )


async def _events(component: Component[In, Out], row: In, answers: Answers, metrics: Metrics) -> AsyncIterator[str]:
    try:
        with _Counted(metrics, component.name):
            async for part in answers.stream(component, row):
                if isinstance(part, str):
                    yield _event("delta", json.dumps({"text": part}, ensure_ascii=False))
                else:
                    yield _event("answer", part.model_dump_json())
    except MillraceError as error:
        yield _event("error", _body(error).model_dump_json())


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"


class _Counted:
    """Counts one request, its outcome and its seconds."""

    def __init__(self, metrics: Metrics, component: str) -> None:
        self._metrics, self._component = metrics, component

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        outcome = "ok" if error is None else error.code if isinstance(error, MillraceError) else "abandoned"
        self._metrics.requests.labels(self._component, outcome).inc()
        self._metrics.seconds.labels(self._component).observe(time.perf_counter() - self._started)


def _invalid(component: str, error: RequestValidationError) -> LlmRequestError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return LlmRequestError.invalid(component, where, str(first["msg"])[:200])


def _body(error: MillraceError) -> ErrorBody:
    return ErrorBody(code=error.code, message=error.message, fix=error.fix)


def _explained(error: MillraceError, status: int = 0) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, OverloadedError) else {}
    return JSONResponse(_body(error).model_dump(), status_code=status or _STATUS.get(type(error), 500), headers=headers)


class _Limited:
    """Refuses a request whose body is too large, before it is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        while True:  # Read here: the framework would turn an error in the midst of a body into its own.
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                await _explained(LlmRequestError.too_large(MAX_BODY), status=413)(scope, receive, send)
                return
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        pending = [message if message["type"] != "http.request" else {"type": "http.request", "body": body}]

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replayed, send)
