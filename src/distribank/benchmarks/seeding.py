"""Ledgers of any size, every row as the bank itself leaves it.

The banks themselves do everything once, over the public contract: a person registers, opens an account, pays in, pays
another bank. What that leaves in the store is the pattern; all other accounts and past transfers are the same rows
under other numbers, ids, times and balances, written through the shipped store in large groups while no bank runs. A
recount finds nothing wrong with them, and the banks agree on what they owe one another.

``python -m distribank.benchmarks.seeding`` fills one bank, an ``Order`` as JSON on standard input, so that several are
filled at once; it prints how far it is, as two numbers a line.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeVar

from distribank.breakages import Breakage
from distribank.config import Settings
from distribank.core.clock import COUNTER_BITS
from distribank.core.documents import account_number, parse_cpf
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import CASH, Account, BookEntry, Entry, EntryKind, Hold
from distribank.core.protocol import Record, State, Transaction
from distribank.core.transfer import Direction
from distribank.network.client import AccountRef, BankClient, Session, client_of
from distribank.network.layout import LocalBank
from distribank.network.processes import BankProcess, stop_all
from distribank.ports import Queries, Row, Store
from distribank.store import open_store, put

HOLDERS: Final = 256
"""Persons at each bank at most, the same at every bank; the accounts are theirs in turn."""
OPENING: Final = 100_000_000
"""Centavos that are paid into every account."""
PAID: Final = 1
"""Centavos that a past transfer moved."""
APART_MS: Final = 10
"""Milliseconds from one past transfer to the next."""
NAME: Final = "Maria da Silva"
CPF_BASE: Final = 100_000_000
DEPOSIT_KEY: Final = "opening"
TRANSFER_KEY: Final = "past"
TRANSFERS: Final = "transfers"
"""The route under which the keys of transfers stand."""
GROUP_ROWS: Final = 40_000
"""Rows that are written as one atomic group."""
SAID_EVERY: Final = 2.0
"""Seconds between two words about how far it is."""
READY_S: Final = 300.0
"""How long a bank may take until it is ready, on however busy a machine and with however large a ledger."""
COMPLETED_S: Final = 60.0
LOW: Final = (1 << 62) - 1
"""The random bits at the end of an id (UUID version 7)."""

R = TypeVar("R")
Told = Callable[[int, int], None]
"""How much is done, of how much."""


@dataclass(frozen=True, slots=True)
class Order:
    """One bank to fill, by its settings: up to so many *accounts* and so many *past* transfers, its own included."""

    env_file: str
    accounts: int
    past: int


def cpf_of(person: int) -> str:
    """The CPF of the *person*-th holder, from 0."""
    for digits in range(100):
        try:
            return parse_cpf(f"{CPF_BASE + person}{digits:02d}")
        except ValueError:
            continue
    raise AssertionError(f"no check digits for person {person}")


def holder_id_of(first: str, person: int) -> str:
    """The id of a bank's *person*-th holder, where *first* is that of its first."""
    return f"{int(first, 16) + person:032x}"


# The pattern --------------------------------------------------------------------------------------------------------


async def pattern(banks: Sequence[LocalBank], *, past: bool) -> list[str]:
    """Have the banks themselves write the rows that the others are made after; none of them runs behind this.

    Returns the id of each bank's first holder.
    """
    processes = [BankProcess(bank) for bank in banks]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(bank)) for bank in banks]
        stack.push_async_callback(stop_all, processes)
        for process in processes:
            process.start()
        await asyncio.gather(*(process.wait_ready(READY_S) for process in processes))
        settled = [await _settle_in(client) for client in clients]
        if past:
            (session, payer), (_, payee) = settled[:2]
            done = (await session.pay(payer, payee, PAID, key=TRANSFER_KEY)).expect(201)
            await _completed(session, done["transfer_id"])
        return [(await session.get("/v1/holders/me")).expect(200)["holder_id"] for session, _ in settled]


async def _settle_in(client: BankClient) -> tuple[Session, AccountRef]:
    session = await client.join(NAME, cpf_of(0), secrets.token_urlsafe(15))
    account = await session.open_account()
    (await session.deposit(account, OPENING, key=DEPOSIT_KEY)).expect(201)
    return session, account


async def _completed(session: Session, transfer: str) -> None:
    give_up = time.monotonic() + COMPLETED_S
    while (await session.transfer_status(transfer))["status"] != "completed":
        if time.monotonic() > give_up:
            raise Breakage(f"{transfer} was not completed within {COMPLETED_S:.0f} s")
        await asyncio.sleep(0.05)


# One bank -----------------------------------------------------------------------------------------------------------


