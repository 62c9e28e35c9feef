"""The client of all other banks: what waits together travels together, signed, and it is known who is there.

For each peer and kind of message at most one request is under way (``Line``); for each peer a watcher asks after it
when nothing else does (``Presence``). An answer counts only if it is well-signed by the bank that was asked, over
this very request. Whatever else comes back, or does not, is ``Unreachable``: the peer may have acted all the same.

Nothing here decides anything, and nothing here is durable. Tasks live as long as ``async with HttpPeers(…)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import httpx

from distribank.breakages import Breakage
from distribank.core.clock import too_far_ahead
from distribank.core.protocol import Answer, Cut, Evidence, Message, Snapshot, Yes
from distribank.peers import wire
from distribank.peers.line import Item, Line
from distribank.peers.presence import Presence
from distribank.peers.roster import Roster, RosterEntry
from distribank.peers.signatures import NotSigned, Signer, Verifier
from distribank.peers.transport import Transport
from distribank.ports import Chance, Clock, PeerStatus, PeerView

CONNECT_TIMEOUT_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 2.0
"""From the first byte sent to the last one received, connecting included."""
SNAPSHOT_TIMEOUT_S: Final = 20.0
"""The same for a snapshot's question, at most: a large bank adds its books up."""
PROBE_INTERVAL_S: Final = 2.0
"""How long a peer may be silent before it is asked whether it is there."""
RETURN_INTERVAL_S: Final = 1.0
"""How often an offline peer is asked, give or take a fifth."""
MIN_PAUSE_S: Final = 0.05
"""Between two looks at a peer, however late the first one ended."""
SNAPSHOT: Final = wire.kind_of(Snapshot())
SIGNED_BY: Final = (b"content-digest", b"signature-input", b"signature")
"""The headers without which an answer is no evidence."""
MAX_ANSWER_BYTES: Final = 4 * wire.MAX_BODY
"""Never more than any honest answer has."""
HEADERS: Final = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "distribank"}
"""What every request says beside its signature."""
PROBE: Final = "probe"
"""What a probe, a signed ``inquire`` without messages, is counted as."""


class _Failed(Breakage):
    """An exchange came to nothing that counts: no answer, an answer that is not signed, or one that cannot be used."""


@dataclass(frozen=True, slots=True)
class _Peer:
    entry: RosterEntry
    presence: Presence
    lines: dict[str, Line]


