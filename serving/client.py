"""How does Python ask the service? Typed requests in, typed answers out, every refusal as an error with a way out.

with Client() as client:
    answer = client.recommend(RecommendRequest(user_id=196))
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from serving.errors import ServiceUnreachableError
from serving.schemas import (
    DeploymentStatus,
    ExplainRequest,
    ExplainResponse,
    FeedbackEvent,
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
from serving.settings import ServingSettings

Answer = TypeVar("Answer", bound=BaseModel)

_PROBLEM = TypeAdapter(Problem)


class Client:
    """A connection to the service; every call may raise ServiceUnreachableError.

    Args:
        url: where it listens; default: MILLRACE_SERVING_URL.
        api_key: default: as the settings have it.
        admin_key: for the deployment verbs; default: as the settings have it.
        timeout: seconds that an answer may take; staging a model takes some.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        settings = ServingSettings()
        own_api, own_admin = settings.keys()
        self.url = (url or settings.serving_url).rstrip("/")
        self._keys = (api_key or own_api, admin_key or own_admin)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """The best items for a user or a session."""
        return self._ask("POST", "/recommend", RecommendResponse, request)

    def similar(self, request: SimilarRequest) -> SimilarResponse:
        """Items that go with one."""
        return self._ask("POST", "/similar", SimilarResponse, request)

    def explain(self, request: ExplainRequest) -> ExplainResponse:
        """A reason in words."""
        return self._ask("POST", "/explain", ExplainResponse, request)

    def feedback(self, events: list[FeedbackEvent]) -> FeedbackResponse:
        """Send events; when this returns they are on the service's disk. Safe to repeat."""
        return self._ask("POST", "/feedback", FeedbackResponse, FeedbackRequest(events=events))

    def health(self) -> Health:
        """What works and what does not."""
        return self._ask("GET", "/health", Health)

    def metrics(self) -> str:
        """The service's metrics, as Prometheus reads them."""
        return self._answer("GET", "/metrics", None).text

    def status(self) -> DeploymentStatus:
        """What answers and what waits."""
        return self._ask("GET", "/admin/status", DeploymentStatus)

    def stage(self, model: str = "champion") -> DeploymentStatus:
        """Load a registered model beside the one that answers."""
        return self._ask("POST", "/admin/stage", DeploymentStatus, StageRequest(model=model))

    def switch(self, *, canary: float | None = None, force: bool = False) -> DeploymentStatus:
        """Let the staged model answer."""
        return self._ask("POST", "/admin/switch", DeploymentStatus, SwitchRequest(canary=canary, force=force))

    def rollback(self, reason: str) -> DeploymentStatus:
        """Go back to the model before."""
        return self._ask("POST", "/admin/rollback", DeploymentStatus, RollbackRequest(reason=reason))

    def _ask(self, method: str, path: str, answer: type[Answer], request: BaseModel | None = None) -> Answer:
        got = self._answer(method, path, request)
        try:
            return answer.model_validate_json(got.content)
        except ValidationError:
            raise ServiceUnreachableError.no_answer(self.url, f"{path} is not answered as declared") from None

    def _answer(self, method: str, path: str, request: BaseModel | None) -> httpx.Response:
        key = self._keys[1 if path.startswith("/admin") else 0]
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        if request is not None:
            headers["content-type"] = "application/json"
        content = None if request is None else request.model_dump_json(exclude_unset=True)
        try:
            got = self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ServiceUnreachableError.no_answer(self.url, type(error).__name__) from error
        if got.status_code >= 400:
            try:
                problem = _PROBLEM.validate_json(got.content)
            except ValidationError:
                raise ServiceUnreachableError.no_answer(self.url, f"{path} answers {got.status_code}") from None
            raise ServiceUnreachableError.refused(self.url, got.status_code, problem.message, problem.fix)
        return got
