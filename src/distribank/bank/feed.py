"""Who watches which account: a wake-up, never the news itself.

A watcher is told *that* something became durable and reads *what* from the store, from where it stopped. So a slow
watcher, a reconnect or a restart of the bank loses nothing, and nothing is kept for those who do not listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Feed:
    """The watchers of one bank's accounts."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[asyncio.Event]] = {}
        self.closed = False

    @contextmanager
    def subscribe(self, account: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something about *account* has become durable, and when the bank stops."""
        event = asyncio.Event()
        self._watchers.setdefault(account, []).append(event)
        try:
            yield event
        finally:
            self._watchers[account].remove(event)
            if not self._watchers[account]:
                del self._watchers[account]

    def watched(self, accounts: Iterable[str]) -> list[str]:
        """Those of *accounts* that anyone watches."""
        return [account for account in accounts if account in self._watchers] if self._watchers else []

    def wake(self, accounts: Iterable[str]) -> None:
        for account in accounts:
            for event in self._watchers.get(account, ()):
                event.set()

    def close(self) -> None:
        """Wake everyone, for the last time."""
        self.closed = True
        self.wake(list(self._watchers))
