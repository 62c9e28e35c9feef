"""Connections as a bank takes them from strangers: bounded in number, in the size of a header, and in time.

uvicorn's HTTP protocol on httptools, with the bounds that it does not set itself. Its own keep-alive time-out starts
anew with every byte, and no layer above sees a request before its header is whole: so time is kept here, per
connection. What passes a bound is closed, not answered with 503: a slow client is to learn nothing and hold nothing.

Closing a connection undoes nothing: what was ordered on it goes on without it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from distribank.api.problems import MEDIA_TYPE, Problem
from distribank.api.throttle import network_of

FIRST_BYTE: Final = 5.0
"""Seconds that a new connection may stay silent."""

WHOLE_REQUEST: Final = 10.0
"""Seconds from a request's first byte to its last."""

UNREAD_ANSWER: Final = 30.0
"""Seconds that a client may leave an answer unread while more of it waits."""

KEEP_ALIVE: Final = 65
"""Seconds that a connection may rest between requests."""

MAX_HEADER: Final = 32 * 1024
"""Bytes of a request's line and header together."""

MAX_BODY: Final = 5 * 1024 * 1024
"""Bytes of a body behind whose refusal the connection ends: no address takes so much, and somebody is pouring."""

MAX_NEWCOMERS: Final = 64
"""Connections of one address that have yet to send a whole request; those that are slow at it go first."""

NEWCOMERS_GRACE: Final = 1.0
"""Seconds for which a newcomer is never taken for slow: an honest client may open many connections at once."""


class Crowd:
    """All connections of one server, in the order in which they came or last began to rest."""

    def __init__(self, max_connections: int) -> None:
        self._max = max_connections
        self._everyone: OrderedDict[Connection, None] = OrderedDict()
        self._newcomers: dict[str, OrderedDict[Connection, float]] = {}

    def __len__(self) -> int:
        return len(self._everyone)

    def enter(self, connection: Connection, now: float) -> None:
        """A connection has come in; those that there is no room for are closed."""
        self._everyone[connection] = None
        newcomers = self._newcomers.setdefault(connection.address, OrderedDict())
        newcomers[connection] = now
        while len(newcomers) > MAX_NEWCOMERS:
            slowest, since = next(iter(newcomers.items()))
            if now - since < NEWCOMERS_GRACE:
                break
            self._close(slowest)
        while len(self._everyone) > self._max:
            self._close(next((one for one in self._everyone if not one.at_work), connection))

    def has_arrived(self, connection: Connection) -> None:
        """It has sent its first whole request."""
        newcomers = self._newcomers.get(connection.address)
        if newcomers is not None and newcomers.pop(connection, None) is not None and not newcomers:
            del self._newcomers[connection.address]

    def rests(self, connection: Connection) -> None:
        """It has had its answer: from now on it counts as the latest to rest."""
        if connection in self._everyone:
            self._everyone.move_to_end(connection)

    def leave(self, connection: Connection) -> None:
        """It is gone."""
        self._everyone.pop(connection, None)
        self.has_arrived(connection)

    def _close(self, connection: Connection) -> None:
        self.leave(connection)
        connection.transport.close()


class _Joining:
    """A transport that sends an answer's head together with its body, in one call of the system and not in two.

    Each call wakes whoever waits for it: measured, 60 µs of a lone transfer. What is written is held until the next
    write, or until this turn of the loop is over.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._send)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def _send(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One client's connection. ``crowd`` is set by the server, in a class of its own."""

    crowd: Crowd

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._receiving = False
        self._in_header = True
        self._header_size = 0
        self._body_size = 0

    @property
    def at_work(self) -> bool:
        """Whether an answer is being made or sent."""
        return self.cycle is not None and not self.cycle.response_complete

    # What arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Joining(transport, self.loop)))
        self.address = network_of(self.client[0]) if self.client else ""
        self.crowd.enter(self, self.loop.time())
        self._arm(FIRST_BYTE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self)
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        begins = not self._receiving
        if begins:
            self._receiving = True
        elif self._in_header:
            self._header_size += len(data)
            if self._header_size > MAX_HEADER:
                self._refuse_header()
                return
        super().data_received(data)
        # Most requests are whole by now, and need no timer. What a whole one left behind it has begun as well.
        if self._receiving and (begins or self._timer is None):
            self._arm(WHOLE_REQUEST)

    def on_message_begin(self) -> None:
        self._receiving = self._in_header = True
        self._header_size = self._body_size = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._header_size + len(self.url) > MAX_HEADER:
            self._refuse_header()
            return
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):  # RFC 9112, 3.2
            self._say_goodbye(Problem("malformed_request", "a request names its Host, once"))
            return
        self._in_header = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        self._body_size += len(body)
        if self._body_size > MAX_BODY and not self.at_work:
            self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        self._receiving, self._in_header = False, True
        self._disarm()
        self.crowd.has_arrived(self)
        super().on_message_complete()
        if not self.at_work:
            self._arm(KEEP_ALIVE)  # the answer went out before the body had come in; nothing else would end this rest

    # What leaves

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.crowd.rests(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(UNREAD_ANSWER, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem document, too, and the connection ends."""
        self._say_goodbye(Problem("malformed_request", msg))

    # Time

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Time is up, unless it is this bank that has stopped reading because an earlier request is at work."""
        if self.flow.read_paused or (self.at_work and not self._receiving):
            self._arm(WHOLE_REQUEST)
            return
        if self._receiving and self._in_header:
            self._say_goodbye(Problem("request_timeout", "the request took too long to arrive"))
        self.transport.close()

    def _refuse_header(self) -> None:
        self._say_goodbye(Problem("headers_too_large", f"at most {MAX_HEADER // 1024} KiB of header are taken"))

    def _say_goodbye(self, problem: Problem) -> None:
        """Answer without any application, and close. What the client still sends is not read."""
        if self.transport.is_closing():
            return
        response = problem.response()
        lines = [
            f"HTTP/1.1 {problem.status_code} {problem.title}",
            f"content-type: {MEDIA_TYPE}",
            f"content-language: {response.headers['content-language']}",
            f"vary: {response.headers['vary']}",
            f"content-length: {len(response.body)}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + bytes(response.body))
        self.transport.close()


def connections_of(crowd: Crowd) -> type[Connection]:
    """The protocol class of one server: uvicorn makes its connections by class, and each must know its crowd."""
    return type("CrowdedConnection", (Connection,), {"crowd": crowd})
