"""How httpx reaches other banks: HTTP/1.1 on an asyncio protocol, parsed by httptools, and no more than banks need.

A connection carries one request at a time and rests in between. Nothing is ever sent twice here: an exchange ends in
one whole answer or in an ``httpx.TransportError``, and whoever asked knows what may be said again. Answers have bounds;
how long an exchange may take is for its caller to limit, by cancelling it. There are no proxies, redirects or cookies.

httpx's own transport does all of this and much more, at four times the cost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final, cast

import httptools
import httpx

MAX_HEAD: Final = 64 * 1024
"""Bytes of an answer before its body."""
MAX_REST_S: Final = 30.0
"""How long a connection may have rested when it is used again; a bank closes its side after 65 seconds."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""


class Transport(httpx.AsyncBaseTransport):
    """Makes connections as they are needed, and keeps them.

    *connect_timeout*, in seconds, is for all addresses of a host together. *max_body* bounds an answer's body, in bytes
    as they travel, give or take what one read brings. *context* is for https; by default it trusts whom httpx trusts.
    """

    def __init__(self, connect_timeout: float, max_body: int, context: ssl.SSLContext | None = None) -> None:
        self._connect_timeout = connect_timeout
        self._max_body = max_body
        self._context = context
        self._resting: dict[Origin, list[_Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, body = request.url, await request.aread()
        origin = url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
        head = b"".join([b"%b: %b\r\n" % header for header in request.headers.raw])
        text = b"%b %b HTTP/1.1\r\n%b\r\n%b" % (request.method.encode(), url.raw_path, head, body)
        connection = self._rested(origin) or await self._connect(*origin)
        response = await connection.exchange(text)
        if connection.open:
            self._resting.setdefault(origin, []).append(connection)
        return response

    async def aclose(self) -> None:
        for connections in self._resting.values():
            for connection in connections:
                connection.close()
        self._resting.clear()

    def _rested(self, origin: Origin) -> _Connection | None:
        """The connection that has rested least, unless that was too long or its other end is known to be gone."""
        resting = self._resting.get(origin, [])
        earliest = asyncio.get_running_loop().time() - MAX_REST_S
        while resting:
            connection = resting.pop()
            if connection.open and connection.used_at >= earliest:
                return connection
            connection.close()
        return None

    async def _connect(self, scheme: str, host: str, port: int) -> _Connection:
        """A connection to the first address of *host* that takes one; each has its share of the time."""
        loop, why = asyncio.get_running_loop(), "it has no address"
        tls: dict[str, Any] = {"ssl": self._trust(), "server_hostname": host} if scheme == "https" else {}
        try:
            async with asyncio.timeout(self._connect_timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # what can be no name at all is a UnicodeError
            raise httpx.ConnectError(f"{host}: {error or 'its address was not found in time'}") from error
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        for address in addresses:
            try:
                async with asyncio.timeout(self._connect_timeout / len(addresses)):
                    made = await loop.create_connection(lambda: _Connection(self._max_body), address, port, **tls)
                return made[1]
            except OSError as error:
                why = str(error) or "no connection in time"
        raise httpx.ConnectError(f"{host} port {port}: {why}")

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = httpx.create_ssl_context(trust_env=False)
        return self._context


class _Connection(asyncio.Protocol):
    """One connection. Whatever arrives while nothing is asked closes it, and so does an exchange that is broken off."""

    def __init__(self, max_body: int) -> None:
        self.open = True
        self.used_at = 0.0
        """When, in the loop's time, its last answer was whole."""
        self._max_body = max_body
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[httpx.Response] | None = None

    async def exchange(self, text: bytes) -> httpx.Response:
        """Send the request *text* and return its answer, whole; raises ``httpx.TransportError``."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._allowed = MAX_HEAD
        self._transport.write(text)
        try:
            return await self._answer
        except (httpx.TransportError, asyncio.CancelledError):
            self.close()
            raise
        finally:
            self._answer = None
            self.used_at = loop.time()

    def close(self) -> None:
        """At once: nothing that may still wait to be sent is."""
        self.open = False
        self._transport.abort()

    def _fail(self, why: str) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(httpx.RemoteProtocolError(why))

    # What asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"its answer is not HTTP/1.1: {error}")
        self._allowed -= len(data)
        if self._allowed < 0:
            self._fail("an answer beyond all bounds")

    def eof_received(self) -> None:
        self._fail("the connection was closed before an answer had come")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(str(error or "the connection was closed"))

    # What httptools calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # behind the answer stands what nobody asked for
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what stands behind the body counts for nothing
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._parser.get_status_code() >= 200:
            self._allowed += self._max_body

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return
        stream = httpx.ByteStream(bytes(self._body))
        self._answer.set_result(httpx.Response(status, headers=self._headers, stream=stream))
        if not self._parser.should_keep_alive():
            self.close()
