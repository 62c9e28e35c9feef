"""The audit's arithmetic that no engine does by itself: what should be reserved, and the recount of rows in memory.

The same findings in the same words, whatever the store: ``rows_recount`` asks SQL for them row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from distribank.core.coordinator import flows_of
from distribank.core.heuristics import Heuristic
from distribank.core.ledger import Account, Book, BookEntry, Entry, Hold, HoldState, position_book
from distribank.core.protocol import UNFINISHED, Record, Role, State, Transaction
from distribank.core.transfer import Direction, net_flow
from distribank.ports import Recount

MAX_FINDINGS: Final = 1000
"""How many findings of one kind are listed; a database with more is beyond reading line by line."""


class Findings:
    """The sentences of every finding, so that each store says the same."""

    @staticmethod
    def posted(account: str, posted: int, total: int) -> str:
        return f"account {account}: posted is {posted}, its entries sum to {total}"

    @staticmethod
    def balance_after(account: str, change: int, kept: int, running: int) -> str:
        return f"account {account}: change {change} says balance {kept}, its entries up to there sum to {running}"

    @staticmethod
    def negative(account: str, posted: int, held: int) -> str:
        return f"account {account}: posted {posted} less held {held} is negative"

    @staticmethod
    def holds(account: str, kept: tuple[int, int, int], placed: tuple[int, int, int]) -> str:
        return f"account {account}: held, incoming and open holds are {kept}, its placed holds make {placed}"

    @staticmethod
    def orphan(account: str, transaction: str) -> str:
        return f"account {account}: a hold is placed for {transaction}, which is not unfinished"

    @staticmethod
    def book(name: str, balance: int, total: int) -> str:
        return f"book {name}: balance is {balance}, its entries sum to {total}"

    @staticmethod
    def reserved(name: str, reserved: int, flows: int) -> str:
        return f"book {name}: reserved is {reserved}, open transactions would let the peer owe {flows}"

    @staticmethod
    def unbalanced(operation: str, total: int) -> str:
        return f"operation {operation}: its entries sum to {total}, not to zero"


def inflows_of(unfinished: Iterable[Transaction]) -> dict[str, int]:
    """What open transactions would yet let each peer owe this bank, by the name of its position."""
    inflows: dict[str, int] = {}
    for transaction in unfinished:
        for bank, flow in _open_flows(transaction).items():
            if flow < 0:
                name = position_book(bank)
                inflows[name] = inflows.get(name, 0) - flow
    return inflows


def _open_flows(transaction: Transaction) -> dict[str, int]:
    """What this bank comes to owe each peer, if the outcome is a commit that it has not posted yet."""
    if transaction.role is Role.COORDINATOR:
        return flows_of(transaction) if transaction.state is State.PREPARING else {}
    if transaction.state is not State.PREPARED:
        return {}
    assert transaction.order is not None
    return {transaction.coordinator: -net_flow(transaction.order.legs)}


def reserved_findings(books: Mapping[str, int], unfinished: Iterable[Transaction]) -> list[str]:
    """Where a book's *reserved* (by name) is not what the unfinished transactions make it."""
    inflows = inflows_of(unfinished)
    return [
        Findings.reserved(name, books.get(name, 0), inflows.get(name, 0))
        for name in sorted({*books, *inflows})
        if books.get(name, 0) != inflows.get(name, 0)
    ]


