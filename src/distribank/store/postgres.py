"""The shared store: one PostgreSQL database, from which several processes (replicas) of one bank may serve at a time.

Everything that does not depend on the engine stands in ``sharing``; here it is said in SQL, over two kinds of
connections: one that writes, and a pool of those that read. A write that met another's has SQLSTATE 40001, 40P01 or
55P03, or 23505 where somebody has put a row meanwhile. A COMMIT of which the server says, by a warning, that its
standby may not have it, is not believed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import SystemRandom
from typing import Any, ClassVar, Final, TypeVar, cast

import asyncpg

from distribank.breakages import DurabilityLost, StoreUnusable
from distribank.core.batches import Batch
from distribank.core.clock import MAX_STAMP
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, Hold
from distribank.core.protocol import UNFINISHED, Transaction
from distribank.ports import Chance, Query, Recount
from distribank.store import postgres_opening as opening
from distribank.store import postgres_words as words
from distribank.store import rows_ledger as ledger
from distribank.store import rows_registry as registry
from distribank.store import sharing
from distribank.store.columns import Columns
from distribank.store.group import KEY_OF, Group
from distribank.store.marker import Identity
from distribank.store.rows import writes_of
from distribank.store.rows_queries import QUESTIONS, parameters_of
from distribank.store.rows_recount import add_up, questions
from distribank.store.sharing import Fenced, SharedStore, Together, Unsure

log = logging.getLogger("distribank.store")

R = TypeVar("R")

RECOUNT_S: Final = 600.0
READERS: Final = 8
"""Connections that only read, at most."""
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
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""The last two, too: a role, its password or the database may be changed, and changed back, while a bank runs."""


