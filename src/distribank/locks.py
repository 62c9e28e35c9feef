"""One account, one decision at a time: asyncio locks by name, taken in one global order.

A lock is held for the moment of load → decide → persist and never across the network, so there is no distributed
deadlock, and a busy account makes a transfer wait a moment instead of failing. What must outlast that moment is a
hold in the ledger. Names are taken in sorted order everywhere, so that two decisions never wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Named:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Locks:
    """The locks of one bank. A name costs memory only while somebody holds it or waits for it.

    *waited_seconds* adds up the time spent waiting.
    """

    def __init__(self) -> None:
        self._named: dict[str, _Named] = {}
        self.waited_seconds = 0.0

    @asynccontextmanager
    async def hold(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold every lock of *names*, first come first served; cancelled while waiting, none stays held."""
        taken: list[str] = []
        try:
            for name in sorted(set(names)):
                await self._take(name)
                taken.append(name)
            yield
        finally:
            for name in reversed(taken):
                self._give(name)

    def __len__(self) -> int:
        return len(self._named)

    async def _take(self, name: str) -> None:
        named = self._named.setdefault(name, _Named())
        named.users += 1
        acquired = False
        try:
            if named.lock.locked():
                started = time.perf_counter()
                acquired = await named.lock.acquire()
                self.waited_seconds += time.perf_counter() - started
            else:
                acquired = await named.lock.acquire()
        finally:
            if not acquired:
                self._leave(name, named)

    def _give(self, name: str) -> None:
        named = self._named[name]
        named.lock.release()
        self._leave(name, named)

    def _leave(self, name: str, named: _Named) -> None:
        named.users -= 1
        if not named.users:
            del self._named[name]
