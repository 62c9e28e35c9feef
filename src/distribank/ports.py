"""What a bank needs from the world: a store, its peers, a clock, chance.

Small interfaces, named by intent. The edges (``store``, ``peers``) implement them; tests and simulations implement
them too, and every store passes the same contract suite (``tests/test_store_contract.py``).
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from distribank.core.batches import Batch
from distribank.core.clock import MAX_STAMP, Floor
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Company, Entry, Hold, Reservation
from distribank.core.protocol import Answer, Message, Record, Transaction
from distribank.core.restoration import Lost, Restoration, Supplied
from distribank.core.suspense import Assignment

Row = (
    Account
    | Assignment
    | Batch
    | Book
    | BookEntry
    | Company
    | Consent
    | Counter
    | Entry
    | Floor
    | Heuristic
    | Hold
    | Holder
    | IdempotencyKey
    | Lost
    | Record
    | Reservation
    | Restoration
    | Supplied
    | Transaction
)
"""Everything that a store keeps. Each is replaced by key; entries, book entries and records are only ever added."""

R = TypeVar("R")
D = TypeVar("D")


@dataclass(frozen=True)
class Recount:
    """What the entries of a bank add up to, in centavos, and every place where a kept sum differs (in words).

    *customers* sums all customers' entries, *books* maps each of the bank's own books to the sum of its entries, both
    up to the stamp asked for. The books balance if all of it sums to zero, operation by operation, and *findings* is
    empty. *unfinished* and *guesses* are what was open at that moment: transactions without an outcome, and forced
    ones of which the log says anything later than that stamp, the truth perhaps.
    """

    customers: int
    books: dict[str, int]
    entries: int
    holds: int
    findings: list[str]
    unfinished: list[Transaction] = field(default_factory=list)
    guesses: list[Heuristic] = field(default_factory=list)


class Unit(Protocol):
    """One decision: what it may look at, and the one atomic write that it makes. Nobody else decides meanwhile over
    what its names say.
    """

    @property
    def floor(self) -> int:
        """What is decided here is stamped later than this, where others have written what this process cannot know."""

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The row of *kind* under its whole key, as it is now: what was decided before included. ``None`` if there is
        none.

        Keys: ``Account(number)``, ``Assignment(assignment_id)``, ``Batch(batch_id)``, ``Book(name)``,
        ``Company(cnpj)``, ``Consent(consent_id)``, ``Counter(name)``, ``Heuristic(transaction)``,
        ``Hold(account, transaction)``, ``Holder(cpf)``, ``IdempotencyKey(owner, route, key)``, ``Lost(transaction)``,
        ``Restoration(incarnation)``, ``Supplied(transaction)``, ``Transaction(id)``.
        """

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """As ``Store.find``: what was decided just before may be missing, unless ``settled`` was waited for."""

    async def settled(self) -> None:
        """Return once ``find`` shows all that was decided before this."""

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:
        """Add *rows* to the write that this decision makes; the future resolves once it is durable.

        A later ``get`` sees them at once. A *lazy* write causes no flush of its own: it travels with the next one,
        a second later at most. ``BookEntry`` and ``Reservation`` are added to their ``Book`` in the same write; a
        ``Floor`` only raises ``last_stamp``.
        Adding an ``Entry`` or ``BookEntry`` that is already there is a bug: the write, and the bank, fail.
        """


