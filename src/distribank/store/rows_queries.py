"""The named questions of ``ports.Queries``, as an engine is asked them.

Each is one sentence that an index answers in its own order, so that a page costs what it returns. Parameters are the
key (?1, ?2 …), then the sort key of the row before the page, then the limit. What only one engine
understands stands in its own words in ``postgres_words``. A number that stands in a sort key says how wide it is:
what is compared with it may be a stamp.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from distribank.core.clock import MAX_STAMP
from distribank.ports import Queries
from distribank.store.columns import Columns
from distribank.store.rows_ledger import (
    ACCOUNT,
    ASSIGNMENT,
    BOOK,
    ENTRY,
    HOLD,
    account_of,
    assignment_of,
    book_of,
    entry_of,
    hold_of,
)
from distribank.store.rows_registry import BATCH, CONSENT, PERSON, batch_of, consent_of, person_of
from distribank.store.rows_restoring import LOST, SUPPLIED, lost_of, supplied_of
from distribank.store.rows_transfers import (
    HEURISTIC,
    RECORD,
    TRANSFER,
    UNFINISHED,
    heuristic_of,
    record_of,
    transfer_of,
)

LAST: Final = MAX_STAMP
"""After which everything comes that is listed newest first."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query: its sentence, its rows, and the *start* that stands for ``after`` on the first page."""

    sentence: str
    row_of: Callable[[Columns], Any]
    start: tuple[int | str, ...]


HOLDER_BY_ID: Final = PERSON + " WHERE holder_id = ?1 AND cpf > ?2 LIMIT ?3"
ACCOUNTS_OF_HOLDER: Final = (
    ACCOUNT  # noqa: S608 - two constants # nosec B608
    + """
     WHERE number IN (SELECT DISTINCT account FROM account_holder WHERE holder_id = ?1 AND account > ?2
                       ORDER BY account LIMIT ?3)
     ORDER BY number
"""
)
ENTRIES_OF_ACCOUNT: Final = (
    ENTRY
    + """
     WHERE account = ?1 AND posted_at >= CAST(?2 AS INTEGER) AND posted_at < CAST(?3 AS INTEGER) AND change < ?4
     ORDER BY change DESC LIMIT ?5
"""
)
ENTRIES_SINCE: Final = ENTRY + " WHERE account = ?1 AND change > ?2 ORDER BY change LIMIT ?3"
HOLDS_SINCE: Final = HOLD + " WHERE account = ?1 AND change > ?2 ORDER BY change LIMIT ?3"
PLACED_HOLDS: Final = (
    HOLD
    + """
     WHERE state = 'placed' AND (account, transaction_id) > (?1, ?2) ORDER BY account, transaction_id LIMIT ?3
"""
)
CONSENTS_ON_ACCOUNT: Final = CONSENT + " WHERE account = ?1 AND consent_id > ?2 ORDER BY consent_id LIMIT ?3"
CONSENTS_OF_HOLDER: Final = (
    CONSENT
    + """
     WHERE holder_id = ?1 AND (created_at, consent_id) < (?2, ?3) ORDER BY created_at DESC, consent_id DESC LIMIT ?4
"""
)
UNFINISHED_AFTER: Final = UNFINISHED + " AND (begun_at, id) > (?1, ?2) ORDER BY begun_at, id LIMIT ?3"
TRANSACTIONS_OF: Final = (
    TRANSFER  # noqa: S608 - two constants # nosec B608
    + """
      JOIN transfer_subject AS listed ON listed.id = transfer.id
     WHERE listed.subject = ?1 AND state IN (SELECT value FROM json_each(?2))
       AND (listed.begun_at, listed.id) < (?3, ?4)
     ORDER BY listed.begun_at DESC, listed.id DESC LIMIT ?5
"""
)
RECORDS_OF: Final = RECORD + " WHERE transaction_id = ?1 AND stamp > ?2 ORDER BY stamp LIMIT ?3"
UNFINISHED_BATCHES: Final = BATCH + " WHERE finished_at IS NULL AND batch_id > ?1 ORDER BY batch_id LIMIT ?2"
HEURISTICS: Final = (
    HEURISTIC
    + """
     WHERE (decided_at, transaction_id) < (?1, ?2) ORDER BY decided_at DESC, transaction_id DESC LIMIT ?3
"""
)
SUSPENDED: Final = (
    HEURISTIC  # noqa: S608 - two constants # nosec B608
    + """
     WHERE damage IS NOT NULL AND (truth_at, CAST(0 AS BIGINT), transaction_id) < (?1, ?2, ?3)
       AND EXISTS (SELECT 1 FROM json_each(damage, '$[0]')
                    WHERE json_extract(value, '$[2]') <> json_extract(value, '$[3]')) -- wanted, corrected
     ORDER BY truth_at DESC, transaction_id DESC LIMIT ?4
"""
)
ASSIGNMENTS: Final = (
    ASSIGNMENT
    + """
     WHERE (assigned_at, stamp, assignment_id) < (?1, ?2, ?3)
     ORDER BY assigned_at DESC, stamp DESC, assignment_id DESC LIMIT ?4
"""
)
BEGUN_SINCE: Final = (
    TRANSFER
    + """
     WHERE begun_at >= CAST(?1 AS INTEGER) AND (begun_at, id) > (?2, ?3) ORDER BY begun_at, id LIMIT ?4
"""
)
LOST_TRANSFERS: Final = (
    LOST
    + """
     WHERE (begun_at, transaction_id) < (?1, ?2) ORDER BY begun_at DESC, transaction_id DESC LIMIT ?3
"""
)
SUPPLIED_IN_SUSPENSE: Final = (
    SUPPLIED
    + """
     WHERE suspense <> 0 AND (at, CAST(0 AS BIGINT), transaction_id) < (?1, ?2, ?3)
     ORDER BY at DESC, transaction_id DESC LIMIT ?4
"""
)
BOOKS: Final = BOOK + " WHERE name > ?1 ORDER BY name LIMIT ?2"