class PostgresStore(SharedStore):
    """One replica of a bank, on the database that all its replicas share. ``open`` makes one.

    The other parameters are those of ``SharedStore``.
    """

    again: ClassVar = AGAIN
    met: ClassVar = (asyncpg.UniqueViolationError,)
    lost: ClassVar = LOST
    wrong: ClassVar = (asyncpg.PostgresError,)
    hopeless: ClassVar = (asyncpg.DataError,)

    def __init__(
        self,
        server: opening.Server,
        identity: Identity,
        pool: Any,
        replica: str,
        *,
        chance: Chance,
        on_broken: Callable[[DurabilityLost], None] | None,
        on_flush: Callable[[float, int], None] | None,
    ) -> None:
        self._server = server
        self._identity = identity
        self._readers = pool
        self._writer: Any = None
        self._pulse: Any = None
        self._warned = False
        self._books: set[str] = set()
        super().__init__(replica, chance, on_broken, on_flush)

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
                await opening.prepare(connection, url, bank, marker, now_ms, chance)
                async with opening.recognised(connection, url, bank, marker) as identity:
                    await _bury_neighbours(connection)
                    await connection.execute(words.GATHER_STAMPS)
                    await connection.execute(words.FORGET_BURIED)
                    lease = timedelta(seconds=sharing.LEASE_S)
                    await connection.execute(words.JOIN, replica, lease, _place_of_pids(), os.getpid())
            finally:
                await connection.close()
            server = opening.Server(url)
            pool = await asyncpg.create_pool(
                min_size=1, max_size=READERS, init=server.check, **opening.settings_of(url)
            )
        except (*LOST, asyncpg.PostgresError, ValueError) as error:
            raise StoreUnusable(
                f"the database at {opening.place_of(url)} cannot be used: {str(error) or type(error).__name__}; "
                "check DISTRIBANK_DATABASE_URL, and that the server is up"
            ) from error
        return cls(server, identity, pool, replica, chance=chance, on_broken=on_broken, on_flush=on_flush)

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

    # Deciding -----------------------------------------------------------------------------------------------------

    async def _begin(self) -> Any:
        """The connection that writes, with a new transaction on it."""
        if self._writer is None or self._writer.is_closed():
            self._writer = await self._server.connect()
            self._writer.add_log_listener(self._note)
        await self._writer.execute("BEGIN")
        return self._writer

    async def _commit(self, connection: Any) -> None:
        """COMMIT; ``Unsure`` if the server would not wait for its standby."""
        self._warned = False
        await connection.execute("COMMIT")
        if self._warned:
            raise Unsure("the server would not wait for its standby")

    def _tell(self, together: Together, *of: Any) -> None:
        """The books that this write has made are there from now on."""
        self._books.update(together.made)
        super()._tell(together, *of)

    async def _lock(self, connection: Any, names: Iterable[str]) -> Together:
        """Have the rows that *names* say alone, and read them: by kind and key, in the same order always."""
        together = Together(connection)
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
            if lock.kind is Book and (made := [key for key in keys if key not in self._books]):
                # What is not there cannot be had alone.
                await connection.executemany(words.MAKE_BOOK, [(name,) for name in made])
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

    async def _lock_accounts(self, together: Together, numbers: list[str]) -> None:
        if not numbers:
            return
        known = together.known[Account]
        known.update(dict.fromkeys(numbers))
        for columns in await together.connection.fetch(words.LOCK_ACCOUNTS, numbers):
            together.floor = max(together.floor, columns[0])
            account = ledger.account_of(columns[1:])
            known[account.number] = account

    async def _lock_keys(self, together: Together, keys: list[tuple[str, ...]]) -> None:
        if not keys:
            return
        known = together.known[IdempotencyKey]
        known.update(dict.fromkeys(keys))
        for columns in await together.connection.fetch(words.LOCK_KEYS, *map(list, zip(*keys, strict=True))):
            key = registry.key_of(columns)
            known[key.owner, key.route, key.key] = key

    async def _read_holds(self, together: Together, identities: list[str]) -> None:
        together.holds_of.update(identities)
        for columns in await together.connection.fetch(words.HOLDS_OF, identities):
            hold = ledger.hold_of(columns)
            together.known[Hold][hold.account, hold.transaction] = hold

    async def write_out(self, together: Together) -> None:
        """Send what has been written so far, all but the books, to the database, within the open transaction."""
        connection, group = together.connection, together.group
        stamp = group.last_stamp()
        together.stamp = max(together.stamp, stamp)
        if group.floor:
            await connection.execute(words.RAISE_FLOOR, group.floor)
        together.rows += group.rows
        new, old = _parted(group, together.known)
        for part, sentences in ((new, words.ADDING), (old, words.WRITING)):
            for sentence, rows in writes_of(part, together.known):
                if sentence is ledger.MOVE_ACCOUNT:
                    await connection.executemany(words.MOVE_ACCOUNT, [(*columns, stamp) for columns in rows])
                    continue
                ours = sentences[sentence]
                await connection.executemany(ours, rows)
                if sentence is ledger.PUT_ACCOUNT and stamp:
                    await connection.executemany(words.STAMP_ACCOUNT, [(columns[0], stamp) for columns in rows])
        await self._take_as_driver(together)
        for kind, puts in group.puts.items():
            together.known[kind].update(puts)
        together.group = Group()
        together.group.writes = group.writes

    async def _take_as_driver(self, together: Together) -> None:
        """What is begun here is driven here, until this replica is thought dead."""
        puts, known, connection = together.group.puts, together.known, together.connection
        begun = [t.id for t in puts[Transaction].values() if t.state in UNFINISHED and not known[Transaction].get(t.id)]
        if begun:
            await connection.execute(words.DRIVE_TRANSFERS, begun, self.replica)
        batches = [key for key in puts[Batch] if not known[Batch].get(key)]
        if batches:
            await connection.execute(words.DRIVE_BATCHES, batches, self.replica)

    async def _add_to_books(self, together: Together) -> None:
        """Last of all: every transfer with a peer adds to its position, and whoever does keeps the others waiting."""
        connection, books = together.connection, together.books
        names = sorted(books)
        together.made = [name for name in names if name not in self._books]
        if together.made:
            await connection.executemany(words.MAKE_BOOK, [(name,) for name in together.made])
        if names:
            await connection.executemany(words.ADD_TO_BOOK, [(name, *books[name]) for name in names])

    # This replica among the others ----------------------------------------------------------------------------------

    async def _say_alive(self, connection: Any, stamp: int = 0) -> None:
        said = await connection.execute(words.ALIVE, self.replica, stamp, timedelta(seconds=sharing.LEASE_S))
        if said != "UPDATE 1":
            raise Fenced

    @asynccontextmanager
    async def _heart(self) -> AsyncIterator[Any]:
        """A connection of its own, made anew where it fails."""
        if self._pulse is None or self._pulse.is_closed():
            self._pulse = await self._server.connect()
        try:
            yield self._pulse
        except BaseException:
            self._pulse.terminate()
            raise

    async def _leases(self, connection: Any) -> Mapping[str, Any]:
        return dict(await connection.fetch(words.LEASES, self.replica))

    async def _bury(self, connection: Any, silent: Mapping[str, Any]) -> None:
        """The own row first: its lock waits for whatever this replica has sent, and nobody waits for another's."""
        async with connection.transaction():
            await self._say_alive(connection)
            for replica, lease in silent.items():
                await connection.execute(words.BURY, replica, lease)

    async def _take(self, connection: Any, kind: type[R], limit: int, *, own: bool) -> list[R]:
        """What no living replica drives is this one's from now on; see ``SharedStore._take``."""
        taking = words.TAKING[kind]
        async with connection.transaction():
            found = [columns[0] for columns in await connection.fetch(taking.free, limit)]
            if own:
                found += [columns[0] for columns in await connection.fetch(taking.own, self.replica)]
            if not found:
                return []
            ours = [columns[0] for columns in await connection.fetch(taking.take, self.replica, sorted(found))]
            rows = [cast(R, taking.row_of(columns)) for columns in await connection.fetch(taking.rows, ours)]
            await self._say_alive(connection)  # last, as in every write: nobody waits for a row behind it
            return rows

    async def _leave(self, connection: Any) -> None:
        """Whatever this replica drives is left to the others."""
        await connection.execute(words.LEAVE, self.replica)

    async def greatest_stamp(self) -> int:
        """The greatest stamp that any replica has written by now."""
        return cast(int, await self._reading(lambda connection: connection.fetchval(words.GREATEST)))

    # Reading ------------------------------------------------------------------------------------------------------

    def _reader(self) -> AbstractAsyncContextManager[Any]:
        """One of the connections that only read."""
        return cast("AbstractAsyncContextManager[Any]", self._readers.acquire(timeout=opening.CONNECT_S))

    async def read(self, connection: Any, kind: type, key: tuple[str, ...]) -> Any:
        """The committed row of *kind* under its whole key, or ``None``."""
        sentence, row_of = words.READING[kind]
        found = await connection.fetchrow(sentence, *key)
        return None if found is None else row_of(found)

    async def ask(
        self, connection: Any, query: Query[R], key: tuple[str, ...], limit: int, after: tuple[int | str, ...]
    ) -> list[R]:
        """Rows by a named query, as the transaction on *connection* sees them."""
        row_of = QUESTIONS[query.name].row_of
        found = await connection.fetch(words.ASKING[query.name], *parameters_of(query.name, key, after, limit))
        return [row_of(columns) for columns in found]

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every entry anew and compare, on one consistent picture, over a connection of its own."""

        async def count(connection: Any) -> Recount:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await recount(connection, at, RECOUNT_S)

        return await self._reading(count)

    # Forgetting, ending -------------------------------------------------------------------------------------------

    async def collect(self, protocol_before: int, keys_before: int, limit: int) -> int:
        """Delete old protocol state and idempotency keys, *limit* rows at most; how many went (see ``ports.Store``)."""

        async def sweep(connection: Any) -> int:
            gone = 0

            async def drop(sentence: str, *bound: Any) -> int:
                return int((await connection.execute(sentence, *bound)).rpartition(" ")[2])

            async with connection.transaction():
                for (identity,) in await connection.fetch(words.COLLECTABLE, protocol_before, limit):
                    for sentence in words.DROP_OF_EACH:
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

    # Connections --------------------------------------------------------------------------------------------------

    def _note(self, _connection: Any, message: Any) -> None:
        """A warning may be that a COMMIT was cut short while it waited for its standby."""
        if message.severity_en == "WARNING":
            self._warned = True

    async def _undo(self) -> None:
        """Nothing of the attempt that met another's is open any more; its connection is kept where it can be."""
        try:
            await self._writer.execute("ROLLBACK")
        except (*LOST, asyncpg.PostgresError):
            await self._let_go_of_writer()

    async def _let_go_of_writer(self) -> None:
        """The next attempt has a new connection: nothing of this one's is open any more, or will be soon."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.terminate()

    def _let_go(self) -> None:
        """Close every connection."""
        if self._pulse is not None:
            self._pulse.terminate()
        self._readers.terminate()


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
