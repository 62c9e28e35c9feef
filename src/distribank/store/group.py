"""Group commit and its overlay: what every store does the same way, whatever its engine.

Responsible for the promises of ``ports.Store`` about order and time: a queued row is seen at once, writes become
durable in the order queued, what waits together is flushed together, and a flush that fails is the end. It assumes
one event loop, on whose thread all of it runs, and that nobody else writes to the database. It never retries.

How a write travels::

    write() ──► dirty ──(next turn of the loop, or when the flush before it has ended)──► flushing ──► durable
      get()  =  dirty, else flushing, else what was durable lately (memory), else the engine's read

A group is one atomic write of the engine. While its flush is under way, the next group fills: no timer, no added
delay when idle, and under load as many writes share a flush as arrive during one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from asyncio import Future, Handle
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeVar

from distribank.breakages import DurabilityLost
from distribank.core.batches import Batch
from distribank.core.clock import MAX_STAMP, Floor
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Company, Entry, Hold, Reservation
from distribank.core.protocol import Record, Transaction
from distribank.core.restoration import Lost, Restoration, Supplied
from distribank.core.suspense import Assignment
from distribank.locks import Locks
from distribank.ports import D, Queries, Query, Recount, Row, Unit

R = TypeVar("R")

LAZY_SECONDS: Final = 1.0
"""How long a lazy write may wait for a flush to ride on before it causes one of its own."""

REMEMBERED: Final = 8192
"""How many durable rows of each kind are kept in memory, at least, and twice as many at most."""

KEY_OF: Final[dict[type, Callable[[Any], Any]]] = {
    Account: attrgetter("number"),
    Assignment: attrgetter("assignment_id"),
    Batch: attrgetter("batch_id"),
    Book: attrgetter("name"),
    Company: attrgetter("cnpj"),
    Consent: attrgetter("consent_id"),
    Counter: attrgetter("name"),
    Heuristic: attrgetter("transaction"),
    Hold: attrgetter("account", "transaction"),
    Holder: attrgetter("cpf"),
    IdempotencyKey: attrgetter("owner", "route", "key"),
    Lost: attrgetter("transaction"),
    Restoration: attrgetter("incarnation"),
    Supplied: attrgetter("transaction"),
    Transaction: attrgetter("id"),
}
"""The rows that are replaced by key: one part is the key itself, several are a tuple."""

ADDED: Final[tuple[type, ...]] = (Entry, BookEntry, Record)
"""The rows that are only ever added."""


@dataclass(slots=True)
class Sweep:
    """One bounded collection: see ``ports.Store.collect``. *gone* counts what it deleted, once its group is durable."""

    protocol_before: int
    keys_before: int
    limit: int
    gone: int = 0


class Group:
    """What will be, or is being, written in one atomic write; *waiting* are the futures that it resolves."""

    __slots__ = ("added", "floor", "puts", "sweeps", "waiting", "writes")

    def __init__(self) -> None:
        self.puts: dict[type, dict[Any, Any]] = {kind: {} for kind in KEY_OF}
        self.added: dict[type, list[Any]] = {kind: [] for kind in ADDED}
        self.sweeps: list[Sweep] = []
        self.floor = 0
        self.waiting: list[Future[None]] = []
        self.writes = 0

    @property
    def rows(self) -> int:
        return sum(map(len, self.puts.values())) + sum(map(len, self.added.values()))

    def last_stamp(self) -> int:
        """The greatest stamp in any of the rows, the floor among them; 0 if none carries one."""
        stamps: list[int] = [self.floor, *[row.stamp for rows in self.added.values() for row in rows]]
        for transaction in self.puts[Transaction].values():
            stamps += (transaction.prepared_at or 0, transaction.commit_at or 0)
        for hold in self.puts[Hold].values():
            stamps += (hold.prepared_at, hold.resolved_at or 0)
        return max(stamps)


class Recent:
    """Rows of one kind that are durable, by key, in two generations: when the young one is full, the old one goes."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        row = self._young.get(key)
        if row is None and self._old:
            row = self._old.get(key)
            if row is not None:
                self.update({key: row})
        return row

    def update(self, rows: dict[Any, Any]) -> None:
        self._young.update(rows)
        if len(self._young) > REMEMBERED:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        self._young, self._old = {}, {}


