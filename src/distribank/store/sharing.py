"""Deciding where other processes decide as well: what every shared store does the same way, whatever its engine.

Responsible for the promises of ``ports.Store`` where nobody has the rows to itself. A decision has its rows alone by
row locks, taken in one order everywhere and kept until COMMIT; nothing that decides is remembered between decisions.

How decisions travel::

    decide() ──► queue ──(when the write before it has ended)──► lock all rows named ──► run body after body over them
                                                                     ──► write what they wrote ──► COMMIT ──► results

What waits together is one database transaction: its bodies are run one behind the other over the rows that were locked
and read for all of them, and see what those before them wrote. While it is under way the next one fills: no timer, no
added delay when idle. Every such write ends with the replica's own row, which does three things. It says that this
replica is alive; it fails where another one has buried it, so that a process that was thought dead, and had its work
taken over, writes nothing more (fencing); and it makes every COMMIT a synchronous one.

A write that met another's (the engine's ``again``) is run again. So is one whose connection was lost, during COMMIT
too, when nobody knows what became of it: run again under its keys, it finds what it wrote before or writes it now, its
locks wait for whatever the lost connection still does, and only the later COMMIT is believed. A server that stays away
for ``AWAY_S`` is told to whoever waits.

A write that put a row which somebody else had put meanwhile is run again in halves, so that many who each meet
another's row do not fail together for ever. A decision that is alone, finds no row more than before, and meets one all
the same, again and again, is a bug, and stops this replica; what was before it in the queue is decided.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any, ClassVar, Final, TypeVar, cast

from distribank.breakages import DurabilityLost, StoreAway
from distribank.core.batches import Batch
from distribank.core.clock import Floor
from distribank.core.ledger import Book, BookEntry, Hold, Reservation
from distribank.core.protocol import State, Transaction
from distribank.ports import Chance, D, Query, Row, Unit
from distribank.store.group import KEY_OF, FlushStats, Group

log = logging.getLogger("distribank.store")

R = TypeVar("R")

LEASE_S: Final = 4.0
"""How long a replica may be silent before another one takes over what it drives."""
BEAT_S: Final = 1.0
"""How often one that writes nothing says that it is alive."""
AWAY_S: Final = 10.0
"""How long a decision waits for a server that cannot be reached."""
CLOSE_S: Final = 5.0
"""How long what still waits may take when the bank stops."""
TOGETHER: Final = 256
"""Decisions that share one write, at most."""
NAMES: Final = 2_000
"""What they may name, all in all, unless it is one alone: a write takes less than a second, and nobody waits longer."""
BREATH_S: Final = 0.05
"""How long bodies may compute, one behind the other, until others have their turn."""
RETRY_S: Final = 0.02
LAST_RETRY_S: Final = 0.5
MET: Final = 5
"""How often a decision that is alone may meet a row that it did not find, and then find none more, until that counts as
a bug."""


class Fenced(Exception):
    """Another replica has buried this one."""

    def __init__(self) -> None:
        super().__init__(
            f"this process was silent for longer than {LEASE_S:.0f} s, and another replica has taken over what it "
            "drove: start it again"
        )


class Unsure(Exception):
    """The server said, while committing, that the standby may not have it."""


UNSURE: Final[tuple[type[Exception], ...]] = (Unsure,)


@dataclass(slots=True, eq=False)
class Wanted:
    """One decision that waits for its turn, or is under way. *since* is when its first attempt was lost."""

    names: tuple[str, ...]
    body: Callable[[Unit], Awaitable[Any]]
    then: Callable[[Any], None] | None
    future: Future[Any]
    begun: bool = False
    since: float | None = None
    missing: int = 0
    """How many of the rows that its latest write had locked were not there."""
    met: int = 0
    given_up: bool = False


@dataclass(slots=True)
class Together:
    """What decisions that share a write have locked, read and written so far, in one transaction of *connection*."""

    connection: Any
    group: Group = field(default_factory=Group)
    books: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What is added to each book's balance and to what is reserved of it."""
    floor: int = 0
    stamp: int = 0
    """The greatest that has been written."""
    made: list[str] = field(default_factory=list)
    """Books that this write makes, if they are not there."""
    rows: int = 0
    durable: list[Future[None]] = field(default_factory=list)
    known: dict[type, dict[Any, Any]] = field(default_factory=lambda: {kind: {} for kind in KEY_OF})
    """Rows as the database has them, by kind and key; ``None`` where there is none."""
    holds_of: set[str] = field(default_factory=set)
    """Transactions all of whose holds are among them."""
    begun: set[str] = field(default_factory=set)

    @property
    def missing(self) -> int:
        """How many rows are known not to be there."""
        return sum(row is None for rows in self.known.values() for row in rows.values())


