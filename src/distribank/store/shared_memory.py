"""A shared database without a server, for tests and simulations: several replicas of a bank over one ``memory.Disk``.

``SharedMemory`` is the server. It outlives its clients, has time of its own, and promises what PostgreSQL promises to
``sharing``: row locks that last until COMMIT, for rows that are there; reads of what is committed; a COMMIT that lands
as a whole or not at all, heard of or not; a lock that is waited for too long, and a client that says nothing in the
middle of a transaction, are ended. ``SharedMemoryStore`` is one replica on it: everything above the engine's hooks is
the shipped ``sharing``.

How long anything takes, and which answers to a COMMIT are lost, is for ``Manners`` to say: seeded in a simulation,
nothing in most tests. Whatever the server does, it does in no client's context: it goes on when they have died.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any, ClassVar, Final, TypeVar, cast

from distribank.breakages import DurabilityLost
from distribank.core.batches import Batch
from distribank.core.clock import MAX_STAMP
from distribank.core.heuristics import Heuristic
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Company, Entry, Hold
from distribank.core.protocol import UNFINISHED, Record, Transaction
from distribank.core.restoration import Restoration
from distribank.ports import Chance, Query, Recount
from distribank.store import sharing
from distribank.store.group import KEY_OF, Group, Sweep
from distribank.store.memory import Disk
from distribank.store.memory_queries import ask
from distribank.store.recount import recount_rows
from distribank.store.sharing import Fenced, SharedStore, Together, Unsure

R = TypeVar("R")

LOCK_WAIT_S: Final = 5.0
LOOK_S: Final = 0.01
"""How often a row's lock is tried again that is had by no session."""
IDLE_S: Final = 3.0
"""How long a client that has been frozen in the middle of a write may keep others from the rows that it has locked."""

PREFIXES: Final[dict[str, type]] = {
    "account": Account,
    "key": IdempotencyKey,
    "batch": Batch,
    "company": Company,
    "counter": Counter,
    "holder": Holder,
    "restoration": Restoration,
    "transaction": Transaction,
    "book": Book,
}
"""What the part of a name before its colon says, in the order in which rows are locked."""


class Met(Exception):
    """A write met another's."""


class Taken(Exception):
    """Somebody else has put this row."""


class Away(Exception):
    """The connection is lost, or there is none to be had."""


@dataclass
class Manners:
    """How the server treats its clients: *statement* and *commit* say how many seconds the next one takes, and *fate*
    what becomes of a COMMIT: "" (it is heard of), "unheard of" (it lands), "lost" (it does not) or "unsure".
    """

    statement: Callable[[], float] = lambda: 0.0
    commit: Callable[[], float] = lambda: 0.0
    fate: Callable[[], str] = lambda: ""
    keep: Callable[[], bool] = lambda: False
    """Whether a COMMIT that was under way as its client was lost lands all the same."""
    landing: Callable[[Group], None] = lambda _group: None
    """Sees each write in the moment before it is durable."""
    note: Callable[[str], None] = lambda _what: None
    """Hears, in words, of what a simulation wants to have met."""


@dataclass
class Lease:
    """A replica, as the server knows it."""

    expires_at: float
    last_stamp: int = 0
    buried: bool = False


@dataclass(eq=False)
class Session:
    """One connection, and the transaction on it; *open* until that has ended, at the server."""

    replica: str
    open: bool = True
    committing: bool = False
    left: bool = False
    """Nobody hears any more what becomes of it."""
    touched: float = 0.0
    pending: Group = field(default_factory=Group)
    missing: dict[tuple[type, Any], None] = field(default_factory=dict)
    """What was looked for, not found, and put: it must not be there when this lands."""
    books: dict[str, tuple[int, int]] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    """By account, the stamp of the write that moves it."""
    alive: int | None = None
    """The stamp with which the replica has said that it lives: asked for as this lands."""
    held: list[str] = field(default_factory=list)
    waits: Future[None] | None = None
    """For a lock, or to hear of its COMMIT."""


@dataclass
class _Row:
    """Who has a row's lock, *shared* or not, and who waits for it, first come first served."""

    holders: dict[Session, None] = field(default_factory=dict)
    shared: bool = False
    waiting: deque[tuple[Session, bool, Future[None]]] = field(default_factory=deque)


