"""Out of suspense: what is there, what moved it, and an operator's word on whose it is.

Assignments are decided one after the other, each over what is durable. A correction that is written meanwhile only
adds to what is open, so that none of them needs to wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Final, Protocol, TypeVar

from distribank.bank.rhythm import Moment, Rhythm, account_locks, book_lock
from distribank.core.heuristics import Heuristic
from distribank.core.idempotency import IdempotencyKey, KeyName
from distribank.core.ledger import CASH, SUSPENSE, Book
from distribank.core.refusals import Refusal
from distribank.core.restoration import Supplied
from distribank.core.suspense import Assignment, Movement, Open, assign, open_after
from distribank.core.transfer import Direction
from distribank.ports import Queries, Query

R = TypeVar("R")

PAGE: Final = 1000
_OPERATOR: Final = "operator"
"""Whose the keys are: no holder's id is this word."""

_ROUTE: Final = "assignment"
After = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class AssignmentResult:
    """An assignment, or why it was refused."""

    assignment: Assignment | None
    refusal: Refusal | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Suspense:
    """What is open in the book, and one page of what moved it."""

    open: Open
    movements: Sequence[Movement]


class Assigning:
    """The part of a bank that clears its suspense book."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store

    async def suspense(self, limit: int, after: After = ()) -> Suspense:
        """What is in suspense, and what moved it, newest first by ``place_of``; *after* is that of a page's last."""
        await self._store.flushed()
        in_book, _ = await _open(self._store, None)
        return Suspense(in_book, await _movements(self._store, limit, after))

    async def assign(
        self,
        direction: Direction,
        amount: int,
        account: str | None,
        reason: str,
        transaction: str | None,
        key: str,
        fingerprint: str,
    ) -> AssignmentResult:
        """Assign *amount* centavos to *account*, or to the bank's own cash, durably and once per key."""
        name = KeyName(_OPERATOR, _ROUTE, key, fingerprint)
        accounts = [account] if account is not None else []
        locks = [name.lock, book_lock(SUSPENSE), *account_locks(accounts), *([] if accounts else [book_lock(CASH)])]
        assignment_id = self._rhythm.unique()

        async def decide(moment: Moment) -> tuple[IdempotencyKey, bool]:
            known = await moment.done_under(name)
            if known is not None:
                return known, True
            await moment.settled()  # so that what was assigned before this is found and counted
            in_book, of_transaction = await _open(moment, transaction)
            ledger = await moment.ledger(accounts)
            cash = await moment.get(Book, CASH) or Book(CASH)
            now = moment.now()
            order = Assignment(assignment_id, direction, amount, account, reason, transaction, now.wall_ms, now.stamp)
            rows = assign(order, ledger, cash, in_book, of_transaction, self._rhythm.code)
            refusal = rows if isinstance(rows, Refusal) else None
            done = name.names("" if refusal else assignment_id, now.wall_ms, refusal)
            moment.write([done] if isinstance(rows, Refusal) else [*rows, done])
            return done, False

        known, replayed = await self._rhythm.decide(locks, decide)
        await self._store.flushed()
        made = None if known.refusal else await self._store.get(Assignment, known.subject)
        return AssignmentResult(made, known.refusal, replayed)


class Lists(Protocol):
    """A moment, or the store outside of one."""

    async def find(self, query: Query[R], *key: str, limit: int = 1000, after: After = ()) -> list[R]: ...


async def _open(lists: Lists, transaction: str | None) -> tuple[Open, Open]:
    """What is open in the book, and how much of it *transaction* has left there; all that moved it is added up."""
    in_book = of_transaction = Open()
    after: After = ()
    while page := await _movements(lists, PAGE, after):
        in_book = open_after(page, in_book)
        of_transaction = open_after((row for row in page if row.transaction == transaction), of_transaction)
        after = place_of(page[-1])
    return in_book, of_transaction


async def _movements(lists: Lists, limit: int, after: After) -> list[Movement]:
    assigned = await lists.find(Queries.ASSIGNMENTS, limit=limit, after=after)
    # second, so that whatever is found assigned is found to have been there
    suspended: list[Movement] = [*await lists.find(Queries.SUSPENDED, limit=limit, after=after)]
    supplied: list[Movement] = [*await lists.find(Queries.SUPPLIED_IN_SUSPENSE, limit=limit, after=after)]
    return list(islice(merge(suspended, supplied, assigned, key=place_of, reverse=True), limit))


def place_of(movement: Movement) -> tuple[int, int, str]:
    """By what movements are in order: when, and, within a millisecond, what was left there before what went."""
    if isinstance(movement, Heuristic):
        return movement.truth_at or 0, 0, movement.transaction
    if isinstance(movement, Supplied):
        return movement.at, 0, movement.transaction
    return movement.assigned_at, movement.stamp, movement.assignment_id
