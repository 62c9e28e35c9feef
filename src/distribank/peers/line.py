"""One line to one peer: messages of one kind that wait for it, and how they leave together.

While one request is under way the next one fills; nothing waits for a timer, so that a lone message leaves at once.
A line knows nothing of HTTP, keys or JSON envelopes: it keeps order, bounds, deadlines and back-off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from distribank.breakages import Unreachable
from distribank.core.protocol import Answer

MAX_BATCH: Final = 200
"""Messages in one request."""
MAX_BATCH_BYTES: Final = 4_000_000
"""Bytes of messages in one request; with commas and envelope the body stays below the peer's 4 MiB."""
MAX_WAITING: Final = 20_000
"""Messages of one kind that may wait for one peer; more are refused at once."""
BACK_OFF_S: Final = (0.1, 0.2, 0.4)
"""Seconds before a failed request is made again; the last one repeats."""


@dataclass(slots=True, eq=False)
class Item:
    """One message under way: its JSON, when (the loop's time) to give up on it, and who waits for the answer."""

    text: bytes
    until: float | None
    future: asyncio.Future[Answer]

    def resolve(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, bank: str, why: str) -> None:
        """Raise ``Unreachable`` where the answer is awaited. An abort's is not, and that is no error to log."""
        if not self.future.done():
            self.future.set_exception(Unreachable(bank, why))
            self.future.exception()


class Line:
    """The queue of one kind for one peer. One pump takes from it; anyone may add."""

    def __init__(self, bank: str, kind: str) -> None:
        self.bank = bank
        self.kind = kind
        self.under_way: list[Item] = []
        self._waiting: deque[Item] = deque()
        self._stirred = asyncio.Event()
        self._failures = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._expires = inf

    def add(self, item: Item, loop: asyncio.AbstractEventLoop) -> None:
        """Queue *item*; refuse it at once if too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            item.fail(self.bank, f"{MAX_WAITING} messages are waiting for it already")
            return
        if item.until is not None and item.until < self._expires:
            self._expire_at(item.until, loop)
        self._waiting.append(item)
        if not self._failures:
            self._stirred.set()

    async def next_batch(self) -> list[Item]:
        """What leaves together now; waits for the first message, or for the back-off to end.

        What this turn of the loop still brings travels along: with 64 clients a request then carries 34 messages and
        not 20, and a transfer takes an eighth less CPU. A lone message leaves as soon as before.
        """
        while True:
            await self._pause()
            await asyncio.sleep(0)
            batch = self._take()
            if batch:
                self.under_way = batch
                return batch

    def delivered(self, answers: Sequence[Answer | None]) -> None:
        """The batch under way was answered, in its order; ``None`` stands for what is no answer to its message."""
        batch, self.under_way = self.under_way, []
        self._failures = self._failures + 1 if None in answers else 0
        for item, answer in zip(reversed(batch), reversed(answers), strict=True):
            if answer is None:
                self._try_again(item, f"an answer that no {self.kind} can have")
            else:
                item.resolve(answer)

    def not_delivered(self, why: str) -> None:
        """The batch under way came to nothing: what has time left goes to the front, in its order; the rest fails."""
        batch, self.under_way = self.under_way, []
        self._failures += 1
        for item in reversed(batch):
            self._try_again(item, why)

    def _try_again(self, item: Item, why: str) -> None:
        if item.until is None:
            item.fail(self.bank, why)
        elif not item.future.done():
            self._waiting.appendleft(item)

    def hurry(self) -> None:
        """The peer is back: end the back-off."""
        self._failures = 0
        if self._waiting:
            self._stirred.set()

    def _expire_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        """Look then for what has run out of time. One timer for all: most have their answer long before."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires, self._expiry = when, loop.call_at(when, self._expire, when, loop)

    def _expire(self, now: float, loop: asyncio.AbstractEventLoop) -> None:
        self._expires, self._expiry = inf, None
        left = inf
        for item in (*self.under_way, *self._waiting):
            if item.until is None or item.future.done():
                continue
            if item.until <= now:
                item.fail(self.bank, "no answer before the deadline")
            else:
                left = min(left, item.until)
        if left < inf:
            self._expire_at(left, loop)

    def close(self, why: str) -> None:
        """Nobody will pump any more: whoever still waits hears so."""
        if self._expiry is not None:
            self._expiry.cancel()
        for item in (*self.under_way, *self._waiting):
            item.fail(self.bank, why)
        self.under_way = []
        self._waiting.clear()

    async def _pause(self) -> None:
        """Wait for a message; after a failure instead for its back-off, unless the peer returns first."""
        self._stirred.clear()
        if not self._failures:
            if not self._waiting:
                await self._stirred.wait()
            return
        try:
            async with asyncio.timeout(BACK_OFF_S[min(self._failures, len(BACK_OFF_S)) - 1]):
                await self._stirred.wait()
        except TimeoutError:
            if not self._waiting:
                self._failures = 0

    def _take(self) -> list[Item]:
        """The longest prefix within the bounds, without those that gave up meanwhile."""
        batch: list[Item] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            item = self._waiting[0]
            size += len(item.text)
            if batch and size > MAX_BATCH_BYTES:
                break
            self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch
