"""Transactions in SQL, in the table ``transfer``; the records that tell what became of each; what was forced.

Responsible for the sentences that write and read these kinds, and for their columns. A later state does not change what
was ordered, so where the durable transaction is remembered it is *moved*: only its progress is written, never the order
or the subjects again. Records are added and never replaced. Nothing here knows which state may follow which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Final

from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.protocol import Record, RecordKind, Role, State, Transaction
from distribank.core.transfer import Order
from distribank.store.columns import (
    Columns,
    Known,
    Writes,
    damage_json,
    damage_of,
    legs_json,
    legs_of,
    parties_json,
    parties_of,
    refusal_json,
    refusal_of,
    uses_json,
    uses_of,
    votes_json,
    votes_of,
    words_json,
    words_of,
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
ADD_SUBJECT: Final = """
    INSERT INTO transfer_subject (subject, begun_at, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
"""
TRANSFER: Final = """
    SELECT transfer.id, role, state, transfer.begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by,
           end_to_end_id, holder_cpf, holder_id, description, ordered_at, legs,
           digest, participants, because, votes, consents, counterparties, subjects
      FROM transfer
"""
UNFINISHED: Final = (
    TRANSFER
    + """
     WHERE (state = 'preparing' OR state = 'committing' OR state = 'prepared'
            OR state = 'forced commit' OR state = 'forced abort')
"""
)
"""In the words of the partial index ``transfer_unfinished``: in others the same would walk the whole table."""


def transfer_writes(transactions: Mapping[str, Transaction], known: Known) -> Iterator[Writes]:
    """Only what a later state can change, where the transaction is durable already: never the order again."""
    moved, whole = [], []
    for transaction in transactions.values():
        if _same_order(transaction, known.get(transaction.id)):
            moved.append(_progress(transaction))
        else:
            whole.append(transaction)
    if moved:
        yield MOVE_TRANSFER, moved
    if whole:
        yield PUT_TRANSFER, [_transfer_columns(transaction) for transaction in whole]
        yield ADD_SUBJECT, [(subject, t.begun_at, t.id) for t in whole for subject in t.subjects]


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
        refusal_json(transaction.because),
        votes_json(transaction.votes),
        parties_json(transaction.counterparties),
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
        words_json(transaction.participants),
        refusal_json(transaction.because),
        votes_json(transaction.votes),
        uses_json(transaction.consents),
        parties_json(transaction.counterparties),
        words_json(transaction.subjects),
    )


def _order_columns(order: Order) -> Columns:
    return (
        order.end_to_end_id,
        order.holder_cpf,
        order.holder_id,
        order.description,
        order.ordered_at,
        legs_json(order.legs),
    )


def transfer_of(columns: Columns) -> Transaction:
    identity, role, state, begun_at, prepared_at, commit_at, decided_at, completed_at, vote_by = columns[:9]
    digest, participants, because, votes, consents, counterparties, subjects = columns[15:]
    return Transaction(
        identity,
        Role(role),
        State(state),
        begun_at,
        words_of(participants),
        _order_of(*columns[9:15]),
        vote_by,
        digest,
        prepared_at,
        commit_at,
        decided_at,
        completed_at,
        refusal_of(because),
        votes_of(votes),
        uses_of(consents),
        parties_of(counterparties),
        words_of(subjects),
    )


def _order_of(
    end_to_end_id: str | None,
    cpf: str | None,
    holder_id: str | None,
    description: str | None,
    ordered_at: int | None,
    legs: str | None,
) -> Order | None:
    if legs is None:  # a tombstone: nothing was ever ordered here
        return None
    assert end_to_end_id is not None
    assert cpf is not None
    assert holder_id is not None
    assert ordered_at is not None
    return Order(end_to_end_id, cpf, holder_id, description, ordered_at, legs_of(legs))


# The log ----------------------------------------------------------------------------------------------------------

ADD_RECORD: Final = """
    INSERT INTO record (transaction_id, stamp, kind, before, after, detail) VALUES (?, ?, ?, ?, ?, ?)
"""
RECORD: Final = "SELECT transaction_id, stamp, kind, before, after, detail FROM record"

record_columns: Final[Callable[[Record], Columns]] = attrgetter(
    "transaction", "stamp", "kind", "before", "after", "detail"
)


def record_of(columns: Columns) -> Record:
    transaction, stamp, kind, *rest = columns
    return Record(transaction, stamp, RecordKind(kind), *rest)


# What an operator forced ------------------------------------------------------------------------------------------

PUT_HEURISTIC: Final = """
    INSERT INTO heuristic (transaction_id, decision, reason, decided_at, truth, truth_at, matched, damage)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (transaction_id) DO UPDATE SET
        decision = excluded.decision, reason = excluded.reason, decided_at = excluded.decided_at,
        truth = excluded.truth, truth_at = excluded.truth_at, matched = excluded.matched, damage = excluded.damage
"""
HEURISTIC: Final = """
    SELECT transaction_id, decision, reason, decided_at, truth, truth_at, matched, damage FROM heuristic
"""


def heuristic_columns(row: Heuristic) -> Columns:
    return (
        row.transaction,
        row.decision,
        row.reason,
        row.decided_at,
        row.truth,
        row.truth_at,
        row.matched,
        damage_json(row.damage),
    )


def heuristic_of(columns: Columns) -> Heuristic:
    transaction, decision, reason, decided_at, truth, truth_at, matched, damage = columns
    return Heuristic(
        transaction,
        Verdict(decision),
        reason,
        decided_at,
        None if truth is None else Verdict(truth),
        truth_at,
        None if matched is None else bool(matched),
        damage_of(damage),
    )


# What may be forgotten of those that have ended -------------------------------------------------------------------

COLLECTABLE: Final = """
    SELECT id FROM transfer
     WHERE collected = 0 AND (state = 'ended' OR state = 'committed' OR state = 'aborted')
       AND coalesce(completed_at, decided_at) < ?
     ORDER BY coalesce(completed_at, decided_at) LIMIT ?
"""
DROP_RECORDS: Final = """
    DELETE FROM record
     WHERE transaction_id = ?1
       AND (stamp, kind) IN (SELECT stamp, kind FROM record WHERE transaction_id = ?1 ORDER BY stamp LIMIT ?2)
"""
DROP_HOLDS: Final = """
    DELETE FROM hold
     WHERE transaction_id = ?1
       AND account IN (SELECT account FROM hold WHERE transaction_id = ?1 AND state <> 'placed' LIMIT ?2)
"""
DROP_TOMBSTONE: Final = "DELETE FROM transfer WHERE id = ? AND legs IS NULL"
MARK_COLLECTED: Final = "UPDATE transfer SET collected = 1 WHERE id = ?"