class SharedUnit:
    """One decision: see ``ports.Unit``."""

    __slots__ = ("_store", "_together", "wrote")

    def __init__(self, store: SharedStore, together: Together) -> None:
        self._store = store
        self._together = together
        self.wrote = False

    @property
    def floor(self) -> int:
        """The greatest stamp that was written of anything that is locked, or that a snapshot was promised."""
        return self._together.floor

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The row as it is now, what was decided before in the same write included."""
        together = self._together
        name = key[0] if len(key) == 1 else key
        row = together.group.puts[kind].get(name)
        if row is None:
            known = together.known[kind]
            if name in known:
                row = known[name]
            elif kind is Hold and key[1] in together.holds_of:
                row = None
            else:
                row = known[name] = await self._store.read(together.connection, kind, key)
        if kind is Book and name in together.books:
            more, reserved = together.books[name]
            before = row or Book(name)
            row = Book(before.name, before.balance + more, before.reserved + reserved)
        return cast("R | None", row)

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Rows by a named query; what was decided before in the same write is missing, unless it is ``settled``."""
        return await self._store.ask(self._together.connection, query, key, limit, after)

    async def settled(self) -> None:
        """Return once ``find`` shows all that was decided before this, in the same write too."""
        await self._store.write_out(self._together)

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:  # noqa: ARG002
        """Add *rows* to the write; see ``ports.Unit.write``. Nothing is *lazy* here: all of it is one COMMIT."""
        together, self.wrote = self._together, True
        puts, added = together.group.puts, together.group.added
        for row in rows:
            kind = type(row)
            if isinstance(row, BookEntry):
                added[BookEntry].append(row)
                self._add_to_book(row.book, row.amount, 0)
            elif isinstance(row, Reservation):
                self._add_to_book(row.book, 0, row.amount)
            elif isinstance(row, Floor):
                together.group.floor = max(together.group.floor, row.stamp)
            elif kind in KEY_OF:
                puts[kind][KEY_OF[kind](row)] = row
                if isinstance(row, Transaction) and row.state is State.PREPARING:
                    together.begun.add(row.id)
            else:
                added[kind].append(row)
        together.group.writes += 1
        durable: Future[None] = asyncio.get_running_loop().create_future()
        together.durable.append(durable)
        return durable

    def _add_to_book(self, book: str, balance: int, reserved: int) -> None:
        before = self._together.books.get(book, (0, 0))
        self._together.books[book] = (before[0] + balance, before[1] + reserved)


