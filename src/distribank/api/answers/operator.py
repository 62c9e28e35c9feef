"""What an operator sees: doubts, forced outcomes and their damage, suspense, positions, the books."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from distribank.api.answers.transfers import STATUS, TransferStatus, legs_of
from distribank.api.answers.words import Answer, Bank, DirectionName, Json, Money, Number, Page, SignedMoney, Time
from distribank.bank import assigning, reading
from distribank.core import heuristics
from distribank.core import suspense as suspense_book
from distribank.core.clock import wall_of
from distribank.core.ledger import CASH, SUSPENSE, Book, position_book
from distribank.core.money import format_amount
from distribank.core.protocol import IN_DOUBT, coordinator_of
from distribank.core.restoration import Supplied
from distribank.moments import format_ms
from distribank.ports import Recount


class Said(Answer):
    """What one bank answered when it was last asked for the outcome."""

    bank: Bank
    said: str = Field(description="In words.")


class DoubtLeg(Answer):
    bank: Bank
    account: Number
    direction: DirectionName
    amount: Money


class InDoubt(Answer):
    """A transaction that is not finished at this bank."""

    transaction: str = Field(description="The transaction's id between banks.")
    transfer_id: str = Field(description="The same, under the name that holders know it by.")
    role: Literal["coordinator", "participant"]
    status: TransferStatus
    in_doubt: bool = Field(description="Voted yes here, and the outcome is not known.")
    since: Time = Field(description="Since the vote or the decision; where there is neither, since it began.")
    coordinator: Bank
    participants: list[Bank]
    accounts: list[DoubtLeg] = Field(description="The legs that this bank knows, with their amounts.")
    why: str = Field(description="What it waits for, in words.")
    asked: list[Said] = Field(description="Every bank that was asked, with its last answer.")


def in_doubt(doubt: reading.InDoubt) -> Json:
    """An unfinished transaction with everything that an operator needs to settle it."""
    row = doubt.transaction
    since = row.begun_at
    if row.state in IN_DOUBT and row.prepared_at is not None:
        since = wall_of(row.prepared_at)
    elif row.decided_at is not None:
        since = row.decided_at
    return {
        "transaction": row.id,
        "transfer_id": row.id,
        "role": row.role.value,
        "status": STATUS[row.state],
        "in_doubt": row.state in IN_DOUBT,
        "since": format_ms(since),
        "coordinator": row.coordinator,
        "participants": list(row.participants),
        "accounts": [
            {
                "bank": leg.bank,
                "account": leg.account,
                "direction": leg.direction.value,
                "amount": format_amount(leg.amount),
            }
            for leg in legs_of(row)
        ],
        "why": doubt.why,
        "asked": [{"bank": bank, "said": said} for bank, said in sorted(doubt.asked.items())],
    }


class AccountDamage(Answer):
    """What one account's correction came to."""

    account: Number
    direction: DirectionName = Field(description="Of the correction.")
    wanted: Money = Field(description="What the truth asks for, in BRL.")
    corrected: Money = Field(description="What was posted on the account, in BRL.")
    to_suspense: Money = Field(description="What the account could not take, in BRL.")


class PositionDamage(Answer):
    bank: Bank = Field(description="The peer.")
    amount: SignedMoney = Field(description="BRL; positive: this bank came to owe the peer by it.")


class Damage(Answer):
    """What a wrong guess was corrected by."""

    accounts: list[AccountDamage]
    position: PositionDamage
    suspense: SignedMoney = Field(description="BRL, in the book `suspense`; positive: money nobody could be credited.")


class Heuristic(Answer):
    """An outcome that an operator forced here, and what came of it."""

    transaction: str = Field(description="The transaction's id between banks.")
    transfer_id: str = Field(description="The same, under the name that holders know it by.")
    coordinator: Bank
    decision: Literal["commit", "abort"]
    reason: str = Field(description="Why the operator forced it.", examples=["the coordinator's disk is lost"])
    decided_at: Time
    truth: Literal["commit", "abort"] | None = Field(description="The outcome; null until it is known here.")
    truth_at: Time | None = Field(description="When it became known here; null until then.")
    matched: bool | None = Field(description="Whether the guess was right; null until it is known.")
    damage: Damage | None = Field(description="What was corrected; null unless the guess was wrong.")


def heuristic(row: heuristics.Heuristic) -> Json:
    """What an operator forced here, and what came of it."""
    return {
        "transaction": row.transaction,
        "transfer_id": row.transaction,
        "coordinator": coordinator_of(row.transaction),
        "decision": row.decision.value,
        "reason": row.reason,
        "decided_at": format_ms(row.decided_at),
        "truth": None if row.truth is None else row.truth.value,
        "truth_at": None if row.truth_at is None else format_ms(row.truth_at),
        "matched": row.matched,
        "damage": None if row.damage is None else _damage(row.damage),
    }


def _damage(damage: heuristics.Damage) -> Json:
    return {
        "accounts": [account_damage(account) for account in damage.accounts],
        "position": {"bank": damage.bank, "amount": format_amount(damage.position)},
        "suspense": format_amount(damage.suspense),
    }


def account_damage(account: heuristics.AccountDamage) -> Json:
    return {
        "account": account.account,
        "direction": account.direction.value,
        "wanted": format_amount(account.wanted),
        "corrected": format_amount(account.corrected),
        "to_suspense": format_amount(account.to_suspense),
    }