@dataclass(slots=True)
class FlushStats:
    """What has been flushed since the store was opened."""

    flushes: int = 0
    rows: int = 0


class GroupCommit(ABC):
    """The half of ``ports.Store`` that does not depend on an engine. An engine fills in the abstract methods.

    *on_broken* is called once, with the ``DurabilityLost`` that every waiting and every later caller gets, when a
    flush has failed: what was being written is unknown, and the process must stop. *on_flush* is told after each
    flush how many seconds it took and how many writes shared it.
    """

    def __init__(
        self,
        *,
        on_broken: Callable[[DurabilityLost], None] | None = None,
        on_flush: Callable[[float, int], None] | None = None,
    ) -> None:
        self.stats = FlushStats()
        self.locks = Locks()
        self._taken_up_to: dict[str, tuple[int | str, ...]] = {}
        self._taken_over: set[str] = set()
        self._on_broken = on_broken
        self._on_flush = on_flush
        self._dirty = Group()
        self._flushing: Group | None = None
        self._recent: dict[type, Recent] = {kind: Recent() for kind in KEY_OF}
        self._soon: Handle | None = None
        self._later: Handle | None = None
        self._wanted = False
        self._tidying: Future[None] | None = None
        self._broken: DurabilityLost | None = None
        self._closed = False

    # What an engine does ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""

    @property
    @abstractmethod
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""

    @property
    @abstractmethod
    def last_stamp(self) -> int:
        """The greatest stamp that was ever written here, 0 if none was; after a restart the clock starts above it."""

    @abstractmethod
    def _read(self, kind: type, key: tuple[str, ...]) -> Any:
        """The durable row of *kind* under *key*, or ``None``. Never waits."""

    @abstractmethod
    def _flush(self, group: Group) -> Future[None]:
        """Begin to make *group* durable, atomically; the future ends when it is. Called for one group at a time."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close the files. Nothing is being flushed any more."""

    @abstractmethod
    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Durable rows by a named query, in its order; *after* is the sort key of the last row of the page before."""

    @abstractmethod
    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every durable entry anew and compare: slow by design, without holding up anyone else."""

    def _tidy(self) -> Future[None] | None:
        """Housekeeping between two flushes, when some is due; those who waited for the flush do not wait for it."""
        return None

    # Reading ------------------------------------------------------------------------------------------------------

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The row of *kind* under its whole key, queued writes included; ``None`` if there is none. Never waits."""
        row: R | None = self._look(kind, key)
        return row

    async def greatest_stamp(self) -> int:
        """0: nobody else writes here, and this process's own clock is later than all that it has written."""
        return 0

    def _look(self, kind: type, key: tuple[str, ...]) -> Any:
        if self._broken is not None:
            raise self._lost()
        name = key[0] if len(key) == 1 else key
        row = self._dirty.puts[kind].get(name)
        if row is None and self._flushing is not None:
            row = self._flushing.puts[kind].get(name)
        if row is None:
            row = self._recent[kind].get(name)
        if row is None:
            row = self._read(kind, key)
            if row is not None:
                self._recent[kind].update({name: row})
        return row

    def is_durable(self, transaction: str) -> bool:
        """Whether this transaction's present row has reached the disk (nothing of it is queued or being flushed)."""
        return transaction not in self._dirty.puts[Transaction] and (
            self._flushing is None or transaction not in self._flushing.puts[Transaction]
        )

    # Deciding -----------------------------------------------------------------------------------------------------

    @property
    def floor(self) -> int:
        """0: see ``greatest_stamp``."""
        return 0

    @property
    def shared(self) -> bool:
        """Nobody else writes here."""
        return False

    @property
    def within_reach(self) -> bool:
        """Its files are here."""
        return self._broken is None

    @property
    def waited_seconds(self) -> float:
        """Time that decisions have spent waiting for their turn, in all."""
        return self.locks.waited_seconds

    async def decide(
        self, names: Iterable[str], body: Callable[[Unit], Awaitable[D]], then: Callable[[D], None] | None = None
    ) -> D:
        """Run *body* once, under the locks of *names*; what it writes is queued when this returns.

        The locks are let go before it is durable: nobody outside hears of it earlier, and nothing that follows it can
        become durable first.
        """
        async with self.locks.hold(names):
            result = await body(self)
        if then is not None:
            then(result)
        return result

    async def settled(self) -> None:
        """Return once ``find`` shows all that was decided before this."""
        await self.flushed()

    async def claim(self, limit: int) -> list[Transaction]:
        """What the process before this one left unfinished, in pages; each is given once."""
        return await self._take_over(Queries.UNFINISHED, limit, lambda row: (row.begun_at, row.id))

    async def claim_batches(self, limit: int) -> list[Batch]:
        """The same of batches."""
        return await self._take_over(Queries.UNFINISHED_BATCHES, limit, lambda row: (row.batch_id,))

    async def _take_over(self, query: Query[R], limit: int, place_of: Callable[[R], tuple[int | str, ...]]) -> list[R]:
        if query.name in self._taken_over:
            return []
        page = await self.find(query, limit=limit, after=self._taken_up_to.get(query.name, ()))
        if page:
            self._taken_up_to[query.name] = place_of(page[-1])
        else:
            self._taken_over.add(query.name)
        return page

    # Writing ------------------------------------------------------------------------------------------------------

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:
        """Queue *rows* as one atomic write; the future resolves once it is durable.

        Raises ``DurabilityLost``, at once or through the future, when a flush has failed: the process must stop.
        Cancelling the future only gives up waiting. See ``ports.Store.write``.
        """
        if self._broken is not None:
            raise self._lost()
        future: Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue(rows)
        except BaseException as error:  # a unit queued in part must never be flushed, and cannot be taken back
            self._break(error)
            raise
        self._dirty.writes += 1
        self._dirty.waiting.append(future)
        if lazy:
            self._schedule_later()
        else:
            self._schedule()
        return future

    async def flushed(self) -> None:
        """Return once everything queued before now is durable. What depends on it may then leave the bank."""
        if self._broken is not None:
            raise self._lost()
        if self._dirty.waiting:
            self._schedule()
            group = self._dirty
        elif self._flushing is not None:
            group = self._flushing
        else:
            return
        future: Future[None] = asyncio.get_running_loop().create_future()
        group.waiting.append(future)
        await future

    async def collect(self, protocol_before: int, keys_before: int, limit: int) -> int:
        """Delete old protocol state and idempotency keys, *limit* rows at most; how many went (see ``ports.Store``)."""
        if self._broken is not None:
            raise self._lost()
        sweep = Sweep(protocol_before, keys_before, limit)
        done = self.write(())
        self._dirty.sweeps.append(sweep)
        await done
        return sweep.gone

    async def close(self) -> None:
        """Make everything queued durable and let go of the files. A store that broke lets go without writing."""
        if self._closed:
            return
        try:
            if self._broken is None:
                await self.flushed()
            if self._tidying is not None:
                await asyncio.wait([self._tidying])
        finally:
            self._closed = True
            self._stop_timers()
            self._let_go()
            if self._broken is None:
                self._broken = DurabilityLost("this store has been closed")
                self._fail_waiting()

    def _queue(self, rows: Iterable[Row]) -> None:
        puts, added = self._dirty.puts, self._dirty.added
        for row in rows:
            kind = type(row)
            key_of = KEY_OF.get(kind)
            if key_of is not None:
                puts[kind][key_of(row)] = row
            elif isinstance(row, BookEntry):
                added[BookEntry].append(row)
                book = self._book(row.book)
                puts[Book][row.book] = Book(row.book, book.balance + row.amount, book.reserved)
            elif isinstance(row, Reservation):
                book = self._book(row.book)
                puts[Book][row.book] = Book(row.book, book.balance, book.reserved + row.amount)
            elif isinstance(row, Floor):
                self._dirty.floor = max(self._dirty.floor, row.stamp)
            else:
                added[kind].append(row)

    def _book(self, name: str) -> Book:
        book: Book | None = self._look(Book, (name,))
        return book or Book(name)

    # Flushing -----------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """See to it that what is queued is flushed, together with whatever else this turn of the loop queues."""
        self._wanted = True
        if self._soon is None and self._flushing is None and self._tidying is None:
            self._soon = asyncio.get_running_loop().call_soon(self._start)

    def _schedule_later(self) -> None:
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(LAZY_SECONDS, self._schedule)

    def _start(self) -> None:
        self._stop_timers()
        if self._broken is not None:
            return
        self._wanted = False
        group, self._dirty = self._dirty, Group()
        self._flushing = group
        began = time.perf_counter()
        future = None
        try:
            future = self._flush(group)
            future.add_done_callback(partial(self._ended, group, began))
        finally:
            if future is None:  # whatever went wrong: some of the group may be written, so nothing can go on
                self._break(sys.exc_info()[1] or RuntimeError("no flush was begun"))

    def _ended(self, group: Group, began: float, future: Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if self._broken is not None:
            return
        if error is not None:
            self._break(error)
            return
        self._flushing = None
        self._remember(group)
        for waiter in group.waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._count(group, time.perf_counter() - began)
        self._tidying = self._tidy()
        if self._tidying is not None:
            self._tidying.add_done_callback(self._tidied)
        elif self._wanted:
            self._schedule()

    def _tidied(self, future: Future[None]) -> None:
        self._tidying = None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._break(error)
        elif self._wanted and self._broken is None:
            self._schedule()

    def _remember(self, group: Group) -> None:
        """Keep what has just become durable at hand, and forget what a collection may have deleted."""
        if group.sweeps:
            for swept in (Transaction, Hold, IdempotencyKey):
                self._recent[swept].clear()
        for kind, rows in group.puts.items():
            if rows:
                self._recent[kind].update(rows)

    def _count(self, group: Group, seconds: float) -> None:
        self.stats.flushes += 1
        self.stats.rows += group.rows
        if self._on_flush is not None:
            self._on_flush(seconds, group.writes)

    def _stop_timers(self) -> None:
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None

    # Breaking -----------------------------------------------------------------------------------------------------

    def _break(self, cause: BaseException) -> None:
        """A flush failed: what it wrote may or may not be on the disk. Nothing may follow it; tell everyone, once."""
        if self._broken is not None:
            return
        self._broken = DurabilityLost(
            f"a write may not have reached the disk ({type(cause).__name__}: {cause}); this bank must stop, "
            "and what its log holds decides when it starts again"
        )
        self._broken.__cause__ = cause
        self._stop_timers()
        self._fail_waiting()
        if self._on_broken is not None:
            self._on_broken(self._broken)

    def _fail_waiting(self) -> None:
        for group in (self._flushing, self._dirty):
            for waiter in group.waiting if group is not None else ():
                if not waiter.done():
                    waiter.set_exception(self._lost())
                    waiter.exception()  # on_broken tells the bank: a future that nobody awaits need not warn as well

    def _lost(self) -> DurabilityLost:
        """The breakage anew for each caller: a shared exception would gather everyone's tracebacks."""
        assert self._broken is not None
        lost = DurabilityLost(*self._broken.args)
        lost.__cause__ = self._broken.__cause__
        return lost
