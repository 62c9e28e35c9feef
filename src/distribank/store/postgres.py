"""The shared store: one PostgreSQL database, from which several processes (replicas) of one bank may serve at a time.

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

A write that met another's (SQLSTATE 40001, 40P01, 55P03, or a row that somebody has put meanwhile) is run again. So is
one whose connection was lost, during COMMIT too, when nobody knows what became of it: run again under its keys, it
finds what it wrote before or writes it now, its locks wait for whatever the lost connection still does, and only the
later COMMIT is believed. A server that stays away for ``AWAY_S`` is told to whoever waits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar, cast

import asyncpg

from distribank.breakages import DurabilityLost, StoreAway, StoreUnusable
from distribank.core.batches import Batch
from distribank.core.clock import MAX_STAMP, Floor
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Hold, Reservation
from distribank.core.protocol import UNFINISHED, Transaction
from distribank.ports import Chance, D, Query, Recount, Row, Unit
from distribank.store import postgres_opening as opening
from distribank.store import postgres_words as words
from distribank.store import rows_ledger as ledger
from distribank.store import rows_registry as registry
from distribank.store import rows_transfers as transfers
from distribank.store.columns import Columns
from distribank.store.group import KEY_OF, FlushStats, Group
from distribank.store.rows import writes_of
from distribank.store.rows_queries import QUESTIONS, parameters_of
from distribank.store.rows_recount import add_up, questions

log = logging.getLogger("distribank.store")

R = TypeVar("R")

LEASE_S: Final = 4.0
"""How long a replica may be silent before another one takes over what it drives."""
BEAT_S: Final = 1.0
"""How often one that writes nothing says that it is alive."""
AWAY_S: Final = 10.0
"""How long a decision waits for a server that cannot be reached."""
TOGETHER: Final = 256
"""Decisions that share one write, at most."""
RECOUNT_S: Final = 600.0
READERS: Final = 8
"""Connections that only read, at most."""
CLOSE_S: Final = 5.0
"""How long what still waits may take when the bank stops."""
RETRY_S: Final = 0.02
LAST_RETRY_S: Final = 0.5
MET: Final = 5
"""How often a write may find that somebody else has put its row before that counts as a bug."""

AGAIN: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.CannotConnectNowError,
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)


class _Fenced(Exception):
    """Another replica has buried this one."""


class _Unsure(Exception):
    """The server said, while committing, that the standby may not have it."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """One decision that waits for its turn, or is under way. *since* is when its first attempt was lost."""

    names: tuple[str, ...]
    body: Callable[[Unit], Awaitable[Any]]
    then: Callable[[Any], None] | None
    future: Future[Any]
    queued_at: float
    since: float | None = None
    met: int = 0
    given_up: bool = False


@dataclass(slots=True)
class _Together:
    """What decisions that share a write have locked, read and written so far."""

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


class PostgresUnit:
    """One decision: see ``ports.Unit``."""

    __slots__ = ("_store", "_together", "wrote")

    def __init__(self, store: PostgresStore, together: _Together) -> None:
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
                sentence, row_of = words.READING[kind]
                found = await together.connection.fetchrow(sentence, *key)
                row = known[name] = None if found is None else row_of(found)
        if kind is Book and name in together.books:
            more, reserved = together.books[name]
            before = row or Book(name)
            row = Book(before.name, before.balance + more, before.reserved + reserved)
        return cast("R | None", row)

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Rows by a named query; what was decided before in the same write is missing, unless it is ``settled``."""
        return await _ask(self._together.connection, query, key, limit, after)

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
            else:
                added[kind].append(row)
        together.group.writes += 1
        durable: Future[None] = asyncio.get_running_loop().create_future()
        together.durable.append(durable)
        return durable

    def _add_to_book(self, book: str, balance: int, reserved: int) -> None:
        before = self._together.books.get(book, (0, 0))
        self._together.books[book] = (before[0] + balance, before[1] + reserved)