class HttpPeers:
    """Implements ``ports.Peers`` over one httpx transport, which is shut when this is.

    *clock_now* gives the stamp that travels with each request. *on_clock* hears sender and stamp of each verified
    answer before its future resolves (a stamp may be absurd: merging is the bank's to decide). *requests* and
    *messages* count what left, by peer and kind; probes apart.
    """

    def __init__(
        self,
        roster: Roster,
        signer: Signer,
        verifier: Verifier,
        *,
        clock: Clock,
        chance: Chance,
        clock_now: Callable[[], int],
        on_clock: Callable[[str, int], None],
        transport: httpx.AsyncBaseTransport | None = None,
        probe_interval: float = PROBE_INTERVAL_S,
    ) -> None:
        self.on_return: Callable[[str], None] = lambda _bank: None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.messages: Counter[tuple[str, str]] = Counter()
        self._own = signer.bank
        self._signer = signer
        self._verifier = verifier
        self._clock = clock
        self._chance = chance
        self._clock_now = clock_now
        self._on_clock = on_clock
        self._probe_interval = probe_interval
        self._peers = {entry.code: self._peer(entry) for entry in roster.others(self._own)}
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        # Without httpx.AsyncClient around it: cookies, redirects, sign-in and proxies are nothing between banks, and
        # the client's share of an exchange is twice the transport's own (90 of 130 µs of CPU).
        self._transport = transport or Transport(CONNECT_TIMEOUT_S, MAX_ANSWER_BYTES)

    def _peer(self, entry: RosterEntry) -> _Peer:
        lines = {kind: Line(entry.code, kind) for kind in wire.KINDS if kind != SNAPSHOT}
        return _Peer(entry, Presence(entry, self._clock.wall_ms()), lines)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for peer in self._peers.values():
            self._tasks.update(self._group.create_task(self._pump(peer, line)) for line in peer.lines.values())
            self._tasks.add(self._group.create_task(self._watch(peer)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give up on everything under way; whoever awaits an answer gets ``Unreachable``."""
        for task in self._tasks:
            task.cancel()
        # The group must see a cancellation, which may be its own; other errors are the caller's and pass as they are.
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            await self._group.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))
        finally:
            for line in [line for peer in self._peers.values() for line in peer.lines.values()]:
                line.close("this bank is stopping")
            await self._transport.aclose()

    # What ports.Peers promises ------------------------------------------------------------------------------------

    def ask(self, bank: str, message: Message, until: float | None = None) -> asyncio.Future[Answer]:
        """See ``ports.Peers.ask``. Without *until*, a peer known to be offline is not even tried.

        A snapshot's question, which may be answered late, is asked once and by itself, for as long as somebody waits.
        """
        loop = asyncio.get_running_loop()
        item = Item(b"", until, loop.create_future())
        peer = self._peers.get(bank)
        if peer is None:
            item.fail(bank, "the network file does not name it")
        elif until is None and peer.presence.status is PeerStatus.OFFLINE:
            item.fail(bank, f"offline: {peer.presence.last_error}")
        else:
            item.text = wire.encode_message(message)
            if isinstance(message, Snapshot):
                self._ask_alone(peer, item)
            else:
                peer.lines[wire.kind_of(message)].add(item, loop)
        return item.future

    def view(self, bank: str) -> PeerView | None:
        peer = self._peers.get(bank)
        return peer.presence.view() if peer else None

    def views(self) -> list[PeerView]:
        return [peer.presence.view() for peer in self._peers.values()]

    def heard_from(self, bank: str) -> None:
        """A well-signed request arrived from *bank*: it is there, whatever was thought of it."""
        peer = self._peers.get(bank)
        if peer is not None:
            self._heard(peer)

    # Tasks --------------------------------------------------------------------------------------------------------

    async def _pump(self, peer: _Peer, line: Line) -> None:
        """Send what waits on *line*, one request at a time, for ever."""
        while True:
            batch = await line.next_batch()
            try:
                answers = await self._exchange(peer, line.kind, [item.text for item in batch])
            except _Failed as failure:
                line.not_delivered(str(failure))
                continue
            line.delivered(answers)

    def _ask_alone(self, peer: _Peer, item: Item) -> None:
        task = self._group.create_task(self._alone(peer, item))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        item.future.add_done_callback(lambda _: task.cancel())  # nobody waits any more

    async def _alone(self, peer: _Peer, item: Item) -> None:
        """One message in a request of its own: what takes long keeps nothing else of its kind waiting."""
        left = SNAPSHOT_TIMEOUT_S if item.until is None else item.until - asyncio.get_running_loop().time()
        why = "this bank is stopping"
        try:
            (answer,) = await self._exchange(peer, SNAPSHOT, [item.text], min(left, SNAPSHOT_TIMEOUT_S))
            if answer is not None:
                item.resolve(answer)
            why = "an answer that no snapshot can have"
        except _Failed as failure:
            why = str(failure)
        finally:
            item.fail(peer.entry.code, why)  # where it was not answered

    async def _watch(self, peer: _Peer) -> None:
        """Ask after *peer* when it is silent; often while it is offline, so that its return is noticed."""
        loop, presence = asyncio.get_running_loop(), peer.presence
        while True:
            began = loop.time()
            if presence.status is PeerStatus.OFFLINE or presence.heard_at + self._probe_interval <= began:
                with contextlib.suppress(_Failed):  # the presence has it already
                    await self._exchange(peer, PROBE, [])
            # Never asleep for longer: the peer may go offline meanwhile. Jitter keeps banks from asking at one moment.
            look = began + RETURN_INTERVAL_S * (0.8 + 0.4 * self._chance.random())
            if presence.status is not PeerStatus.OFFLINE:
                look = min(look, presence.heard_at + self._probe_interval)
            await asyncio.sleep(max(MIN_PAUSE_S, look - loop.time()))

    # One request --------------------------------------------------------------------------------------------------

    async def _exchange(
        self, peer: _Peer, kind: str, texts: Sequence[bytes], patience: float = REQUEST_TIMEOUT_S
    ) -> list[Answer | None]:
        """Send one request and return its answers; raises ``_Failed``. Either way the peer's presence is up to date."""
        began, started = asyncio.get_running_loop().time(), time.perf_counter()
        self.requests[peer.entry.code, kind] += 1
        self.messages[peer.entry.code, kind] += len(texts)
        try:
            answers = await self._send(peer, kind, wire.encode_batch(self._clock_now(), texts), len(texts), patience)
        except _Failed as failure:
            peer.presence.failed(began, self._clock.wall_ms(), str(failure))
            raise
        self._heard(peer, (time.perf_counter() - started) * 1000)  # the loop's own clock may tick in milliseconds
        self._on_clock(peer.entry.code, answers.clock)
        if too_far_ahead(answers.clock, self._clock.wall_ms()):
            return [_as_late_as(answers.clock, answer) for answer in answers.answers]
        return answers.answers

    async def _send(self, peer: _Peer, kind: str, body: bytes, count: int, patience: float) -> wire.Answers:
        route = "inquire" if kind == PROBE else kind
        url = f"{peer.entry.url}/interbank/v1/{route}"
        signed = self._signer.sign_request("POST", url, body)
        try:
            async with asyncio.timeout(patience):
                status, headers, content = await self._post(url, signed.headers, body)
        except TimeoutError:
            raise _Failed(f"no answer within {patience:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _Failed(f"{type(error).__name__}: {error}") from error
        try:
            self._verifier.verify_response(status, headers, content, bank=peer.entry.code, nonce=signed.nonce)
        except NotSigned as error:
            why = f"its answer is not signed as it must be: {error}" if status == 200 else _refusal_of(status)
            raise _Failed(why) from error
        if status != 200:
            raise _Failed(f"answered {status}: {content[:100]!r}")
        try:
            answers = wire.decode_answers(self._own, [route] * count, content)
        except wire.InvalidBatch as error:
            raise _Failed(f"its answer cannot be used: {error}") from error
        if kind == SNAPSHOT:
            return wire.Answers(answers.clock, [_with_evidence(each, headers, content) for each in answers.answers])
        return answers

    async def _post(
        self, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and raw body."""
        request = httpx.Request("POST", _target(url), headers=HEADERS | headers, content=body)
        response = await self._transport.handle_async_request(request)
        if "content-encoding" in response.headers:
            raise httpx.DecodingError("an encoding that was not asked for")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return response.status_code, response.headers.raw, b"".join([part async for part in response.stream])

    def _heard(self, peer: _Peer, rtt_ms: float | None = None) -> None:
        now = asyncio.get_running_loop().time()
        if peer.presence.heard(now, self._clock.wall_ms(), rtt_ms):
            for line in peer.lines.values():
                line.hurry()
            self.on_return(peer.entry.code)


@functools.lru_cache(maxsize=4096)
def _target(url: str) -> httpx.URL:
    """*url*, parsed once: there is one for each peer and kind."""
    return httpx.URL(url)


def _refusal_of(status: int) -> str:
    """An unsigned refusal in words: whoever refuses a signature tells no stranger why."""
    if status == 401:
        return "answered 401: it refuses this bank's signature; old network file, other key, wrong clock? its log says"
    return f"answered {status}"


def _with_evidence(answer: Answer | None, headers: list[tuple[bytes, bytes]], content: bytes) -> Answer | None:
    """A bank's books, with its signature over them."""
    if not isinstance(answer, Cut):
        return answer
    kept = tuple((name.decode().lower(), value.decode()) for name, value in headers if name.lower() in SIGNED_BY)
    return replace(answer, evidence=Evidence(content.decode(), kept))


def _as_late_as(clock: int, answer: Answer | None) -> Answer | None:
    """A yes is as late as the clock that came with it: the coordinator's table then counts it as a no."""
    if isinstance(answer, Yes):
        return replace(answer, prepared_at=max(answer.prepared_at, clock))
    return answer
