"""A store without a disk, for tests and simulations: the same promises over dictionaries.

What is durable is a ``Disk``, which outlives the store that writes to it: ``crash`` takes it from one store and gives
it to the next, and whatever had not been flushed is gone. A *flush_gate* stands where a disk would be waited for: it
may delay a flush, or fail it by raising. Nothing here leaves the event loop's thread.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import partial
from random import SystemRandom
from typing import Any, TypeVar

from distribank.breakages import DurabilityLost
from distribank.core.clock import MAX_STAMP
from distribank.core.heuristics import Heuristic
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Entry, Hold, HoldState
from distribank.core.protocol import UNFINISHED, Record, Transaction
from distribank.ports import Chance, Query, Recount
from distribank.store.group import ADDED, KEY_OF, Group, GroupCommit, Sweep
from distribank.store.memory_queries import ask
from distribank.store.recount import recount_rows

R = TypeVar("R")


@dataclass
class Disk:
    """What is durable: rows by kind and key, as every group left them."""

    incarnation: str
    reaches_back_to: int = 0
    last_stamp: int = 0
    rows: dict[type, dict[Any, Any]] = field(default_factory=lambda: {kind: {} for kind in (*KEY_OF, *ADDED)})
    legs: set[tuple[str, int]] = field(default_factory=set)

    def apply(self, group: Group) -> None:
        """Write *group*, all of it or (if it breaks a rule that a database would keep) nothing."""
        self.check(group)
        for sweep in group.sweeps:
            self._sweep(sweep)
        for kind, puts in group.puts.items():
            self.rows[kind].update(puts)
        for kind, added in group.added.items():
            self.rows[kind].update((added_key(row), row) for row in added)
        self.legs.update((entry.operation, entry.leg) for entry in group.added[Entry])
        self.last_stamp = max(self.last_stamp, group.last_stamp())

    def check(self, group: Group) -> None:
        """Raise ``AssertionError`` where *group* breaks a rule that a database would keep."""
        for kind, added in group.added.items():
            keys = [added_key(row) for row in added]
            assert _are_new(keys, self.rows[kind].keys()), f"a {kind.__name__} is added twice: {keys}"
        legs = [(entry.operation, entry.leg) for entry in group.added[Entry]]
        assert _are_new(legs, self.legs), f"a leg is posted twice: {legs}"
        for account in group.puts[Account].values():
            assert 0 <= account.held <= account.posted, f"{account} breaks its bounds"
        for entry in group.added[Entry]:
            assert min(entry.amount - 1, entry.balance_after) >= 0, f"{entry} breaks its bounds"

    def _sweep(self, sweep: Sweep) -> None:
        finished = [t for t in self.rows[Transaction].values() if _is_finished(t, sweep.protocol_before)]
        for transaction in sorted(finished, key=lambda t: (t.completed_at or t.decided_at or 0, t.id)):
            records = [key for key in self.rows[Record] if key[0] == transaction.id]
            holds = [(account, transaction.id) for account in transaction.subjects]
            resolved = [k for k in holds if k in self.rows[Hold] and self.rows[Hold][k].state is not HoldState.PLACED]
            self._drop(Record, records, sweep)
            self._drop(Hold, resolved, sweep)
            if transaction.order is None:
                self._drop(Transaction, [transaction.id], sweep)
        old = [name for name, key in self.rows[IdempotencyKey].items() if key.created_at < sweep.keys_before]
        self._drop(IdempotencyKey, old, sweep)

    def _drop(self, kind: type, keys: list[Any], sweep: Sweep) -> None:
        for key in keys[: sweep.limit - sweep.gone]:
            del self.rows[kind][key]
            sweep.gone += 1


def _are_new(keys: list[Any], present: Set[Any]) -> bool:
    return present.isdisjoint(keys) and len(set(keys)) == len(keys)


def _is_finished(transaction: Transaction, before: int) -> bool:
    ended_at = transaction.completed_at if transaction.completed_at is not None else transaction.decided_at
    return transaction.state not in UNFINISHED and ended_at is not None and ended_at < before


def added_key(row: Entry | BookEntry | Record) -> tuple[Any, ...]:
    """By what a row that is only added is known."""
    if isinstance(row, Entry):
        return (row.account, row.change)
    if isinstance(row, BookEntry):
        return (row.operation, row.book)
    return (row.transaction, row.stamp, row.kind)


class MemoryStore(GroupCommit):
    """A bank's store that forgets everything with the process, unless its ``Disk`` is handed on.

    *disk* is what an earlier store left; without one a new database begins (with *chance*'s incarnation). *flush_gate*
    gives a future that each flush waits for; its failure is the flush's, and so the store's. Without one a flush is
    durable in the loop's next turn.
    """

    def __init__(
        self,
        *,
        disk: Disk | None = None,
        reaches_back_to: int = 0,
        flush_gate: Callable[[], Future[None]] | None = None,
        chance: Chance | None = None,
        on_broken: Callable[[DurabilityLost], None] | None = None,
        on_flush: Callable[[float, int], None] | None = None,
    ) -> None:
        super().__init__(on_broken=on_broken, on_flush=on_flush)
        self.disk = disk or Disk(f"{(chance or SystemRandom()).getrandbits(128):032x}", reaches_back_to)
        self.flush_gate = flush_gate
        self._gone = False
        self._landed: Group | None = None

    @property
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""
        return self.disk.incarnation

    @property
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""
        return self.disk.reaches_back_to

    @property
    def last_stamp(self) -> int:
        """The greatest stamp that was ever written here, 0 if none was; after a restart the clock starts above it."""
        return self.disk.last_stamp

    def crash(self, *, keep_in_flight: bool = False) -> MemoryStore:
        """The process dies: a new store with what was durable, and nothing in front of its disk.

        This one writes nothing more and calls nobody; its *on_flush* is told of the new one's flushes.

        *keep_in_flight*: the flush that was under way had reached the disk, though nobody was told.
        """
        flushing = self._flushing if keep_in_flight and self._broken is None else None
        if flushing is not None and flushing is not self._landed:
            self.disk.apply(flushing)
        self._gone = True
        self._on_broken = None
        self._break(RuntimeError("the process died"))
        disk, self.disk = self.disk, Disk(self.incarnation, self.reaches_back_to)
        return MemoryStore(disk=disk, on_flush=self._on_flush)

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Durable rows by a named query, in its order; *after* is the sort key of the last row of the page before."""
        if self._broken is not None:
            raise self._lost()
        return ask(self.disk.rows, query, key, after, limit)

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every durable entry anew and compare."""
        if self._broken is not None:
            raise self._lost()
        rows = self.disk.rows
        return recount_rows(
            rows[Account],
            rows[Hold].values(),
            rows[Entry].values(),
            rows[Book],
            rows[BookEntry].values(),
            rows[Transaction],
            rows[Heuristic].values(),
            rows[Record].values(),
            at,
        )

    # What group commit asks of an engine --------------------------------------------------------------------------

    def _read(self, kind: type, key: tuple[str, ...]) -> Any:
        return self.disk.rows[kind].get(key[0] if len(key) == 1 else key)

    def _flush(self, group: Group) -> Future[None]:
        done: Future[None] = asyncio.get_running_loop().create_future()
        if self.flush_gate is not None:
            self.flush_gate().add_done_callback(partial(self._passed, group, done))
        else:
            self._land(group)
            done.set_result(None)
        return done

    def _passed(self, group: Group, done: Future[None], gate: Future[None]) -> None:
        """The gate is open, or has failed: the flush has ended either way, unless the process died before."""
        failure = asyncio.CancelledError() if gate.cancelled() else gate.exception()
        try:
            if failure is None and not self._gone:
                self._land(group)
        except AssertionError as broken_rule:
            failure = broken_rule
        if failure is None:
            done.set_result(None)
        elif isinstance(failure, asyncio.CancelledError):
            done.cancel()
        else:
            done.set_exception(failure)

    def _land(self, group: Group) -> None:
        self.disk.apply(group)
        self._landed = group

    def _let_go(self) -> None:
        """There are no files; the disk stays with whoever holds it."""