class SharedMemory:
    """The server: see the module."""

    def __init__(
        self, *, disk: Disk | None = None, chance: Chance | None = None, manners: Manners | None = None
    ) -> None:
        self.disk = disk or Disk(f"{(chance or SystemRandom()).getrandbits(128):032x}")
        self.manners = manners or Manners()
        self.replicas: dict[str, Lease] = {}
        self.drivers: dict[tuple[type, str], str] = {}
        self.floor = self.disk.last_stamp
        self.named: set[str] = set()
        """Books that anybody has locked."""
        self._stamps: dict[str, int] = {}
        self._rows: dict[str, _Row] = {}
        self._sessions: dict[Session, None] = {}

    def join(
        self,
        *,
        chance: Chance | None = None,
        on_broken: Callable[[DurabilityLost], None] | None = None,
        on_flush: Callable[[float, int], None] | None = None,
    ) -> SharedMemoryStore:
        """One more replica."""
        chance = chance or SystemRandom()
        self.floor = self.greatest()
        self.replicas = {name: lease for name, lease in self.replicas.items() if not lease.buried}
        replica = f"{chance.getrandbits(128):032x}"
        self.replicas[replica] = Lease(_now() + sharing.LEASE_S)
        return SharedMemoryStore(self, replica, chance, on_broken, on_flush)

    @property
    def locked(self) -> list[str]:
        """The rows that anybody has locked."""
        return list(self._rows)

    def greatest(self) -> int:
        """The greatest stamp that anybody has written."""
        return max([self.floor, *(lease.last_stamp for lease in self.replicas.values())])

    def later(self, delay: float, then: Callable[..., None], *of: Any) -> None:
        """Do something after *delay* seconds, whoever has died meanwhile."""
        asyncio.get_running_loop().call_later(delay, then, *of, context=Context())

    # Sessions -----------------------------------------------------------------------------------------------------

    def begin(self, replica: str) -> Session:
        """A new transaction."""
        session = Session(replica, touched=_now())
        self._sessions[session] = None
        self.later(IDLE_S, self._look_after, session)
        return session

    def drop(self, replica: str) -> None:
        """Every connection of *replica* is lost; what it had not committed is gone, what it committed may land."""
        for session in [each for each in self._sessions if each.replica == replica and not each.left]:
            session.left = True
            waits, session.waits = session.waits, None
            if waits is not None and not waits.done():
                waits.set_exception(Away("the connection was lost"))
                waits.exception()
            if session.committing and self.manners.keep():
                self.manners.note("commit landed unheard of")
            else:
                self._end(session)

    def _look_after(self, session: Session) -> None:
        """A client that is silent in the middle of its transaction loses it."""
        if not session.open:
            return
        idle = _now() - session.touched
        if idle >= IDLE_S and not session.committing and (session.waits is None or session.waits.done()):
            self.manners.note("a frozen write was ended")
            self._end(session)
        else:
            self.later(max(IDLE_S - idle, 0.1), self._look_after, session)

    def _end(self, session: Session) -> None:
        session.open = False
        self._sessions.pop(session, None)
        held, session.held = session.held, []
        for name in held:
            row = self._rows[name]
            del row.holders[session]
            self._pass_on(name, row)

    # Locks --------------------------------------------------------------------------------------------------------

    def lock(self, session: Session, name: str, *, shared: bool = False) -> Future[None] | None:
        """Have the row of *name* until *session* ends; a future where somebody else has it."""
        row = self._rows.setdefault(name, _Row())
        if not row.holders or (shared and row.shared and not row.waiting):
            self._grant(session, name, row, shared)
            return None
        turn = session.waits = asyncio.get_running_loop().create_future()
        row.waiting.append((session, shared, turn))
        self.manners.note("met another replica's rows")
        self.later(LOCK_WAIT_S, _give_up, turn)
        return turn

    def _grant(self, session: Session, name: str, row: _Row, shared: bool) -> None:
        row.holders[session] = None
        row.shared = shared
        session.held.append(name)
        session.touched = _now()

    def _pass_on(self, name: str, row: _Row) -> None:
        while row.waiting and (not row.holders or (row.shared and row.waiting[0][1])):
            session, shared, turn = row.waiting.popleft()
            if session.open and not turn.done():
                self._grant(session, name, row, shared)
                session.waits = None
                turn.set_result(None)
        if not row.holders:
            del self._rows[name]

    # What is committed --------------------------------------------------------------------------------------------

    def stamp_of(self, account: str) -> int:
        """The greatest stamp that was written of *account*."""
        return self._stamps.get(account, 0)

    def commit(self, session: Session) -> Future[None]:
        """Begin to commit what *session* has written; the future is the server's answer."""
        answer: Future[None] = asyncio.get_running_loop().create_future()
        session.committing, session.waits = True, answer
        self.later(self.manners.commit(), self._land, session, answer)
        return answer

    def _land(self, session: Session, answer: Future[None]) -> None:
        if not session.open:
            return
        fate = self.manners.fate()
        error: Exception | None = Away("the connection was lost before COMMIT arrived") if fate == "lost" else None
        if error is None:
            error = self._apply(session)
        self._end(session)
        if error is None and fate == "unheard of":
            self.manners.note("commit landed unheard of")
            error = Away("the connection was lost during COMMIT")
        elif error is None and fate == "unsure":
            self.manners.note("commit was unsure")
            error = Unsure("the server would not wait for its standby")
        self.later(self.manners.statement(), _answer, answer, error)

    def _apply(self, session: Session) -> Exception | None:
        """All that *session* has written is durable from now on, or the reason why nothing of it is."""
        rows, group = self.disk.rows, session.pending
        lease = self.replicas.get(session.replica)
        if session.alive is not None and (lease is None or lease.buried):
            return Fenced()
        for kind, key in session.missing:
            if key in rows[kind]:
                self.manners.note("somebody else had put the row")
                return Taken(f"{kind.__name__} {key} is there already")
        for name, (more, reserved) in session.books.items():
            before = group.puts[Book].get(name) or rows[Book].get(name) or Book(name)
            group.puts[Book][name] = Book(name, before.balance + more, before.reserved + reserved)
        try:
            self.disk.check(group)
        except AssertionError as broken_rule:
            return Taken(str(broken_rule))
        begun = [
            t.id for t in group.puts[Transaction].values() if t.state in UNFINISHED and t.id not in rows[Transaction]
        ]
        batches = [key for key in group.puts[Batch] if key not in rows[Batch]]
        self.manners.landing(group)
        self.disk.apply(group)
        self.drivers.update({(Transaction, key): session.replica for key in begun})
        self.drivers.update({(Batch, key): session.replica for key in batches})
        self.floor = max(self.floor, group.floor)
        for account, stamp in session.stamps.items():
            self._stamps[account] = max(self._stamps.get(account, 0), stamp)
        if lease is not None and session.alive is not None:
            self.say_alive(session.replica, session.alive)
        return None

    # Replicas -----------------------------------------------------------------------------------------------------

    def say_alive(self, replica: str, stamp: int = 0) -> None:
        """Lengthen a lease; ``Fenced`` if its replica has been buried."""
        lease = self.replicas.get(replica)
        if lease is None or lease.buried:
            raise Fenced
        lease.expires_at = _now() + sharing.LEASE_S
        lease.last_stamp = max(lease.last_stamp, stamp)

    def bury(self, replica: str) -> None:
        """*replica* writes nothing more."""
        if replica in self.replicas:
            self.replicas[replica].buried = True

    def leases(self, replica: str) -> dict[str, float]:
        """Every other replica that is not buried, and its lease."""
        return {name: lease.expires_at for name, lease in self.replicas.items() if not lease.buried and name != replica}

    def commits(self, replica: str) -> bool:
        """Whether a COMMIT of *replica* may yet land: its own row is locked as long."""
        return any(session.committing and session.replica == replica for session in self._sessions)

    def take(self, replica: str, kind: type, limit: int, *, own: bool) -> list[Any]:
        """What no living replica drives is driven by *replica* from now on; see ``SharedStore._take``."""
        living = {name for name, lease in self.replicas.items() if not lease.buried}
        open_ = [row for row in self.disk.rows[kind].values() if _is_unfinished(row)]
        open_.sort(key=lambda row: (row.begun_at, row.id) if kind is Transaction else row.batch_id)
        drivers = {KEY_OF[kind](row): self.drivers.get((kind, KEY_OF[kind](row)), "") for row in open_}
        free = [row for row in open_ if drivers[KEY_OF[kind](row)] not in living][:limit]
        if own:
            free += [row for row in open_ if drivers[KEY_OF[kind](row)] == replica and row not in free]
        if free and replica not in living:
            raise Fenced
        if any(drivers[KEY_OF[kind](row)] not in ("", replica) for row in free):
            self.manners.note("taken over")
        if free:
            self.say_alive(replica)
            self.drivers.update({(kind, KEY_OF[kind](row)): replica for row in free})
        return free


