"""httpx's transport between banks, against real servers that answer as they should, oddly, late, or not at all."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from distribank.peers import transport
from distribank.peers.transport import Transport

MAX_BODY = 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Seen: a\r\nx-seen: b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: c\r\n\r\n"

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Answering = Callable[[Writer], Awaitable[object]]


class Server:
    """Answers each request by *answering*; counts connections, keeps what arrived, tells of questions and of ends."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.requests: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self.serving: list[asyncio.Task[None] | None] = []
        self.url = ""

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self.serving.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.asked.set()
                await self.answering(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def serving(answering: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answering)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        scheme = "https" if tls else "http"
        server.url = f"{scheme}://localhost:{listening.sockets[0].getsockname()[1]}/bank"
        yield server
        async with asyncio.timeout(5):
            await asyncio.gather(*filter(None, server.serving))


def saying(*parts: bytes, then: str = "wait") -> Answering:
    """Say *parts*, each by itself; then wait for the next request, or *close*."""

    async def answer(writer: Writer) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if then == "close":
            writer.close()

    return answer


def endless(first: bytes, part: bytes) -> Answering:
    """Say *first*, then *part* for ever."""

    async def answer(writer: Writer) -> None:
        writer.write(first)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()

    return answer


@asynccontextmanager
async def sending(context: ssl.SSLContext | None = None) -> AsyncIterator[Transport]:
    async with Transport(1.0, MAX_BODY, context) as sender:
        yield sender


async def post(sender: Transport, url: str, body: bytes = b"{}") -> tuple[int, bytes]:
    request = httpx.Request("POST", url, content=body, headers={"x-one": "1"})
    async with asyncio.timeout(10):
        response = await sender.handle_async_request(request)
        return response.status_code, await response.aread()


# Answers ----------------------------------------------------------------------------------------------------------


async def test_a_request_leaves_as_it_was_made_and_its_answer_comes_back_whole() -> None:
    async with serving(saying(OK)) as server, sending() as sender:
        request = httpx.Request("POST", f"{server.url}/a%20b?c=d", content=b'{"e":1}', headers={"x-one": "1"})
        response = await sender.handle_async_request(request)
        assert (response.status_code, await response.aread()) == (200, b"hello")
        assert response.headers.raw == [(b"Content-Length", b"5"), (b"X-Seen", b"a"), (b"x-seen", b"b")]
        host = server.url.split("/")[2]
        assert server.requests == [
            f'POST /bank/a%20b?c=d HTTP/1.1\r\nHost: {host}\r\nx-one: 1\r\nContent-Length: 7\r\n\r\n{{"e":1}}'.encode()
        ]


@pytest.mark.parametrize(
    "answering",
    [
        saying(CHUNKED),
        saying(*[bytes([each]) for each in CHUNKED]),
        saying(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK),
        saying(b"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\n", b"he", b"llo"),
    ],
    ids=["chunked", "byte by byte", "announced", "in pieces"],
)
async def test_an_answer_is_read_however_it_arrives_and_its_connection_used_again(answering: Answering) -> None:
    async with serving(answering) as server, sending() as sender:
        for _ in range(3):
            assert await post(sender, server.url) == (200, b"hello")
        assert server.connections == 1


async def test_a_large_body_travels_both_ways() -> None:
    large = b"x" * MAX_BODY
    head = b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % MAX_BODY
    async with serving(saying(head + large)) as server, sending() as sender:
        assert await post(sender, server.url, large * 40) == (500, large)
        assert len(server.requests[0]) > MAX_BODY * 40


# Connections ------------------------------------------------------------------------------------------------------


async def test_two_requests_at_once_take_two_connections() -> None:
    async with serving(saying(OK)) as server, sending() as sender:
        for _ in range(3):
            assert await asyncio.gather(*[post(sender, server.url) for _ in range(2)]) == [(200, b"hello")] * 2
        assert server.connections == 2


@pytest.mark.parametrize(
    "answering",
    [
        saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"),
        saying(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        saying(OK, then="close"),
        saying(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
        saying(OK + b"and more"),
        saying(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
    ],
    ids=["told to close", "of another version", "closed", "a second answer", "a tail", "a late second answer"],
)
async def test_a_connection_that_cannot_be_trusted_to_be_at_rest_is_not_used_again(answering: Answering) -> None:
    async with serving(answering) as server, sending() as sender:
        for number in range(1, 4):
            assert await post(sender, server.url) == (200, b"hello")
            await asyncio.wait_for(server.ended.wait(), 5)
            server.ended.clear()
            await asyncio.sleep(0.01)  # until the loop has seen what the other end did
            assert server.connections == number


async def test_a_connection_that_has_rested_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(saying(OK)) as server, sending() as sender:
        await post(sender, server.url)
        monkeypatch.setattr(transport, "MAX_REST_S", -1.0)
        await post(sender, server.url)
        await asyncio.wait_for(server.ended.wait(), 5)
        assert server.connections == 2


async def test_giving_up_on_an_answer_closes_its_connection() -> None:
    async with serving(saying(OK[:-1])) as server, sending() as sender:
        asking = asyncio.create_task(post(sender, server.url))
        await asyncio.wait_for(server.asked.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(server.ended.wait(), 5)
        server.answering = saying(OK)
        assert await post(sender, server.url) == (200, b"hello")


async def test_closing_closes_what_rests() -> None:
    async with serving(saying(OK)) as server:
        async with sending() as sender:
            await post(sender, server.url)
            assert not server.ended.is_set()
        await asyncio.wait_for(server.ended.wait(), 5)


# No answers -------------------------------------------------------------------------------------------------------

NO_ANSWERS = {
    "closed at once": saying(then="close"),
    "cut off in its head": saying(OK[:20], then="close"),
    "cut off in its body": saying(OK[:-1], then="close"),
    "cut off between chunks": saying(CHUNKED[:-22], then="close"),
    "without a length": saying(b"HTTP/1.1 200 OK\r\n\r\nhello", then="close"),
    "garbage": saying(b"\x16\x03\x01 what is this?\r\n\r\n"),
    "two lengths": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    "length and chunks": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + CHUNKED[17:]),
    "another protocol": saying(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI"),
    "a bad chunk": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
    "an endless header": endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 200),
    "endless announcements": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless chunks": endless(CHUNKED[:47], b"1\r\nx\r\n" * 100),
    "endless trailers": endless(CHUNKED[:-18], b"x: y\r\n" * 200),
    "an endless body": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 1000),
}


@pytest.mark.parametrize("answering", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_whole_answer_is_an_error_and_the_end_of_its_connection(answering: Answering) -> None:
    async with serving(answering) as server, sending() as sender:
        with pytest.raises(httpx.TransportError):
            await post(sender, server.url)
        await asyncio.wait_for(server.ended.wait(), 5)
        assert len(server.requests) == 1


async def test_a_request_that_failed_is_not_sent_again_by_itself() -> None:
    async with serving(saying(OK)) as server, sending() as sender:
        await post(sender, server.url)
        server.answering = saying(then="close")
        with pytest.raises(httpx.TransportError):
            await post(sender, server.url)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "url", ["http://localhost:1/", "http://no-such-host.invalid/", "http://a..b/", f"http://{'a' * 70}.test/"]
)
async def test_nobody_there_is_an_error_that_names_the_host(url: str) -> None:
    async with sending() as sender:
        with pytest.raises(httpx.ConnectError, match=httpx.URL(url).host):
            await post(sender, url)


# https ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for ``localhost`` which nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_https_is_spoken_with_whom_a_certificate_vouches_for_and_with_nobody_else(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with serving(saying(OK), tls) as server:
        async with sending(ssl.create_default_context(cafile=str(certificate))) as sender:
            assert await post(sender, server.url) == (200, b"hello")
            assert await post(sender, server.url) == (200, b"hello")
            assert server.connections == 1
            with pytest.raises(httpx.ConnectError, match=r"127\.0\.0\.1"):
                await post(sender, server.url.replace("localhost", "127.0.0.1"))
        async with sending() as sender:
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                await post(sender, server.url)
        assert len(server.requests) == 2
