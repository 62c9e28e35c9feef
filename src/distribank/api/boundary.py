"""The outermost layer of an application: readiness, the size of bodies, and what happens when there is a bug.

Plain ASGI, because it stands in the way of every request.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distribank.api.edge import EDGE, Edge
from distribank.api.languages import wanted_by
from distribank.api.network import not_ready
from distribank.api.problems import Problem, nothing_there
from distribank.breakages import TELLING

log = logging.getLogger("distribank.api")

MAX_BODY: Final = 64 * 1024
MAX_LARGE_BODY: Final = 4 * 1024 * 1024
LARGE: Final = ("/v1/transfer-batches", "/interbank/")
"""Where a body may have 4 MiB; everywhere else it has 64 KiB."""

BEFORE_READINESS: Final = (
    "/livez",
    "/healthz",
    "/readyz",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/static/",
    "/interbank/",
)
"""What is served whether or not the bank is ready; the interbank routes know themselves what may be said before."""


class Boundary:
    """One application behind its limits; *plain* takes requests past it, by method and path."""

    def __init__(self, app: ASGIApp, plain: Mapping[tuple[str, str], ASGIApp], edge: Edge) -> None:
        self._app = app
        self._plain = plain
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Nothing that an endpoint raises goes further than this."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[EDGE] = self._edge
        path: str = scope["path"]
        if not self._edge.bank.ready and not path.startswith(BEFORE_READINESS):
            await not_ready(self._edge.bank.restoring.awaited).response(path, wanted_by(scope))(scope, receive, send)
            return
        if path.endswith("\n"):  # a route's pattern would match in front of it, and two addresses be one
            await nothing_there().response(path, wanted_by(scope))(scope, receive, send)
            return
        limit = MAX_LARGE_BODY if path.startswith(LARGE) else MAX_BODY
        if _announced(scope) > limit:
            await _too_large(limit).response(path, wanted_by(scope))(scope, receive, send)
            return
        answered = ended = False
        head = scope["method"] == "HEAD"
        if head:  # answered as GET is, without the body (RFC 9110, 9.3.2)
            scope = {**scope, "method": "GET"}

        async def watched_send(message: Message) -> None:
            nonlocal answered, ended
            answered = True
            if head and message["type"] == "http.response.body":
                if not ended:
                    ended = True
                    await send({"type": "http.response.body", "body": b""})
                return
            await send(message)

        app = self._plain.get((scope["method"], path), self._app)
        # One of the two broad excepts (language.md): a bug in one request must end neither the others nor in a
        # traceback at the client's.
        try:
            await app(scope, _Counting(receive, limit), watched_send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if answered:
                raise
            await _cut_short().response(path, wanted_by(scope))(scope, receive, send)
        except Exception as bug:
            _log(scope, bug)
            if answered:
                raise
            problem = Problem("internal_error", "this is a bug of the bank's; its log says where")
            await problem.response(path, wanted_by(scope))(scope, receive, send)


class _Counting:
    """A request's body as it arrives, refused as soon as it is larger than *limit* bytes, however it is framed."""

    __slots__ = ("_left", "_limit", "_receive")

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._left = limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._limit)
        return message


def _announced(scope: Scope) -> int:
    """The body's length as the request announces it, 0 if it does not."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else MAX_LARGE_BODY + 1
    return 0


def _cut_short() -> Problem:
    """What a client hears whose request was given up because the bank stops. What it ordered goes on without it."""
    return Problem("outcome_unknown", "this bank is stopping; ask again in a moment, with the same idempotency key")


def _too_large(limit: int) -> Problem:
    return Problem("body_too_large", f"at most {limit // 1024} KiB are taken here")


def _log(scope: Scope, bug: Exception) -> None:
    """Say where it happened, without anything that came with the request."""
    words = str(bug) if isinstance(bug, TELLING) else "(words withheld)"
    places = "".join(traceback.format_tb(bug.__traceback__)[-12:])
    log.error("bug in %s: %s %s\n%s", scope["method"], type(bug).__qualname__, words, places)
