"""Rows as SQL keeps them: which sentence writes each kind, which reads it, and what its columns are.

Three tables of kinds and the one function that turns a group into writes by them; sentences and columns themselves
stand by domain in ``rows_ledger``, ``rows_transfers``, ``rows_registry`` and ``rows_restoring``, for both engines, with
SQLite's ``?``. By hand, because it is the hot path: there is no mapping layer, and where columns are a row's fields as
they are, ``attrgetter`` takes them, named one by one. What is written is read back equal, type for type
(``tests/test_store_sqlite.py`` makes up rows of every kind to show it). Nothing here decides when to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from distribank.core.batches import Batch
from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Account, Book, BookEntry, Company, Entry, Hold
from distribank.core.protocol import Record, Transaction
from distribank.core.restoration import Lost, Restoration, Supplied
from distribank.core.suspense import Assignment
from distribank.store import rows_ledger as ledger
from distribank.store import rows_registry as registry
from distribank.store import rows_restoring as restoring
from distribank.store import rows_transfers as transfers
from distribank.store.columns import Columns, Known, Writes
from distribank.store.group import Group

PUT: Final[dict[type, tuple[str, Callable[[Any], Columns]]]] = {
    Company: (registry.PUT_COMPANY, registry.company_columns),
    Holder: (registry.PUT_PERSON, registry.person_columns),
    Book: (ledger.PUT_BOOK, ledger.book_columns),
    Heuristic: (transfers.PUT_HEURISTIC, transfers.heuristic_columns),
    Assignment: (ledger.PUT_ASSIGNMENT, ledger.assignment_columns),
    Hold: (ledger.PUT_HOLD, ledger.hold_columns),
    Consent: (registry.PUT_CONSENT, registry.consent_columns),
    IdempotencyKey: (registry.PUT_KEY, registry.key_columns),
    Batch: (registry.PUT_BATCH, registry.batch_columns),
    Counter: (registry.PUT_COUNTER, registry.counter_columns),
    Restoration: (restoring.PUT_RESTORATION, restoring.restoration_columns),
    Lost: (restoring.PUT_LOST, restoring.lost_columns),
    Supplied: (restoring.PUT_SUPPLIED, restoring.supplied_columns),
}
"""Rows that are replaced whole; accounts and transactions have ways of their own."""

ADD: Final[dict[type, tuple[str, Callable[[Any], Columns]]]] = {
    Entry: (ledger.ADD_ENTRY, ledger.entry_columns),
    BookEntry: (ledger.ADD_BOOK_ENTRY, ledger.book_entry_columns),
    Record: (transfers.ADD_RECORD, transfers.record_columns),
}
"""Rows that are only added: writing one twice is a bug, and the insert fails."""

READ: Final[dict[type, tuple[str, Callable[[Columns], Any]]]] = {
    Account: (ledger.ACCOUNT + " WHERE number = ?", ledger.account_of),
    Assignment: (ledger.ASSIGNMENT + " WHERE assignment_id = ?", ledger.assignment_of),
    Batch: (registry.BATCH + " WHERE batch_id = ?", registry.batch_of),
    Book: (ledger.BOOK + " WHERE name = ?", ledger.book_of),
    Company: (registry.COMPANY + " WHERE cnpj = ?", registry.company_of),
    Consent: (registry.CONSENT + " WHERE consent_id = ?", registry.consent_of),
    Counter: (registry.COUNTER + " WHERE name = ?", registry.counter_of),
    Heuristic: (transfers.HEURISTIC + " WHERE transaction_id = ?", transfers.heuristic_of),
    Hold: (ledger.HOLD + " WHERE account = ? AND transaction_id = ?", ledger.hold_of),
    Holder: (registry.PERSON + " WHERE cpf = ?", registry.person_of),
    IdempotencyKey: (registry.KEY + " WHERE owner = ? AND route = ? AND key = ?", registry.key_of),
    Lost: (restoring.LOST + " WHERE transaction_id = ?", restoring.lost_of),
    Restoration: (restoring.RESTORATION + " WHERE incarnation = ?", restoring.restoration_of),
    Supplied: (restoring.SUPPLIED + " WHERE transaction_id = ?", restoring.supplied_of),
    Transaction: (transfers.TRANSFER + " WHERE id = ?", transfers.transfer_of),
}
"""How one row is read by its whole key."""


def writes_of(group: Group, known: Mapping[type, Known]) -> Iterator[Writes]:
    """All that writes the rows of *group*, in order; *known* are durable rows, where they are at hand."""
    yield from ledger.account_writes(group.puts[Account], known[Account])
    yield from transfers.transfer_writes(group.puts[Transaction], known[Transaction])
    for kind, (statement, columns_of) in PUT.items():
        puts = group.puts[kind]
        if puts:
            yield statement, [columns_of(row) for row in puts.values()]
    for kind, (statement, columns_of) in ADD.items():
        added = group.added[kind]
        if added:
            yield statement, [columns_of(row) for row in added]
