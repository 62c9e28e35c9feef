"""What the store tests need: stores of either engine that stop, fail and start again on command, and rows to put in.

A ``Place`` is where one bank's store lives. Its flushes can be held back and made to fail, in the same words for both
engines: for SQLite the COMMIT is handed to an executor that runs it on command, for memory it is the flush gate.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distribank.breakages import DurabilityLost
from distribank.core.batches import Batch, BatchItem, Mode, OnFailure
from distribank.core.consents import Consent
from distribank.core.heuristics import AccountDamage, Damage, Heuristic, Verdict
from distribank.core.holders import Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import (
    Account,
    AccountHolder,
    AccountType,
    BookEntry,
    Entry,
    EntryKind,
    Hold,
    HolderRole,
    HoldState,
)
from distribank.core.protocol import Record, RecordKind, Role, State, Transaction, Voted
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Lost, Part, PartFate, Restoration, Supplied, Told
from distribank.core.suspense import Assignment
from distribank.core.transfer import Counterparty, Direction, Leg, Order
from distribank.ports import Row
from distribank.store import put
from distribank.store.group import GroupCommit
from distribank.store.memory import MemoryStore
from distribank.store.postgres import PostgresStore
from distribank.store.shared_memory import SharedMemory, SharedMemoryStore
from distribank.store.sqlite import SqliteStore
from tests.postgres_server import drop, shared_server

BANK, PEER = "00000001", "00000002"
INCARNATION = "0123456789abcdef0123456789abcdef"
STAMP = 1_700_000_000_000 << 16


class Place(ABC):
    """Where one bank's store lives: what stays when the process goes."""

    def __init__(self) -> None:
        self.broken: list[DurabilityLost] = []
        self.flushes: list[int] = []
        self.failure: Exception | None = None

    @abstractmethod
    async def opened(self) -> Any:
        """The store, as the next process finds it."""

    @abstractmethod
    async def lose_disk(self) -> None:
        """The database is gone; what was kept apart from it is not."""

    async def leave(self) -> None:
        """Behind a test."""
        return

    def note_flush(self, _seconds: float, writes: int) -> None:
        self.flushes.append(writes)


class Alone(Place):
    """The place of an engine that has its rows to itself: it queues, and flushes when it can."""

    @abstractmethod
    def hold(self) -> None:
        """From now on no flush reaches the disk."""

    @abstractmethod
    def let_flush(self) -> None:
        """Flushes reach the disk again, those held back first; with a *failure* set, they fail with it instead."""


class ByHand(Executor):
    """Runs what it is given at once, or when told to."""

    def __init__(self, place: OnSqlite) -> None:
        self._place = place
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        if not self._place.held:
            self.run()
        return future

    def run(self) -> None:
        for future, call in self._waiting:
            try:
                if self._place.failure is not None:
                    raise self._place.failure
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        self._waiting.clear()


class OnSqlite(Alone):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.held = False
        self.path = directory / "bank.db"
        self.marker = directory / "bank.marker"
        self._commits = ByHand(self)

    def open(self, *, bank: str = BANK, now_ms: int = 1_000) -> GroupCommit:
        return SqliteStore(
            self.path,
            bank=bank,
            marker=self.marker,
            now_ms=now_ms,
            on_broken=self.broken.append,
            on_flush=self.note_flush,
            executor=self._commits,
        )

    async def opened(self) -> GroupCommit:
        return self.open()

    async def lose_disk(self) -> None:
        for file in self.path.parent.glob("bank.db*"):
            file.unlink()

    def hold(self) -> None:
        self.held = True

    def let_flush(self) -> None:
        self.held = False
        self._commits.run()


class InMemory(Alone):
    def __init__(self, _directory: Path | None = None) -> None:
        super().__init__()
        self._store: MemoryStore | None = None
        self._open = asyncio.Event()
        self._open.set()

    def open(self) -> GroupCommit:
        self._store = MemoryStore(
            disk=self._store.disk if self._store else None,
            flush_gate=self._gate,
            on_broken=self.broken.append,
            on_flush=self.note_flush,
        )
        return self._store

    async def opened(self) -> GroupCommit:
        return self.open()

    async def lose_disk(self) -> None:
        self._store = None

    def hold(self) -> None:
        self._open.clear()

    def let_flush(self) -> None:
        self._open.set()

    def _gate(self) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._pass())

    async def _pass(self) -> None:
        await self._open.wait()
        if self.failure is not None:
            raise self.failure


