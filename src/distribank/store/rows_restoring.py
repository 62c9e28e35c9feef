"""What a restore from a backup left to be done, in SQL: the restore itself, what was lost, what was posted anew.

Responsible for the sentences that write and read these three kinds, and for their columns. A sum that went to suspense
is written beside what it follows from, for an index. Nothing here knows what follows from any of it.
"""

from __future__ import annotations

from typing import Final

from distribank.core.heuristics import AccountDamage
from distribank.core.restoration import Lost, Part, PartFate, Restoration, Supplied, Told
from distribank.core.transfer import Direction
from distribank.store.columns import (
    Columns,
    dumps,
    legs_json,
    legs_of,
    loads,
    parties_json,
    parties_of,
    words_json,
    words_of,
)

# The restore ------------------------------------------------------------------------------------------------------

PUT_RESTORATION: Final = """
    INSERT INTO restoration (incarnation, stamp, taken_at, restored_at, without, told)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (incarnation) DO UPDATE SET
        stamp = excluded.stamp, taken_at = excluded.taken_at, restored_at = excluded.restored_at,
        without = excluded.without, told = excluded.told
"""
RESTORATION: Final = "SELECT incarnation, stamp, taken_at, restored_at, without, told FROM restoration"


def restoration_columns(row: Restoration) -> Columns:
    told = dumps([(told.bank, told.at, told.resupplied) for told in row.told]) if row.told else None
    return (row.incarnation, row.stamp, row.taken_at, row.restored_at, words_json(row.without), told)


def restoration_of(columns: Columns) -> Restoration:
    incarnation, stamp, taken_at, restored_at, without, told = columns
    answered = tuple(Told(*each) for each in loads(told)) if told else ()
    return Restoration(incarnation, stamp, taken_at, restored_at, words_of(without), answered)


# What was lost ----------------------------------------------------------------------------------------------------

PUT_LOST: Final = """
    INSERT INTO lost_transfer (transaction_id, begun_at, participants, end_to_end_id, holder_cpf, description,
                               ordered_at, vote_by, counterparties, parts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (transaction_id) DO UPDATE SET
        begun_at = excluded.begun_at, participants = excluded.participants, end_to_end_id = excluded.end_to_end_id,
        holder_cpf = excluded.holder_cpf, description = excluded.description, ordered_at = excluded.ordered_at,
        vote_by = excluded.vote_by, counterparties = excluded.counterparties, parts = excluded.parts
"""
LOST: Final = """
    SELECT transaction_id, begun_at, participants, end_to_end_id, holder_cpf, description, ordered_at, vote_by,
           counterparties, parts
      FROM lost_transfer
"""


def lost_columns(row: Lost) -> Columns:
    return (
        row.transaction,
        row.begun_at,
        words_json(row.participants),
        row.end_to_end_id,
        row.holder_cpf,
        row.description,
        row.ordered_at,
        row.vote_by,
        parties_json(row.counterparties),
        dumps([(part.bank, part.fate, part.at, legs_json(part.legs)) for part in row.parts]),
    )


def lost_of(columns: Columns) -> Lost:
    transaction, begun_at, participants, end_to_end_id, cpf, description, ordered_at, vote_by, parties, parts = columns
    return Lost(
        transaction,
        begun_at,
        words_of(participants),
        end_to_end_id,
        cpf,
        description,
        ordered_at,
        vote_by,
        parties_of(parties),
        tuple(Part(bank, PartFate(fate), at, legs_of(legs)) for bank, fate, at, legs in loads(parts)),
    )


# What was posted anew ---------------------------------------------------------------------------------------------

PUT_SUPPLIED: Final = """
    INSERT INTO supplied (transaction_id, at, reason, accounts, unnamed, suspense) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (transaction_id) DO UPDATE SET
        at = excluded.at, reason = excluded.reason, accounts = excluded.accounts, unnamed = excluded.unnamed,
        suspense = excluded.suspense
"""
SUPPLIED: Final = "SELECT transaction_id, at, reason, accounts, unnamed FROM supplied"


def supplied_columns(row: Supplied) -> Columns:
    accounts = dumps([(each.account, each.direction, each.wanted, each.corrected) for each in row.accounts])
    return (row.transaction, row.at, row.reason, accounts, row.unnamed, row.suspense)


def supplied_of(columns: Columns) -> Supplied:
    transaction, at, reason, accounts, unnamed = columns
    damages = tuple(AccountDamage(number, Direction(word), *amounts) for number, word, *amounts in loads(accounts))
    return Supplied(transaction, at, reason, damages, unnamed)
