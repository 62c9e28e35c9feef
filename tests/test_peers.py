"""The client of other banks: what waits together travels together, and who is there is known."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from distribank.breakages import Unreachable
from distribank.core.clock import stamp_at
from distribank.core.protocol import (
    Acknowledged,
    Answer,
    ClockRead,
    Fate,
    Message,
    Outcome,
    Refused,
    Snapshot,
    Violation,
    Yes,
)
from distribank.peers import line, wire
from distribank.peers.client import PROBE, HttpPeers
from distribank.peers.roster import Roster
from distribank.ports import PeerStatus
from tests.between_banks import (
    START_MS,
    A,
    B,
    C,
    Network,
    a_commit,
    a_prepare,
    agree,
    an_inquiry,
    dead,
    silent,
    virtually,
)


async def unanswered(future: asyncio.Future[Answer]) -> Unreachable:
    with pytest.raises(Unreachable) as failure:
        await future
    return failure.value


def now() -> float:
    return asyncio.get_running_loop().time()


# Together ---------------------------------------------------------------------------------------------------------


def test_what_waits_together_travels_together() -> None:
    async def story() -> None:
        network, answered = Network(), asyncio.Event()

        async def slow(_kind: str, messages: list[Message]) -> list[Answer]:
            if messages:
                await answered.wait()
            return [Yes(number) for number, _ in enumerate(messages)]

        network.scripts[B] = slow
        async with network.peers() as peers:
            first = peers.ask(B, a_prepare(0))
            await asyncio.sleep(0.01)
            rest = [peers.ask(B, a_prepare(number)) for number in range(1, 51)]
            await asyncio.sleep(0.01)
            assert network.batches(B, "prepare") == [1]
            answered.set()
            assert await first == Yes(0)
            assert await asyncio.gather(*rest) == [Yes(number) for number in range(50)]
        assert network.batches(B, "prepare") == [1, 50]
        assert peers.requests[B, "prepare"] == 2
        assert peers.messages[B, "prepare"] == 51

    virtually(story())


def test_a_lone_message_leaves_at_once() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            began = now()
            assert await peers.ask(B, a_prepare()) == Yes(11)
            assert now() == began

    virtually(story())


def test_what_is_asked_in_one_breath_is_one_request() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            await asyncio.gather(*[peers.ask(B, a_prepare(number)) for number in range(120)])
        assert network.batches(B, "prepare") == [120]

    virtually(story())


def test_a_request_is_bounded_and_the_order_kept() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            await asyncio.gather(*[peers.ask(B, a_prepare(number)) for number in range(line.MAX_BATCH * 2 + 1)])
        assert network.batches(B, "prepare") == [line.MAX_BATCH, line.MAX_BATCH, 1]
        sent = [message for _, _, messages in network.seen for message in messages]
        assert sent == [a_prepare(number) for number in range(line.MAX_BATCH * 2 + 1)]

    virtually(story())


def test_a_request_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MAX_BATCH_BYTES", 2 * len(wire.encode_message(a_prepare(0))))

    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            await asyncio.gather(*[peers.ask(B, a_prepare(number)) for number in range(5)])
        assert network.batches(B, "prepare") == [2, 2, 1]

    virtually(story())


def test_one_slow_kind_or_bank_does_not_hold_up_another() -> None:
    async def story() -> None:
        network = Network()

        async def votes_never(kind: str, messages: list[Message]) -> list[Answer]:
            if kind == "prepare":
                await asyncio.Event().wait()
            return [Acknowledged() for _ in messages]

        network.scripts[B] = votes_never
        async with network.peers() as peers:
            stuck = peers.ask(B, a_prepare())
            assert await peers.ask(B, a_commit()) == Acknowledged()
            assert await peers.ask(C, a_prepare()) == Yes(11)
            assert not stuck.done()

    virtually(story())


def test_too_many_waiting_messages_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MAX_WAITING", 3)

    async def story() -> None:
        network = Network(scripts={B: silent})
        async with network.peers() as peers:
            futures = [peers.ask(B, a_prepare(number), until=now() + 1) for number in range(5)]
            assert [future.done() for future in futures] == [False, False, False, True, True]
            assert "waiting" in (await unanswered(futures[4])).why

    virtually(story())


# Trying again -----------------------------------------------------------------------------------------------------


def test_a_message_with_a_deadline_is_tried_again_with_growing_pauses() -> None:
    async def story() -> None:
        network, tries = Network(), []

        async def fails_at_first(kind: str, messages: list[Message]) -> list[Answer]:
            if kind == "prepare":
                tries.append(round(now(), 3))
            if 1 <= len(tries) <= 4:
                raise httpx.ConnectError("refused")
            return [Yes(11) for _ in messages]

        network.scripts[B] = fails_at_first
        async with network.peers() as peers:
            await asyncio.sleep(0.5)
            assert await peers.ask(B, a_prepare(), until=now() + 2) == Yes(11)
        assert tries == [0.5, 0.6, 0.8, 1.2, 1.6]
        sent = [messages for bank, kind, messages in network.seen if (bank, kind) == (B, "prepare")]
        assert sent == [[a_prepare()]] * 5

    virtually(story())


def test_a_message_is_given_up_exactly_at_its_deadline() -> None:
    async def story(script: Callable[..., object]) -> None:
        network = Network(scripts={B: script})  # type: ignore[dict-item]
        async with network.peers() as peers:
            await unanswered(peers.ask(B, a_prepare(), until=now() + 1.25))
            assert now() == pytest.approx(1.25)

    virtually(story(dead))
    virtually(story(silent))


def test_without_a_deadline_a_message_is_tried_once() -> None:
    async def story() -> None:
        network = Network(scripts={B: dead})
        async with network.peers() as peers:
            failure = await unanswered(peers.ask(B, a_commit()))
            assert failure.bank == B
            assert "ConnectError" in failure.why
        assert network.batches(B, "commit") == [1]

    virtually(story())


def test_no_answer_within_the_time_limit_is_unreachable() -> None:
    async def story() -> None:
        network = Network(scripts={B: silent})
        async with network.peers() as peers:
            failure = await unanswered(peers.ask(B, a_commit()))
            assert "within 2 s" in failure.why
            assert now() == pytest.approx(2.0)

    virtually(story())


def test_giving_up_on_an_answer_takes_the_message_out_of_the_queue() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            dropped, kept = peers.ask(B, a_prepare(0)), peers.ask(B, a_prepare(1))
            dropped.cancel()
            assert await kept == Yes(11)
        assert network.batches(B, "prepare") == [1]

    virtually(story())


def test_whoever_waits_when_the_bank_stops_is_told_so() -> None:
    async def story() -> None:
        network = Network(scripts={B: silent})
        async with network.peers() as peers:
            under_way, waiting = peers.ask(B, a_commit(0), until=now() + 9), peers.ask(B, a_prepare(1), until=now() + 9)
            await asyncio.sleep(0.01)
            behind = peers.ask(B, a_commit(2), until=now() + 9)
        for future in (under_way, waiting, behind):
            assert "stopping" in (await unanswered(future)).why

    virtually(story())


def test_an_abort_that_nobody_awaits_fails_in_silence() -> None:
    async def story() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        network = Network(scripts={B: dead})
        async with network.peers() as peers:
            peers.ask(B, a_commit())
            await asyncio.sleep(1)
        assert complaints == []

    virtually(story())


# Who is there -----------------------------------------------------------------------------------------------------


def status(peers: HttpPeers, bank: str = B) -> PeerStatus:
    view = peers.view(bank)
    assert view is not None
    return view.status


def test_a_peer_is_known_to_be_there_without_any_traffic() -> None:
    async def story() -> None:
        network = Network(scripts={C: dead})
        async with network.peers() as peers:
            assert [view.status for view in peers.views()] == [PeerStatus.UNKNOWN, PeerStatus.UNKNOWN]
            await asyncio.sleep(0.01)
            online, offline = peers.views()
            assert (online.bank, online.status) == (B, PeerStatus.ONLINE)
            assert online.rtt_ms is not None
            assert (offline.bank, offline.status, offline.rtt_ms) == (C, PeerStatus.OFFLINE, None)
            assert "refused" in (offline.last_error or "")
        assert peers.view("99990009") is None

    virtually(story())


def test_a_silent_peer_is_probed_and_a_busy_one_is_not() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            await asyncio.sleep(10.5)
            probes = peers.requests[B, PROBE]
            assert 5 <= probes <= 6
            for number in range(10):
                await asyncio.sleep(0.5)
                await peers.ask(B, a_prepare(number))
            assert peers.requests[B, PROBE] == probes

    virtually(story())


def test_a_dead_peer_is_not_discovered_afresh_by_each_message() -> None:
    async def story() -> None:
        network = Network(scripts={B: silent})
        async with network.peers() as peers:
            await unanswered(peers.ask(B, a_commit()))
            assert status(peers) is PeerStatus.OFFLINE
            before = now()
            for number in range(100):
                assert "offline" in (await unanswered(peers.ask(B, a_commit(number)))).why
            assert now() == before
            assert peers.requests[B, "commit"] == 1

    virtually(story())


def test_a_peer_that_returns_is_used_within_a_second_or_so() -> None:
    async def story() -> None:
        network, returned = Network(scripts={B: dead}), []
        async with network.peers() as peers:
            peers.on_return = lambda bank: returned.append((bank, now()))
            await asyncio.sleep(5)
            assert returned == [(C, 0.0)]
            network.scripts[B] = agree
            back = now()
            await asyncio.sleep(1.3)
            assert [bank for bank, _ in returned] == [C, B]
            assert returned[1][1] - back <= 1.2
            assert await peers.ask(B, a_prepare()) == Yes(11)

    virtually(story())


def test_a_peer_that_speaks_first_is_used_at_once() -> None:
    async def story() -> None:
        network = Network(scripts={B: dead})
        returned: list[str] = []
        async with network.peers() as peers:
            peers.on_return = returned.append
            waiting = peers.ask(B, a_prepare(), until=now() + 5)
            await asyncio.sleep(0.75)
            network.scripts[B] = agree
            peers.heard_from(B)
            peers.heard_from("99990009")
            before = now()
            assert await waiting == Yes(11)
            assert now() == before
            assert returned == [C, B]

    virtually(story())


def test_one_lost_request_does_not_make_a_talking_peer_offline() -> None:
    async def story() -> None:
        network = Network()

        async def loses_prepares(kind: str, messages: list[Message]) -> list[Answer]:
            if kind == "prepare":
                await asyncio.Event().wait()
            return [Acknowledged() for _ in messages]

        network.scripts[B] = loses_prepares
        async with network.peers() as peers:
            await asyncio.sleep(0.01)
            lost = peers.ask(B, a_prepare())
            await asyncio.sleep(1)
            await peers.ask(B, a_commit())
            await unanswered(lost)
            assert status(peers) is PeerStatus.ONLINE

    virtually(story())


def test_since_tells_when_a_peer_went_and_came_by_the_wall_clock() -> None:
    async def story() -> None:
        network = Network()
        async with network.peers() as peers:
            await asyncio.sleep(3)
            view = peers.view(B)
            assert view is not None
            assert view.since == START_MS
            network.scripts[B] = dead
            await asyncio.sleep(2)
            view = peers.view(B)
            assert view is not None
            assert 4000 <= view.since - START_MS <= 4100

    virtually(story())


# Answers that do not count ----------------------------------------------------------------------------------------


def _spoilt(response: httpx.Response, status_code: int = 200, content: bytes | None = None) -> httpx.Response:
    return httpx.Response(status_code, headers=response.headers, content=content or response.content)


SPOILERS: dict[str, Callable[[httpx.Response], httpx.Response]] = {
    "unsigned": lambda response: httpx.Response(200, content=response.content),
    "bare 401": lambda _response: httpx.Response(401, content=b"{}"),
    "bare 503": lambda _response: httpx.Response(503, content=b"{}"),
    "other body": lambda response: _spoilt(response, content=response.content.replace(b"9", b"8")),
    "other status": lambda response: _spoilt(response, 201),
    "redirect": lambda _response: httpx.Response(307, headers={"location": "http://99990004.test/"}, content=b""),
    "encoded": lambda response: httpx.Response(
        200, headers={**response.headers, "content-encoding": "identity"}, content=response.content
    ),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS.keys())
def test_an_answer_that_is_not_signed_as_it_must_be_is_no_answer(
    spoil: Callable[[httpx.Response], httpx.Response],
) -> None:
    async def story() -> None:
        network = Network(spoil=spoil)
        async with network.peers() as peers:
            await unanswered(peers.ask(B, a_commit()))
            assert status(peers) is PeerStatus.OFFLINE

    virtually(story())


def test_what_a_failing_bank_says_reaches_the_operators_terminal_as_plain_text() -> None:
    async def story() -> None:
        network, said = Network(), b"\x1b]0;all is well\x07\nyour own bank: settled"

        def fail(response: httpx.Response) -> httpx.Response:
            nonce = response.headers["signature-input"].partition('nonce="')[2].partition('"')[0]
            return httpx.Response(500, headers=network.signer(B).sign_response(500, said, nonce), content=said)

        network.spoil = fail
        async with network.peers() as peers:
            failure = await unanswered(peers.ask(B, a_commit()))
            assert "answered 500" in failure.why
            assert "all is well" in failure.why
            assert failure.why.isprintable()

    virtually(story())


def test_yesterdays_signed_answer_is_no_answer_today() -> None:
    async def story() -> None:
        network, kept = Network(), []

        def replay(response: httpx.Response) -> httpx.Response:
            kept.append(response)
            first = kept[0]
            return httpx.Response(200, headers=first.headers, content=first.content)

        async with network.peers() as peers:
            await asyncio.sleep(1)
            network.spoil = replay
            assert await peers.ask(B, a_prepare(0)) == Yes(11)
            failure = await unanswered(peers.ask(B, a_prepare(1)))
            assert "another request" in failure.why

    virtually(story())


def test_an_answer_meant_for_another_bank_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = wire.encode_answers
    monkeypatch.setattr(wire, "encode_answers", lambda _to, clock, answers: encode(C, clock, answers))

    async def story() -> None:
        async with Network().peers() as peers:
            assert "another bank" in (await unanswered(peers.ask(B, a_prepare()))).why

    virtually(story())


def test_a_vote_is_no_acknowledgement_and_is_asked_for_again_while_there_is_time() -> None:
    async def story() -> None:
        network, asked = Network(), []

        async def votes_at_last(kind: str, messages: list[Message]) -> list[Answer]:
            asked.extend(messages)
            return [Yes(11) if len(asked) > 3 else Acknowledged() for _ in messages]

        network.scripts[B] = votes_at_last
        async with network.peers() as peers:
            assert "no prepare can have" in (await unanswered(peers.ask(B, a_prepare()))).why
            asked.clear()
            assert await peers.ask(B, a_prepare(), until=now() + 2) == Yes(11)
            assert len(asked) == 4
            assert status(peers) is PeerStatus.ONLINE

    virtually(story())


def test_one_bad_answer_does_not_spoil_the_others_of_its_batch() -> None:
    async def story() -> None:
        network = Network()

        async def mixed(_kind: str, messages: list[Message]) -> list[Answer]:
            answers: list[Answer] = [Yes(1), Acknowledged(), Refused(Violation.CLOCK_AHEAD, "…")]
            return answers[: len(messages)]

        network.scripts[B] = mixed
        async with network.peers() as peers:
            good, bad, refused = [peers.ask(B, a_prepare(number)) for number in range(3)]
            assert await good == Yes(1)
            await unanswered(bad)
            assert await refused == Refused(Violation.CLOCK_AHEAD, "…")

    virtually(story())


def test_too_few_answers_are_no_answers() -> None:
    async def story() -> None:
        network = Network()

        async def forgets_one(_kind: str, messages: list[Message]) -> list[Answer]:
            return [Yes(1) for _ in messages[1:]]

        network.scripts[B] = forgets_one
        async with network.peers() as peers:
            for future in [peers.ask(B, a_prepare(number)) for number in range(3)]:
                await unanswered(future)

    virtually(story())


def test_a_bank_that_the_roster_does_not_name_is_unreachable() -> None:
    async def story() -> None:
        async with Network().peers() as peers:
            assert "does not name it" in (await unanswered(peers.ask("99990009", a_prepare()))).why
            assert "does not name it" in (await unanswered(peers.ask(A, a_prepare()))).why

    virtually(story())


# Clocks -----------------------------------------------------------------------------------------------------------


def test_the_peers_clock_is_heard_before_its_answer() -> None:
    async def story() -> None:
        network, heard = Network(stamps={B: 4711}), []
        async with network.peers(on_clock=lambda bank, stamp: heard.append((bank, stamp))) as peers:
            future = peers.ask(B, a_prepare())
            future.add_done_callback(lambda _: heard.append("answer"))  # type: ignore[arg-type]
            await future
        assert heard[: heard.index("answer")].count((B, 4711)) >= 1  # type: ignore[arg-type]

    virtually(story())


def test_a_yes_is_as_late_as_a_clock_that_is_too_far_ahead_so_that_it_counts_as_no() -> None:
    async def story() -> None:
        network = Network(stamps={B: stamp_at(START_MS + 61_000), C: stamp_at(START_MS + 59_000)})
        async with network.peers() as peers:
            assert await peers.ask(B, a_prepare()) == Yes(stamp_at(START_MS + 61_000))
            assert await peers.ask(C, a_prepare()) == Yes(11)

    virtually(story())


def test_what_is_no_vote_counts_whatever_the_clock_says() -> None:
    async def story() -> None:
        network = Network(stamps={B: stamp_at(START_MS + 61_000)})

        async def aborted(_kind: str, messages: list[Message]) -> list[Answer]:
            return [Outcome(Fate.ABORTED) for _ in messages]

        network.scripts[B] = aborted
        async with network.peers() as peers:
            assert await peers.ask(B, an_inquiry()) == Outcome(Fate.ABORTED)

    virtually(story())


def test_a_snapshots_question_that_was_lost_keeps_no_other_waiting() -> None:
    """Lost once, for a clock or for books, it kept that bank out of every audit for as long as books may take."""

    async def story() -> None:
        network = Network()
        asked: list[str] = []

        async def lost_at_first(kind: str, messages: list[Message]) -> list[Answer]:
            if not messages:
                return []
            asked.append("asked")
            if len(asked) > 1:
                return [ClockRead(7) for _ in messages]
            try:
                return await silent(kind, messages)
            finally:
                asked.append("broken off")

        network.scripts[B] = lost_at_first
        async with network.peers() as peers:
            lost = peers.ask(B, Snapshot())
            await asyncio.sleep(0.1)
            assert await asyncio.wait_for(peers.ask(B, Snapshot()), 1) == ClockRead(7)
            lost.cancel()
            await asyncio.sleep(0.1)
            assert asked == ["asked", "asked", "broken off"]

    virtually(story())


def test_books_are_waited_for_as_long_as_whoever_asked_for_them_waits() -> None:
    async def story() -> None:
        network = Network()

        async def slowly(_kind: str, messages: list[Message]) -> list[Answer]:
            await asyncio.sleep(14)
            return [ClockRead(7) for _ in messages]

        network.scripts[B] = slowly
        async with network.peers() as peers:
            assert await peers.ask(B, Snapshot(), now() + 15) == ClockRead(7)
            assert await peers.ask(B, Snapshot()) == ClockRead(7)

    virtually(story())


# The world around -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(answering: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[HttpPeers]:
    """Bank A as it is shipped, and a server on a real socket in the place of bank B."""
    network = Network()
    async with await asyncio.start_server(answering, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with HttpPeers(
            Roster([network.roster.own(A), replace(network.roster.own(B), url=url)]),
            network.signer(A),
            network.verifier(),
            clock=network.clock,
            chance=random.SystemRandom(),
            clock_now=lambda: 7,
            on_clock=lambda _bank, _stamp: None,
        ) as peers:
            yield peers


async def test_proxies_of_the_environment_have_no_say_between_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 25a: a user's HTTP proxy settings are picked up for calls between banks."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    arrived = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"POST /interbank/v1/inquire ")
        arrived.set()
        writer.close()

    async with asking(hang_up):
        await asyncio.wait_for(arrived.wait(), 5)


async def test_an_answer_beyond_all_bounds_is_no_answer() -> None:
    async def never_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" " * 1_000_000)
                await writer.drain()

    async with asking(never_end) as peers:
        failure = await unanswered(peers.ask(B, a_commit(), until=now() + 5))
        view = peers.view(B)
        assert view is not None
        assert "beyond all bounds" in (view.last_error or "")
        assert failure.bank == B
