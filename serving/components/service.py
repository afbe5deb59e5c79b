"""What runs when the language model is served? vLLM's server as a child, watched, and an application before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lakehouse.lake import Lakehouse
from lakehouse.ledger import LEDGER_FOLDER
from lakehouse.tables import Movie
from models.llm.component import Component
from models.llm.errors import EngineStartError, ListenError
from models.llm.explain import explain
from models.llm.movie_card import MOVIE_CARD
from models.llm.store import ResponseStore
from models.llm.titles import Catalogue
from models.llm.weights import ModelRef
from serving.components.answers import Answers
from serving.components.client import VllmClient
from serving.components.metrics import Metrics
from serving.components.server import ServerConfig, VllmServer

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Seconds between looks at the child, and starts after which one more failure ends the service.
_WATCH, _RESTARTS = 1.0, 3

log = logging.getLogger(__name__)


def served_components(lake: Lakehouse) -> list[Component[BaseModel, BaseModel]]:
    """What can be asked online; answers may name movies of the catalogue only where the question does."""
    catalogue = Catalogue(movie.title for movie in lake.latest(Movie).rows())
    return [MOVIE_CARD, explain(catalogue)]  # type: ignore[list-item]  # each endpoint has its own types


def serve(
    lake: Lakehouse,
    model: ModelRef,
    *,
    host: str,
    port: int,
    max_waiting: int,
    timeout: float,
    config: ServerConfig,
    announce: Callable[[str], None],
) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); then everything that was started is stopped.

    Args:
        announce: called with the service's URL when it answers.

    Raises:
        ListenError: host and port can't be had.
        EngineStartError: vLLM's server does not come up.
        ModelFolderError, StorageError, UnknownTableError: before anything is started.
    """
    import uvicorn

    components = served_components(lake)
    store = ResponseStore(f"{lake.root}/{LEDGER_FOLDER}/llm_responses")
    with _listening(host, port) as listener, VllmServer(model, config) as server:
        app = application(
            components,
            model,
            server.url,
            store,
            max_waiting=max_waiting,
            timeout=timeout,
            watch=lambda client, metrics: _keep_running(server, client, metrics),
        )
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
        announce(f"http://{host}:{listener.getsockname()[1]}")
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """The socket first: a port that is taken is said at once, and not after vLLM has started."""
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise ListenError.on(host, port, error.strerror or str(error)) from error


def application(
    components: Sequence[Component[BaseModel, BaseModel]],
    model: ModelRef,
    url: str,
    store: ResponseStore,
    *,
    max_waiting: int,
    timeout: float,
    watch: Callable[[VllmClient, Metrics], Awaitable[None]] | None = None,
) -> FastAPI:
    """The application in front of vLLM's server at ``url``; ``watch`` runs beside it for as long as it does."""
    from serving.components.app import make_app

    metrics = Metrics()
    client = VllmClient(url, timeout=timeout)
    answers = Answers(model, client, store, metrics, max_waiting=max_waiting, timeout=timeout)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await answers.start([component.name for component in components])
        beside = asyncio.ensure_future(watch(client, metrics)) if watch else None
        try:
            yield
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
            await answers.close()
            await client.close()

    return make_app(
        components, answers, metrics, healthy=client.healthy, engine_metrics=client.metrics, lifespan=lifespan
    )


async def _keep_running(server: VllmServer, client: VllmClient, metrics: Metrics) -> None:
    """Start vLLM again when it has ended; meanwhile what was answered before is still answered."""
    for _ in range(_RESTARTS):
        while server.running:
            await asyncio.sleep(_WATCH)
        log.error("vLLM ended (%s); it is started again", server.last_words())
        metrics.restarts.inc()
        await asyncio.to_thread(server.stop)  # what it may have left running
        with contextlib.suppress(EngineStartError):
            await asyncio.to_thread(server.start)
            client.move(server.url)
    log.error("vLLM ended %d times; it is not started again", _RESTARTS)
