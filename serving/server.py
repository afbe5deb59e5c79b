"""How is the service run? One uvicorn process; it listens on the loopback address unless told otherwise."""

from __future__ import annotations

import gc
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from serving.errors import ServingConfigError
from serving.settings import ServingSettings


def keys(settings: ServingSettings, host: str, *, no_auth: bool) -> tuple[str | None, str | None]:
    """The API and the admin key to ask for. Raises ServingConfigError where that would leave the port open."""
    api, admin = settings.keys()
    if no_auth and not is_loopback(host):
        raise ServingConfigError.open_beyond_loopback(host)
    if api is None and not no_auth:
        raise ServingConfigError.no_key()
    return api, admin


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises ServingConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ServingConfigError.port(host, port, getattr(error, "strerror", None) or str(error)) from error
    return listening


def run(app: ASGIApp, listening: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A model that is loaded in a thread, or features that are read in one, must not hold up answers: the interpreter is
    # handed on after half a millisecond, not five.
    sys.setswitchinterval(0.0005)
    _Server(server_config(app), started).run([listening])


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves it: nothing of a request is written down, nothing is said of what serves."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # /metrics counts what was asked
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=30,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Models, catalogue and features stay; the collector need not go through them again while a request waits.
        gc.collect()
        gc.freeze()
        if not self.should_exit:
            self._told()
