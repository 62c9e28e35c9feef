"""Three banks that talk to each other without sockets, on a clock that jumps instead of waiting.

``virtually`` runs a coroutine on an event loop whose time is moved forward whenever nothing is ready, so that
back-offs, probes and time-outs take no time. ``Network`` has a roster with fresh keys and, per bank, a script that
says how it answers; its transport is what ``HttpPeers`` sends through.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distribank.core.protocol import Answer, Commit, Inquire, Message, Prepare, Yes
from distribank.core.transfer import Counterparty, Direction, Leg
from distribank.peers import wire
from distribank.peers.client import HttpPeers
from distribank.peers.roster import Roster, RosterEntry
from distribank.peers.signatures import Signer, Verifier

T = TypeVar("T")

A, B, C = "99990001", "99990002", "99990004"
START_MS = 1_800_000_000_000
TRANSACTION = f"{A}.{'0a' * 16}.{'1b' * 16}"


class _Skipping(selectors.DefaultSelector):
    """Where the loop would wait, its time jumps instead."""

    loop: _VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits and nothing will ever happen")
        self.loop.now += timeout
        events: list[Any] = super().select(0)
        return events


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _Skipping()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def virtually(story: Coroutine[Any, Any, T]) -> T:
    """What *story* returns; however long it waits, it is over at once."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(story)


class LoopClock:
    """Wall-clock time that moves with the event loop's, or stands still outside one."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def wall_ms(self) -> int:
        try:
            elapsed = asyncio.get_running_loop().time()
        except RuntimeError:
            elapsed = 0.0
        return START_MS + self.offset_ms + int(elapsed * 1000)


Script = Callable[[str, list[Message]], Awaitable[list[Answer]]]
"""How a bank answers messages of one kind; it may raise an ``httpx`` error instead."""


@dataclass
class Network:
    """A roster of three banks. *scripts* says how each answers, *seen* what arrived: bank, kind, messages."""

    clock: LoopClock = field(default_factory=LoopClock)
    scripts: dict[str, Script] = field(default_factory=dict)
    spoil: Callable[[httpx.Response], httpx.Response] = lambda response: response
    seen: list[tuple[str, str, list[Message]]] = field(default_factory=list)
    stamps: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {code: Ed25519PrivateKey.generate() for code in (A, B, C)}
        self.roster = Roster(
            RosterEntry(code, f"Bank {code}", f"http://{code.lower()}.test", {f"{code}:1": key.public_key()})
            for code, key in self.keys.items()
        )

        chance = random.Random(7)  # noqa: S311 - repeatable
        self._signers = {code: Signer(f"{code}:1", key, self.clock, chance) for code, key in self.keys.items()}

    def signer(self, code: str) -> Signer:
        return self._signers[code]

    def verifier(self) -> Verifier:
        return Verifier(self.roster.keys, self.clock)

    def peers(self, code: str = A, on_clock: Callable[[str, int], None] = lambda _bank, _stamp: None) -> HttpPeers:
        """The client of bank *code*, whose requests the scripts answer."""
        return HttpPeers(
            self.roster,
            self.signer(code),
            self.verifier(),
            clock=self.clock,
            chance=random.Random(code),  # noqa: S311 - repeatable
            clock_now=lambda: 7,
            on_clock=on_clock,
            transport=httpx.MockTransport(self._answer),
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        bank = next(entry.code for entry in self.roster if str(request.url).startswith(entry.url))
        kind = request.url.path.rpartition("/")[2]
        sender = self.verifier().verify_request("POST", str(request.url), request.headers.raw, request.content)
        messages = list(wire.decode_batch(kind, request.content).messages)
        assert all(isinstance(message, Message) for message in messages)
        self.seen.append((bank, kind, messages))  # type: ignore[arg-type]
        answers = await self.scripts.get(bank, agree)(kind, messages)  # type: ignore[arg-type]
        body = wire.encode_answers(sender.bank, self.stamps.get(bank, 9), answers)
        headers = self.signer(bank).sign_response(200, body, sender.nonce)
        return self.spoil(httpx.Response(200, headers=headers, content=body))

    def batches(self, bank: str, kind: str) -> list[int]:
        """How many messages each request of *kind* to *bank* brought, probes left out."""
        return [len(messages) for to, of, messages in self.seen if (to, of) == (bank, kind) and messages]


async def agree(_kind: str, messages: list[Message]) -> list[Answer]:
    """Vote yes to everything."""
    return [Yes(11) for _ in messages]


async def dead(_kind: str, _messages: list[Message]) -> list[Answer]:
    raise httpx.ConnectError("connection refused")


async def silent(_kind: str, _messages: list[Message]) -> list[Answer]:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def a_prepare(number: int = 0, description: str | None = "aluguel de março") -> Prepare:
    """A valid prepare of bank A for bank B; each *number* makes another transaction."""
    return Prepare(
        f"{A}.{'0a' * 16}.{number:032x}",
        (B, C),
        (Leg(2, B, "00000012-4", Direction.CREDIT, 15_000),),
        15_000,
        "52998224725",
        "E9999000120270115080000000000001",
        description,
        START_MS + 123,
        (
            Counterparty(1, A, Direction.DEBIT, "Maria S***"),
            Counterparty(2, B, Direction.CREDIT, None),
        ),
        START_MS + 62_000,
    )


def a_commit(number: int = 0) -> Commit:
    prepare = a_prepare(number)
    return Commit(prepare.transaction, START_MS << 16, prepare.legs, prepare.counterparties)


def an_inquiry(number: int = 0) -> Inquire:
    prepare = a_prepare(number)
    return Inquire(prepare.transaction, prepare.vote_by)
