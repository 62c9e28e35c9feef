"""The way a bank is served and stopped: one uvicorn server, in one process, that ends with status 0 when it is told to.

SIGTERM or SIGINT: no new connections; streams that would last for ever end; what runs is given a few seconds; then
the application's lifespan ends. Nothing is re-raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from distribank.api.connections import KEEP_ALIVE, Crowd, connections_of
from distribank.api.edge import Edge
from distribank.breakages import Misconfigured

log = logging.getLogger("distribank.api")

DRAIN: Final = 5
"""Seconds that requests under way may take once the bank is told to stop."""

BACKLOG: Final = 2_048
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """uvicorn's server, which calls *on_stop* when it is told to stop, and does not pass the signal on."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take the signals through the loop, so that what they start runs between two steps of it."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if not self.should_exit:
            log.info("told to stop by %s", signal.Signals(sig).name)
            self._on_stop()
        super().handle_exit(sig, frame)


async def serve(app: FastAPI, host: str, port: int) -> int:
    """Serve *app* until SIGTERM or SIGINT, then return 0. Raises ``Misconfigured`` if the port cannot be had.

    The application's lifespan is entered once the port is bound, and left when the last request has been answered
    (or given up after ``DRAIN`` seconds); what it raises is raised here.
    """
    with bind(host, port) as listening:
        return await serve_on(listening, app)


async def serve_on(listening: socket.socket, app: FastAPI) -> int:
    """The same on a socket that is bound already."""
    edge = app.state.edge
    assert isinstance(edge, Edge), "serve() takes what create_app() made"
    crowd = Crowd(edge.settings.max_connections)
    config = configured(app, connections_of(crowd))
    async with app.router.lifespan_context(app):
        await Server(config, edge.stopping.set).serve(sockets=[listening])
    return 0


def configured(app: ASGIApp, http: type[HttpToolsProtocol]) -> uvicorn.Config:
    """uvicorn as a bank has it, on an event loop that is there already; *http* is the protocol of its connections."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DRAIN,
        backlog=BACKLOG,
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address, not listening yet; raises ``Misconfigured`` with what to do about it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host} port {port}: {error.strerror}; stop whatever uses it, or set DISTRIBANK_PORT "
            "(and the address in the network file) to a free one"
        ) from None
    return listening


def run(serving: Coroutine[Any, Any, int]) -> int:
    """Run *serving* to its end on uvloop, the event loop that a bank is served on; its exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serving)
