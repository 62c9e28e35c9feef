"""What holders and operators see: statements, events, transfers, what is in doubt.

Lists are read from what is durable; a single row that a decision may just have changed waits for the writes queued
before it. Nothing here changes anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from distribank.bank.rhythm import Rhythm
from distribank.core import coordinator
from distribank.core.heuristics import Heuristic, transaction_of
from distribank.core.ledger import Account, Book, Entry, Hold, HoldState
from distribank.core.protocol import FORCED, State, Transaction
from distribank.ports import Queries, Recount

Change = tuple[int, Literal["balance", "entry", "hold"], Account | Entry | Hold]
"""One thing that a watcher of an account is told: its number, what it is, and the row."""

PAGE: Final = 1000
OVERDUE_MS: Final = 5_000
"""So long behind the time for its votes a transaction is decided at the latest, unless something is wrong."""
LOOK_S: Final = 1.0
"""Between two looks at a watched account that other processes may change."""
_FAR_FUTURE: Final = str(2**62)


@dataclass(slots=True)
class InDoubt:
    """A transaction that is not finished here, why, and what those who were asked have said."""

    transaction: Transaction
    why: str
    asked: dict[str, str] = field(default_factory=dict)


class Reading:
    """The views of one bank."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self.asked: dict[str, dict[str, str]] = {}
        """By transaction, what each bank asked about it last said; kept by recovery."""

    async def statement(
        self, number: str, from_ms: int | None, to_ms: int | None, limit: int, after: tuple[int, ...] = ()
    ) -> list[tuple[Entry, Transaction | None]]:
        """Entries of an account, newest first, each with the transfer it belongs to. *to_ms* is exclusive."""
        entries = await self._store.find(
            Queries.ENTRIES_OF_ACCOUNT,
            number,
            str(from_ms or 0),
            _FAR_FUTURE if to_ms is None else str(to_ms),
            limit=limit,
            after=after,
        )
        return [(entry, await self.transfer_of(entry)) for entry in entries]

    async def transfer_of(self, entry: Entry) -> Transaction | None:
        """The transfer that posted *entry*, or was corrected by it; ``None`` for cash, and where there is none."""
        transaction = transaction_of(entry.operation)
        return None if transaction is None else await self._store.get(Transaction, transaction)

    async def watch(self, number: str, after: int | None = None) -> AsyncGenerator[Change, None]:
        """The balance at once and after each change; before it, every entry and hold behind change number *after*.

        Ends when the bank stops. Without *after* it begins now. Each change is told in order, none is lost.
        """
        with self._rhythm.feed.subscribe(number) as something_new:
            seen = after
            told = None
            while not self._rhythm.feed.closed:
                something_new.clear()
                account = await self._durable_account(number)
                if account != told:
                    if seen is not None:
                        for change in await self._changes_since(number, min(seen, account.changes), account.changes):
                            yield change
                    seen, told = account.changes, account
                    yield seen, "balance", account
                with suppress(TimeoutError):  # nobody wakes this one for what another process of this bank does
                    async with asyncio.timeout(LOOK_S if self._store.shared else None):
                        await something_new.wait()

    async def transfer_for(self, holder_id: str, transaction: str) -> Transaction | None:
        """A transfer in which this holder has a part here; for anyone else it does not exist."""
        known = await self._durable(transaction)
        if known is None or holder_id in known.subjects:
            return known
        for subject in known.subjects:
            account = await self._store.get(Account, subject)
            if account is not None and account.belongs_to(holder_id):
                return known
        return None

    async def transaction_for(self, holder_id: str | None, transaction: str) -> Transaction | None:
        """The same for a holder; without one, for the operator, anything that this bank knows."""
        if holder_id is not None:
            return await self.transfer_for(holder_id, transaction)
        return await self._durable(transaction)

    async def transfers_of(
        self,
        holder_id: str,
        account: str | None,
        states: Sequence[State],
        limit: int,
        after: tuple[int | str, ...] = (),
    ) -> list[Transaction]:
        """Transfers on this holder's accounts and those they ordered, newest first; *account* must be theirs."""
        await self._store.flushed()
        subjects = [account] if account else [holder_id, *await self._numbers_of(holder_id)]
        found: dict[str, Transaction] = {}
        for subject in subjects:
            page = await self._store.find(Queries.TRANSACTIONS_OF, subject, *states, limit=limit, after=after)
            found.update((transaction.id, transaction) for transaction in page)
        newest = sorted(found.values(), key=lambda known: (known.begun_at, known.id), reverse=True)
        return newest[:limit]

    async def in_doubt(self) -> list[InDoubt]:
        """Every vote whose outcome is unknown here, every commit that some bank has yet to acknowledge, and whatever
        this bank coordinates and has not decided in time.
        """
        await self._store.flushed()
        found: list[InDoubt] = []
        after: tuple[int | str, ...] = ()
        while page := await self._store.find(Queries.UNFINISHED, limit=PAGE, after=after):
            after = (page[-1].begun_at, page[-1].id)
            found += [doubt for known in page if (doubt := await self._doubt(known)) is not None]
        return found

    async def doubt_about(self, transaction: str) -> InDoubt | None:
        """The same for one transaction, if there is doubt about it."""
        known = await self._durable(transaction)
        return await self._doubt(known) if known is not None else None

    async def heuristics(self, limit: int, after: tuple[int | str, ...] = ()) -> list[Heuristic]:
        """What an operator has forced here, newest first."""
        await self._store.flushed()
        return await self._store.find(Queries.HEURISTICS, limit=limit, after=after)

    async def books(self) -> list[Book]:
        """The bank's own books: cash, suspense and one position per peer with which money has moved."""
        return await self._store.find(Queries.BOOKS)

    async def recount(self) -> Recount:
        """Add up all that is posted, anew."""
        return await self._store.recount()

    async def _durable(self, transaction: str) -> Transaction | None:
        """What is known of *transaction* now, once that is durable."""
        known = await self._store.get(Transaction, transaction)
        await self._store.flushed()
        return known

    async def _doubt(self, known: Transaction) -> InDoubt | None:
        asked = self.asked.get(known.id, {})
        if known.state is State.PREPARED:
            return InDoubt(known, f"voted yes to {known.coordinator}; no outcome heard yet", dict(asked))
        if known.state in FORCED:
            guess = await self._store.get(Heuristic, known.id)
            assert guess is not None, f"{known.id} is {known.state}, and nobody forced it"
            why = f"{known.state} by the operator: {guess.reason}; the truth is not known yet"
            return InDoubt(known, why, dict(asked))
        if known.state is State.COMMITTING:
            missing = ", ".join(coordinator.unacknowledged(known))
            return InDoubt(known, f"decided commit; not yet acknowledged by {missing}", dict(asked))
        if known.state is State.PREPARING and known.incarnation != self._store.incarnation:
            return InDoubt(known, "begun before this database was restored; the votes are lost", dict(asked))
        if known.state is State.PREPARING and self._rhythm.wall_ms() > known.vote_by + OVERDUE_MS:
            return InDoubt(known, "undecided, though the time for votes is over; nobody may drive it", dict(asked))
        return None

    async def _numbers_of(self, holder_id: str) -> list[str]:
        accounts = await self._store.find(Queries.ACCOUNTS_OF_HOLDER, holder_id)
        return [account.number for account in accounts]

    async def _durable_account(self, number: str) -> Account:
        """The account as it is now, once that is durable."""
        account = await self._store.get(Account, number)
        assert account is not None, f"account {number} vanished"
        await self._store.flushed()
        return account

    async def _changes_since(self, number: str, seen: int, until: int) -> list[Change]:
        """Entries and holds behind change number *seen* and up to *until*, in the order in which they happened."""
        changes: list[Change] = []
        while True:
            entries = await self._store.find(Queries.ENTRIES_SINCE, number, limit=PAGE, after=(seen,))
            holds = await self._store.find(Queries.HOLDS_SINCE, number, limit=PAGE, after=(seen,))
            full = [rows[-1].change for rows in (entries, holds) if len(rows) == PAGE]
            complete = min([until, *full])  # behind the end of a full page, the other list may have what this has not
            page: list[Change] = [(entry.change, "entry", entry) for entry in entries if entry.change <= complete]
            for hold in holds:
                page += [(told.change, "hold", told) for told in _history(hold) if seen < told.change <= complete]
            changes += sorted(page, key=lambda change: change[0])
            if complete == until:
                return changes
            seen = complete


def _history(hold: Hold) -> list[Hold]:
    """A hold as it was placed and, if it is not any more, as it is now."""
    if hold.change == hold.placed_change:
        return [hold]
    return [replace(hold, state=HoldState.PLACED, change=hold.placed_change, resolved_at=None), hold]
