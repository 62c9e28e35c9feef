"""The ledger of one bank: accounts, holds, entries, and the rules that no transfer may break.

Double entry: whatever is written for one operation sums to zero over the customers' entries and the bank's own
books (``cash``, ``suspense``, one ``position:<bank>`` per peer). A credit adds to what the bank owes, a debit
takes from it; a customer's balance and a position that we owe are therefore positive, cash in the vault negative.

The functions take the rows they decide over and return the rows that replace them. They never look anything up,
and they are called with every account of one operation at hand, so that check and hold are one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from distribank.core.documents import mask_name
from distribank.core.money import MAX_BALANCE
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg
from distribank.core.values import dataclass, replace

CASH: Final = "cash"
SUSPENSE: Final = "suspense"
_POSITION: Final = "position:"


def position_book(bank: str) -> str:
    """The name of the book that keeps what this bank owes *bank* (positive) or is owed by it (negative)."""
    return _POSITION + bank


class AccountType(StrEnum):
    INDIVIDUAL = "individual"
    JOINT = "joint"
    BUSINESS = "business"


class HolderRole(StrEnum):
    TITULAR = "titular"
    CO_HOLDER = "co_holder"
    ADMINISTRATOR = "administrator"


class ApprovalRule(StrEnum):
    """How the holders of an account approve a debit: each alone, all of them, or some number of them."""

    ANY = "any"
    ALL = "all"
    AT_LEAST = "at_least"


class EntryKind(StrEnum):
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRANSFER = "transfer"
    RETURN = "return"
    CORRECTION = "correction"
    """What brings an account to the truth, where an operator had forced the other outcome: at once, or later, out of
    suspense."""


class HoldState(StrEnum):
    PLACED = "placed"
    POSTED = "posted"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class AccountHolder:
    """One holder of an account, told apart by CPF. The opener is titular (or administrator of a company's account)."""

    holder_id: str
    cpf: str
    name: str
    role: HolderRole


@dataclass(frozen=True, slots=True)
class Company:
    """A company, by its CNPJ; it has one account per bank."""

    cnpj: str
    legal_name: str
    account: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account and the sums over its entries and holds, in centavos.

    *posted* is the sum of its entries; *held* that of its placed debit holds, *incoming* that of its placed credit
    holds; *open_holds* counts placed holds of any kind. *changes* numbers every entry and every change of a hold,
    so that a listener can resume where it stopped. *approval* is how many holders must approve a debit, by *rule*.
    """

    number: str
    type: AccountType
    holders: tuple[AccountHolder, ...]
    approval: int
    opened_at: int
    company: Company | None = None
    closed_at: int | None = None
    posted: int = 0
    held: int = 0
    incoming: int = 0
    open_holds: int = 0
    changes: int = 0
    rule: ApprovalRule = ApprovalRule.ANY

    @property
    def available(self) -> int:
        """What may be spent: entries less debit holds. Pending credits do not count."""
        return self.posted - self.held

    @property
    def opener(self) -> AccountHolder:
        return self.holders[0]

    @property
    def masked_name(self) -> str:
        """The name that counterparties see: a company's is public, a person's is masked."""
        return self.company.legal_name if self.company else mask_name(self.opener.name)

    def is_held_by(self, cpf: str) -> bool:
        return any(holder.cpf == cpf for holder in self.holders)

    def belongs_to(self, holder_id: str) -> bool:
        """The same by the holder's id at this bank."""
        return any(holder.holder_id == holder_id for holder in self.holders)


@dataclass(frozen=True, slots=True)
class Hold:
    """What one transaction reserves on one account: the net of its legs there, zero included (it still blocks closing).

    *placed_change* and *change* are the account's change numbers of placing and of the latest state.
    """

    account: str
    transaction: str
    direction: Direction
    amount: int
    state: HoldState
    prepared_at: int
    placed_change: int
    change: int
    resolved_at: int | None = None

    @property
    def debit(self) -> int:
        return self.amount if self.direction is Direction.DEBIT else 0

    @property
    def credit(self) -> int:
        return self.amount if self.direction is Direction.CREDIT else 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One posted debit or credit of a customer; immutable. *operation* is a transaction's id, or a cash operation's."""

    account: str
    change: int
    operation: str
    leg: int
    kind: EntryKind
    direction: Direction
    amount: int
    balance_after: int
    stamp: int
    posted_at: int


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One posting in a book of the bank's own; *amount* is signed, credit positive. A store adds it to its ``Book``."""

    operation: str
    book: str
    amount: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A change of what open transactions would yet let a peer owe this bank; the store adds it to its ``Book``."""

    book: str
    amount: int


@dataclass(frozen=True, slots=True)
class Book:
    """One of the bank's own books and its balance, the sum of its entries in centavos.

    *reserved* is what open transactions would yet let the peer owe: it counts against a cap, as holds do.
    """

    name: str
    balance: int = 0
    reserved: int = 0

    @property
    def peer(self) -> str | None:
        """The bank with which this is the position, if it is one."""
        return self.name.removeprefix(_POSITION) if self.name.startswith(_POSITION) else None


LedgerRow = Account | Hold | Entry | BookEntry | Reservation


@dataclass(frozen=True, slots=True)
class Ledger:
    """The rows of one operation: every account that it names here, and this transaction's holds on them."""

    accounts: Mapping[str, Account]
    holds: Mapping[str, Hold]


def net_per_account(legs: Iterable[Leg]) -> dict[str, int]:
    """What each account gains over all legs, in the order first named; negative is a net debit."""
    nets: dict[str, int] = {}
    for leg in legs:
        nets[leg.account] = nets.get(leg.account, 0) + leg.signed
    return nets


def check(ledger: Ledger, legs: Sequence[Leg]) -> Refusal | None:
    """Why these legs cannot be held or posted now, or ``None``: every account open, covered and within bounds."""
    return check_open(ledger, legs) or check_covered(ledger, legs)


def check_open(ledger: Ledger, legs: Sequence[Leg]) -> Refusal | None:
    """The half that says nothing about anybody's money: every account exists and is open."""
    for leg in legs:
        account = ledger.accounts.get(leg.account)
        if account is None:
            return Refusal(Code.ACCOUNT_NOT_FOUND, "no such account at this bank", leg.bank, leg.account, leg.number)
        if account.closed_at is not None:
            return Refusal(Code.ACCOUNT_CLOSED, "this account is closed", leg.bank, leg.account, leg.number)
    return None


def check_covered(ledger: Ledger, legs: Sequence[Leg]) -> Refusal | None:
    """The half about money, where ``check_open`` has passed: each net debit covered, no sum out of bounds."""
    nets = net_per_account(legs)
    for leg in legs:
        account, net = ledger.accounts[leg.account], nets[leg.account]
        if -net > account.available:
            detail = "the available balance does not cover this debit"
            return Refusal(Code.INSUFFICIENT_FUNDS, detail, leg.bank, leg.account, leg.number)
        if account.posted + account.incoming + max(net, 0) > MAX_BALANCE:
            detail = "no account may hold that much money"
            return Refusal(Code.LIMIT_EXCEEDED, detail, leg.bank, leg.account, leg.number)
    return None


def check_cash(cash: Book, paid_out: int) -> Refusal | None:
    """Why the bank's cash cannot pay *paid_out* centavos, negative where it is paid in, or ``None``."""
    if abs(cash.balance + paid_out) > MAX_BALANCE:
        return Refusal(Code.LIMIT_EXCEEDED, "no bank may hold that much cash")
    return None


def check_approval(account: Account) -> Refusal | None:
    """Why one holder alone may not debit this account, or ``None``."""
    if account.approval <= 1:
        return None
    detail = f"a debit of this account needs the approval of {account.approval} holders"
    return Refusal(Code.APPROVAL_REQUIRED, detail, account=account.number)


def close(account: Account, wall_ms: int) -> Account | Refusal:
    """The account, closed: only if it is empty and nothing is held on it, a pending credit of nothing included."""
    if account.closed_at is not None:
        return account
    if account.posted or account.open_holds:
        return Refusal(
            Code.ACCOUNT_NOT_EMPTY, "only an empty account without holds can be closed", account=account.number
        )
    return replace(account, closed_at=wall_ms, changes=account.changes + 1)


def place(ledger: Ledger, legs: Sequence[Leg], transaction: str, stamp: int) -> tuple[LedgerRow, ...]:
    """Hold the net of *legs* on each account, once ``check`` has passed: one hold per account and transaction."""
    rows: list[LedgerRow] = []
    for number, net in net_per_account(legs).items():
        before = ledger.accounts[number]
        direction = Direction.DEBIT if net < 0 else Direction.CREDIT
        change = before.changes + 1
        hold = Hold(number, transaction, direction, abs(net), HoldState.PLACED, stamp, change, change)
        account = replace(
            before,
            held=before.held + hold.debit,
            incoming=before.incoming + hold.credit,
            open_holds=before.open_holds + 1,
            changes=change,
        )
        assert account.available >= 0, f"hold of {hold.debit} on {number} leaves {account.available} available"
        rows += (account, hold)
    return tuple(rows)


def assert_held(ledger: Ledger, legs: Sequence[Leg]) -> None:
    """A promise is carried out, or given back, with all its holds: nothing is posted without one, and none is left."""
    wanted = net_per_account(legs).keys()
    assert ledger.holds.keys() == wanted, f"holds on {sorted(ledger.holds)} where {sorted(wanted)} are concerned"


def release(ledger: Ledger, stamp: int) -> tuple[LedgerRow, ...]:
    """Give back what the transaction's holds reserved: it was aborted."""
    rows: list[LedgerRow] = []
    for hold in ledger.holds.values():
        rows += _resolve(ledger.accounts[hold.account], hold, HoldState.RELEASED, stamp)
    return tuple(rows)


def post(
    ledger: Ledger, legs: Sequence[Leg], operation: str, kind: EntryKind, stamp: int, posted_at: int
) -> tuple[LedgerRow, ...]:
    """Turn *legs* into entries, credits first, and this transaction's holds (if it has any) into posted ones.

    The caller adds the book entries that make the sum zero, in the same write.
    """
    accounts: dict[str, Account] = {}
    rows: list[LedgerRow] = []
    for number in net_per_account(legs):
        account = ledger.accounts[number]
        hold = ledger.holds.get(number)
        if hold is not None:
            account, posted = _resolve(account, hold, HoldState.POSTED, stamp)
            rows.append(posted)
        accounts[number] = account
    for leg in sorted(legs, key=lambda leg: (leg.direction is Direction.DEBIT, leg.number)):
        before = accounts[leg.account]
        account = replace(before, posted=before.posted + leg.signed, changes=before.changes + 1)
        accounts[leg.account] = account
        rows.append(
            Entry(
                leg.account,
                account.changes,
                operation,
                leg.number,
                kind,
                leg.direction,
                leg.amount,
                account.posted,
                stamp,
                posted_at,
            )
        )
    for account in accounts.values():
        assert account.available >= 0, f"{operation} leaves {account.available} available on {account.number}"
    return (*accounts.values(), *rows)


def _resolve(before: Account, hold: Hold, state: HoldState, stamp: int) -> tuple[Account, Hold]:
    """The account and the hold once it is no longer placed."""
    assert hold.state is HoldState.PLACED, f"hold of {hold.transaction} on {hold.account} is {hold.state}"
    change = before.changes + 1
    account = replace(
        before,
        held=before.held - hold.debit,
        incoming=before.incoming - hold.credit,
        open_holds=before.open_holds - 1,
        changes=change,
    )
    return account, replace(hold, state=state, resolved_at=stamp, change=change)


def check_position(book: Book, inflow: int, cap: int) -> Refusal | None:
    """Why the peer of this position may not come to owe *inflow* more, or ``None``. Whatever is reserved counts."""
    if inflow > position_room(book, cap):
        return Refusal(Code.POSITION_LIMIT, "this would let a peer owe this bank more than its limit")
    return None


def position_room(book: Book, cap: int) -> int:
    """What the peer of this position may still come to owe, in centavos; negative where it owes too much already."""
    return min(cap, MAX_BALANCE) + book.balance - book.reserved


def reserve_positions(flows: Mapping[str, int], *, give_back: bool = False) -> tuple[LedgerRow, ...]:
    """Reserve (or give back) what each peer would come to owe.

    *flows*: what this bank will come to owe each, negative where it will be owed.
    """
    sign = -1 if give_back else 1
    return tuple([Reservation(position_book(bank), -flow * sign) for bank, flow in flows.items() if flow < 0])


def post_positions(flows: Mapping[str, int], operation: str, stamp: int) -> tuple[LedgerRow, ...]:
    """The bank's own side of a transfer: one entry per peer with which the flow is not zero."""
    return tuple([BookEntry(operation, position_book(bank), flow, stamp) for bank, flow in flows.items() if flow])