QUESTIONS: Final[dict[str, Question]] = {
    Queries.HOLDER_BY_ID.name: Question(HOLDER_BY_ID, person_of, ("",)),
    Queries.ACCOUNTS_OF_HOLDER.name: Question(ACCOUNTS_OF_HOLDER, account_of, ("",)),
    Queries.ENTRIES_OF_ACCOUNT.name: Question(ENTRIES_OF_ACCOUNT, entry_of, (LAST,)),
    Queries.ENTRIES_SINCE.name: Question(ENTRIES_SINCE, entry_of, (0,)),
    Queries.HOLDS_SINCE.name: Question(HOLDS_SINCE, hold_of, (0,)),
    Queries.PLACED_HOLDS.name: Question(PLACED_HOLDS, hold_of, ("", "")),
    Queries.CONSENTS_ON_ACCOUNT.name: Question(CONSENTS_ON_ACCOUNT, consent_of, ("",)),
    Queries.CONSENTS_OF_HOLDER.name: Question(CONSENTS_OF_HOLDER, consent_of, (LAST, "")),
    Queries.UNFINISHED.name: Question(UNFINISHED_AFTER, transfer_of, (-1, "")),
    Queries.TRANSACTIONS_OF.name: Question(TRANSACTIONS_OF, transfer_of, (LAST, "")),
    Queries.RECORDS_OF.name: Question(RECORDS_OF, record_of, (-1,)),
    Queries.UNFINISHED_BATCHES.name: Question(UNFINISHED_BATCHES, batch_of, ("",)),
    Queries.HEURISTICS.name: Question(HEURISTICS, heuristic_of, (LAST, "")),
    Queries.SUSPENDED.name: Question(SUSPENDED, heuristic_of, (LAST, 0, "")),
    Queries.ASSIGNMENTS.name: Question(ASSIGNMENTS, assignment_of, (LAST, 0, "")),
    Queries.BEGUN_SINCE.name: Question(BEGUN_SINCE, transfer_of, (-1, "")),
    Queries.LOST.name: Question(LOST_TRANSFERS, lost_of, (LAST, "")),
    Queries.SUPPLIED_IN_SUSPENSE.name: Question(SUPPLIED_IN_SUSPENSE, supplied_of, (LAST, 0, "")),
    Queries.BOOKS.name: Question(BOOKS, book_of, ("",)),
}


def parameters_of(name: str, key: tuple[str, ...], after: tuple[int | str, ...], limit: int) -> Columns:
    """What is bound to the sentence of query *name*. The states that are wanted travel as one JSON array."""
    if name == Queries.TRANSACTIONS_OF.name:
        subject, *states = key
        key = (subject, json.dumps(states))
    return (*key, *(after or QUESTIONS[name].start), limit)
