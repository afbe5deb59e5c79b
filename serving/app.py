"""Which routes are there? FastAPI over the service: typed in, typed out, every refusal with code, message and fix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from lakehouse.errors import MillraceError
from models.errors import ArtifactError, RegistryAwayError, RegistryError
from models.use import intended_use
from serving.errors import NotReadyError, RequestRefusedError
from serving.page import page, policy
from serving.schemas import (
    DeploymentStatus,
    ExplainRequest,
    ExplainResponse,
    FeedbackRequest,
    FeedbackResponse,
    Health,
    Problem,
    RecommendRequest,
    RecommendResponse,
    RollbackRequest,
    SimilarRequest,
    SimilarResponse,
    StageRequest,
    SwitchRequest,
)
from serving.security import UNFORESEEN, Guard, Limits
from serving.service import Service

_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body is no JSON.",
        401: "No valid key.",
        404: "No such item, model version or route.",
        405: "Another method.",
        409: "An event id used twice, or a deployment verb that can't be done now.",
        413: "The body is too large.",
        422: "A value can't be used.",
        429: "Too many requests.",
        503: "Something that is needed does not answer.",
    }.items()
}


def create_app(service: Service, *, api_key: str | None, admin_key: str | None, open_access: bool) -> ASGIApp:
    """The application over an opened service; its lifespan starts and stops the service.

    Args:
        service: opened, not started.
        api_key, admin_key: what callers must send.
        open_access: ask for no API key. An admin key is asked for even so, if there is one.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Millrace",
        summary="Recommendations, reasons and feedback.",
        description=intended_use().markdown(),
        version="1",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        responses=_ANSWERS,
    )
    _public(app, service)
    _state(app, service)
    _admin(app, service)
    _problems(app)
    _with_keys(app)
    settings = service.settings
    paths = {str(getattr(route, "path", "")) for route in app.routes}
    return Guard(
        app,
        api_key=api_key,
        admin_key=admin_key,
        open_access=open_access,
        limits=Limits(settings.rate_per_second, settings.rate_burst, settings.max_body_bytes),
        metrics=service.metrics,
        route_of=lambda path: path if path in paths else "other",
    )


def _public(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", response_model=RecommendResponse, tags=["recommendations"])
    async def recommend(request: RecommendRequest) -> Response:
        """The best items for a user or a session, as known this moment: events of a second ago count."""
        answer = await service.recommend(request)
        # Written out here: FastAPI would take the answer apart and validate what was just made.
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/similar", tags=["recommendations"])
    async def similar(request: SimilarRequest) -> SimilarResponse:
        """Items that go with one item."""
        return service.similar(request)

    @app.post("/explain", tags=["recommendations"])
    async def explain(request: ExplainRequest) -> ExplainResponse:
        """A reason in words by the language model, which cites only what the user has met."""
        return await service.explain(request)

    @app.post("/feedback", tags=["feedback"])
    async def feedback(request: FeedbackRequest) -> FeedbackResponse:
        """What was shown, clicked and rated. Answered when all of it is on the disk; safe to send again."""
        return await service.take(request)


def _state(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["state"])
    async def health() -> Health:
        """Whether the process lives, and what it does without."""
        return service.health()

    @app.get("/ready", tags=["state"])
    async def ready() -> Health:
        """Answers 200 while requests can be answered, 503 before and after."""
        if not service.ready:
            raise NotReadyError.because("The service is starting or stopping.")
        return service.health()

    @app.get("/users", tags=["state"])
    async def users(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[int]:
        """Some users with a history."""
        return service.users(limit)

    @app.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """What Prometheus scrapes."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page(), headers={"content-security-policy": policy()})


def _admin(app: FastAPI, service: Service) -> None:
    deployments = service.deployments

    @app.get("/admin/status", tags=["admin"])
    async def status() -> DeploymentStatus:
        """What answers, what waits, and the last comparison."""
        return deployments.status()

    @app.post("/admin/stage", tags=["admin"])
    async def stage(request: StageRequest) -> DeploymentStatus:
        """Load a registered model beside the one that answers, and replay the last requests on both."""
        return await deployments.stage(request.model)

    @app.post("/admin/switch", tags=["admin"])
    async def switch(request: SwitchRequest) -> DeploymentStatus:
        """Let the staged model answer."""
        return await deployments.switch(canary=request.canary, force=request.force)

    @app.post("/admin/rollback", tags=["admin"])
    async def rollback(request: RollbackRequest) -> DeploymentStatus:
        """Go back to the model before."""
        return await deployments.rollback(request.reason)


def _problems(app: FastAPI) -> None:
    """Everything that is refused, in one form; nothing of what was sent is sent back beyond field names."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, MillraceError)
        return _problem(status_of(error), error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = [f"{'.'.join(str(part) for part in one['loc'][1:]) or 'body'}: {one['msg']}" for one in error.errors()]
        return _problem(422, RequestRefusedError.invalid(found))

    async def route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refused = (
            RequestRefusedError.body()
            if error.status_code == 400
            else RequestRefusedError.route(error.status_code, request.method, request.url.path[:100])
        )
        return _problem(error.status_code, refused, dict(error.headers or {}))

    async def unforeseen(_: Request, __: Exception) -> Response:
        return Response(UNFORESEEN, 500, media_type="application/json")  # the guard logs what it was

    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(MillraceError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, route)


def status_of(error: MillraceError) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, RequestRefusedError):
        return error.http
    if isinstance(error, RegistryError):
        return 503 if isinstance(error, RegistryAwayError) else 404
    if isinstance(error, ArtifactError):
        return 409
    status = getattr(error, "status", 503)
    return status if isinstance(status, int) else 503


def _problem(status: int, error: MillraceError, headers: dict[str, str] | None = None) -> Response:
    problem = Problem(code=error.code, message=error.message, fix=error.fix)
    return Response(problem.model_dump_json(), status, headers, media_type="application/json")


def _with_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document which key opens what; the guard in front asks for it."""
    document = app.openapi()
    document["components"]["securitySchemes"] = {
        "api": {"type": "http", "scheme": "bearer", "description": "MILLRACE_API_KEY"},
        "admin": {"type": "http", "scheme": "bearer", "description": "MILLRACE_ADMIN_KEY"},
    }
    for path, methods in document["paths"].items():
        if path not in ("/health", "/ready"):
            for method in methods.values():
                method["security"] = [{"admin" if path.startswith("/admin") else "api": []}]
    app.openapi_schema = document
