"""The network between simulated banks: it drops, doubles, delays, reorders, and is cut one way or both.

``Peers`` is ``ports.Peers`` with the shipped queues and presence (``peers.line``, ``peers.presence``): what waits
together travels together, a request has its time, a silent peer is asked after. Only the HTTP below it is replaced, by
``Network``, whose requests belong to no bank: they go on when their sender has died.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, Protocol, cast

from distribank.breakages import Breakage
from distribank.core.clock import too_far_ahead
from distribank.core.protocol import Answer, Message
from distribank.peers import wire
from distribank.peers.client import MIN_PAUSE_S, _as_late_as
from distribank.peers.line import Item, Line
from distribank.peers.presence import Presence
from distribank.peers.roster import RosterEntry
from distribank.ports import Clock, PeerStatus, PeerView

QUICKEST: Final = 0.0005
"""Seconds that a message is under way at least."""

LONG: Final = 10
"""So many times as long as any other answer is that of an auditor waited for, as in the shipped client."""

Said = tuple[int, list[Answer]]
"""An answer: the answering bank's stamp, and what it says to each message."""


@dataclass(slots=True, eq=False)
class Request:
    """One request between two banks; *reply* is what its sender waits for."""

    sender: str
    to: str
    clock: int
    messages: list[Message]
    reply: Future[Said]


@dataclass
class Weather:
    """How bad the network is: probabilities, and *late*, the scale in seconds of what delays a message."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    tail: float = 0.0
    """The probability that a message is a hundred times as late."""
    cut: set[tuple[str, str]] = field(default_factory=set)
    """Ways, from one bank to another, on which nothing arrives."""


class Destination(Protocol):
    """A bank, as the network sees it."""

    def receive(self, request: Request, back: Callable[[Said | None], None]) -> bool:
        """Take *request* in, and call *back* with the answer (``None``: the connection broke); false: nobody there."""


class Network:
    """Carries requests and their answers as the *weather* has it."""

    def __init__(self, chance: Random, seen: Counter[str]) -> None:
        self.weather = Weather()
        self.banks: dict[str, Destination] = {}
        self.last_arrival = 0.0
        """When, in the loop's time, the last of what is on its way will have arrived."""
        self._chance = chance
        self._seen = seen
        self._context = Context()

    def send(self, request: Request) -> None:
        copies = 1
        if self._chance.random() < self.weather.twice:
            copies = 2
            self._seen["doubled"] += 1
        for _ in range(copies):
            if self._chance.random() < self.weather.lost:
                self._seen["lost on the way"] += 1
            else:
                self._later(self._arrive, request)

    def _arrive(self, request: Request) -> None:
        if (request.sender, request.to) in self.weather.cut:
            self._seen["lost in a partition"] += 1
        elif not self.banks[request.to].receive(request, partial(self._answer, request)):
            self._later(_break, request, "the connection was refused, or broke")

    def _answer(self, request: Request, said: Said | None) -> None:
        if said is None:
            self._later(_break, request, "the connection was refused, or broke")
        elif self._chance.random() < self.weather.lost or (request.to, request.sender) in self.weather.cut:
            self._seen["answer lost"] += 1
        else:
            self._later(_deliver, request, said)

    def _later(self, then: Callable[..., None], *of: object) -> None:
        delay = QUICKEST + self._chance.random() ** 4 * self.weather.late
        if self._chance.random() < self.weather.tail:
            delay *= 100
            self._seen["very late"] += 1
        loop = asyncio.get_running_loop()
        self.last_arrival = max(self.last_arrival, loop.time() + delay)
        loop.call_later(delay, then, *of, context=self._context)


def _break(request: Request, why: str) -> None:
    if not request.reply.done():
        request.reply.set_exception(_Broken(why))
        request.reply.exception()


def _deliver(request: Request, said: Said) -> None:
    if not request.reply.done():
        request.reply.set_result(said)


class _Broken(Breakage):
    """An exchange came to nothing."""


@dataclass(slots=True, eq=False)
class Parcel(Item):
    """An item of a line, with its message as it is: nothing is encoded here."""

    message: Message | None = None


@dataclass(frozen=True, slots=True)
class _Peer:
    presence: Presence
    lines: dict[str, Line] = field(default_factory=dict)