class Store(Protocol):
    """One bank's durable memory.

    Whatever changes it is decided in a unit (``decide``), with exclusive access to what the decision names. Outside of
    one, rows are read one by one, by their whole key (``get``), or in lists (``find``).
    """

    @property
    def incarnation(self) -> str:
        """Random name of this database, made with it and anew by every restore: 32 hexadecimal characters."""

    @property
    def reaches_back_to(self) -> int:
        """From when (milliseconds) this log is known to be complete; 0 for a database that was never lost."""

    @property
    def last_stamp(self) -> int:
        """The greatest stamp ever written, as known when this was opened: after a restart the clock starts above it."""

    @property
    def shared(self) -> bool:
        """Whether other processes of this bank may serve from it at the same time."""

    @property
    def within_reach(self) -> bool:
        """Whether the database has been heard of lately, so that what is asked now will not wait for it in vain."""

    @property
    def waited_seconds(self) -> float:
        """Time that decisions have spent waiting for their turn, in all."""

    async def decide(
        self, names: Iterable[str], body: Callable[[Unit], Awaitable[D]], then: Callable[[D], None] | None = None
    ) -> D:
        """Run *body* with exclusive access to *names* (``account:…``, ``transaction:…``, ``key:…``, ``book:…``);
        what it writes is one atomic write, and what it returns is returned.

        With an embedded engine the write is queued when this returns, and becomes durable in the order queued: what
        depends on it waits for ``flushed``. With a shared one it is durable. *body* may be run more than once, where
        what it read had changed or the database was lost sight of; then only its last run counts, so that it must
        have no effect but through its unit. What it raises, it raises here, and nothing is written. *then* is called
        with the result once that is decided, whether or not the caller still waits.
        """

    async def get(self, kind: type[R], *key: str) -> R | None:
        """The row of *kind* under its whole key (see ``Unit.get``), what is queued included."""

    async def flushed(self) -> None:
        """Return once everything decided before now is durable. What depends on it may then leave the bank."""

    def is_durable(self, transaction: str) -> bool:
        """Whether this transaction's present row has reached the disk (nothing of it is queued or being flushed)."""

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: tuple[int | str, ...] = ()) -> list[R]:
        """Durable rows by a named query, in its order; *after* is the sort key of the last row of the page before."""

    async def claim(self, limit: int) -> list[Transaction]:
        """Unfinished transactions that nobody alive drives, *limit* at most: from now on they are this process's.

        Empty once there are none left. An embedded engine gives each once, to the process that opened it.
        """

    async def claim_batches(self, limit: int) -> list[Batch]:
        """The same of batches."""

    async def recount(self, at: int = MAX_STAMP) -> Recount:
        """Add up every durable entry anew and compare: slow by design, without holding up anyone else.

        Sums are of the entries stamped at or before *at*; what is compared is everything.
        """

    async def greatest_stamp(self) -> int:
        """The greatest stamp that anyone has written here by now, or 0 where only this process writes."""

    async def collect(self, protocol_before: int, keys_before: int, limit: int) -> int:
        """Delete at most *limit* rows of protocol state (tombstones, log lines, resolved holds) older than
        *protocol_before* and idempotency keys older than *keys_before* (milliseconds); how many went."""

    async def close(self) -> None:
        """Make everything queued durable and let go of the files."""


@dataclass(frozen=True)
class Query(Generic[R]):
    """One of the named questions below: what it is called and what its rows are."""

    name: str
    kind: type[R]


