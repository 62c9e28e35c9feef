"""One account, one decision at a time: locks by name, taken in one global order.

A lock is held for the moment of load → decide → persist and never across the network, so there is no distributed
deadlock, and a busy account makes a transfer wait a moment instead of failing. What must outlast that moment is a
hold in the ledger. Names are taken in sorted order everywhere, so that two decisions never wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import Iterable


class Locks:
    """The locks of one bank. A name costs memory only while somebody holds it, and a queue only while others wait.

    *waited_seconds* adds up the time spent waiting.
    """

    def __init__(self) -> None:
        self._held: dict[str, deque[Future[None]] | None] = {}
        self.waited_seconds = 0.0

    def hold(self, names: Iterable[str]) -> _Hold:
        """Hold every lock of *names* (``async with``), first come first served; cancelled while waiting, none stays."""
        return _Hold(self, names)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, name: str) -> bool:
        """Have the lock of *name* at once; ``False`` if somebody else does."""
        if name in self._held:
            return False
        self._held[name] = None
        return True

    async def wait(self, name: str) -> None:
        """Have the lock of *name*, which somebody else holds, once all who came before have had it."""
        queue = self._held[name]
        if queue is None:
            queue = self._held[name] = deque()
        turn: Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        started = time.perf_counter()
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give(name)  # it had just become ours
            raise
        finally:
            self.waited_seconds += time.perf_counter() - started

    def give(self, name: str) -> None:
        """Let go of the lock of *name*: whoever has waited longest, and still does, has it from now on."""
        queue = self._held[name]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._held[name]


class _Hold:
    """Several locks held together. A class, not a generator: every decision enters one."""

    __slots__ = ("_locks", "_names", "_taken")

    def __init__(self, locks: Locks, names: Iterable[str]) -> None:
        self._locks = locks
        self._names = names
        self._taken: list[str] = []

    async def __aenter__(self) -> None:
        try:
            for name in sorted(set(self._names)):
                if not self._locks.take(name):
                    await self._locks.wait(name)
                self._taken.append(name)
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for name in reversed(self._taken):
            self._locks.give(name)
