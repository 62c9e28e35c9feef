"""What PostgreSQL is told in words of its own, and the translation of what both engines share.

The sentences of ``rows_*`` are written with SQLite's ``?``; here they are numbered. The few that SQLite alone
understands (JSON, a text that stands for a number) are said anew, and so is what only a shared database needs: row
locks in one order, the replicas and their leases, who drives what. Nothing beyond the portable subset: rows are locked
by their whole key, ``FOR UPDATE``, and the floor's ``FOR SHARE``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from distribank.core.batches import Batch
from distribank.core.holders import Counter, Holder
from distribank.core.ledger import Book, Company
from distribank.core.protocol import Transaction
from distribank.core.restoration import Restoration
from distribank.store import rows_ledger as ledger
from distribank.store import rows_recount as recounting
from distribank.store import rows_registry as registry
from distribank.store import rows_restoring as restoring
from distribank.store import rows_transfers as transfers
from distribank.store.columns import Columns
from distribank.store.rows import ADD, PUT, READ
from distribank.store.rows_queries import QUESTIONS

_SQLITE_HOLDERS: Final = "(SELECT json_group_array(json_array(holder_id, cpf, name, role) ORDER BY position)"
_HOLDERS: Final = "(SELECT coalesce(json_agg(json_build_array(holder_id, cpf, name, role) ORDER BY position), '[]')"
_SQLITE_NUMBER: Final = re.compile(r"CAST\((\?\d) AS INTEGER\)")
_NUMBER: Final = r"CAST(CAST(\1 AS TEXT) AS BIGINT)"
_SQLITE_STATES: Final = "(SELECT value FROM json_each(?2))"
_STATES: Final = "(SELECT json_array_elements_text(CAST(?2 AS json)))"
_SQLITE_DAMAGE: Final = """(SELECT 1 FROM json_each(damage, '$[0]')
                    WHERE json_extract(value, '$[2]') <> json_extract(value, '$[3]'))"""
_DAMAGE: Final = """(SELECT 1 FROM json_array_elements(CAST(damage AS json) -> 0) AS moved (value)
                    WHERE moved.value ->> 2 <> moved.value ->> 3)"""


def translated(sentence: str) -> str:
    """*sentence* as PostgreSQL understands it: its parameters numbered, its JSON in other words."""
    words = _SQLITE_NUMBER.sub(_NUMBER, sentence)
    for theirs, ours in ((_SQLITE_HOLDERS, _HOLDERS), (_SQLITE_STATES, _STATES), (_SQLITE_DAMAGE, _DAMAGE)):
        words = words.replace(theirs, ours)
    number = count(1)
    return re.sub(r"\?(\d*)", lambda place: f"${place[1] or next(number)}", words)


def only_new(sentence: str) -> str:
    """A sentence that puts a row, so that it fails where there is one: somebody else has put it meanwhile."""
    return sentence.partition("ON CONFLICT")[0]


# What both engines share ------------------------------------------------------------------------------------------

READING: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    kind: (translated(sentence), row_of) for kind, (sentence, row_of) in READ.items()
}
ASKING: Final[dict[str, str]] = {name: translated(question.sentence) for name, question in QUESTIONS.items()}
COUNTING: Final[dict[str, str]] = {sentence: translated(sentence) for sentence, _ in recounting.questions(0)}

_WRITTEN: Final = (
    *(sentence for sentence, _ in PUT.values()),
    *(sentence for sentence, _ in ADD.values()),
    *(ledger.PUT_ACCOUNT, ledger.REMOVE_HOLDERS, ledger.ADD_HOLDER),
    *(transfers.PUT_TRANSFER, transfers.MOVE_TRANSFER, transfers.ADD_SUBJECT),
)
WRITING: Final[dict[str, str]] = {sentence: translated(sentence) for sentence in _WRITTEN}
ADDING: Final[dict[str, str]] = {
    **WRITING,
    **{
        sentence: translated(only_new(sentence))
        for sentence in (ledger.PUT_ACCOUNT, transfers.PUT_TRANSFER, *(sentence for sentence, _ in PUT.values()))
    },
}
"""The same for rows that were looked for and not found."""

# What a shared database needs besides -----------------------------------------------------------------------------

MOVE_ACCOUNT: Final = """
    UPDATE account SET closed_at = $1, posted = $2, held = $3, incoming = $4, open_holds = $5, changes = $6,
                       last_stamp = GREATEST(last_stamp, $8)
     WHERE number = $7
