"""The network of ``distribank torture``: each direction of its own, whole requests lost, late and repeated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from distribank.network.layout import HOST
from distribank.network.processes import free_base_port
from distribank.torture import links as rooms
from distribank.torture.links import BROKEN, SILENT, Links, Weather
from tests.processes import SLOW_MACHINE_S, until

A, B = "99990001", "99990002"


@dataclass
class Bank:
    """What stands in a bank's place: it keeps what it is sent, and answers with it."""

    port: int
    got: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await rooms._read(reader):
            body = request.partition(b"\r\n\r\n")[2]
            self.got.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.close()


@asynccontextmanager
async def network() -> AsyncIterator[tuple[Links, dict[str, Bank], dict[str, str]]]:
    """The links of two banks, the banks, and the address of each one's proxy."""
    base = free_base_port(4)
    banks = {A: Bank(base), B: Bank(base + 1)}
    servers = [await asyncio.start_server(bank.serve, HOST, bank.port) for bank in banks.values()]
    places = {A: ((HOST, base + 2), (HOST, base)), B: ((HOST, base + 3), (HOST, base + 1))}
    async with Links(places, random.Random(1)) as links:  # noqa: S311
        yield (
            links,
            banks,
            {code: f"http://{HOST}:{port}/interbank/v1/prepare" for code, ((_host, port), _own) in places.items()},
        )
    for server in servers:
        server.close()


async def send(url: str, sender: str, body: bytes, *, within: float = 0.3) -> bytes | None:
    """What comes back; ``None`` if nothing does."""
    headers = {"signature-input": f'db=("@method");created=1;keyid="{sender}:1";alg="ed25519"'}
    async with httpx.AsyncClient(trust_env=False, timeout=within) as client:
        try:
            return (await client.post(url, content=body, headers=headers)).content
        except httpx.HTTPError:
            return None


async def test_what_nothing_befalls_passes_as_it_is() -> None:
    async with network() as (links, banks, urls):
        body = bytes(range(256)) * 400
        assert await send(urls[B], A, body, within=SLOW_MACHINE_S) == body
        assert banks[B].got == [body]
        assert links.met == {"requests": 1}


@pytest.mark.parametrize("weather", [SILENT, BROKEN])
async def test_a_direction_is_cut_while_the_other_one_works(weather: Weather) -> None:
    """What A says does not arrive; what B asks does, and A's answer does not."""
    async with network() as (links, banks, urls):
        links.worsen([(A, B)], weather)
        assert await send(urls[B], A, b"from A") is None
        assert await send(urls[A], B, b"from B") is None

        async def arrived() -> bool:
            return banks[A].got == [b"from B"]

        await until(arrived, "what B asks has arrived")
        assert banks[B].got == []

        links.mend([(A, B)], weather)
        assert await send(urls[B], A, b"from A", within=SLOW_MACHINE_S) == b"from A"


async def test_a_request_is_repeated_on_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "REPEAT_SECONDS", (0.0, 0.1))
    async with network() as (links, banks, urls):
        links.worsen([(A, B)], Weather(repeated=1.0))
        assert await send(urls[B], A, b"once", within=SLOW_MACHINE_S) == b"once"

        async def twice() -> bool:
            return banks[B].got == [b"once", b"once"]

        await until(twice, "it has arrived twice")


async def test_a_late_request_arrives_behind_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, go_on = asyncio.Event(), asyncio.Event()

    async def behind_the_second(self: Links, *told: Any) -> None:
        kept.set()
        await go_on.wait()
        await deliver(self, *told)

    deliver = Links._deliver_again
    monkeypatch.setattr(Links, "_deliver_again", behind_the_second)
    monkeypatch.setattr(rooms, "LATE_SECONDS", (0.0, 0.1))
    async with network() as (links, banks, urls):
        late = Weather(late=1.0)
        links.worsen([(A, B)], late)
        first = asyncio.create_task(send(urls[B], A, b"first", within=SLOW_MACHINE_S))
        await kept.wait()
        links.mend([(A, B)], late)
        assert await send(urls[B], A, b"second", within=SLOW_MACHINE_S) == b"second"
        go_on.set()

        async def both() -> bool:
            return banks[B].got == [b"second", b"first"]

        await until(both, "the first one has arrived, too")
        assert not first.done(), "what is late is answered to nobody"
        first.cancel()


async def test_a_bank_that_is_gone_is_no_end_of_its_proxy() -> None:
    async with network() as (links, _banks, urls):
        links._places = {A: links._places[A], B: (links._places[B][0], (HOST, 1))}
        assert await send(urls[B], A, b"nobody there") is None
        assert await send(urls[A], B, b"here", within=SLOW_MACHINE_S) == b"here"