class SharedStore(ABC):
    """One replica of a bank, on the database that all its replicas share. An engine fills in the abstract methods.

    *on_broken* is called once, with the ``DurabilityLost`` that every later caller gets, when this replica must stop:
    another has buried it, or a row broke a rule of the database. *on_flush* is told after each write how many seconds
    its COMMIT took and how many decisions shared it.
    """

    again: ClassVar[tuple[type[Exception], ...]]
    """What an engine raises where a write met another's."""
    met: ClassVar[tuple[type[Exception], ...]]
    """Where somebody else has put a row meanwhile that was not there."""
    lost: ClassVar[tuple[type[Exception], ...]]
    """Where the server cannot be reached, or was lost: what was asked of it is done, or is not."""
    wrong: ClassVar[tuple[type[Exception], ...]]
    """Whatever else comes from the engine: a bug, and never a decision's own."""
    hopeless: ClassVar[tuple[type[Exception], ...]] = ()
    """What looks like one of the above and would come again."""

    def __init__(
        self,
        replica: str,
        chance: Chance | None,
        on_broken: Callable[[DurabilityLost], None] | None,
        on_flush: Callable[[float, int], None] | None,
    ) -> None:
        self.replica = replica
        self.stats = FlushStats()
        self.waited_seconds = 0.0
        self._chance = chance or SystemRandom()
        self._on_broken = on_broken
        self._on_flush = on_flush
        self._queue: deque[Wanted] = deque()
        self._most = TOGETHER
        """Decisions that may share the next write."""
        self._something = asyncio.Event()
        self._broken: DurabilityLost | None = None
        self._unheard = dict.fromkeys((Transaction, Batch), 0)
        """How often something may have been committed unheard of that this replica drives, since it last asked."""
        self._leases_seen: dict[str, tuple[Any, float]] = {}
        """The others' leases as they were last seen, and since when each of them has been the same."""
        self._writing: Together | None = None
        self._closing = False
        loop = asyncio.get_running_loop()
        self._heard_at = self._steady_since = loop.time()
        self._under_way: list[Wanted] = []
        self._tasks = [loop.create_task(self._write(), name="write"), loop.create_task(self._beat(), name="beat")]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    # What an engine does ------------------------------------------------------------------------------------------

    @abstractmethod
    async def _begin(self) -> Any:
        """A connection with a new transaction on it."""

    @abstractmethod
    async def _lock(self, connection: Any, names: Iterable[str]) -> Together:
        """Have the rows that *names* say alone, and read them: by kind and key, in the same order always."""

    @abstractmethod
    async def read(self, connection: Any, kind: type, key: tuple[str, ...]) -> Any:
        """The committed row of *kind* under its whole key, or ``None``."""

    @abstractmethod
    async def ask(
        self, connection: Any, query: Query[R], key: tuple[str, ...], limit: int, after: tuple[int | str, ...]
    ) -> list[R]:
        """Rows by a named query, as the transaction on *connection* sees them."""

    @abstractmethod
    async def write_out(self, together: Together) -> None:
        """Send what has been written so far, all but the books, to the database, within the open transaction."""

    @abstractmethod
    async def _add_to_books(self, together: Together) -> None:
        """Add to each book what has been written of it: once in a write, in the order of their names."""

    @abstractmethod
    async def _say_alive(self, connection: Any, stamp: int = 0) -> None:
        """Lengthen this replica's lease, last of all in a write; ``Fenced`` if it has been buried."""

    @abstractmethod
    async def _commit(self, connection: Any) -> None:
        """COMMIT; ``Unsure`` if the server would not wait for its standby."""

    @abstractmethod
    async def _undo(self) -> None:
        """Nothing of the attempt that met another's is open any more; its connection is kept where it can be."""

    @abstractmethod
    async def _let_go_of_writer(self) -> None:
        """The next attempt has a new connection: nothing of this one's is open any more, or will be soon."""

    @abstractmethod
    def _reader(self) -> AbstractAsyncContextManager[Any]:
        """A connection that decides nothing."""

    @abstractmethod
    async def _leases(self, connection: Any) -> Mapping[str, Any]:
        """Every other replica that is not buried, and its lease: something that changes whenever it is lengthened."""

    @abstractmethod
    async def _bury(self, connection: Any, silent: Mapping[str, Any]) -> None:
        """Bury those of *silent* whose lease is still the same, in one transaction that begins with ``_say_alive``.

        One whose write is about to be committed is alive. Behind this, no earlier write of this replica may yet land.
        """

    @abstractmethod
    async def _take(self, connection: Any, kind: type[R], limit: int, *, own: bool) -> list[R]:
        """Make this replica the driver of what belongs to buried ones or to none, in one transaction, and read it.

        With *own*, what it drives comes, too.
        """

    def _heart(self) -> AbstractAsyncContextManager[Any]:
        """A connection for ``_say_alive`` alone, which waits for nobody who reads."""
        return self._reader()

    @abstractmethod
    async def _leave(self, connection: Any) -> None:
        """Whatever this replica drives is left to the others."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close every connection."""

    # What can be said at once -------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Other replicas may write here."""
        return True

    @property
    def within_reach(self) -> bool:
        """Whether the server has been heard of within a lease."""
        return self._broken is None and asyncio.get_running_loop().time() - self._heard_at < LEASE_S

    def is_durable(self, transaction: str) -> bool:  # noqa: ARG002
        """Whatever can be read is committed."""
        return True

    async def flushed(self) -> None:
        """Whatever was decided is durable. Raises ``DurabilityLost`` where this replica must stop."""
        self._check()

    # Deciding -----------------------------------------------------------------------------------------------------

    async def decide(
        self,
        names: Iterable[str],
        body: Callable[[Unit], Awaitable[D]],
        then: Callable[[D], None] | None = None,
    ) -> D:
        """Run *body* with *names* to itself; it is durable when this returns. See ``ports.Store.decide``.

        Raises ``StoreAway`` where the server cannot be reached: what became of it is then unknown, not failed.
        """
        self._check()
        future: Future[D] = asyncio.get_running_loop().create_future()
        self._queue.append(Wanted(tuple(names), body, then, future))
        self._something.set()
        return await future

    async def _write(self) -> None:
        """Decide what waits, together, again and again."""
        while True:
            while not self._queue:
                self._something.clear()
                await self._something.wait()
            self._under_way = self._next()
            await self._until_decided(self._under_way)
            self._under_way = []

    def _next(self) -> list[Wanted]:
        """What shares the next write, in its order."""
        taken = [self._queue.popleft()]
        names = len(taken[0].names)
        while self._queue and len(taken) < self._most and (names := names + len(self._queue[0].names)) <= NAMES:
            taken.append(self._queue.popleft())
        return taken

    async def _until_decided(self, wanted: list[Wanted]) -> None:
        """Write all that is *wanted*, or a part of it where that meets others' rows: the rest is next in the queue."""
        delay = RETRY_S
        wanted = [each for each in wanted if each.begun or not each.future.done()]
        for each in wanted:
            each.begun = True  # from now on it comes to its end, whether or not anybody waits
        while wanted := [each for each in wanted if not each.given_up]:
            lost = False
            try:
                await self._attempt(wanted)
                self._most = min(TOGETHER, self._most * 2)
                return
            except self.hopeless:
                raise
            except self.again as met:
                log.debug("a write met another's and is run again: %s", met)
                await self._undo()
            except self.met as met:
                log.debug("somebody else has put a row: %s", met)
                await self._undo()
                wanted = self._part(wanted, met)
                delay = 0.0  # what it met is committed, and found by the next attempt
            except (*self.lost, *UNSURE) as error:
                lost = True
                log.warning("the database is out of reach (%s); trying again", str(error) or type(error).__name__)
                await self._let_go_of_writer()
            self._give_up(wanted, lost)
            await asyncio.sleep(delay * (0.5 + self._chance.random()))
            delay = min(delay * 2 or RETRY_S, LAST_RETRY_S)

    def _part(self, wanted: list[Wanted], met: Exception) -> list[Wanted]:
        """The first half of those that met somebody else's row; raises *met* where that is the bug of one alone."""
        if len(wanted) > 1:
            self._most = len(wanted) // 2
            self._queue.extendleft(reversed(wanted[self._most :]))
            return wanted[: self._most]
        wanted[0].met += 1
        if wanted[0].met > MET:
            raise met
        return wanted

    def _give_up(self, wanted: Sequence[Wanted], lost: bool) -> None:
        """Tell whoever has waited for too long; what is still wanted is tried again."""
        now = asyncio.get_running_loop().time()
        for each in (*wanted, *self._queue):
            each.since = each.since or now
            if now - each.since > AWAY_S:
                each.given_up, self._writing = True, None
                self._unheard = {kind: times + 1 for kind, times in self._unheard.items()}  # its COMMIT may yet land
                if not each.future.done():
                    each.future.set_exception(StoreAway() if lost else StoreAway("too many others write the same rows"))
                    each.future.exception()

    async def _attempt(self, wanted: Sequence[Wanted]) -> None:
        """One write of all that is *wanted*."""
        loop = asyncio.get_running_loop()
        connection = await self._begin()
        began = loop.time()
        together = self._writing = await self._lock(connection, [name for each in wanted for name in each.names])
        self.waited_seconds += loop.time() - began
        if together.missing != wanted[0].missing:
            wanted[0].missing, wanted[0].met = together.missing, 0
        ended: list[tuple[Wanted, Any, BaseException | None]] = []
        breath = loop.time() + BREATH_S
        for each in wanted:
            if loop.time() > breath:
                await asyncio.sleep(0)
                breath = loop.time() + BREATH_S
            unit = SharedUnit(self, together)
            try:
                ended.append((each, await each.body(unit), None))
            except (*self.again, *self.met, *self.lost, *self.wrong):
                raise
            except Exception as error:  # a bug in one decision is not the others' that share its write
                if unit.wrote:
                    raise AssertionError("a decision wrote, and then raised") from error
                ended.append((each, None, error))
        await self.write_out(together)
        await self._add_to_books(together)
        await self._say_alive(connection, together.stamp)
        began = loop.time()
        await self._commit(connection)
        self._heard(began)
        self._writing = None
        self._tell(together, ended, self._heard_at - began)

    def _tell(
        self, together: Together, ended: Sequence[tuple[Wanted, Any, BaseException | None]], seconds: float
    ) -> None:
        """All of it is durable: whoever waits hears of it, and what follows follows, though nobody waits any more."""
        self.stats.flushes += 1
        self.stats.rows += together.rows
        if self._on_flush is not None:
            self._on_flush(seconds, max(1, len(ended)))
        for durable in together.durable:
            if not durable.done():
                durable.set_result(None)
        for each, result, error in ended:
            if error is None and each.then is not None:
                each.then(result)
            if each.future.done():
                continue
            if error is not None:
                each.future.set_exception(error)
            else:
                each.future.set_result(result)

    # This replica among the others --------------------------------------------------------------------------------

    def _heard(self, since: float) -> None:
        """The server, asked at *since*, has it that this replica is alive. Where it is slow, it may be so to others."""
        self._heard_at = asyncio.get_running_loop().time()
        if self._heard_at - since > BEAT_S:
            self._steady_since = self._heard_at

    async def _beat(self) -> None:
        """Say that this replica is alive where no write does."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(BEAT_S)
            began = loop.time()
            if began - self._heard_at < BEAT_S / 2:
                continue
            try:
                async with self._heart() as connection:
                    await self._say_alive(connection)
                self._heard(began)
            except (*self.lost, *self.again, *self.wrong) as error:
                self._steady_since = loop.time() + BEAT_S
                log.warning("the database is out of reach (%s)", str(error) or type(error).__name__)

    async def claim(self, limit: int) -> list[Transaction]:
        """Unfinished transactions that no living replica drives: from now on this one's.

        Replicas that this one has seen silent for a lease are buried first; see ``_silent``. Where a decision of this
        one was given up without knowing what became of it, or what it was given has not been heard of, all that this
        one drives comes with them, once; but not what is being written in this moment: of that it will hear.
        """
        return await self._claim(Transaction, limit)

    async def claim_batches(self, limit: int) -> list[Batch]:
        """The same of batches."""
        return await self._claim(Batch, limit)

    async def _silent(self, connection: Any) -> dict[str, Any]:
        """The others whose lease has been the same for ``LEASE_S`` by this process's own clock, and that lease.

        No machine's clock is held against another's. Nor does the time count in which the server was out of reach, or
        slow, for this one: so may it have been for them.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        leases = await self._leases(connection)
        now, before = loop.time(), self._leases_seen
        same = {replica for replica, lease in leases.items() if replica in before and before[replica][0] == lease}
        self._leases_seen = {r: before[r] if r in same else (lease, now) for r, lease in leases.items()}
        steady = self._steady_since
        return {r: lease for r, (lease, at) in self._leases_seen.items() if asked - max(at, steady) > LEASE_S}

    async def _claim(self, kind: type[R], limit: int) -> list[R]:
        async def take(connection: Any) -> list[R]:
            unheard, writing = self._unheard[kind], self._writing
            silent = await self._silent(connection) if kind is Transaction else {}
            if unheard or silent:
                await self._bury(connection, silent)
            try:
                taken = await self._take(connection, kind, limit, own=unheard > 0)
            except self.lost:
                self._unheard[kind] += 1
                raise
            if self._unheard[kind] == unheard:
                self._unheard[kind] = 0
            return [row for row in taken if not (_begins(row, writing) or _begins(row, self._writing))]

        try:
            return await self._reading(take)
        except Fenced as fenced:
            self._break(fenced)
            raise self._gone() from fenced
        except self.again:
            return []  # somebody else takes the same: the next look finds what is left

    # Reading ------------------------------------------------------------------------------------------------------

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The committed row of *kind* under its whole key; ``None`` if there is none."""
        return cast("R | None", await self._reading(lambda connection: self.read(connection, kind, key)))

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Committed rows by a named query, in its order; *after* is the sort key of the last row of the page before."""
        return await self._reading(lambda connection: self.ask(connection, query, key, limit, after))

    async def _reading(self, read: Callable[[Any], Awaitable[R]]) -> R:
        """What *read* brings over a connection that only reads; tried again while the server is out of reach."""
        self._check()
        loop = asyncio.get_running_loop()
        until, delay = loop.time() + AWAY_S, RETRY_S
        while True:
            try:
                async with self._reader() as connection:
                    return await read(connection)
            except self.lost as error:
                if loop.time() > until or self._closing:
                    raise StoreAway from error
                log.debug("a read is tried again: %s", str(error) or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)
            self._check()

    # Ending -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Decide what still waits, leave what this replica drives to the others, and let go of the connections."""
        if self._closing:
            return
        self._closing = True
        if self._broken is None:
            with suppress(StoreAway, DurabilityLost, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.decide((), _nothing)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self._broken is None:
            with suppress(*self.lost, *self.wrong):
                async with self._reader() as connection:
                    await self._leave(connection)
            self._broken = DurabilityLost("this store has been closed")
        await self._let_go_of_writer()
        self._let_go()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._gone()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """One of the two that run as long as the store is open has ended: because it was closed, or it broke."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._break(error)

    def _break(self, cause: BaseException) -> None:
        """This replica must stop: tell everyone, once. What it was writing is committed, or it is not."""
        if self._broken is not None:
            return
        self._broken = DurabilityLost(
            f"this process must stop ({type(cause).__name__}: {cause}), and what the database holds decides"
        )
        self._broken.__cause__ = cause
        for each in (*self._under_way, *self._queue):
            if not each.future.done():
                each.future.set_exception(self._gone())
                each.future.exception()
        self._queue.clear()
        if self._on_broken is not None:
            self._on_broken(self._broken)

    def _gone(self) -> DurabilityLost:
        """The breakage anew for each caller: a shared exception would gather everyone's tracebacks."""
        assert self._broken is not None
        lost = DurabilityLost(*self._broken.args)
        lost.__cause__ = self._broken.__cause__
        return lost


def _begins(row: object, writing: Together | None) -> bool:
    return isinstance(row, Transaction) and writing is not None and row.id in writing.begun


async def _nothing(_unit: Unit) -> None:
    """A decision that decides nothing: behind it, everything before it is decided."""