"""
STAMP_ACCOUNT: Final = "UPDATE account SET last_stamp = GREATEST(last_stamp, $2) WHERE number = $1"
MAKE_BOOK: Final = "INSERT INTO book (name, balance, reserved) VALUES ($1, 0, 0) ON CONFLICT (name) DO NOTHING"
ADD_TO_BOOK: Final = "UPDATE book SET balance = balance + $2, reserved = reserved + $3 WHERE name = $1"
DRIVE_TRANSFERS: Final = "UPDATE transfer SET driver = $2 WHERE id = ANY($1)"
DRIVE_BATCHES: Final = "UPDATE batch SET driver = $2 WHERE batch_id = ANY($1)"
RAISE_FLOOR: Final = "UPDATE meta SET last_stamp = GREATEST(last_stamp, $1) WHERE one = 1"

FLOOR: Final = "SELECT last_stamp FROM meta WHERE one = 1 FOR SHARE"
FLOOR_ALONE: Final = "SELECT last_stamp FROM meta WHERE one = 1 FOR UPDATE"
LOCK_ACCOUNTS: Final = (
    translated(ledger.ACCOUNT).replace("SELECT number", "SELECT last_stamp, number", 1)
    + " WHERE number = ANY($1) ORDER BY number FOR UPDATE OF account"
)
LOCK_KEYS: Final = (
    registry.KEY  # noqa: S608 - two constants # nosec B608
    + """
     WHERE (owner, route, key) IN (SELECT * FROM unnest(CAST($1 AS TEXT[]), CAST($2 AS TEXT[]), CAST($3 AS TEXT[])))
     ORDER BY owner, route, key FOR UPDATE OF idempotency_key
"""
)
HOLDS_OF: Final = ledger.HOLD + " WHERE transaction_id = ANY($1)"


@dataclass(frozen=True, slots=True)
class Lock:
    """How rows of one kind are had alone, by the part of a name behind its colon."""

    kind: type
    sentence: str
    row_of: Callable[[Columns], Any]


LOCKS: Final[dict[str, Lock]] = {
    "batch": Lock(Batch, registry.BATCH + " WHERE batch_id = ANY($1) ORDER BY batch_id FOR UPDATE", registry.batch_of),
    "company": Lock(Company, registry.COMPANY + " WHERE cnpj = ANY($1) ORDER BY cnpj FOR UPDATE", registry.company_of),
    "counter": Lock(Counter, registry.COUNTER + " WHERE name = ANY($1) ORDER BY name FOR UPDATE", registry.counter_of),
    "holder": Lock(Holder, registry.PERSON + " WHERE cpf = ANY($1) ORDER BY cpf FOR UPDATE", registry.person_of),
    "restoration": Lock(
        Restoration,
        restoring.RESTORATION + " WHERE incarnation = ANY($1) ORDER BY incarnation FOR UPDATE",
        restoring.restoration_of,
    ),
    "transaction": Lock(
        Transaction, transfers.TRANSFER + " WHERE id = ANY($1) ORDER BY id FOR UPDATE", transfers.transfer_of
    ),
    "book": Lock(Book, ledger.BOOK + " WHERE name = ANY($1) ORDER BY name FOR UPDATE", ledger.book_of),
}
"""Behind accounts, and before keys, in this order everywhere: two processes never wait for each other in a circle.

Books come last, since every transfer with a peer writes to its position: at the very end of its write or, where there
is a cap, locked from the beginning.
"""

# Replicas and what they drive -------------------------------------------------------------------------------------

GREATEST: Final = """
    SELECT GREATEST((SELECT last_stamp FROM meta WHERE one = 1), (SELECT coalesce(max(last_stamp), 0) FROM replica))
"""
GATHER_STAMPS: Final = """
    UPDATE meta SET last_stamp = GREATEST(last_stamp, (SELECT coalesce(max(last_stamp), 0) FROM replica)) WHERE one = 1
"""
FORGET_BURIED: Final = "DELETE FROM replica WHERE buried"
JOIN: Final = """
    INSERT INTO replica (id, expires_at, place, pid)
    VALUES ($1, clock_timestamp() + CAST($2 AS INTERVAL), $3, $4)
"""
NEIGHBOURS: Final = "SELECT id, pid FROM replica WHERE NOT buried AND place = $1"
ALIVE: Final = """
    UPDATE replica SET expires_at = clock_timestamp() + CAST($3 AS INTERVAL), last_stamp = GREATEST(last_stamp, $2)
     WHERE id = $1 AND NOT buried
"""
LEASES: Final = "SELECT id, expires_at FROM replica WHERE NOT buried AND id <> $1"
BURY: Final = """
    UPDATE replica SET buried = TRUE
     WHERE id IN (SELECT id FROM replica WHERE id = $1 AND expires_at = $2 AND NOT buried FOR UPDATE SKIP LOCKED)
"""
"""A row that is locked is that of a replica which is just saying that it is alive."""
LEAVE: Final = "UPDATE replica SET buried = TRUE WHERE id = $1"
HOW_MANY_LIVE: Final = "SELECT count(*) FROM replica WHERE NOT buried AND expires_at > clock_timestamp()"
BURY_ALL: Final = "UPDATE replica SET buried = TRUE WHERE NOT buried"

_FREE: Final = """
       (driver IS NULL OR NOT EXISTS (SELECT 1 FROM replica WHERE replica.id = driver AND NOT buried))