class Queries:
    """Every list that is read: its key in parentheses, then its order, and what ``after`` takes where it has pages."""

    HOLDER_BY_ID = Query("holder_by_id", Holder)
    """(holder_id)"""
    ACCOUNTS_OF_HOLDER = Query("accounts_of_holder", Account)
    """(holder_id), by number; after: (number,)"""
    ENTRIES_OF_ACCOUNT = Query("entries_of_account", Entry)
    """(account, from_ms, to_ms), newest first by change; *from* inclusive, *to* exclusive, as text; after: (change,)"""
    ENTRIES_SINCE = Query("entries_since", Entry)
    """(account), oldest first by change; after: (change,)"""
    HOLDS_SINCE = Query("holds_since", Hold)
    """(account), oldest first by change; after: (change,)"""
    PLACED_HOLDS = Query("placed_holds", Hold)
    """(), every hold that is placed now; by (account, transaction)"""
    CONSENTS_ON_ACCOUNT = Query("consents_on_account", Consent)
    """(account), by consent_id"""
    CONSENTS_OF_HOLDER = Query("consents_of_holder", Consent)
    """(holder_id), newest first by (created_at, consent_id); after: the same pair"""
    UNFINISHED = Query("unfinished", Transaction)
    """(), whose state is among ``protocol.UNFINISHED``, oldest first by (begun_at, id); after: the same pair"""
    TRANSACTIONS_OF = Query("transactions_of", Transaction)
    """(subject, state, ...), a subject of ``Transaction.subjects`` and the states wanted; newest first by
    (begun_at, id); after: the same pair"""
    RECORDS_OF = Query("records_of", Record)
    """(transaction), by stamp"""
    UNFINISHED_BATCHES = Query("unfinished_batches", Batch)
    """(), by batch_id"""
    HEURISTICS = Query("heuristics", Heuristic)
    """(), every decision that an operator forced, newest first by (decided_at, transaction); after: the same pair"""
    SUSPENDED = Query("suspended", Heuristic)
    """(), wrong guesses whose correction left something in suspense, newest first by (truth_at, 0, transaction);
    after: the same three"""
    ASSIGNMENTS = Query("assignments", Assignment)
    """(), newest first by (assigned_at, stamp, assignment_id); after: the same three"""
    BEGUN_SINCE = Query("begun_since", Transaction)
    """(since_ms), whatever began *since* then (as text) or later, oldest first by (begun_at, id); after: the same
    pair"""
    LOST = Query("lost", Lost)
    """(), what this bank had coordinated and lost, newest first by (begun_at, transaction); after: the same pair"""
    SUPPLIED_IN_SUSPENSE = Query("supplied_in_suspense", Supplied)
    """(), what was posted anew and left something in suspense, newest first by (at, 0, transaction); after: the same
    three"""
    BOOKS = Query("books", Book)
    """(), by name"""


class PeerStatus(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PeerView:
    """What this bank knows of a peer: *since* when (milliseconds), round trip, and the last error in words."""

    bank: str
    name: str
    url: str
    status: PeerStatus
    since: int
    rtt_ms: float | None
    last_error: str | None


class Peers(Protocol):
    """The other banks of the roster, as addresses to talk to."""

    on_return: Callable[[str], None]
    """Called with a bank's code when it is heard of again (or for the first time); set by whoever recovers."""

    @property
    def requests(self) -> Mapping[tuple[str, str], int]:
        """How many requests have left, by bank and kind of message; several messages may share one."""

    def ask(self, bank: str, message: Message, until: float | None = None) -> Future[Answer]:
        """Queue *message* for *bank*; what waits together travels together.

        The future brings the peer's answer. A transport error is retried (the same message, back-off 0.1, 0.2,
        0.4 s …) until the event loop's time *until*, if one is given; then, or at once without one, it raises
        ``Unreachable``. Cancelling the future gives up on the answer, not on what the peer may have done.
        """

    def view(self, bank: str) -> PeerView | None:
        """What is known of *bank*; ``None`` if the roster does not name it."""

    def views(self) -> list[PeerView]:
        """All other banks of the roster, by code."""


class Traces(Protocol):
    """Where each transfer's way over the banks is told, span by span. Nothing here waits, raises or decides."""

    def ordered(self, transaction: str, began_ns: int) -> None:
        """A holder has been answered about *transaction*, who asked at *began_ns* (nanoseconds since 1970)."""

    def driven(self, transaction: str, finished: Future[None]) -> None:
        """*transaction* has just begun to be driven here; *finished* is done with its end."""

    def recorded(self, records: Iterable[Record], durable: Future[None] | None, began_ns: int) -> None:
        """*records*, decided at *began_ns*, are written; *durable* says when, ``None`` where nobody waits for that."""


class Clock(Protocol):
    """Wall-clock time. What must not jump (deadlines) uses the event loop's own time instead."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""


class Chance(Protocol):
    """Randomness, injected so that a simulation can repeat it. ``random.SystemRandom`` is one."""

    def random(self) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...