class PostgresStore:
    """One replica of a bank, on the database that all its replicas share. ``open`` makes one.

    *on_broken* is called once, with the ``DurabilityLost`` that every later caller gets, when this replica must stop:
    another has buried it, or a row broke a rule of the database. *on_flush* is told after each write how many seconds
    its COMMIT took and how many decisions shared it.
    """

    def __init__(
        self,
        url: str,
        identity: opening.Identity,
        pool: Any,
        replica: str,
        *,
        on_broken: Callable[[DurabilityLost], None] | None,
        on_flush: Callable[[float, int], None] | None,
    ) -> None:
        self.replica = replica
        self.stats = FlushStats()
        self.waited_seconds = 0.0
        self._url = url
        self._identity = identity
        self._readers = pool
        self._on_broken = on_broken
        self._on_flush = on_flush
        self._queue: deque[_Wanted] = deque()
        self._something = asyncio.Event()
        self._writer: Any = None
        self._warned = False
        self._books: set[str] = set()
        self._broken: DurabilityLost | None = None
        self._unsure = False
        self._closing = False
        self._heard_at = self._steady_since = time.monotonic()
        self._under_way: list[_Wanted] = []
        self._tasks = [asyncio.create_task(self._write(), name="write"), asyncio.create_task(self._beat(), name="beat")]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        bank: str,
        marker: Path,
        now_ms: int,
        chance: Chance | None = None,
        on_broken: Callable[[DurabilityLost], None] | None = None,
        on_flush: Callable[[float, int], None] | None = None,
    ) -> PostgresStore:
        """The store at *url*, as one more replica. Makes or migrates the schema if need be.

        *marker* is the small file beside the bank's key that names its latest database. Raises ``StoreUnusable`` if
        this bank must not serve from it, or if it cannot be reached.
        """
        chance = chance or SystemRandom()
        replica = f"{chance.getrandbits(128):032x}"
        try:
            connection = await asyncpg.connect(**opening.settings_of(url))
            try:
                identity = await opening.identify(connection, url, bank, marker, now_ms, chance)
                async with connection.transaction():
                    await _bury_neighbours(connection)
                    await connection.execute(words.GATHER_STAMPS)
                    await connection.execute(words.FORGET_BURIED)
                    await connection.execute(
                        words.JOIN, replica, timedelta(seconds=LEASE_S), _place_of_pids(), os.getpid()
                    )
            finally:
                await connection.close()
            pool = await asyncpg.create_pool(min_size=1, max_size=READERS, **opening.settings_of(url))
        except (*LOST, asyncpg.PostgresError, ValueError) as error:
            raise StoreUnusable(
                f"the database at {opening.place_of(url)} cannot be used: {error or type(error).__name__}; "
                "check DISTRIBANK_DATABASE_URL, and that the server is up"
            ) from error
        return cls(url, identity, pool, replica, on_broken=on_broken, on_flush=on_flush)

    @property
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""
        return self._identity.incarnation

    @property
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""
        return self._identity.reaches_back_to

    @property
    def last_stamp(self) -> int:
        """The greatest stamp that anyone had written here when this was opened."""
        return self._identity.last_stamp

    @property
    def shared(self) -> bool:
        """Other replicas may write here."""
        return True

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
        self._queue.append(_Wanted(tuple(names), body, then, future, time.monotonic()))
        self._something.set()
        return await future

    async def _write(self) -> None:
        """Decide what waits, together, again and again."""
        while True:
            while not self._queue:
                self._something.clear()
                await self._something.wait()
            self._under_way = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            await self._until_decided(self._under_way)
            self._under_way = []

    async def _until_decided(self, wanted: list[_Wanted]) -> None:
        delay = RETRY_S
        wanted = [
            each for each in wanted if not each.future.done()
        ]  # behind this, what was begun is brought to its end
        while wanted := [each for each in wanted if not each.given_up]:
            lost = False
            try:
                await self._attempt(wanted)
                return
            except asyncpg.DataError:
                raise
            except AGAIN as met:
                log.debug("a write met another's and is run again: %s", met)
            except asyncpg.UniqueViolationError as met:
                for each in wanted:
                    each.met += 1
                if wanted[0].met > MET:
                    raise
                log.debug("somebody else has put a row: %s", met)
            except (*LOST, _Unsure) as error:
                lost = True
                log.warning("the database is out of reach (%s); trying again", error or type(error).__name__)
            await self._let_go_of_writer()
            self._give_up(wanted, lost)
            await asyncio.sleep(delay * (0.5 + SystemRandom().random()))
            delay = min(delay * 2, LAST_RETRY_S)

    def _give_up(self, wanted: Sequence[_Wanted], lost: bool) -> None:
        """Tell whoever has waited for too long; what is still wanted is tried again."""
        now = time.monotonic()
        for each in (*wanted, *self._queue):
            each.since = each.since or now
            if now - each.since > AWAY_S:
                self._unsure = each.given_up = True
                if not each.future.done():
                    each.future.set_exception(StoreAway() if lost else StoreAway("too many others write the same rows"))
                    each.future.exception()

    async def _attempt(self, wanted: Sequence[_Wanted]) -> None:
        """One write of all that is *wanted*."""
        connection = await self._connected()
        began = time.monotonic()
        await connection.execute("BEGIN")
        together = await self._lock(connection, [name for each in wanted for name in each.names])
        self.waited_seconds += time.monotonic() - began
        ended: list[tuple[_Wanted, Any, BaseException | None]] = []
        for each in wanted:
            unit = PostgresUnit(self, together)
            try:
                ended.append((each, await each.body(unit), None))
            except (*AGAIN, *LOST, asyncpg.PostgresError):
                raise
            except Exception as error:  # a bug in one decision is not the others' that share its write
                if unit.wrote:
                    raise AssertionError("a decision wrote, and then raised") from error
                ended.append((each, None, error))
        await self.write_out(together)
        await self._say_alive(connection, together.stamp)
        began = time.monotonic()
        self._warned = False
        await connection.execute("COMMIT")
        if self._warned:
            raise _Unsure("the server would not wait for its standby")
        self._heard_at = time.monotonic()
        self._tell(together, ended, time.monotonic() - began)

    def _tell(
        self, together: _Together, ended: Sequence[tuple[_Wanted, Any, BaseException | None]], seconds: float
    ) -> None:
        """All of it is durable: whoever waits hears of it, and what follows follows, though nobody waits any more."""
        self.stats.flushes += 1
        self.stats.rows += together.rows
        self._books.update(together.made)
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

    async def _lock(self, connection: Any, names: Iterable[str]) -> _Together:
        """Have the rows that *names* say alone, and read them: by kind and key, in the same order always."""
        together = _Together(connection)
        by_prefix: dict[str, set[str]] = {}
        for name in names:
            prefix, _, key = name.partition(":")
            by_prefix.setdefault(prefix, set()).add(key)
        alone = "clock" in by_prefix
        together.floor = await connection.fetchval(words.FLOOR_ALONE if alone else words.FLOOR)
        by_prefix.pop("clock", None)
        await self._lock_accounts(together, sorted(by_prefix.pop("account", ())))
        await self._lock_keys(together, sorted(tuple(key.split("\n")) for key in by_prefix.pop("key", ())))
        for prefix, lock in words.LOCKS.items():
            keys = sorted(by_prefix.pop(prefix, ()))
            if keys:
                known = together.known[lock.kind]
                known.update(dict.fromkeys(keys))
                for columns in await connection.fetch(lock.sentence, keys):
                    row = lock.row_of(columns)
                    known[KEY_OF[lock.kind](row)] = row
                    if isinstance(row, Transaction):
                        together.floor = max(together.floor, row.prepared_at or 0, row.commit_at or 0)
                if lock.kind is Transaction:
                    await self._read_holds(together, keys)
        assert not by_prefix, f"nobody knows how to lock {by_prefix}"
        return together

    async def _lock_accounts(self, together: _Together, numbers: list[str]) -> None:
        if not numbers:
            return
        known = together.known[Account]
        known.update(dict.fromkeys(numbers))
        for columns in await together.connection.fetch(words.LOCK_ACCOUNTS, numbers):
            together.floor = max(together.floor, columns[0])
            account = ledger.account_of(columns[1:])
            known[account.number] = account

    async def _lock_keys(self, together: _Together, keys: list[tuple[str, ...]]) -> None:
        if not keys:
            return
        known = together.known[IdempotencyKey]
        known.update(dict.fromkeys(keys))
        for columns in await together.connection.fetch(words.LOCK_KEYS, *map(list, zip(*keys, strict=True))):
            key = registry.key_of(columns)
            known[key.owner, key.route, key.key] = key

    async def _read_holds(self, together: _Together, identities: list[str]) -> None:
        together.holds_of.update(identities)
        for columns in await together.connection.fetch(words.HOLDS_OF, identities):
            hold = ledger.hold_of(columns)
            together.known[Hold][hold.account, hold.transaction] = hold

    async def write_out(self, together: _Together) -> None:
        """Send what has been written so far to the database, within the open transaction."""
        connection, group = together.connection, together.group
        stamp = group.last_stamp()
        together.stamp = max(together.stamp, stamp)
        if group.floor:
            await connection.execute(words.RAISE_FLOOR, group.floor)
        together.rows += group.rows
        new, old = _parted(group, together.known)
        for part, translated in ((new, words.ADDING), (old, words.WRITING)):
            for sentence, rows in writes_of(part, together.known):
                if sentence is ledger.MOVE_ACCOUNT:
                    await connection.executemany(words.MOVE_ACCOUNT, [(*columns, stamp) for columns in rows])
                else:
                    ours = translated[sentence]
                    await connection.executemany(ours, rows)
                if sentence is ledger.PUT_ACCOUNT and stamp:
                    await connection.executemany(words.STAMP_ACCOUNT, [(columns[0], stamp) for columns in rows])
        await self._take_as_driver(together)
        await self._add_to_books(connection, together)
        for kind, puts in group.puts.items():
            together.known[kind].update(puts)
        together.group = Group()
        together.group.writes = group.writes

    async def _take_as_driver(self, together: _Together) -> None:
        """What is begun here is driven here, until this replica is thought dead."""
        puts, known, connection = together.group.puts, together.known, together.connection
        begun = [t.id for t in puts[Transaction].values() if t.state in UNFINISHED and not known[Transaction].get(t.id)]
        if begun:
            await connection.execute(words.DRIVE_TRANSFERS, begun, self.replica)
        batches = [key for key in puts[Batch] if not known[Batch].get(key)]
        if batches:
            await connection.execute(words.DRIVE_BATCHES, batches, self.replica)

    async def _add_to_books(self, connection: Any, together: _Together) -> None:
        """Last of all: every transfer with a peer adds to its position, and whoever does keeps the others waiting."""
        books, known = together.books, together.known[Book]
        names = sorted(books)
        together.made = [name for name in names if name not in self._books]
        if together.made:
            await connection.executemany(words.MAKE_BOOK, [(name,) for name in together.made])
        if names:
            await connection.executemany(words.ADD_TO_BOOK, [(name, *books[name]) for name in names])
        for name in names:
            known.pop(name, None)
        together.books = {}

    # This replica among the others ----------------------------------------------------------------------------------

    async def _say_alive(self, connection: Any, stamp: int = 0) -> None:
        said = await connection.execute(words.ALIVE, self.replica, stamp, timedelta(seconds=LEASE_S))
        if said != "UPDATE 1":
            raise _Fenced(
                f"this process was silent for longer than {LEASE_S:.0f} s, and another replica has taken over what it "
                "drove: start it again"
            )

    async def _beat(self) -> None:
        """Say that this replica is alive where no write does."""
        while True:
            await asyncio.sleep(BEAT_S)
            if time.monotonic() - self._heard_at < BEAT_S / 2:
                continue
            try:
                async with self._readers.acquire(timeout=opening.CONNECT_S) as connection:
                    await self._say_alive(connection)
                self._heard_at = time.monotonic()
            except (*LOST, *AGAIN, asyncpg.PostgresError) as error:
                self._steady_since = time.monotonic() + BEAT_S
                log.warning("the database is out of reach (%s)", error or type(error).__name__)

    async def claim(self, limit: int) -> list[Transaction]:
        """Unfinished transactions that no living replica drives: from now on this one's.

        Replicas whose lease has run out are buried first, unless this one has been out of the database's reach itself:
        then so may have been they. Where a decision of this one was given up without knowing what became of it, all
        that this one drives comes with them, once.
        """
        unsure, self._unsure = self._unsure, False
        try:
            return await self._take(
                words.BURY if time.monotonic() - self._steady_since > LEASE_S else None,
                (words.FREE_TRANSFERS, limit),
                words.OWN_TRANSFERS if unsure else None,
                (words.TAKE_TRANSFERS, words.TRANSFERS, transfers.transfer_of),
            )
        except BaseException:
            self._unsure = self._unsure or unsure
            raise

    async def claim_batches(self, limit: int) -> list[Batch]:
        """The same of batches."""
        return await self._take(
            None, (words.FREE_BATCHES, limit), None, (words.TAKE_BATCHES, words.BATCHES, registry.batch_of)
        )

    async def _take(
        self,
        bury: str | None,
        free: tuple[str, int],
        own: str | None,
        take: tuple[str, str, Callable[[Columns], R]],
    ) -> list[R]:
        async def taken(connection: Any) -> list[R]:
            async with connection.transaction():
                if bury is not None:
                    await connection.execute(bury)
                found = [columns[0] for columns in await connection.fetch(*free)]
                if own is not None:
                    found += [columns[0] for columns in await connection.fetch(own, self.replica)]
                if not found:
                    return []
                sentence, read, row_of = take
                ours = [columns[0] for columns in await connection.fetch(sentence, self.replica, sorted(found))]
                rows = [row_of(columns) for columns in await connection.fetch(read, ours)]
                await self._say_alive(connection)  # last, as in every write: nobody waits for a row behind it
                return rows

        try:
            return await self._reading(taken)
        except _Fenced as fenced:
            self._break(fenced)
            raise self._lost() from fenced
        except AGAIN:
            return []  # somebody else takes the same: the next look finds what is left

    async def greatest_stamp(self) -> int:
        """The greatest stamp that any replica has written by now."""
        return cast(int, await self._reading(lambda connection: connection.fetchval(words.GREATEST)))

    # Reading ------------------------------------------------------------------------------------------------------

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The committed row of *kind* under its whole key; ``None`` if there is none."""
        sentence, row_of = words.READING[kind]
        found = await self._reading(lambda connection: connection.fetchrow(sentence, *key))
        return None if found is None else cast(R, row_of(found))

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Committed rows by a named query, in its order; *after* is the sort key of the last row of the page before."""
        return await self._reading(lambda connection: _ask(connection, query, key, limit, after))

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every entry anew and compare, on one consistent picture, over a connection of its own."""

        async def count(connection: Any) -> Recount:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await recount(connection, at, RECOUNT_S)

        return await self._reading(count)

    async def _reading(self, read: Callable[[Any], Awaitable[R]]) -> R:
        """What *read* brings over a connection that only reads; tried again while the server is out of reach."""
        self._check()
        until, delay = time.monotonic() + AWAY_S, RETRY_S
        while True:
            try:
                async with self._readers.acquire(timeout=opening.CONNECT_S) as connection:
                    return await read(connection)
            except LOST as error:
                if time.monotonic() > until or self._closing:
                    raise StoreAway from error
                log.debug("a read is tried again: %s", error or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)
            self._check()

    # Forgetting, ending -------------------------------------------------------------------------------------------

    async def collect(self, protocol_before: int, keys_before: int, limit: int) -> int:
        """Delete old protocol state and idempotency keys, *limit* rows at most; how many went (see ``ports.Store``)."""

        async def sweep(connection: Any) -> int:
            gone = 0

            async def drop(sentence: str, *bound: Any) -> int:
                return int((await connection.execute(sentence, *bound)).rpartition(" ")[2])

            async with connection.transaction():
                for (identity,) in await connection.fetch(words.COLLECTABLE, protocol_before, limit):
                    for sentence in (words.DROP_RECORDS, words.DROP_HOLDS):
                        gone += await drop(sentence, identity, limit - gone)
                    if gone >= limit:
                        return gone
                    gone += await drop(words.DROP_TOMBSTONE, identity)
                    await connection.execute(words.MARK_COLLECTED, identity)
                return gone + await drop(words.DROP_KEYS, keys_before, limit - gone)

        try:
            return await self._reading(sweep)
        except AGAIN:
            return 0  # another replica collects: it is asked again in an hour

    async def close(self) -> None:
        """Decide what still waits, leave what this replica drives to the others, and let go of the connections."""
        if self._closing:
            return
        self._closing = True
        writing, beating = self._tasks
        if self._broken is None:
            with suppress(StoreAway, DurabilityLost, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self.decide((), _nothing)
        for task in (writing, beating):
            task.cancel()
        await asyncio.wait([writing, beating])
        if self._broken is None:
            with suppress(*LOST, asyncpg.PostgresError):
                async with self._readers.acquire(timeout=opening.CONNECT_S) as connection:
                    await connection.execute(words.LEAVE, self.replica)
            self._broken = DurabilityLost("this store has been closed")
        await self._let_go_of_writer()
        self._readers.terminate()

    # Connections and breaking -------------------------------------------------------------------------------------

    async def _connected(self) -> Any:
        if self._writer is None or self._writer.is_closed():
            self._writer = await asyncpg.connect(**opening.settings_of(self._url))
            self._writer.add_log_listener(self._note)
        return self._writer

    def _note(self, _connection: Any, message: Any) -> None:
        """A warning may be that a COMMIT was cut short while it waited for its standby."""
        if message.severity_en == "WARNING":
            self._warned = True

    async def _let_go_of_writer(self) -> None:
        """The next attempt has a new connection: nothing of this one's is open any more, or will be soon."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.terminate()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._lost()

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
                each.future.set_exception(self._lost())
                each.future.exception()
        self._queue.clear()
        if self._on_broken is not None:
            self._on_broken(self._broken)

    def _lost(self) -> DurabilityLost:
        """The breakage anew for each caller: a shared exception would gather everyone's tracebacks."""
        assert self._broken is not None
        lost = DurabilityLost(*self._broken.args)
        lost.__cause__ = self._broken.__cause__
        return lost