"""
_UNFINISHED: Final = transfers.UNFINISHED.partition("WHERE")[2]
FREE_TRANSFERS: Final = (
    "SELECT id FROM transfer WHERE "  # noqa: S608 - constants # nosec B608
    + _UNFINISHED
    + " AND "
    + _FREE
    + " ORDER BY begun_at, id LIMIT $1"
)
OWN_TRANSFERS: Final = "SELECT id FROM transfer WHERE " + _UNFINISHED + " AND driver = $1"  # noqa: S608 # nosec B608
TAKE_TRANSFERS: Final = (
    "UPDATE transfer SET driver = $1 WHERE id = ANY($2) AND (driver = $1 OR "  # noqa: S608 - constants # nosec B608
    + _FREE
    + ") RETURNING id"
)
TRANSFERS: Final = (
    translated(transfers.TRANSFER) + " WHERE transfer.id = ANY($1) ORDER BY transfer.begun_at, transfer.id"
)
FREE_BATCHES: Final = (
    "SELECT batch_id FROM batch WHERE finished_at IS NULL AND "  # noqa: S608 - constants # nosec B608
    + _FREE
    + " ORDER BY batch_id LIMIT $1"
)
TAKE_BATCHES: Final = (
    "UPDATE batch SET driver = $1 WHERE batch_id = ANY($2) AND (driver = $1 OR "  # noqa: S608 # nosec B608
    + _FREE
    + ") RETURNING batch_id"
)
BATCHES: Final = registry.BATCH + " WHERE batch_id = ANY($1) ORDER BY batch_id"
OWN_BATCHES: Final = "SELECT batch_id FROM batch WHERE finished_at IS NULL AND driver = $1"


@dataclass(frozen=True, slots=True)
class Taking:
    """How what nobody alive drives is found, what this replica drives, how it is taken, and how read."""

    free: str
    own: str
    take: str
    rows: str
    row_of: Callable[[Columns], Any]


TAKING: Final[dict[type, Taking]] = {
    Transaction: Taking(FREE_TRANSFERS, OWN_TRANSFERS, TAKE_TRANSFERS, TRANSFERS, transfers.transfer_of),
    Batch: Taking(FREE_BATCHES, OWN_BATCHES, TAKE_BATCHES, BATCHES, registry.batch_of),
}

# What may be forgotten --------------------------------------------------------------------------------------------

COLLECTABLE: Final = translated(transfers.COLLECTABLE)
DROP_OF_EACH: Final = (translated(transfers.DROP_RECORDS), translated(transfers.DROP_HOLDS))
DROP_TOMBSTONE: Final = translated(transfers.DROP_TOMBSTONE)
MARK_COLLECTED: Final = translated(transfers.MARK_COLLECTED)
DROP_KEYS: Final = """
    DELETE FROM idempotency_key
     WHERE (owner, route, key) IN (SELECT owner, route, key FROM idempotency_key
                                    WHERE created_at < $1 ORDER BY created_at LIMIT $2)
"""

# Whose database it is ---------------------------------------------------------------------------------------------

HAS_META: Final = (
    "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'meta'"
)
TABLES: Final = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()"
VERSION: Final = "SELECT version FROM meta WHERE one = 1"
WAIT_LONG: Final = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"
WORK_LONG: Final = "SET LOCAL statement_timeout = 0"
"""Who works long still waits for no lock for long: what it has locked already keeps the bank from deciding."""
META: Final = "SELECT version, bank, incarnation, reaches_back_to, earlier FROM meta WHERE one = 1 FOR UPDATE"
LOCK_META: Final = "LOCK TABLE meta IN ACCESS EXCLUSIVE MODE"
"""Before its row, by who migrates: the table is altered, and two that hold it by less would wait for each other."""
MOVED_TO: Final = "SELECT moved_to FROM meta WHERE one = 1"
INSERT_META: Final = """
    INSERT INTO meta (one, version, bank, incarnation, reaches_back_to, last_stamp) VALUES (1, $1, $2, $3, $4, 0)
"""
SET_EARLIER: Final = "UPDATE meta SET earlier = $1 WHERE one = 1"
MOVE: Final = "UPDATE meta SET moved_to = $1 WHERE one = 1"
SET_VERSION: Final = "UPDATE meta SET version = $1 WHERE one = 1"
SETTINGS: Final = """
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit
"""
TIME_OUTS: Final = "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"
TIMELINE: Final = "SELECT pg_walfile_name(pg_current_wal_lsn())"
"""Begins with eight hexadecimal digits that grow whenever a standby is promoted."""
