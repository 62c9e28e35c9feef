"""Heuristic decisions: what follows when an operator forces one participant's part, and the truth arrives later.

A forced outcome is a guess, recorded as such. When the truth differs, what was done stays as it is and is corrected by
new entries under an operation of their own: the position in full, customers as far as their accounts let it, and the
rest in the bank's ``suspense`` book, so that everything still sums to zero, operation by operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from distribank.core import ledger as books
from distribank.core.ledger import CASH, SUSPENSE, Account, BookEntry, EntryKind, Ledger, LedgerRow
from distribank.core.money import MAX_BALANCE
from distribank.core.transfer import Direction, Leg
from distribank.core.values import dataclass

MAX_REASON: Final = 500
_CORRECTION: Final = ".correction"
_WITHOUT_TRANSACTION: Final = (f"{CASH}.", f"{SUSPENSE}.")
"""How operations begin that no transaction is behind: cash, and assignments out of suspense that name none."""


class Verdict(StrEnum):
    """What an operator forces, and what the truth turns out to be."""

    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class AccountDamage:
    """What one account had still to gain or lose (*wanted*), how much of it was *corrected*, and what went to suspense.

    Amounts are in centavos; *direction* is that of the correction.
    """

    account: str
    direction: Direction
    wanted: int
    corrected: int

    @property
    def to_suspense(self) -> int:
        return self.wanted - self.corrected


@dataclass(frozen=True, slots=True)
class Damage:
    """What a wrong guess had to be corrected by.

    *position* is signed, in centavos: what this bank came to owe the peer *bank* by it. *suspense* is signed likewise:
    positive for money that the bank owes to whom it could not credit, negative for what it could not debit.
    """

    accounts: tuple[AccountDamage, ...]
    bank: str
    position: int
    suspense: int

    @property
    def in_words(self) -> str:
        corrected = sum(damage.corrected for damage in self.accounts)
        return f"{corrected} centavos corrected on customers' accounts, {self.suspense} in suspense"


@dataclass(frozen=True, slots=True)
class Heuristic:
    """One forced decision, with its *reason*; *truth* and what follows are ``None`` until the outcome is known here.

    *decided_at* and *truth_at* are milliseconds since 1970. *damage* is there only where the truth differs.
    """

    transaction: str
    decision: Verdict
    reason: str
    decided_at: int
    truth: Verdict | None = None
    truth_at: int | None = None
    matched: bool | None = None
    damage: Damage | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """The rows that bring the books to the truth, and what they say in words."""

    rows: tuple[LedgerRow, ...]
    damage: Damage


def correction_of(transaction: str) -> str:
    """The operation under which *transaction* is corrected: its own, so that a leg is still posted once in each."""
    return transaction + _CORRECTION


def transaction_of(operation: str) -> str | None:
    """The transaction that an entry's *operation* belongs to, whether it posted the entry or corrected it, at once or
    out of suspense; ``None`` where there is none."""
    return None if operation.startswith(_WITHOUT_TRANSACTION) else operation.partition(_CORRECTION)[0]


def correct(
    accounts: Mapping[str, Account],
    legs: tuple[Leg, ...],
    truth: Verdict,
    transaction: str,
    coordinator: str,
    stamp: int,
    posted_at: int,
) -> Correction:
    """Post what a forced abort has left out (*truth* is commit), or take back what a forced commit has posted."""
    sign = 1 if truth is Verdict.COMMIT else -1
    operation = correction_of(transaction)
    numbers = {leg.account: leg.number for leg in reversed(legs)}
    damages, posting = [], []
    for number, net in books.net_per_account(legs).items():
        wanted = net * sign
        if not wanted:
            continue
        account, direction = accounts[number], Direction.CREDIT if wanted > 0 else Direction.DEBIT
        corrected = min(abs(wanted), reach(account, direction))
        damages.append(AccountDamage(number, direction, abs(wanted), corrected))
        if corrected:
            posting.append(Leg(numbers[number], legs[0].bank, number, direction, corrected))
    position = -sign * sum(leg.signed for leg in legs)
    suspense = -position - sum(leg.signed for leg in posting)
    rows = (
        *books.post(Ledger(accounts, {}), posting, operation, EntryKind.CORRECTION, stamp, posted_at),
        *books.post_positions({coordinator: position}, operation, stamp),
        *([BookEntry(operation, SUSPENSE, suspense, stamp)] if suspense else []),
    )
    return Correction(rows, Damage(tuple(damages), coordinator, position, suspense))


def reach(account: Account, direction: Direction) -> int:
    """How much of a correction *account* can take: nothing once it is closed; a debit, only what is available."""
    if account.closed_at is not None:
        return 0
    if direction is Direction.DEBIT:
        return account.available
    return max(0, MAX_BALANCE - account.posted - account.incoming)
