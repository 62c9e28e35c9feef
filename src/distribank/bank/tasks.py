"""The tasks of one bank and their parent: nothing is started and forgotten.

The protocol does not run in the request's task, so that a client who hangs up changes nothing. What drives a
transaction runs here instead, and its end, good or bad, is always noticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("distribank.bank")


class Tasks:
    """A group of tasks that lives as long as the bank serves. Enter it before starting anything."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._left = False

    async def __aenter__(self) -> Tasks:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        """Cancel what still runs: every await may be the last, and the log tells recovery how to finish."""
        self._left = True
        for task in list(self._running):
            task.cancel()
        group, self._group = self._group, None
        assert group is not None
        await group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run *work* in a task of its own; what it raises is logged, and only that task ends.

        What a bank that has stopped decides yet, since its database was away, nobody runs: it is in the log.
        """
        if self._left:
            work.close()
            return
        assert self._group is not None, "the bank is not running"
        task = self._group.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for what runs to come to its own end, for at most *seconds*."""
        if self._running and seconds > 0:
            await asyncio.wait(list(self._running), timeout=seconds)

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # One of the two broad excepts (the other is the request boundary, ``api.boundary``). Here runs what no request
        # waits for, recovery's attempts included: a bug in one transaction must not stop the others. Its row is in the
        # log, and recovery takes it up from there.
        try:
            await work
        except Exception:
            log.exception("%s failed; recovery will take it up from the log", name)
