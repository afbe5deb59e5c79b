"""Who may ask, how much, and what goes out with every answer? One layer in front of all routes.

Keys are compared in constant time, as digests, so that their length shows neither. Bodies are measured before
anything reads them. Nothing of a request's headers is ever logged.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import RequestRefusedError
from serving.metrics import Metrics
from serving.schemas import Problem

#: Routes that need no key: what an orchestrator or a scraper on this machine asks, and the page itself.
OPEN = frozenset({"/", "/health", "/ready"})
#: Callers whose pace is remembered.
_CALLERS = 10_000

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
#: Of answers that are no page: nothing in them may load or run anything.
_CLOSED = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

log = logging.getLogger("millrace.serving")


class Limits(NamedTuple):
    """What one caller may send."""

    per_second: float
    burst: int
    max_body: int


class Guard:
    """ASGI layer: keys, pace, body size, headers, and the count of answers.

    Args:
        app: what answers.
        api_key, admin_key: None lets everybody ask: for the API only with ``open_access``, /admin is closed then
            unless it is open too.
        open_access: no key is asked for.
        route_of: the metric's label of a path.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        admin_key: str | None,
        open_access: bool,
        limits: Limits,
        metrics: Metrics,
        route_of: Callable[[str], str],
    ) -> None:
        self.app = app
        self._api, self._admin = _digest(api_key), _digest(admin_key)
        self._open, self._limits, self._metrics, self._route_of = open_access, limits, metrics, route_of
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        path: str = scope["path"]
        route = self._route_of(path)
        status = 500
        begun = False

        async def answering(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                own = {name for name, _ in message["headers"]}
                extra = HEADERS if b"content-security-policy" in own else (*HEADERS, _CLOSED)
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            try:
                self._admit(scope, path)
                await self.app(scope, await _measured(receive, scope, self._limits.max_body), answering)
            except RequestRefusedError as refused:
                if not begun:
                    await _refuse(answering, refused, self._limits)
            except Exception as error:  # the answer says no more than that something failed; the log says what
                log.error("%s %s failed: %s", scope["method"], route, type(error).__name__, exc_info=error)
                if not begun:
                    await _send(answering, 500, UNFORESEEN, [])
        finally:
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    def _admit(self, scope: Scope, path: str) -> None:
        """Raises RequestRefusedError."""
        if self._open and not _local(scope):
            raise RequestRefusedError.host()  # a page elsewhere could make a browser ask under a name of its own
        if path in OPEN:
            return
        client = scope.get("client")
        given = _bearer(scope)
        caller = client[0] if client else ""
        if not self._open:
            wanted = self._admin if path.startswith("/admin") else self._api
            # A wrong key costs pace as well, or it could be guessed at any speed.
            if wanted is None or given is None or not hmac.compare_digest(given, wanted):
                self._pace(f"refused {caller}")
                raise RequestRefusedError.unauthorized()
            caller = given.hex() if given is not None else caller
        elif (
            path.startswith("/admin")
            and self._admin is not None
            and (given is None or not hmac.compare_digest(given, self._admin))
        ):
            self._pace(f"refused {caller}")
            raise RequestRefusedError.unauthorized()
        self._pace(caller)

    def _pace(self, caller: str) -> None:
        """A token bucket a caller (RFC 2697 in spirit): refilled by time, a request takes one."""
        now = time.monotonic()
        tokens, then = self._buckets.pop(caller, (float(self._limits.burst), now))
        tokens = min(float(self._limits.burst), tokens + (now - then) * self._limits.per_second)
        enough = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if enough else tokens, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        if not enough:
            raise RequestRefusedError.too_many(self._limits.per_second)


async def _measured(receive: Receive, scope: Scope, limit: int) -> Receive:
    """The body, once it is known to be within the limit: by its header, which the server keeps it to, or by reading."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), None)
    if declared is not None and declared.isdigit():
        if int(declared) > limit:
            raise RequestRefusedError.too_large(limit)
        return receive
    messages: list[Message] = []
    taken = 0
    while not messages or (messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False)):
        messages.append(await receive())
        taken += len(messages[-1].get("body", b""))
        if taken > limit:
            raise RequestRefusedError.too_large(limit)
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return again


async def _refuse(send: Send, refused: RequestRefusedError, limits: Limits) -> None:
    extra = []
    if refused.http == 429:
        extra.append((b"retry-after", str(math.ceil(1 / limits.per_second)).encode()))
    if refused.http == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if refused.http == 413:
        extra.append((b"connection", b"close"))
    problem = Problem(code=refused.code, message=refused.message, fix=refused.fix)
    await _send(send, refused.http, problem.model_dump_json().encode(), extra)


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


UNFORESEEN = json.dumps(
    {
        "code": "MR-ERROR",
        "message": "The request could not be answered.",
        "fix": "Look into the service's log; send the request again later.",
    }
).encode()


def _local(scope: Scope) -> bool:
    """Whether the request's Host header names this machine."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name in ("127.0.0.1", "localhost", "::1")


def _bearer(scope: Scope) -> bytes | None:
    """The digest of the bearer token; None if there is none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return hashlib.sha256(token.strip()).digest() if scheme.lower() == b"bearer" and token.strip() else None
    return None


def _digest(key: str | None) -> bytes | None:
    return None if key is None else hashlib.sha256(key.encode()).digest()
