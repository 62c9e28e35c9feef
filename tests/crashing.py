"""A bank that kills itself: the shipped bank, with a counter at each of its ports.

Every write that is queued, every flush that returns, every message that leaves and every answer that arrives is a
point. They are found by standing at the ports, not by a list, and the shipped code has no switch for them. Run as
``python -m tests.crashing --env-file … --script FILE``; *FILE* says at which point to die (a number, 0 for never, or
a point's name), or what is lost from now on (``lose Commit``, ``lose answer to Prepare``), and is looked for at each
point, so that a test arms it when it likes. Points passed while armed go to FILE.points.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from distribank.breakages import Breakage
from distribank.config import Settings
from distribank.core.protocol import Answer, Message, Record
from distribank.network.processes import stop_when_stdin_closes
from distribank.ports import Peers, Row, Store, Unit
from distribank.service import Wrapping, run


def arm(script: Path, told: object) -> None:
    """Let *script* say that, whole or not at all, in a file that is not the one before it."""
    draft = script.with_suffix(".draft")
    draft.write_text(str(told))
    draft.replace(script)


class Points:
    """Counts the points passed since the script was armed, and dies at the one it names."""

    def __init__(self, script: Path) -> None:
        self._script = script
        self._log = Path(f"{script}.points")
        self._passed = 0
        self._armed = (0, 0)

    def reach(self, name: str) -> None:
        told = self._told()
        if told is None:
            return
        self._passed += 1
        with self._log.open("a") as log:
            log.write(f"{name}\n")
        if told in (str(self._passed), name):
            os.kill(os.getpid(), signal.SIGKILL)

    def loses(self, what: str) -> bool:
        """Whether the script says that *what* is lost, such as ``Commit`` or ``answer to Prepare``."""
        return f"lose {what}" in (self._told() or "").splitlines()

    def _told(self) -> str | None:
        """What the script says; where it is a new one, counting begins anew."""
        try:
            with self._script.open() as script:
                stat = os.fstat(script.fileno())
                told = script.read()
        except FileNotFoundError:
            return None
        if (stat.st_ino, stat.st_mtime_ns) != self._armed:
            self._armed, self._passed = (stat.st_ino, stat.st_mtime_ns), 0
        return told


class CountingStore:
    """A store with a point before and after each write, named after its records, else after its kinds of rows."""

    def __init__(self, store: Store, points: Points) -> None:
        self._store = store
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def decide(self, names: Iterable[str], body: Callable[[Unit], Awaitable[Any]]) -> Any:
        return await self._store.decide(names, lambda unit: body(CountingUnit(unit, self._points)))  # type: ignore[arg-type]


class CountingUnit:
    """One decision of such a store."""

    def __init__(self, unit: Unit, points: Points) -> None:
        self._unit = unit
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unit, name)

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:
        rows = tuple(rows)
        records = [row.kind.value for row in rows if isinstance(row, Record)]
        name = "+".join(records or sorted({type(row).__name__ for row in rows}))
        self._points.reach(f"before {name} is queued")
        durable = self._unit.write(rows, lazy=lazy)
        # The first to hear of the flush: nothing that waits for it has run yet.
        durable.add_done_callback(lambda _: self._points.reach(f"after {name} is durable"))
        return durable


class CountingPeers:
    """Peers with a point before each message is queued and when its answer arrives."""

    def __init__(self, peers: Peers, points: Points) -> None:
        object.__setattr__(self, "_peers", peers)
        object.__setattr__(self, "_points", points)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peers, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._peers, name, value)

    def ask(self, bank: str, message: Message, until: float | None = None) -> Future[Answer]:
        kind = type(message).__name__
        if self._points.loses(kind):
            return asyncio.get_running_loop().create_future()
        self._points.reach(f"before {kind} to {bank}")
        answer: Future[Answer] = self._peers.ask(bank, message, until)
        if self._points.loses(f"answer to {kind}"):
            return asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: self._points.reach(f"after {kind} to {bank}"))
        return answer


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-file", type=Path, required=True)
    parser.add_argument("--script", type=Path, required=True)
    given = parser.parse_args(arguments)
    stop_when_stdin_closes()
    points = Points(given.script)
    wrapping = Wrapping(
        store=lambda store: CountingStore(store, points),  # type: ignore[arg-type,return-value]
        peers=lambda peers: CountingPeers(peers, points),  # type: ignore[arg-type,return-value]
    )
    try:
        return run(Settings.load(given.env_file), wrapping)
    except Breakage as breakage:
        print(breakage, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
