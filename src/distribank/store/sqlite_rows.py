"""Rows as SQLite keeps them: the statement that writes each kind, and how a row becomes columns and a row again.

By hand, because it is the hot path: no reflection, no mapping layer. What is written is read back equal, type for
type (``tests/test_store_sqlite.py`` makes up rows of every kind to show it). Nothing here decides when to write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import apsw

from distribank.core.batches import Batch, BatchItem, Mode, OnFailure
from distribank.core.consents import Consent, ConsentUse
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
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
from distribank.core.protocol import Record, RecordKind, Role, State, Transaction, Voted
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Direction, Leg, Order
from distribank.store.group import Group, Recent

Columns = tuple[Any, ...]

_dumps: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_loads: Final = json.loads


def write_rows(writer: apsw.Connection, group: Group, recent: Mapping[type, Recent]) -> None:
    """Write all rows of *group* within the open transaction; *recent* are durable rows, where they are remembered."""
    _write_accounts(writer, group.puts[Account], recent[Account])
    _write_transfers(writer, group.puts[Transaction], recent[Transaction])
    for kind, (statement, columns_of) in PUT.items():
        puts = group.puts[kind]
        if puts:
            writer.executemany(statement, map(columns_of, puts.values()))
    for kind, (statement, columns_of) in ADD.items():
        added = group.added[kind]
        if added:
            writer.executemany(statement, map(columns_of, added))


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


def _write_accounts(writer: apsw.Connection, accounts: dict[str, Account], recent: Recent) -> None:
    """Only the sums, where that is all that has changed since the account was last durable."""
    moved, whole = [], []
    for account in accounts.values():
        if _only_moved(account, recent.get(account.number)):
            moved.append((*_sums(account), account.number))
        else:
            whole.append(account)
    if moved:
        writer.executemany(MOVE_ACCOUNT, moved)
    if whole:
        writer.executemany(PUT_ACCOUNT, map(_account_columns, whole))
        writer.executemany(REMOVE_HOLDERS, [(account.number,) for account in whole])
        writer.executemany(
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


def _sums(account: Account) -> Columns:
    return (
        account.closed_at,
        account.posted,
        account.held,
        account.incoming,
        account.open_holds,
        account.changes,
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
        tuple(AccountHolder(holder_id, cpf, name, HolderRole(role)) for holder_id, cpf, name, role in _loads(holders)),
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


# Transactions -----------------------------------------------------------------------------------------------------

PUT_TRANSFER: Final = """
    INSERT INTO transfer (id, role, state, begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by,
                          end_to_end_id, holder_cpf, holder_id, description, ordered_at, legs,
                          digest, participants, because, votes, consents, counterparties, subjects)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        role = excluded.role, state = excluded.state, prepared_at = excluded.prepared_at,
        commit_at = excluded.commit_at, decided_at = excluded.decided_at, completed_at = excluded.completed_at,
        vote_by = excluded.vote_by, end_to_end_id = excluded.end_to_end_id, holder_cpf = excluded.holder_cpf,
        holder_id = excluded.holder_id, description = excluded.description, ordered_at = excluded.ordered_at,
        legs = excluded.legs, digest = excluded.digest, participants = excluded.participants,
        because = excluded.because, votes = excluded.votes, consents = excluded.consents,
        counterparties = excluded.counterparties
"""
MOVE_TRANSFER: Final = """
    UPDATE transfer SET state = ?, prepared_at = ?, commit_at = ?, decided_at = ?, completed_at = ?,
                        because = ?, votes = ?, counterparties = ?
     WHERE id = ?
"""
ADD_SUBJECT: Final = "INSERT OR IGNORE INTO transfer_subject (subject, begun_at, id) VALUES (?, ?, ?)"
TRANSFER: Final = """
    SELECT transfer.id, role, state, transfer.begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by,
           end_to_end_id, holder_cpf, holder_id, description, ordered_at, legs,
           digest, participants, because, votes, consents, counterparties, subjects
      FROM transfer