class SimulatedPeers:
    """``ports.Peers`` of bank *own* over *network*. *patience* and *probe* are in seconds."""

    def __init__(
        self,
        own: str,
        others: Sequence[str],
        network: Network,
        clock: Clock,
        chance: Random,
        patience: float,
        probe: float,
    ) -> None:
        self.on_return: Callable[[str], None] = lambda _bank: None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.stamp: Callable[[], int] = lambda: 0
        self.hear: Callable[[int], None] = lambda _stamp: None
        self._own = own
        self._network = network
        self._clock = clock
        self._chance = chance
        self._patience = patience
        self._probe = probe
        self._peers = {
            code: _Peer(Presence(RosterEntry(code, f"Bank {code}", f"http://{code}", {}), clock.wall_ms()))
            for code in others
        }
        self._group: asyncio.TaskGroup | None = None

    def watch(self, group: asyncio.TaskGroup) -> None:
        """From now on requests leave, and it is known who is there; all of it in tasks of *group*."""
        self._group = group
        for peer in self._peers.values():
            group.create_task(self._watch(peer))

    # What ports.Peers promises ------------------------------------------------------------------------------------

    def ask(self, bank: str, message: Message, until: float | None = None) -> Future[Answer]:
        loop = asyncio.get_running_loop()
        item = Parcel(b"", until, loop.create_future(), message=message)
        peer = self._peers[bank]
        if self._group is None or (until is None and peer.presence.status is PeerStatus.OFFLINE):
            item.fail(bank, f"offline: {peer.presence.last_error}")
            return item.future
        kind = wire.kind_of(message)
        line = peer.lines.get(kind)
        if line is None:
            line = peer.lines[kind] = Line(bank, kind)
            self._group.create_task(self._pump(peer, line))
        line.add(item, loop)
        return item.future

    def view(self, bank: str) -> PeerView | None:
        peer = self._peers.get(bank)
        return peer.presence.view() if peer else None

    def views(self) -> list[PeerView]:
        return [peer.presence.view() for peer in self._peers.values()]

    def heard_from(self, bank: str) -> None:
        self._heard(self._peers[bank])

    # Tasks --------------------------------------------------------------------------------------------------------

    async def _pump(self, peer: _Peer, line: Line) -> None:
        while True:
            batch = await line.next_batch()
            try:
                answers = await self._exchange(peer, line.kind, [cast(Parcel, item).message for item in batch])
            except _Broken as broken:
                line.not_delivered(str(broken))
                continue
            line.delivered(answers)

    async def _watch(self, peer: _Peer) -> None:
        loop, presence = asyncio.get_running_loop(), peer.presence
        while True:
            began = loop.time()
            if presence.status is PeerStatus.OFFLINE or presence.heard_at + self._probe <= began:
                with contextlib.suppress(_Broken):  # the presence has it already
                    await self._exchange(peer, "probe", [])
            look = began + self._probe * (0.4 + 0.2 * self._chance.random())
            if presence.status is not PeerStatus.OFFLINE:
                look = max(look, presence.heard_at + self._probe)
            await asyncio.sleep(max(MIN_PAUSE_S, look - loop.time()))

    async def _exchange(self, peer: _Peer, kind: str, messages: list[Message | None]) -> list[Answer | None]:
        loop, bank = asyncio.get_running_loop(), peer.presence.entry.code
        began = loop.time()
        self.requests[bank, kind] += 1
        request = Request(self._own, bank, self.stamp(), cast(list[Message], messages), loop.create_future())
        self._network.send(request)
        patience = LONG * self._patience if kind == "snapshot" else self._patience
        expiry = loop.call_later(patience, _break, request, "no answer in time")
        try:
            clock, answers = await request.reply
        except _Broken as broken:
            peer.presence.failed(began, self._clock.wall_ms(), str(broken))
            raise
        finally:
            expiry.cancel()
        self._heard(peer)
        self.hear(clock)
        if too_far_ahead(clock, self._clock.wall_ms()):
            return [_as_late_as(clock, answer) for answer in answers]
        return list(answers)

    def _heard(self, peer: _Peer) -> None:
        if peer.presence.heard(asyncio.get_running_loop().time(), self._clock.wall_ms()):
            for line in peer.lines.values():
                line.hurry()
            self.on_return(peer.presence.entry.code)
