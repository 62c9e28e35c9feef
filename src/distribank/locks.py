"""One account, one decision at a time: asyncio locks by name, taken in one global order.

A lock is held for the moment of load → decide → persist and never across the network, so there is no distributed
deadlock, and a busy account makes a transfer wait a moment instead of failing. What must outlast that moment is a
hold in the ledger. Names are taken in sorted order everywhere, so that two decisions never wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable


class _Named(asyncio.Lock):
    """The lock of one name, and how many hold it or wait for it."""

    users = 0


class Locks:
    """The locks of one bank. A name costs memory only while somebody holds it or waits for it.

    *waited_seconds* adds up the time spent waiting.
    """

    def __init__(self) -> None:
        self._named: dict[str, _Named] = {}
        self.waited_seconds = 0.0

    def hold(self, names: Iterable[str]) -> _Hold:
        """Hold every lock of *names* (``async with``), first come first served; cancelled while waiting, none stays."""
        return _Hold(self, names)

    def __len__(self) -> int:
        return len(self._named)

    async def take(self, name: str) -> None:
        """Wait for the lock of *name*, and have it."""
        named = self._named.get(name)
        if named is None:
            named = self._named[name] = _Named()
        named.users += 1
        acquired = False
        try:
            if named.locked():
                started = time.perf_counter()
                acquired = await named.acquire()
                self.waited_seconds += time.perf_counter() - started
            else:
                acquired = await named.acquire()
        finally:
            if not acquired:
                self._leave(name, named)

    def give(self, name: str) -> None:
        """Let go of the lock of *name*."""
        named = self._named[name]
        named.release()
        self._leave(name, named)

    def _leave(self, name: str, named: _Named) -> None:
        named.users -= 1
        if not named.users:
            del self._named[name]


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
                await self._locks.take(name)
                self._taken.append(name)
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for name in reversed(self._taken):
            self._locks.give(name)