"""


def _write_transfers(writer: apsw.Connection, transactions: dict[str, Transaction], recent: Recent) -> None:
    """Only what a later state can change, where the transaction is durable already: never the order again."""
    moved, whole = [], []
    for transaction in transactions.values():
        if _same_order(transaction, recent.get(transaction.id)):
            moved.append(_progress(transaction))
        else:
            whole.append(transaction)
    if moved:
        writer.executemany(MOVE_TRANSFER, moved)
    if whole:
        writer.executemany(PUT_TRANSFER, map(_transfer_columns, whole))
        writer.executemany(ADD_SUBJECT, [(subject, t.begun_at, t.id) for t in whole for subject in t.subjects])


def _same_order(transaction: Transaction, known: Transaction | None) -> bool:
    return (
        known is not None
        and (transaction.order is known.order or transaction.order == known.order)
        and transaction.participants == known.participants
        and transaction.consents == known.consents
        and transaction.digest == known.digest
        and transaction.vote_by == known.vote_by
        and transaction.role is known.role
    )


def _progress(transaction: Transaction) -> Columns:
    return (
        transaction.state,
        transaction.prepared_at,
        transaction.commit_at,
        transaction.decided_at,
        transaction.completed_at,
        _refusal_json(transaction.because),
        _votes_json(transaction.votes),
        _parties_json(transaction.counterparties),
        transaction.id,
    )


def _transfer_columns(transaction: Transaction) -> Columns:
    order = transaction.order
    return (
        transaction.id,
        transaction.role,
        transaction.state,
        transaction.begun_at,
        transaction.prepared_at,
        transaction.commit_at,
        transaction.decided_at,
        transaction.completed_at,
        transaction.vote_by,
        *(_order_columns(order) if order is not None else (None,) * 6),
        transaction.digest,
        _dumps(transaction.participants) if transaction.participants else None,
        _refusal_json(transaction.because),
        _votes_json(transaction.votes),
        _dumps([(use.consent_id, use.amount) for use in transaction.consents]) if transaction.consents else None,
        _parties_json(transaction.counterparties),
        _dumps(transaction.subjects) if transaction.subjects else None,
    )


def _order_columns(order: Order) -> Columns:
    return (
        order.end_to_end_id,
        order.holder_cpf,
        order.holder_id,
        order.description,
        order.ordered_at,
        _dumps(_legs(order.legs)),
    )


def transfer_of(columns: Columns) -> Transaction:
    identity, role, state, begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by = columns[:9]
    digest, participants, because, votes, consents, counterparties, subjects = columns[15:]
    return Transaction(
        identity,
        Role(role),
        State(state),
        begun_at,
        tuple(_loads(participants)) if participants else (),
        _order_of(*columns[9:15]),
        vote_by,
        digest,
        prepared_at,
        commit_at,
        decided_at,
        completed_at,
        _refusal_of(because),
        tuple(Voted(*vote) for vote in _loads(votes)) if votes else (),
        tuple(ConsentUse(*use) for use in _loads(consents)) if consents else (),
        tuple(_party_of(*party) for party in _loads(counterparties)) if counterparties else (),
        tuple(_loads(subjects)) if subjects else (),
    )


def _order_of(
    end_to_end_id: str, cpf: str, holder_id: str, description: str | None, ordered_at: int, legs: str | None
) -> Order | None:
    if legs is None:
        return None
    return Order(end_to_end_id, cpf, holder_id, description, ordered_at, _legs_of(_loads(legs)))


def _legs(legs: tuple[Leg, ...]) -> list[Columns]:
    return [(leg.number, leg.bank, leg.account, leg.direction, leg.amount) for leg in legs]


def _legs_of(legs: list[list[Any]]) -> tuple[Leg, ...]:
    return tuple(Leg(number, bank, account, Direction(word), amount) for number, bank, account, word, amount in legs)


def _votes_json(votes: tuple[Voted, ...]) -> str | None:
    return _dumps([(v.bank, v.yes, v.prepared_at, v.acknowledged_at) for v in votes]) if votes else None


def _parties_json(parties: tuple[Counterparty, ...]) -> str | None:
    return _dumps([(p.leg, p.bank, p.direction, p.name_masked) for p in parties]) if parties else None


def _party_of(leg: int, bank: str, direction: str, name_masked: str | None) -> Counterparty:
    return Counterparty(leg, bank, Direction(direction), name_masked)


def _refusal_json(refusal: Refusal | None) -> str | None:
    if refusal is None:
        return None
    return _dumps((refusal.code, refusal.detail, refusal.bank, refusal.account, refusal.leg))


def _refusal_of(text: str | None) -> Refusal | None:
    if text is None:
        return None
    code, *rest = _loads(text)
    return Refusal(Code(code), *rest)


# Money ------------------------------------------------------------------------------------------------------------

PUT_HOLD: Final = """
    INSERT INTO hold (account, transaction_id, direction, amount, state, prepared_at,
                      placed_change, change, resolved_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (account, transaction_id) DO UPDATE SET
        direction = excluded.direction, amount = excluded.amount, state = excluded.state,
        prepared_at = excluded.prepared_at, placed_change = excluded.placed_change, change = excluded.change,
        resolved_at = excluded.resolved_at
"""
HOLD: Final = """
    SELECT account, transaction_id, direction, amount, state, prepared_at, placed_change, change, resolved_at FROM hold
"""
ADD_ENTRY: Final = """
    INSERT INTO entry (account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ENTRY: Final = """
    SELECT account, change, operation, leg, kind, direction, amount, balance_after, stamp, posted_at FROM entry
"""
ADD_BOOK_ENTRY: Final = "INSERT INTO book_entry (operation, book, amount, stamp) VALUES (?, ?, ?, ?)"
PUT_BOOK: Final = """
    INSERT INTO book (name, balance, reserved) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET balance = excluded.balance, reserved = excluded.reserved
"""
BOOK: Final = "SELECT name, balance, reserved FROM book"


def _hold_columns(hold: Hold) -> Columns:
    return (
        hold.account,
        hold.transaction,
        hold.direction,
        hold.amount,
        hold.state,
        hold.prepared_at,
        hold.placed_change,
        hold.change,
        hold.resolved_at,
    )


def hold_of(columns: Columns) -> Hold:
    account, transaction, direction, amount, state, *rest = columns
    return Hold(account, transaction, Direction(direction), amount, HoldState(state), *rest)


def _entry_columns(entry: Entry) -> Columns:
    return (
        entry.account,
        entry.change,
        entry.operation,
        entry.leg,
        entry.kind,
        entry.direction,
        entry.amount,
        entry.balance_after,
        entry.stamp,
        entry.posted_at,
    )


def entry_of(columns: Columns) -> Entry:
    account, change, operation, leg, kind, direction, *rest = columns
    return Entry(account, change, operation, leg, EntryKind(kind), Direction(direction), *rest)


def _book_entry_columns(entry: BookEntry) -> Columns:
    return (entry.operation, entry.book, entry.amount, entry.stamp)


def _book_columns(book: Book) -> Columns:
    return (book.name, book.balance, book.reserved)


def book_of(columns: Columns) -> Book:
    return Book(*columns)


# The log ----------------------------------------------------------------------------------------------------------

ADD_RECORD: Final = """
    INSERT INTO record (transaction_id, stamp, kind, before, after, detail) VALUES (?, ?, ?, ?, ?, ?)
"""
RECORD: Final = "SELECT transaction_id, stamp, kind, before, after, detail FROM record"


def _record_columns(record: Record) -> Columns:
    return (record.transaction, record.stamp, record.kind, record.before, record.after, record.detail)


def record_of(columns: Columns) -> Record:
    transaction, stamp, kind, *rest = columns
    return Record(transaction, stamp, RecordKind(kind), *rest)


# Persons, companies, consents -------------------------------------------------------------------------------------

PUT_PERSON: Final = """
    INSERT INTO holder (cpf, holder_id, name, password_hash, created_at, email) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (cpf) DO UPDATE SET
        holder_id = excluded.holder_id, name = excluded.name, password_hash = excluded.password_hash,
        created_at = excluded.created_at, email = excluded.email
"""
PERSON: Final = "SELECT cpf, holder_id, name, password_hash, created_at, email FROM holder"
PUT_COMPANY: Final = """
    INSERT INTO company (cnpj, legal_name, account) VALUES (?, ?, ?)
    ON CONFLICT (cnpj) DO UPDATE SET legal_name = excluded.legal_name, account = excluded.account
"""
COMPANY: Final = "SELECT cnpj, legal_name, account FROM company"
PUT_CONSENT: Final = """
    INSERT INTO consent (consent_id, account, holder_id, holder_cpf, initiator_bank, max_per_transfer, max_total,
                         expires_at, created_at, used, revoked_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (consent_id) DO UPDATE SET
        account = excluded.account, holder_id = excluded.holder_id, holder_cpf = excluded.holder_cpf,
        initiator_bank = excluded.initiator_bank, max_per_transfer = excluded.max_per_transfer,
        max_total = excluded.max_total, expires_at = excluded.expires_at, created_at = excluded.created_at,
        used = excluded.used, revoked_at = excluded.revoked_at
"""
CONSENT: Final = """
    SELECT consent_id, account, holder_id, holder_cpf, initiator_bank, max_per_transfer, max_total,
           expires_at, created_at, used, revoked_at
      FROM consent
"""


def _person_columns(holder: Holder) -> Columns:
    return (holder.cpf, holder.holder_id, holder.name, holder.password_hash, holder.created_at, holder.email)


def person_of(columns: Columns) -> Holder:
    return Holder(*columns)


def _company_columns(company: Company) -> Columns:
    return (company.cnpj, company.legal_name, company.account)


def company_of(columns: Columns) -> Company:
    return Company(*columns)


def _consent_columns(consent: Consent) -> Columns:
    return (
        consent.consent_id,
        consent.account,
        consent.holder_id,
        consent.holder_cpf,
        consent.initiator_bank,
        consent.max_per_transfer,
        consent.max_total,
        consent.expires_at,
        consent.created_at,
        consent.used,
        consent.revoked_at,
    )


def consent_of(columns: Columns) -> Consent:
    return Consent(*columns)


# Clients' retries, batches, counters ------------------------------------------------------------------------------

PUT_KEY: Final = """
    INSERT INTO idempotency_key (owner, route, key, fingerprint, subject, created_at, answered, refusal)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, subject = excluded.subject, created_at = excluded.created_at,
        answered = excluded.answered, refusal = excluded.refusal
"""
KEY: Final = "SELECT owner, route, key, fingerprint, subject, created_at, answered, refusal FROM idempotency_key"
PUT_BATCH: Final = """
    INSERT INTO batch (batch_id, holder_id, mode, on_failure, items, created_at, finished_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (batch_id) DO UPDATE SET
        holder_id = excluded.holder_id, mode = excluded.mode, on_failure = excluded.on_failure,
        items = excluded.items, created_at = excluded.created_at, finished_at = excluded.finished_at
"""
BATCH: Final = "SELECT batch_id, holder_id, mode, on_failure, items, created_at, finished_at FROM batch"
PUT_COUNTER: Final = """
    INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
COUNTER: Final = "SELECT name, value FROM counter"


def _key_columns(key: IdempotencyKey) -> Columns:
    return (
        key.owner,
        key.route,
        key.key,
        key.fingerprint,
        key.subject,
        key.created_at,
        int(key.answered),
        _refusal_json(key.refusal),
    )


def key_of(columns: Columns) -> IdempotencyKey:
    owner, route, key, fingerprint, subject, created_at, answered, refusal = columns
    return IdempotencyKey(owner, route, key, fingerprint, subject, created_at, bool(answered), _refusal_of(refusal))


def _batch_columns(batch: Batch) -> Columns:
    return (
        batch.batch_id,
        batch.holder_id,
        batch.mode,
        batch.on_failure,
        _dumps([(_legs(item.legs), item.description) for item in batch.items]),
        batch.created_at,
        batch.finished_at,
    )


def batch_of(columns: Columns) -> Batch:
    batch_id, holder_id, mode, on_failure, items, created_at, finished_at = columns
    return Batch(
        batch_id,
        holder_id,
        Mode(mode),
        OnFailure(on_failure),
        tuple(BatchItem(_legs_of(legs), description) for legs, description in _loads(items)),
        created_at,
        finished_at,
    )


def _counter_columns(counter: Counter) -> Columns:
    return (counter.name, counter.value)


def counter_of(columns: Columns) -> Counter:
    return Counter(*columns)


# What stands where ------------------------------------------------------------------------------------------------

PUT: Final[dict[type, tuple[str, Callable[[Any], Columns]]]] = {
    Company: (PUT_COMPANY, _company_columns),
    Holder: (PUT_PERSON, _person_columns),
    Book: (PUT_BOOK, _book_columns),
    Hold: (PUT_HOLD, _hold_columns),
    Consent: (PUT_CONSENT, _consent_columns),
    IdempotencyKey: (PUT_KEY, _key_columns),
    Batch: (PUT_BATCH, _batch_columns),
    Counter: (PUT_COUNTER, _counter_columns),
}
"""Rows that are replaced whole; accounts and transactions have ways of their own."""

ADD: Final[dict[type, tuple[str, Callable[[Any], Columns]]]] = {
    Entry: (ADD_ENTRY, _entry_columns),
    BookEntry: (ADD_BOOK_ENTRY, _book_entry_columns),
    Record: (ADD_RECORD, _record_columns),
}
"""Rows that are only added: writing one twice is a bug, and the insert fails."""

READ: Final[dict[type, tuple[str, Callable[[Columns], Any]]]] = {
    Account: (ACCOUNT + " WHERE number = ?", account_of),
    Batch: (BATCH + " WHERE batch_id = ?", batch_of),
    Book: (BOOK + " WHERE name = ?", book_of),
    Company: (COMPANY + " WHERE cnpj = ?", company_of),
    Consent: (CONSENT + " WHERE consent_id = ?", consent_of),
    Counter: (COUNTER + " WHERE name = ?", counter_of),
    Hold: (HOLD + " WHERE account = ? AND transaction_id = ?", hold_of),
    Holder: (PERSON + " WHERE cpf = ?", person_of),
    IdempotencyKey: (KEY + " WHERE owner = ? AND route = ? AND key = ?", key_of),
    Transaction: (TRANSFER + " WHERE id = ?", transfer_of),
}
"""How one row is read by its whole key."""