class InSharedMemory(Place):
    """A simulated shared database. Its replicas are as many as ``opened`` is asked for."""

    def __init__(self, _directory: Path | None = None) -> None:
        super().__init__()
        self.server = SharedMemory()

    async def opened(self) -> SharedMemoryStore:
        return self.server.join(on_broken=self.broken.append, on_flush=self.note_flush)

    async def lose_disk(self) -> None:
        self.server = SharedMemory()


class OnPostgres(Place):
    """A database of its own on the session's server. Its replicas are as many as ``opened`` is asked for."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.url = ""
        self.marker = directory / "bank.marker"

    async def opened(self, *, bank: str = BANK, now_ms: int = 1_000, marker: Path | None = None) -> PostgresStore:
        self.url = self.url or await shared_server().database()
        return await PostgresStore.open(
            self.url,
            bank=bank,
            marker=marker or self.marker,
            now_ms=now_ms,
            on_broken=self.broken.append,
            on_flush=self.note_flush,
        )

    async def lose_disk(self) -> None:
        await drop(self.url)
        self.url = ""

    async def leave(self) -> None:
        if self.url:
            await drop(self.url)


async def turn(times: int = 5) -> None:
    """Let the event loop do whatever it can do without waiting."""
    for _ in range(times):
        await asyncio.sleep(0)


# Rows -------------------------------------------------------------------------------------------------------------


def account(serial: int, **sums: Any) -> Account:
    """An account of holder ``h<serial>``."""
    holder = AccountHolder(f"h{serial}", f"{serial:011d}", "Maria da Silva", HolderRole.TITULAR)
    return Account(number(serial), AccountType.INDIVIDUAL, (holder,), 1, 1_000, **sums)


def number(serial: int) -> str:
    return f"{serial:08d}-0"


def transaction_id(serial: int, bank: str = BANK) -> str:
    return f"{bank}.{INCARNATION}.{serial:08d}"


def transaction(serial: int, state: State = State.PREPARING, **changes: Any) -> Transaction:
    """A transfer of one real from account 1 here to account 9 at the peer; ``begun_at`` is its serial."""
    legs = (Leg(1, BANK, number(1), Direction.DEBIT, 100), Leg(2, PEER, number(9), Direction.CREDIT, 100))
    told: dict[str, Any] = {
        "participants": (PEER,),
        "order": Order(f"E{serial}", "00000000001", "h1", None, serial, legs),
        "vote_by": serial + 62_000,
        "votes": (Voted(PEER),),
        "counterparties": (Counterparty(1, BANK, Direction.DEBIT, "Maria d*** S***"),),
        "subjects": ("h1", number(1)),
    }
    if state in (State.COMMITTING, State.ENDED):
        told |= {"commit_at": STAMP + serial, "decided_at": serial}
    if state is State.ENDED:
        told["completed_at"] = serial
    if state is State.ABORTED:
        told |= {"because": Refusal(Code.BANK_REFUSED, "no"), "decided_at": serial}
    return Transaction(transaction_id(serial), Role.COORDINATOR, state, serial, **(told | changes))


def tombstone(serial: int) -> Transaction:
    because = Refusal(Code.BANK_REFUSED, "promised never to vote")
    return Transaction(
        transaction_id(serial, PEER), Role.PARTICIPANT, State.ABORTED, serial, because=because, decided_at=serial
    )


def record(transaction: str, serial: int, kind: RecordKind = RecordKind.DECIDED) -> Record:
    return Record(transaction, STAMP + serial, kind, "preparing", "aborted", "because")


def hold(account: str, transaction: str, change: int, **changes: Any) -> Hold:
    told: dict[str, Any] = {"state": HoldState.PLACED} | changes
    return Hold(
        account,
        transaction,
        Direction.DEBIT,
        100,
        prepared_at=STAMP + change,
        placed_change=change,
        change=change,
        **told,
    )


def entry(account: str, change: int, amount: int, balance: int, **changes: Any) -> Entry:
    """A deposit, by default under an operation of its own."""
    told = {"operation": f"deposit-{account}-{change}", "leg": 1, "posted_at": change} | changes
    return Entry(
        account,
        change,
        told["operation"],
        told["leg"],
        EntryKind.DEPOSIT,
        Direction.CREDIT,
        amount,
        balance,
        STAMP + change,
        told["posted_at"],
    )


def deposit(before: Account, amount: int) -> list[Row]:
    """All rows of cash paid in: the account, its entry, and what makes them sum to zero."""
    change = before.changes + 1
    posted = entry(before.number, change, amount, before.posted + amount)
    after = Account(
        before.number,
        before.type,
        before.holders,
        before.approval,
        before.opened_at,
        posted=before.posted + amount,
        changes=change,
    )
    return [after, posted, BookEntry(posted.operation, "cash", -amount, posted.stamp)]


def holder(serial: int) -> Holder:
    return Holder(f"{serial:011d}", f"h{serial}", "Maria da Silva", "$argon2id$", 1_000)


def consent(serial: int, **changes: Any) -> Consent:
    told: dict[str, Any] = {"holder_id": "h1", "created_at": serial} | changes
    return Consent(
        f"consent-{serial}", number(1), told["holder_id"], "00000000001", PEER, 500, None, 9_000, told["created_at"]
    )


def heuristic(serial: int, **changes: Any) -> Heuristic:
    """A commit forced of a peer's transaction; ``decided_at`` is its serial."""
    return Heuristic(transaction_id(serial, PEER), Verdict.COMMIT, "its disk is lost", serial, **changes)