class SharedMemoryStore(SharedStore):
    """One replica of a bank on *server*. ``SharedMemory.join`` makes one."""

    again: ClassVar = (Met,)
    met: ClassVar = (Taken,)
    lost: ClassVar = (Away,)
    wrong: ClassVar = ()

    def __init__(
        self,
        server: SharedMemory,
        replica: str,
        chance: Chance,
        on_broken: Callable[[DurabilityLost], None] | None,
        on_flush: Callable[[float, int], None] | None,
    ) -> None:
        self.server = server
        self.last_stamp = server.greatest()
        self._away_until = 0.0
        super().__init__(replica, chance, on_broken, on_flush)

    @property
    def disk(self) -> Disk:
        """What is committed."""
        return self.server.disk

    @property
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""
        return self.disk.incarnation

    @property
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""
        return self.disk.reaches_back_to

    def cut_off(self, seconds: float) -> None:
        """This replica loses its connections, and gets none for so long."""
        self._away_until = _now() + seconds
        self.server.drop(self.replica)

    def die(self) -> None:
        """The process dies: nothing more of it reaches the server, but what had left."""
        self._on_broken = None
        self._broken = self._broken or DurabilityLost("the process died")
        for task in self._tasks:
            task.cancel()
        self.server.drop(self.replica)

    @property
    def is_flushing(self) -> bool:
        """Whether a COMMIT of this replica is under way."""
        return self.server.commits(self.replica)

    # What sharing asks of an engine -------------------------------------------------------------------------------

    async def _trip(self, session: Session) -> None:
        """One statement, and its answer."""
        delay = self.server.manners.statement()
        if delay:
            session.touched = _now()
            await asyncio.sleep(delay)
        if not session.open or _now() < self._away_until:
            raise Away("the connection was lost")
        session.touched = _now()

    async def _begin(self) -> Session:
        if _now() < self._away_until:
            raise Away("nobody answers")
        return self.server.begin(self.replica)

    async def _lock(self, connection: Session, names: Iterable[str]) -> Together:
        """Rows that are there are had alone; those that are not are looked for again as this lands."""
        together = Together(connection)
        by_prefix: dict[str, set[str]] = {}
        for name in names:
            prefix, _, key = name.partition(":")
            by_prefix.setdefault(prefix, set()).add(key)
        await self._have(connection, "clock", shared=by_prefix.pop("clock", None) is None)
        together.floor = self.server.floor
        for prefix, kind in PREFIXES.items():
            wanted: list[Any] = sorted(by_prefix.pop(prefix, ()))
            if kind is IdempotencyKey:
                wanted = sorted(tuple(key.split("\n")) for key in wanted)
            if not wanted:
                continue
            await self._trip(connection)
            known, rows = together.known[kind], self.disk.rows[kind]
            for key in wanted:
                if kind is Book:
                    self.server.named.add(key)
                if key in rows or kind is Book:  # a book that is named is made
                    await self._have(connection, f"{prefix}:{key}")
                known[key] = rows.get(key)
                if kind is Account:
                    together.floor = max(together.floor, self.server.stamp_of(key))
                elif kind is Transaction:
                    self._read_transaction(together, key)
        assert not by_prefix, f"nobody knows how to lock {by_prefix}"
        return together

    def _read_transaction(self, together: Together, identity: str) -> None:
        row = together.known[Transaction][identity]
        if row is not None:
            together.floor = max(together.floor, row.prepared_at or 0, row.commit_at or 0)
        together.holds_of.add(identity)
        for key, hold in self.disk.rows[Hold].items():
            if key[1] == identity:
                together.known[Hold][key] = hold

    async def _have(self, session: Session, name: str, *, shared: bool = False) -> None:
        if not session.open:
            raise Away("the connection was lost")
        turn = self.server.lock(session, name, shared=shared)
        if turn is not None:
            await turn

    async def read(self, connection: Session, kind: type, key: tuple[str, ...]) -> Any:
        """The committed row of *kind* under its whole key, or ``None``."""
        await self._trip(connection)
        name = key[0] if len(key) == 1 else key
        return self.disk.rows[kind].get(name)

    async def ask(
        self, connection: Session, query: Query[R], key: tuple[str, ...], limit: int, after: tuple[int | str, ...]
    ) -> list[R]:
        """Rows by a named query, as the transaction on *connection* sees them."""
        await self._trip(connection)
        rows: Mapping[type, Mapping[Any, Any]] = self.disk.rows
        written = connection.pending.puts.get(query.kind)
        if written:
            rows = {query.kind: {**rows[query.kind], **written}}
        return ask(rows, query, key, after, limit)

    async def write_out(self, together: Together) -> None:
        """Send what has been written so far, all but the books, to the server; nobody sees it before COMMIT."""
        session, group = together.connection, together.group
        await self._trip(session)
        stamp = group.last_stamp()
        together.stamp = max(together.stamp, stamp)
        together.rows += group.rows
        session.pending.floor = max(session.pending.floor, group.floor)
        for kind, puts in group.puts.items():
            known = together.known[kind]
            session.missing.update({(kind, key): None for key in puts if key in known and known[key] is None})
            session.pending.puts[kind].update(puts)
            known.update(puts)
        for kind, added in group.added.items():
            session.pending.added[kind] += added
        session.stamps.update(dict.fromkeys(group.puts[Account], stamp))
        together.group = Group()
        together.group.writes = group.writes

    async def _add_to_books(self, together: Together) -> None:
        session = together.connection
        for name in together.books:
            alone = f"book:{name}" in session.held or name not in self.server.named
            assert alone, f"whoever writes to {name} locks it first, as others do: else two wait in a circle"
        session.books = together.books

    async def _say_alive(self, connection: Session, stamp: int = 0) -> None:
        """Within a write it is asked for as that lands: the row of a replica is locked until COMMIT, too."""
        if connection in self.server._sessions:
            connection.alive = stamp
            return
        await self._trip(connection)
        self.server.say_alive(self.replica, stamp)

    async def _commit(self, connection: Session) -> None:
        if not connection.open:
            raise Away("the connection was lost")
        await self.server.commit(connection)

    async def _undo(self) -> None:
        await self._let_go_of_writer()

    async def _let_go_of_writer(self) -> None:
        self.server.drop(self.replica)

    @asynccontextmanager
    async def _reading_session(self) -> AsyncIterator[Session]:
        if _now() < self._away_until:
            raise Away("nobody answers")
        yield Session(self.replica)

    def _reader(self) -> AbstractAsyncContextManager[Session]:
        return self._reading_session()

    async def _leases(self, connection: Session) -> Mapping[str, Any]:
        await self._trip(connection)
        return self.server.leases(self.replica)

    async def _bury(self, connection: Session, silent: Mapping[str, Any]) -> None:
        await self._trip(connection)
        until = _now() + LOCK_WAIT_S
        while self.server.commits(self.replica):
            if _now() > until:
                raise Met("this row has been locked for too long")
            await asyncio.sleep(LOOK_S)
        self.server.say_alive(self.replica)
        for replica, lease in silent.items():
            if self.server.leases(self.replica).get(replica) == lease and not self.server.commits(replica):
                self.server.bury(replica)
        await self._trip(connection)

    async def _take(self, connection: Session, kind: type[R], limit: int, *, own: bool) -> list[R]:
        await self._trip(connection)
        taken = self.server.take(self.replica, kind, limit, own=own)
        await self._trip(connection)
        return cast("list[R]", taken)

    async def _leave(self, connection: Session) -> None:
        await self._trip(connection)
        self.server.bury(self.replica)

    def _let_go(self) -> None:
        self.server.drop(self.replica)

    # Whole pictures -----------------------------------------------------------------------------------------------

    async def greatest_stamp(self) -> int:
        """The greatest stamp that any replica has written by now."""

        async def greatest(connection: Session) -> int:
            await self._trip(connection)
            return self.server.greatest()

        return await self._reading(greatest)

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every entry anew and compare, in one moment."""

        async def count(connection: Session) -> Recount:
            await self._trip(connection)
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

        return await self._reading(count)

    async def collect(self, protocol_before: int, keys_before: int, limit: int) -> int:
        """Delete old protocol state and idempotency keys, *limit* rows at most; how many went (see ``ports.Store``)."""

        async def sweep(connection: Session) -> int:
            await self._trip(connection)
            group = Group()
            group.sweeps.append(Sweep(protocol_before, keys_before, limit))
            self.disk.apply(group)
            return group.sweeps[0].gone

        return await self._reading(sweep)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _give_up(turn: Future[None]) -> None:
    if not turn.done():
        turn.set_exception(Met("this row has been locked for too long"))
        turn.exception()


def _answer(answer: Future[None], error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
        answer.exception()


def _is_unfinished(row: Any) -> bool:
    return row.finished_at is None if isinstance(row, Batch) else row.state in UNFINISHED