async def fill(order: Order, told: Told) -> None:
    """Make the ledger of one bank as large as was ordered, from its pattern; the bank does not run."""
    settings = Settings.load(Path(order.env_file))
    now_ms = time.time_ns() // 1_000_000
    store = await open_store(settings.database_url, bank=settings.bank_code, marker=settings.marker_file, now_ms=now_ms)
    try:
        done, total = 0, order.accounts + order.past
        rows = _rows(
            await _opened(store, min(order.accounts, HOLDERS)), await _moved(store) if order.past else None, order
        )
        while group := list(islice(rows, GROUP_ROWS)):
            await put(store, group)
            done += sum(isinstance(row, Account | Transaction) for row in group)
            told(done, total)
    finally:
        await store.close()


def _rows(opened: _Opened, moved: _Moved | None, order: Order) -> Iterator[Row]:
    """Everything there is to write: accounts with what is on them by now, then the transfers, in the order of time.

    One account after the other has had all of its own: rows then lie side by side as they are written, in every index.
    """
    others, more = order.accounts - 1, max(0, order.past - 1)
    each = -(-more // others) if others else 0
    span_ms = order.past * APART_MS
    accounts = (
        opened.rows(serial, span_ms, min(each, max(0, more - (serial - 2) * each)), moved)
        for serial in range(2, order.accounts + 1)
    )
    counter: list[Row] = [Counter(opened.counter.name, order.accounts)]
    past = (
        moved.rows(opened, place // each + 2, place % each, place + 1, span_ms - place * APART_MS)
        for place in range(more)
        if moved is not None
    )
    return chain(chain.from_iterable(accounts), counter, chain.from_iterable(past))


@dataclass(frozen=True, slots=True)
class _Opened:
    """What registering, opening an account and paying in leaves."""

    holder: Holder
    account: Account
    deposit: Entry
    key: IdempotencyKey
    counter: Counter
    persons: int

    def rows(self, serial: int, earlier_ms: int, times: int, moved: _Moved | None) -> Iterator[Row]:
        """The same for the *serial*-th account, *earlier_ms* before; since when *times* transfers have moved it."""
        number, who = account_number(serial), self.holder_of(serial)
        operation = f"cash.{_renamed(self.deposit.operation.removeprefix('cash.'), earlier_ms, serial)}"
        stamp = self.deposit.stamp - (earlier_ms << COUNTER_BITS)
        if serial <= self.persons:
            yield who
        (opener,) = self.account.holders
        yield replace(
            self.account,
            number=number,
            holders=(replace(opener, holder_id=who.holder_id, cpf=who.cpf),),
            opened_at=self.account.opened_at - earlier_ms,
            posted=OPENING + (times * moved.sign * PAID if moved is not None else 0),
            changes=self.deposit.change + (times * moved.changes(self) if moved is not None else 0),
        )
        yield replace(
            self.deposit,
            account=number,
            operation=operation,
            stamp=stamp,
            posted_at=self.deposit.posted_at - earlier_ms,
        )
        yield BookEntry(operation, CASH, -OPENING, stamp)
        yield replace(
            self.key,
            owner=who.holder_id,
            key=f"{serial:032x}",
            fingerprint=self.key.fingerprint.replace(self.account.number, number),
            created_at=self.key.created_at - earlier_ms,
        )

    def holder_of(self, serial: int) -> Holder:
        person = (serial - 1) % self.persons
        return replace(self.holder, cpf=_CPFS[person], holder_id=holder_id_of(self.holder.holder_id, person))


@dataclass(frozen=True, slots=True)
class _Moved:
    """What a transfer between two banks leaves at one of them, once all is over."""

    known: Transaction
    records: list[Record]
    holds: list[Hold]
    entry: Entry
    books: list[tuple[str, int]]
    key: IdempotencyKey | None

    @property
    def sign(self) -> int:
        return 1 if self.entry.direction is Direction.CREDIT else -1

    def changes(self, opened: _Opened) -> int:
        """How many changes of the account it took."""
        return self.entry.change - opened.deposit.change

    def rows(self, opened: _Opened, serial: int, before: int, place: int, earlier_ms: int) -> Iterator[Row]:
        """The same on the *serial*-th account, *earlier_ms* before, when *before* such had moved that account."""
        number, known, earlier = account_number(serial), self.known, earlier_ms << COUNTER_BITS
        who = opened.holder_of(serial)
        assert known.order is not None
        head, _, name = known.id.rpartition(".")
        transaction = f"{head}.{_renamed(name, earlier_ms, place)}"
        more = before * self.changes(opened)
        yield replace(
            known,
            id=transaction,
            begun_at=known.begun_at - earlier_ms,
            order=replace(
                known.order,
                end_to_end_id=f"{known.order.end_to_end_id[:-11]}{place:011d}",
                holder_cpf=who.cpf,
                holder_id=who.holder_id if known.order.holder_id else "",
                ordered_at=known.order.ordered_at - earlier_ms,
                legs=tuple([replace(leg, account=number) for leg in known.order.legs]),
            ),
            vote_by=known.vote_by - earlier_ms,
            prepared_at=_less(known.prepared_at, earlier),
            commit_at=_less(known.commit_at, earlier),
            decided_at=_less(known.decided_at, earlier_ms),
            completed_at=_less(known.completed_at, earlier_ms),
            votes=tuple(
                [
                    replace(
                        vote,
                        prepared_at=_less(vote.prepared_at, earlier),
                        acknowledged_at=_less(vote.acknowledged_at, earlier_ms),
                    )
                    for vote in known.votes
                ]
            ),
            subjects=tuple([number if subject == self.entry.account else who.holder_id for subject in known.subjects]),
        )
        for record in self.records:
            yield replace(record, transaction=transaction, stamp=record.stamp - earlier)
        for hold in self.holds:
            yield replace(
                hold,
                account=number,
                transaction=transaction,
                prepared_at=hold.prepared_at - earlier,
                placed_change=hold.placed_change + more,
                change=hold.change + more,
                resolved_at=_less(hold.resolved_at, earlier),
            )
        yield replace(
            self.entry,
            account=number,
            operation=transaction,
            change=self.entry.change + more,
            balance_after=OPENING + self.sign * (before + 1) * PAID,
            stamp=self.entry.stamp - earlier,
            posted_at=self.entry.posted_at - earlier_ms,
        )
        for book, amount in self.books:
            yield BookEntry(transaction, book, amount, self.entry.stamp - earlier)
        if self.key is not None:
            created_at = self.key.created_at - earlier_ms
            key = f"{place:032x}"
            yield replace(self.key, owner=who.holder_id, key=key, subject=transaction, created_at=created_at)


async def _opened(store: Store, persons: int) -> _Opened:
    number = account_number(1)
    account = await _got(store, Account, number)
    holder = await _got(store, Holder, account.opener.cpf)
    deposit = (await store.find(Queries.ENTRIES_SINCE, number, limit=1, after=(0,)))[0]
    key = await _got(store, IdempotencyKey, holder.holder_id, EntryKind.DEPOSIT, DEPOSIT_KEY)
    return _Opened(holder, account, deposit, key, await _got(store, Counter, "account"), persons)


async def _moved(store: Store) -> _Moved:
    number = account_number(1)
    (known,) = await store.find(Queries.TRANSACTIONS_OF, number, *State, limit=2)
    entry = (await store.find(Queries.ENTRIES_SINCE, number, after=(0,)))[-1]
    assert entry.operation == known.id, f"the last entry on {number} is {entry.operation}'s"
    books = [(book.name, book.balance) for book in await store.find(Queries.BOOKS) if book.peer is not None]
    assert known.order is not None
    return _Moved(
        known,
        await store.find(Queries.RECORDS_OF, known.id),
        await store.find(Queries.HOLDS_SINCE, number, after=(0,)),
        entry,
        books,
        await store.get(IdempotencyKey, known.order.holder_id, TRANSFERS, TRANSFER_KEY),
    )


async def _got(store: Store, kind: type[R], *key: str) -> R:
    row = await store.get(kind, *key)
    assert row is not None, f"the pattern left no {kind.__name__} under {key}"
    return row


def _renamed(name: str, earlier_ms: int, place: int) -> str:
    """An id that was drawn *earlier_ms* before *name*; *place* stands for its chance."""
    return f"{(int(name, 16) - (earlier_ms << 80)) & ~LOW | place:032x}"


def _less(value: int | None, by: int) -> int | None:
    return None if value is None else value - by


_CPFS: Final = [cpf_of(person) for person in range(HOLDERS)]


# Several banks ------------------------------------------------------------------------------------------------------


async def grow(banks: Sequence[LocalBank], accounts: int, past: int, told: Told) -> None:
    """Fill all of *banks*, each in a process of its own; past transfers went from the first to the second."""
    progress = {bank.code: (0, accounts) for bank in banks}

    async def one(bank: LocalBank, order: Order) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "distribank.benchmarks.seeding",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(order)).encode())
            process.stdin.close()
            async for line in process.stdout:
                done, total = line.split()
                progress[bank.code] = int(done), int(total)
                told(*map(sum, zip(*progress.values(), strict=True)))
        finally:
            if process.returncode is None and process.stdout.at_eof():
                await process.wait()
            elif process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise Breakage(f"the ledger of bank {bank.code} could not be made: status {process.returncode}")

    try:
        async with asyncio.TaskGroup() as group:
            for place, bank in enumerate(banks):
                order = Order(str(bank.env_file.resolve()), accounts, past if place < 2 else 0)
                group.create_task(one(bank, order))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # one is enough to say; the others fell with it


def main() -> None:
    order = Order(**json.load(sys.stdin))
    asyncio.run(fill(order, lambda done, total: print(done, total, flush=True)))


if __name__ == "__main__":
    main()