async def _bury_neighbours(connection: Any) -> None:
    """Whoever ran on this machine and is dead, by its pid, need not be waited for: a bank that is started again at once
    finds what it drove itself."""
    place = _place_of_pids()
    if place is not None:
        for identity, pid in await connection.fetch(words.NEIGHBOURS, place):
            if pid != os.getpid() and not os.path.exists(f"/proc/{pid}"):  # noqa: ASYNC240 - it is no file
                await connection.execute(words.LEAVE, identity)


def _place_of_pids() -> str | None:
    """Where a pid means one process: this boot of this machine, this container; ``None`` where nobody can say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


async def _nothing(_unit: Unit) -> None:
    """A decision that decides nothing: behind it, everything before it is decided."""


async def _ask(
    connection: Any, query: Query[R], key: tuple[str, ...], limit: int, after: tuple[int | str, ...]
) -> list[R]:
    row_of = QUESTIONS[query.name].row_of
    found = await connection.fetch(words.ASKING[query.name], *parameters_of(query.name, key, after, limit))
    return [row_of(columns) for columns in found]


async def recount(connection: Any, at: int, patience: float) -> Recount:
    """Every entry added up anew, within the transaction that is open; each question may take *patience* seconds."""
    answers = []
    for sentence, bound in questions(at):
        found = await connection.fetch(words.COUNTING[sentence], *bound, timeout=patience)
        answers.append([_plain(columns) for columns in found])
    return add_up(answers)


def _plain(columns: Any) -> Columns:
    """A sum of integers is an integer here, too."""
    return tuple(int(value) if isinstance(value, Decimal) else value for value in columns)


def _parted(group: Group, known: Mapping[type, Mapping[Any, Any]]) -> tuple[Group, Group]:
    """The rows of *group* by key: those looked for and not found; the others, and all that is only added."""
    new, old = Group(), Group()
    old.added = group.added
    for kind, rows in group.puts.items():
        for key in sorted(rows):
            missing = key in known[kind] and known[kind][key] is None
            (new if missing else old).puts[kind][key] = rows[key]
    return new, old
