"""The server on real sockets: bounds on headers, connections and time; streams; and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from distribank.api import connections, events, server
from distribank.api.server import bind, serve, serve_on
from distribank.breakages import Misconfigured
from tests.counter_hall import Hall, hall


@dataclass
class Served:
    """A hall of one bank, on a socket."""

    hall: Hall
    port: int
    serving: asyncio.Task[int]
    client: httpx.AsyncClient

    async def say(self, *data: bytes) -> bytes:
        """All that comes back on a connection of its own until the bank closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in data:
                writer.write(part)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def stop(self) -> int:
        signal.raise_signal(signal.SIGTERM)
        return await self.serving


@asynccontextmanager
async def served(**settings: object) -> AsyncIterator[Served]:
    async with hall(1, **settings) as made:
        listening = bind("127.0.0.1", 0)
        port = listening.getsockname()[1]
        serving = asyncio.create_task(serve_on(listening, made.apps["99990001"]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            while True:
                try:
                    await client.get("/livez")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0)  # let the server come up
            bank = Served(made, port, serving, client)
            try:
                yield bank
            finally:
                if not serving.done():
                    await bank.stop()
        listening.close()


async def test_sigterm_ends_it_with_status_0() -> None:
    async with served() as bank:
        assert (await bank.client.get("/livez")).status_code == 200

        assert await bank.stop() == 0
        with pytest.raises(httpx.TransportError):
            await bank.client.get("/livez")


async def test_a_stream_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN", 60.0)
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        async with bank.client.stream("GET", f"/v1/accounts/{number}/events", headers=who) as stream:
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("event: balance"):
                pass
            ended = asyncio.create_task(bank.stop())
            async with asyncio.timeout(30):
                async for _ in lines:
                    pass
                assert await ended == 0


async def test_a_request_given_up_at_the_end_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN", 0.05)
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        edge, under_way = bank.hall.apps["99990001"].state.edge, asyncio.Event()

        async def for_ever(*_: object) -> None:
            under_way.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(edge.bank.ordering, "order", for_ever)
        leg = {"account": number, "amount": "1.00"}
        order = bank.client.post(
            "/v1/transfers", json={"debits": [leg], "credits": [leg]}, headers=bank.hall.keyed(who)
        )
        waiting = asyncio.create_task(order)
        await under_way.wait()
        assert await bank.stop() == 0
        answer = await waiting

    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")


async def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    async with hall() as made:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
                await serve(made.apps["99990001"], "127.0.0.1", port)


# Bounds -----------------------------------------------------------------------------------------------------------


async def test_what_is_not_http_gets_a_problem_and_the_door() -> None:
    async with served() as bank:
        said = await bank.say(b"\x16\x03\x01 this is not HTTP\r\n\r\n")

    assert said.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_request"' in said


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 0, 400), ("1.1", 1, 200), ("1.1", 2, 400), ("1.0", 0, 200), ("1.0", 2, 400)],
)
async def test_a_request_names_one_host_and_before_http_1_1_perhaps_none(version: str, hosts: int, status: int) -> None:
    """RFC 9112, 3.2: two readers of one request must not differ on whom it is for."""
    async with served() as bank:
        request = f"GET /livez HTTP/{version}\r\n" + "Host: x\r\n" * hosts + "Connection: close\r\n\r\n"
        said = await bank.say(request.encode())

    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b'"code":"malformed_request"' in said) == (status == 400)


async def test_the_head_of_a_stream_ends() -> None:
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        path = f"/v1/accounts/{number}/events"
        async with asyncio.timeout(5):
            head = await bank.client.head(path, headers=who)
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert (await bank.client.get("/livez")).status_code == 200