class Assignment(Answer):
    """What an operator has taken out of suspense, and where it went."""

    assignment_id: str = Field(description="The assignment's id at this bank.")
    assigned_at: Time
    account: Number | None = Field(description="Null for the bank's own cash: a write-off.")
    entry_id: str | None = Field(description="The account's entry; null for a write-off.", examples=["00000012-4.7"])
    direction: DirectionName = Field(description="Of the account's entry.")
    amount: Money
    reason: str = Field(description="Why, in the operator's words.", examples=["she named this account"])
    transaction: str | None = Field(description="What had left it in suspense, where the operator said so.")
    transfer_id: str | None = Field(description="The same, under the name that holders know it by.")


def assignment(row: suspense_book.Assignment) -> Json:
    """What an operator has taken out of suspense, and where it went."""
    return {
        "assignment_id": row.assignment_id,
        "assigned_at": format_ms(row.assigned_at),
        "account": row.account,
        "entry_id": None if row.account is None else f"{row.account}.{row.change}",
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "reason": row.reason,
        "transaction": row.transaction,
        "transfer_id": row.transaction,
    }


class Movement(Answer):
    """What was left in suspense by a wrong guess, or by a restore from a backup; or taken out of it by an operator."""

    at: Time
    amount: SignedMoney = Field(description="What the book gained, in BRL; positive: this bank came to owe it.")
    kind: Literal["correction", "restoration", "assignment"]
    transaction: str | None = Field(description="The transaction that it belongs to, where that is known.")
    transfer_id: str | None = Field(description="The same, under the name that holders know it by.")
    wanted_by: list[AccountDamage] | None = Field(
        description="Of a correction or a restoration: the accounts whose part is, or was, in suspense."
    )
    assignment: Assignment | None = Field(description="Of an assignment: where it went, and why.")


def movement(row: suspense_book.Movement) -> Json:
    """What was left in suspense, or taken out of it."""
    shared = {
        "transaction": row.transaction,
        "transfer_id": row.transaction,
        "amount": format_amount(suspense_book.amount_of(row)),
    }
    if isinstance(row, suspense_book.Assignment):
        at = format_ms(row.assigned_at)
        return {"at": at, "kind": "assignment", **shared, "wanted_by": None, "assignment": assignment(row)}
    if isinstance(row, Supplied):
        wanted_by = [account_damage(account) for account in row.accounts if account.to_suspense]
        at = format_ms(row.at)
        return {"at": at, "kind": "restoration", **shared, "wanted_by": wanted_by, "assignment": None}
    assert row.damage is not None, f"the guess at {row.transaction} left nothing in suspense"
    assert row.truth_at is not None
    wanted_by = [account_damage(account) for account in row.damage.accounts if account.to_suspense]
    return {
        "at": format_ms(row.truth_at),
        "kind": "correction",
        **shared,
        "wanted_by": wanted_by,
        "assignment": None,
    }


class Suspense(Page[Movement]):
    """The book `suspense`, and what moved it."""

    balance: SignedMoney = Field(description="BRL; positive: this bank owes it to somebody, negative: it is owed.")
    owing: Money = Field(description="What this bank owes and can credit, in BRL.")
    owed: Money = Field(description="What this bank is owed and can debit, in BRL.")


def suspense(found: assigning.Suspense, page: Json) -> Json:
    """The book and one *page* of what moved it."""
    return {
        "balance": format_amount(found.open.balance),
        "owing": format_amount(found.open.owing),
        "owed": format_amount(found.open.owed),
        **page,
    }


class Position(Answer):
    """What this bank and one peer owe each other."""

    bank: Bank = Field(description="The peer.")
    position: SignedMoney = Field(description="BRL; positive: this bank owes the peer, negative: the peer owes it.")
    owing: Money = Field(description="What this bank owes the peer, in BRL.")
    owed: Money = Field(description="What the peer owes this bank, in BRL.")
    reserved: SignedMoney = Field(description="What transfers under way may yet let the peer owe, in BRL.")


def positions(books: list[Book], peers: Iterable[str]) -> Json:
    """What this bank owes each of its *peers*, and is owed; and any other bank with which there is a position."""
    kept = {book.peer: book for book in books if book.peer is not None}
    everyone = {peer: Book(position_book(peer)) for peer in peers} | kept
    return {
        "items": [
            {
                "bank": peer,
                "position": format_amount(book.balance),
                "owing": format_amount(max(book.balance, 0)),
                "owed": format_amount(max(-book.balance, 0)),
                "reserved": format_amount(book.reserved),
            }
            for peer, book in sorted(everyone.items())
        ]
    }


class Books(Answer):
    """All entries of the bank, added up anew."""

    balanced: bool = Field(description="All of it sums to zero and every kept sum is right.")
    customers: SignedMoney = Field(description="All that customers have here, in BRL.")
    books: dict[str, SignedMoney] = Field(description="`cash`, `suspense` and one `position:<bank>` per peer.")
    entries: int = Field(description="Number of entries.")
    holds: int = Field(description="Number of holds that are placed.")
    findings: list[str] = Field(description="What is wrong, in words; empty if nothing is.")


def recount(counted: Recount) -> Json:
    """All that is posted, added up anew."""
    books = {CASH: 0, SUSPENSE: 0, **counted.books}
    return {
        "balanced": not counted.findings and counted.customers + sum(books.values()) == 0,
        "customers": format_amount(counted.customers),
        "books": {name: format_amount(amount) for name, amount in sorted(books.items())},
        "entries": counted.entries,
        "holds": counted.holds,
        "findings": counted.findings,
    }
