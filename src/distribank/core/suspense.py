"""Suspense: what wrong guesses, or a restore from a backup, have left owed to somebody, or owed by somebody, until an
operator assigns it.

The book has two sides that never pay for each other: what the bank is *owing* (credits that no account could take) and
what it is *owed* (debits that no balance covered). They are claims of different people: a bank that owes Ana 5.00 and
is owed 3.00 by Bruno has 5.00 to credit and 3.00 to debit, though its book stands at 2.00. An assignment takes one
side towards zero and never past it, nor, where it names a transaction, past what that one has left there.

It is new entries under an operation of its own. The counterpart is a customer's account or, for a write-off, the cash:
the bank pays out of its own pocket into the till what it gives up, or out of the till what nobody claims. Either way
the operation sums to zero, and customers' money, suspense counted, stays cash paid in less cash paid out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from distribank.core import ledger as books
from distribank.core.heuristics import Heuristic, correction_of
from distribank.core.ledger import CASH, SUSPENSE, Book, BookEntry, Entry, EntryKind, Ledger, LedgerRow
from distribank.core.money import format_amount
from distribank.core.refusals import Code, Refusal
from distribank.core.restoration import Supplied
from distribank.core.transfer import Direction, Leg
from distribank.core.values import dataclass, replace

_LEG: Final = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """*amount* centavos out of suspense to an account of this bank, or to the bank's own cash where there is none.

    *direction* is the counterpart's: a credit is given what the bank is owing, a debit pays what it is owed.
    *transaction* is what had brought it there, where the operator says so. *assigned_at* is milliseconds since 1970;
    *change* numbers the account's entry.
    """

    assignment_id: str
    direction: Direction
    amount: int
    account: str | None
    reason: str
    transaction: str | None
    assigned_at: int
    stamp: int
    change: int | None = None

    @property
    def operation(self) -> str:
        """The operation of its entries: named after what it corrects or, where that is not said, after the book."""
        cause = correction_of(self.transaction) if self.transaction is not None else SUSPENSE
        return f"{cause}.{self.assignment_id}"

    @property
    def signed(self) -> int:
        """What the counterpart gains; the book loses as much."""
        return self.amount if self.direction is Direction.CREDIT else -self.amount


Movement = Heuristic | Supplied | Assignment
"""What moves the book: a wrong guess whose correction left something there, what a restored bank could not attribute,
or an assignment."""


@dataclass(frozen=True, slots=True)
class Open:
    """Centavos in suspense that the bank is *owing*, and those that it is *owed*."""

    owing: int = 0
    owed: int = 0

    @property
    def balance(self) -> int:
        """The book's: positive, the bank owes it to somebody; negative, it is owed."""
        return self.owing - self.owed

    def to(self, direction: Direction) -> int:
        """What is there to be credited, or debited."""
        return self.owing if direction is Direction.CREDIT else self.owed


def open_after(movements: Iterable[Movement], before: Open = Open()) -> Open:  # noqa: B008 - a value
    """What *movements* leave open, added to what was open *before* them."""
    owing, owed = before.owing, before.owed
    for movement in movements:
        for direction, amount in _opened(movement):
            if direction is Direction.CREDIT:
                owing += amount
            else:
                owed += amount
    return Open(owing, owed)


def amount_of(movement: Movement) -> int:
    """What the book gained by it, in centavos; what an assignment takes out is negative."""
    if isinstance(movement, Assignment):
        return -movement.signed
    if isinstance(movement, Supplied):
        return movement.suspense
    return movement.damage.suspense if movement.damage is not None else 0


def _opened(movement: Movement) -> list[tuple[Direction, int]]:
    if isinstance(movement, Assignment):
        return [(movement.direction, -movement.amount)]
    if isinstance(movement, Supplied):
        unnamed = Direction.CREDIT if movement.unnamed > 0 else Direction.DEBIT
        accounts = [(account.direction, account.to_suspense) for account in movement.accounts]
        return [*accounts, (unnamed, abs(movement.unnamed))]
    damage = movement.damage
    return [(account.direction, account.to_suspense) for account in damage.accounts] if damage is not None else []


def assign(
    order: Assignment, ledger: Ledger, cash: Book, in_book: Open, of_transaction: Open, bank: str
) -> tuple[Assignment | LedgerRow, ...] | Refusal:
    """The rows of *order*, or why it cannot be: its account, what is open *in_book*, or *of_transaction*."""
    legs = [Leg(_LEG, bank, order.account, order.direction, order.amount)] if order.account is not None else []
    refusal = books.check_open(ledger, legs) or _check_there(order, in_book, of_transaction)
    refusal = refusal or (books.check_covered(ledger, legs) if legs else books.check_cash(cash, order.signed))
    if refusal is not None:
        return replace(refusal, leg=None)
    out = BookEntry(order.operation, SUSPENSE, -order.signed, order.stamp)
    if not legs:
        return (order, out, BookEntry(order.operation, CASH, order.signed, order.stamp))
    rows = books.post(ledger, legs, order.operation, EntryKind.CORRECTION, order.stamp, order.assigned_at)
    (entry,) = (row for row in rows if isinstance(row, Entry))
    return (replace(order, change=entry.change), out, *rows)


def _check_there(order: Assignment, in_book: Open, of_transaction: Open) -> Refusal | None:
    """Why so much cannot be taken out of suspense, or ``None``."""
    there = in_book.to(order.direction)
    if order.transaction is not None:
        there = min(there, of_transaction.to(order.direction))
    if order.amount <= there:
        return None
    left, credit = format_amount(there), order.direction is Direction.CREDIT
    if order.transaction is None and credit:
        detail = f"{left} is left in suspense to be credited"
    elif order.transaction is None:
        detail = f"{left} is left in suspense to be debited"
    elif credit:
        detail = f"{left} of this transaction is left in suspense to be credited"
    else:
        detail = f"{left} of this transaction is left in suspense to be debited"
    return Refusal(Code.NOT_IN_SUSPENSE, detail)
