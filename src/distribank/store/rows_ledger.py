"""The ledger's rows in SQL: accounts with their holders, holds, entries, the bank's own books, and what was assigned
out of one of them.

Responsible for the sentences that write and read these six kinds, and for their columns. A leg changes only its
account's sums, so where the durable account is remembered and nothing else differs it is *moved*: its sums are written
and its holders are left alone. Nothing here adds up an amount or decides when to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Final

from distribank.core.ledger import (
    Account,
    AccountHolder,
    AccountType,
    ApprovalRule,
    Book,
    BookEntry,
    Company,
    Entry,
    EntryKind,
    Hold,
    HolderRole,
    HoldState,
)
from distribank.core.suspense import Assignment
from distribank.core.transfer import Direction
from distribank.store.columns import Columns, Known, Writes, loads

# Accounts ---------------------------------------------------------------------------------------------------------

PUT_ACCOUNT: Final = """
    INSERT INTO account (number, type, rule, approval, opened_at, company_cnpj, company_name,
                         closed_at, posted, held, incoming, open_holds, changes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET
        type = excluded.type, rule = excluded.rule, approval = excluded.approval, opened_at = excluded.opened_at,
        company_cnpj = excluded.company_cnpj, company_name = excluded.company_name, closed_at = excluded.closed_at,
        posted = excluded.posted, held = excluded.held, incoming = excluded.incoming,
        open_holds = excluded.open_holds, changes = excluded.changes
"""
MOVE_ACCOUNT: Final = """
    UPDATE account SET closed_at = ?, posted = ?, held = ?, incoming = ?, open_holds = ?, changes = ? WHERE number = ?
"""
REMOVE_HOLDERS: Final = "DELETE FROM account_holder WHERE account = ?"
ADD_HOLDER: Final = """
    INSERT INTO account_holder (account, position, holder_id, cpf, name, role) VALUES (?, ?, ?, ?, ?, ?)
"""
ACCOUNT: Final = """
    SELECT number, type, rule, approval, opened_at, company_cnpj, company_name,
           closed_at, posted, held, incoming, open_holds, changes,
           (SELECT json_group_array(json_array(holder_id, cpf, name, role) ORDER BY position)
              FROM account_holder WHERE account_holder.account = account.number)
      FROM account
"""


def account_writes(accounts: Mapping[str, Account], known: Known) -> Iterator[Writes]:
    """Only the sums, where that is all that has changed since the account was last durable."""
    moved, whole = [], []
    for account in accounts.values():
        if _only_moved(account, known.get(account.number)):
            moved.append((*_sums(account), account.number))
        else:
            whole.append(account)
    if moved:
        yield MOVE_ACCOUNT, moved
    if whole:
        yield PUT_ACCOUNT, [_account_columns(account) for account in whole]
        yield REMOVE_HOLDERS, [(account.number,) for account in whole]
        yield (
            ADD_HOLDER,
            [
                (account.number, position, holder.holder_id, holder.cpf, holder.name, holder.role)
                for account in whole
                for position, holder in enumerate(account.holders)
            ],
        )


def _only_moved(account: Account, known: Account | None) -> bool:
    return (
        known is not None
        and account.holders == known.holders
        and account.company == known.company
        and account.approval == known.approval
        and account.rule is known.rule
        and account.type is known.type
        and account.opened_at == known.opened_at
    )


_sums: Final[Callable[[Account], Columns]] = attrgetter(
    "closed_at", "posted", "held", "incoming", "open_holds", "changes"
)


def _account_columns(account: Account) -> Columns:
    company = account.company
    assert company is None or company.account == account.number, f"{account.number} names the account of {company}"
    return (
        account.number,
        account.type,
        account.rule,
        account.approval,
        account.opened_at,
        company.cnpj if company else None,
        company.legal_name if company else None,
        *_sums(account),
    )


def account_of(columns: Columns) -> Account:
    number, kind, rule, approval, opened_at, cnpj, name, closed_at = columns[:8]
    posted, held, incoming, open_holds, changes, holders = columns[8:]
    return Account(
        number,
        AccountType(kind),
        tuple(AccountHolder(holder_id, cpf, name, HolderRole(role)) for holder_id, cpf, name, role in loads(holders)),
        approval,
        opened_at,
        Company(cnpj, name, number) if cnpj is not None else None,
        closed_at,
        posted,
        held,
        incoming,
        open_holds,
        changes,
        ApprovalRule(rule),
    )


# Holds ------------------------------------------------------------------------------------------------------------

PUT_HOLD: Final = """
    INSERT INTO hold (account, transaction_id, direction, amount, state, prepared_at,
                      placed_change, change, resolved_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (transaction_id, account) DO UPDATE SET
        direction = excluded.direction, amount = excluded.amount, state = excluded.state,
        prepared_at = excluded.prepared_at, placed_change = excluded.placed_change, change = excluded.change,
        resolved_at = excluded.resolved_at
"""
HOLD: Final = """
    SELECT account, transaction_id, direction, amount, state, prepared_at, placed_change, change, resolved_at FROM hold
"""

hold_columns: Final[Callable[[Hold], Columns]] = attrgetter(
    "account", "transaction", "direction", "amount", "state", "prepared_at", "placed_change", "change", "resolved_at"
)


def hold_of(columns: Columns) -> Hold:
    account, transaction, direction, amount, state, *rest = columns
    return Hold(account, transaction, Direction(direction), amount, HoldState(state), *rest)


# Entries ----------------------------------------------------------------------------------------------------------

ADD_ENTRY: Final = """
    INSERT INTO entry (account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ENTRY: Final = """
    SELECT account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at FROM entry
"""

entry_columns: Final[Callable[[Entry], Columns]] = attrgetter(
    "account", "change", "operation", "leg", "kind", "direction", "amount", "balance_after", "stamp", "posted_at"
)


def entry_of(columns: Columns) -> Entry:
    account, change, operation, leg, kind, direction, *rest = columns
    return Entry(account, change, operation, leg, EntryKind(kind), Direction(direction), *rest)


# Books ------------------------------------------------------------------------------------------------------------

ADD_BOOK_ENTRY: Final = "INSERT INTO book_entry (operation, book, amount, stamp) VALUES (?, ?, ?, ?)"
PUT_BOOK: Final = """
    INSERT INTO book (name, balance, reserved) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET balance = excluded.balance, reserved = excluded.reserved
"""
BOOK: Final = "SELECT name, balance, reserved FROM book"

book_entry_columns: Final[Callable[[BookEntry], Columns]] = attrgetter("operation", "book", "amount", "stamp")
book_columns: Final[Callable[[Book], Columns]] = attrgetter("name", "balance", "reserved")


def book_of(columns: Columns) -> Book:
    return Book(*columns)


# Out of suspense --------------------------------------------------------------------------------------------------

PUT_ASSIGNMENT: Final = """
    INSERT INTO assignment (assignment_id, direction, amount, account, reason, transaction_id,
                            assigned_at, stamp, change)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (assignment_id) DO UPDATE SET
        direction = excluded.direction, amount = excluded.amount, account = excluded.account,
        reason = excluded.reason, transaction_id = excluded.transaction_id, assigned_at = excluded.assigned_at,
        stamp = excluded.stamp, change = excluded.change
"""
ASSIGNMENT: Final = """
    SELECT assignment_id, direction, amount, account, reason, transaction_id, assigned_at, stamp, change
      FROM assignment
"""

assignment_columns: Final[Callable[[Assignment], Columns]] = attrgetter(
    "assignment_id", "direction", "amount", "account", "reason", "transaction", "assigned_at", "stamp", "change"
)


def assignment_of(columns: Columns) -> Assignment:
    assignment_id, direction, *rest = columns
    return Assignment(assignment_id, Direction(direction), *rest)