def assignment(serial: int, **changes: Any) -> Assignment:
    """One centavo credited to account 1 by its first entry; ``assigned_at`` is its serial."""
    told: dict[str, Any] = {"account": number(1), "transaction": None, "change": 1} | changes
    return Assignment(
        f"assignment-{serial}",
        Direction.CREDIT,
        1,
        told["account"],
        "she called",
        told["transaction"],
        serial,
        STAMP + serial,
        told["change"],
    )


def damaging(serial: int, to_suspense: int = 1) -> Heuristic:
    """A forced commit that was wrong: of five centavos to be debited of account 1, *to_suspense* were not there."""
    damage = Damage((AccountDamage(number(1), Direction.DEBIT, 5, 5 - to_suspense),), PEER, 5, -to_suspense)
    return heuristic(serial, truth=Verdict.ABORT, truth_at=serial, matched=False, damage=damage)


def restoration(serial: int, **changes: Any) -> Restoration:
    return Restoration(f"{serial:032x}", STAMP, serial, serial + 1, **changes)


def lost(serial: int, *fates: PartFate) -> Lost:
    """What this bank had coordinated and lost, of which so many participants tell; ``begun_at`` is its serial."""
    parts = tuple(
        Part(f"{place:08d}", fate, STAMP + serial if fate is PartFate.COMMITTED else None, _legs_at(f"{place:08d}"))
        for place, fate in enumerate(fates, 2)
    )
    parties = (Counterparty(1, BANK, Direction.DEBIT, "Maria d*** S***"),)
    banks = tuple(part.bank for part in parts)
    order = (f"E{serial}", "00000000001", None, serial, serial + 62_000)
    return Lost(transaction_id(serial), serial, banks, *order, parties, parts)


def _legs_at(bank: str) -> tuple[Leg, ...]:
    return (Leg(2, bank, number(9), Direction.CREDIT, 100),)


def supplied(serial: int, unnamed: int = 0, **changes: Any) -> Supplied:
    """What was posted anew of a peer's transaction; ``at`` is its serial."""
    told: dict[str, Any] = {"reason": None, "accounts": (AccountDamage(number(1), Direction.DEBIT, 5, 5),)} | changes
    return Supplied(transaction_id(serial, PEER), serial, told["reason"], told["accounts"], unnamed)


def told(bank: str, at: int | None = 9, resupplied: int = 3) -> Told:
    return Told(bank, at, resupplied)


def key(serial: int, created_at: int) -> IdempotencyKey:
    return IdempotencyKey("h1", "/v1/transfers", f"key-{serial}", "f" * 64, transaction_id(serial), created_at)


def batch(serial: int, finished_at: int | None = None) -> Batch:
    legs = (Leg(1, BANK, number(1), Direction.DEBIT, 5), Leg(2, BANK, number(2), Direction.CREDIT, 5))
    items = (BatchItem(legs, "rent"), BatchItem(legs, None))
    return Batch(f"batch-{serial}", "h1", Mode.SEQUENTIAL, OnFailure.STOP, items, 1_000, finished_at)


@dataclass
class World:
    """A place with an open store, closed again at the end of a test."""

    place: Place
    store: Any

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> asyncio.Future[None]:
        """Write *rows* where nothing is decided; done once they are durable."""
        if isinstance(self.store, GroupCommit):
            return self.store.write(rows, lazy=lazy)
        return asyncio.ensure_future(put(self.store, rows))

    async def reopen(self) -> Any:
        await self.store.close()
        self.store = await self.place.opened()
        return self.store


@dataclass
class LoneWorld(World):
    """The same with an engine that has its rows to itself."""

    place: Alone