def recount_rows(
    accounts: Mapping[str, Account],
    holds: Iterable[Hold],
    entries: Iterable[Entry],
    books: Mapping[str, Book],
    book_entries: Iterable[BookEntry],
    transactions: Mapping[str, Transaction],
    heuristics: Iterable[Heuristic],
    records: Iterable[Record],
    at: int,
) -> Recount:
    """Add up rows that are all in memory; sums are of what is stamped at or before *at*."""
    holds = list(holds)
    entries, book_entries = sorted(entries, key=lambda e: (e.account, e.change)), list(book_entries)
    placed = [hold for hold in holds if hold.state is HoldState.PLACED]
    unfinished = [t for t in transactions.values() if t.state in UNFINISHED]
    open_ids = {transaction.id for transaction in unfinished}
    totals, findings = _run_through(entries)
    sums: dict[str, int] = dict.fromkeys(books, 0)
    sums_at = dict(sums)
    for posting in book_entries:
        sums[posting.book] = sums.get(posting.book, 0) + posting.amount
        sums_at[posting.book] = sums_at.get(posting.book, 0) + (posting.amount if posting.stamp <= at else 0)
    totals_at: dict[str, int] = dict.fromkeys(accounts, 0)
    for entry in entries:
        if entry.stamp <= at:
            totals_at[entry.account] = totals_at.get(entry.account, 0) + _signed(entry)
    held_at = _held_at(holds, entries, at)
    findings = (
        _posted_findings(accounts, totals)
        + findings
        + [Findings.negative(a.number, a.posted, a.held) for a in accounts.values() if not 0 <= a.held <= a.posted]
        + [
            Findings.negative(n, total, held_at.get(n, 0))
            for n, total in totals_at.items()
            if total < held_at.get(n, 0)
        ]
        + _hold_findings(accounts, placed)
        + [Findings.orphan(hold.account, hold.transaction) for hold in placed if hold.transaction not in open_ids]
        + [Findings.book(n, books[n].balance if n in books else 0, sums[n]) for n in sums if _off(books, n, sums[n])]
        + reserved_findings({name: book.reserved for name, book in books.items()}, unfinished)
        + _unbalanced(entries, book_entries)
    )
    later = {record.transaction for record in records if record.stamp > at}
    guesses = [guess for guess in heuristics if guess.truth_at is None or guess.transaction in later]
    guesses.sort(key=lambda guess: (guess.decided_at, guess.transaction))
    return Recount(sum(totals_at.values()), sums_at, len(entries), len(placed), findings, unfinished, guesses)


def _held_at(holds: Iterable[Hold], entries: Iterable[Entry], at: int) -> dict[str, int]:
    """By account, the debit holds prepared by *at* that are still placed, or were posted later than *at*."""
    posted_by = {(entry.account, entry.operation) for entry in entries if entry.stamp <= at}
    held: dict[str, int] = {}
    for hold in holds:
        open_at = hold.state is HoldState.PLACED or (
            hold.state is HoldState.POSTED and (hold.account, hold.transaction) not in posted_by
        )
        if hold.debit and hold.prepared_at <= at and open_at:
            held[hold.account] = held.get(hold.account, 0) + hold.debit
    return held


def _off(books: Mapping[str, Book], name: str, total: int) -> bool:
    return name not in books or books[name].balance != total


def _run_through(entries: Iterable[Entry]) -> tuple[dict[str, int], list[str]]:
    """The sum of each account's entries, and every entry whose balance is not the sum up to it."""
    totals: dict[str, int] = {}
    findings = []
    for entry in entries:
        running = totals.get(entry.account, 0) + _signed(entry)
        totals[entry.account] = running
        if entry.balance_after != running:
            findings.append(Findings.balance_after(entry.account, entry.change, entry.balance_after, running))
    return totals, findings


def _posted_findings(accounts: Mapping[str, Account], totals: Mapping[str, int]) -> list[str]:
    return [
        Findings.posted(number, account.posted, totals.get(number, 0))
        for number, account in sorted(accounts.items())
        if account.posted != totals.get(number, 0)
    ]


def _hold_findings(accounts: Mapping[str, Account], placed: Iterable[Hold]) -> list[str]:
    sums: dict[str, tuple[int, int, int]] = {}
    for hold in placed:
        held, incoming, count = sums.get(hold.account, (0, 0, 0))
        sums[hold.account] = (held + hold.debit, incoming + hold.credit, count + 1)
    return [
        Findings.holds(number, kept, sums.get(number, (0, 0, 0)))
        for number, account in sorted(accounts.items())
        if (kept := (account.held, account.incoming, account.open_holds)) != sums.get(number, (0, 0, 0))
    ]


def _unbalanced(entries: Iterable[Entry], book_entries: Iterable[BookEntry]) -> list[str]:
    sums: dict[str, int] = {}
    for entry in entries:
        sums[entry.operation] = sums.get(entry.operation, 0) + _signed(entry)
    for posting in book_entries:
        sums[posting.operation] = sums.get(posting.operation, 0) + posting.amount
    return [Findings.unbalanced(operation, total) for operation, total in sorted(sums.items()) if total]


def _signed(entry: Entry) -> int:
    return entry.amount if entry.direction is Direction.CREDIT else -entry.amount