@pytest.mark.parametrize("size", [33_000, 100_000, 1_000_000])
async def test_a_header_without_end_is_refused(size: int) -> None:
    async with served() as bank:
        one = await bank.say(b"GET /livez HTTP/1.1\r\nx: " + b"y" * size + b"\r\n\r\n")
        many = await bank.say(b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * (size // 6) + b"\r\n")
        address = await bank.say(b"GET /" + b"y" * size + b" HTTP/1.1\r\n\r\n")

        for said in (one, many, address):
            assert said[:13] in (b"HTTP/1.1 431 ", b"")  # nothing, where the client was cut off while it still sent
        assert (await bank.client.get("/livez")).status_code == 200


async def test_a_large_body_is_refused_and_the_connection_goes_on() -> None:
    async with served() as bank:
        who = await bank.hall.sign_in()
        for size in (70_000, 300_000, 3_000_000):
            answer = await bank.client.post("/v1/accounts", content=b" " * size, headers=who)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert (await bank.client.get("/livez")).status_code == 200


async def test_who_pours_without_end_is_cut_off_behind_the_refusal() -> None:
    async with served() as bank:
        reader, writer = await asyncio.open_connection("127.0.0.1", bank.port)
        writer.write(b"POST /v1/holders HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        poured = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(connections.WHOLE_REQUEST - 1):
                while not reader.at_eof():
                    writer.write(b" " * 65_536)
                    await writer.drain()
                    poured += 65_536
        writer.close()

    assert poured < 64 * 1024 * 1024  # what the bank has read, and what was on its way


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 33: a very slow client."""
    monkeypatch.setattr(connections, "FIRST_BYTE", 0.05)
    async with served() as bank:
        async with asyncio.timeout(5):
            assert await bank.say() == b""


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /livez HTT",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/holders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["in its first line", "in its header", "in its body"],
)
async def test_a_request_that_does_not_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, beginning: bytes
) -> None:
    monkeypatch.setattr(connections, "WHOLE_REQUEST", 0.05)
    async with served() as bank:
        async with asyncio.timeout(5):
            said = await bank.say(beginning)

    assert said == b"" or b'"code":"request_timeout"' in said
    assert "bug" not in caplog.text


async def test_half_a_request_behind_a_whole_one_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    monkeypatch.setattr(connections, "WHOLE_REQUEST", 0.05)
    async with served() as bank:
        async with asyncio.timeout(5):
            said = await bank.say(whole + half)

    assert b'"status":"alive"' in said


async def test_bytes_that_trickle_in_do_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WHOLE_REQUEST", 0.2)
    async with served() as bank:
        reader, writer = await asyncio.open_connection("127.0.0.1", bank.port)
        loop = asyncio.get_running_loop()
        began, ended = loop.time(), asyncio.create_task(reader.read())
        writer.write(b"GET /livez HTTP/1.1\r\n")
        while not ended.done():
            await asyncio.wait([ended], timeout=0.02)
            if not writer.is_closing():
                writer.write(b"x: y\r\n")

        assert loop.time() - began < 30  # they would buy it for ever
        writer.close()


async def test_slow_newcomers_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_NEWCOMERS", 5)
    monkeypatch.setattr(connections, "NEWCOMERS_GRACE", 0.0)
    async with served() as bank:
        slow = [await asyncio.open_connection("127.0.0.1", bank.port) for _ in range(40)]

        async with asyncio.timeout(5):
            closed = await asyncio.gather(*(reader.read() for reader, _ in slow[:30]))
            assert closed == [b""] * 30
            assert (await bank.client.get("/livez")).status_code == 200
        for _, writer in slow:
            writer.close()


async def test_many_connections_at_once_from_one_honest_address_are_served() -> None:
    """Each says its request at once: until it has, a connection is a newcomer, and may be taken for slow."""
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        head = f"GET /v1/accounts/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        request = (head + "".join(f"{name}: {value}\r\n" for name, value in who.items()) + "\r\n").encode()
        answers = await asyncio.gather(*(bank.say(request) for _ in range(200)))

    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}


async def test_beyond_the_greatest_number_resting_connections_are_closed_first() -> None:
    async with served(max_connections=16) as bank:
        resting = [await asyncio.open_connection("127.0.0.1", bank.port) for _ in range(16)]
        for reader, writer in resting:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}")

        async with asyncio.timeout(5):
            newcomer = await bank.say(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert newcomer.startswith(b"HTTP/1.1 200 ")
            assert await resting[0][0].read() == b""
        for _, writer in resting:
            writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as bank:
        request = b"GET /%b HTTP/1.1\r\nHost: x\r\n%b\r\n"

        said = await bank.say(
            request % (b"livez", b"") + request % (b"readyz", b"") + request % (b"x", b"Connection: close\r\n")
        )

    assert [said.find(word) for word in (b"alive", b"ready", b"not_found")] == sorted(
        said.find(word) for word in (b"alive", b"ready", b"not_found")
    )
    assert said.count(b"HTTP/1.1 ") == 3


# Events -----------------------------------------------------------------------------------------------------------


Event = dict[str, str]


async def read_events(lines: AsyncIterator[str], count: int) -> list[Event]:
    """The next *count* events of a stream."""
    found: list[Event] = []
    event: Event = {}
    async with asyncio.timeout(10):
        while len(found) < count:
            line = await anext(lines)
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "event" in event:
                found.append(event)
                event = {}
            else:
                event = {}
    return found


async def deposit(bank: Served, number: str, amount: str) -> None:
    headers = bank.hall.keyed(await bank.hall.sign_in())
    paid = await bank.client.post(f"/v1/accounts/{number}/deposits", json={"amount": amount}, headers=headers)
    assert paid.status_code == 201


async def test_a_balance_comes_at_once_and_after_each_change() -> None:
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        async with bank.client.stream("GET", f"/v1/accounts/{number}/events", headers=who) as stream:
            lines = stream.aiter_lines()
            (first,) = await read_events(lines, 1)
            await deposit(bank, number, "2.00")
            entry, balance = await read_events(lines, 2)

    assert stream.headers["content-type"].startswith("text/event-stream")
    assert (first["event"], '"posted_balance":"1.00"' in first["data"]) == ("balance", True)
    assert (entry["event"], '"amount":"2.00"' in entry["data"]) == ("entry", True)
    assert (balance["event"], '"posted_balance":"3.00"' in balance["data"]) == ("balance", True)


async def test_a_stream_goes_on_where_it_broke_off_without_loss() -> None:
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        address = f"/v1/accounts/{number}/events"
        async with bank.client.stream("GET", address, headers=who) as stream:
            (seen,) = await read_events(stream.aiter_lines(), 1)
        for amount in ("2.00", "3.00", "4.00"):
            await deposit(bank, number, amount)

        async with bank.client.stream("GET", address, headers={**who, "Last-Event-ID": seen["id"]}) as stream:
            missed = await read_events(stream.aiter_lines(), 4)

    assert [event["event"] for event in missed] == ["entry"] * 3 + ["balance"]
    assert [event["data"].split('"amount":"')[1][:4] for event in missed[:3]] == ["2.00", "3.00", "4.00"]
    assert [int(event["id"]) for event in missed] == sorted(int(event["id"]) for event in missed)


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.02)
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        async with bank.client.stream("GET", f"/v1/accounts/{number}/events", headers=who) as stream:
            async with asyncio.timeout(5):
                async for line in stream.aiter_lines():
                    if line == ": ping":
                        break


async def test_a_stream_ends_with_its_token() -> None:
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        bank.hall.world.clock.now += 3_599_950
        async with bank.client.stream("GET", f"/v1/accounts/{number}/events", headers=who) as stream:
            async with asyncio.timeout(5):
                assert [line async for line in stream.aiter_lines() if line.startswith("event")] == ["event: balance"]
        assert (await bank.client.get(f"/v1/accounts/{number}", headers=who)).status_code == 200
        bank.hall.world.clock.now += 50
        assert (await bank.client.get(f"/v1/accounts/{number}", headers=who)).status_code == 401


async def test_a_stream_that_nobody_reads_any_more_watches_nothing() -> None:
    async with served() as bank:
        number, who = await bank.hall.account("1.00"), await bank.hall.sign_in()
        feed = bank.hall.world.banks["99990001"].bank.rhythm.feed
        async with bank.client.stream("GET", f"/v1/accounts/{number}/events", headers=who) as stream:
            await read_events(stream.aiter_lines(), 1)
            assert feed.watched([number]) == [number]

        async with asyncio.timeout(5):
            while feed.watched([number]):  # noqa: ASYNC110 - the loop's next step is all that is waited for
                await asyncio.sleep(0)
