"""The named questions of ``ports.Queries`` over rows in dictionaries: select, sort, cut a page.

Slow and plain on purpose: it is what the SQL of ``rows_queries`` is compared with by the contract suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeVar

from distribank.core.ledger import HoldState
from distribank.core.protocol import UNFINISHED
from distribank.ports import Queries, Query

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows a query selects, given its key, and by what they are sorted."""

    wants: Callable[[Any, tuple[str, ...]], bool]
    order: Callable[[Any], Any]
    newest_first: bool = False


QUESTIONS: Final[dict[str, Question]] = {
    Queries.HOLDER_BY_ID.name: Question(lambda row, key: row.holder_id == key[0], attrgetter("cpf")),
    Queries.ACCOUNTS_OF_HOLDER.name: Question(lambda row, key: row.belongs_to(key[0]), attrgetter("number")),
    Queries.ENTRIES_OF_ACCOUNT.name: Question(
        lambda row, key: row.account == key[0] and int(key[1]) <= row.posted_at < int(key[2]),
        attrgetter("change"),
        newest_first=True,
    ),
    Queries.ENTRIES_SINCE.name: Question(lambda row, key: row.account == key[0], attrgetter("change")),
    Queries.HOLDS_SINCE.name: Question(lambda row, key: row.account == key[0], attrgetter("change")),
    Queries.PLACED_HOLDS.name: Question(
        lambda row, _: row.state is HoldState.PLACED, attrgetter("account", "transaction")
    ),
    Queries.CONSENTS_ON_ACCOUNT.name: Question(lambda row, key: row.account == key[0], attrgetter("consent_id")),
    Queries.CONSENTS_OF_HOLDER.name: Question(
        lambda row, key: row.holder_id == key[0], attrgetter("created_at", "consent_id"), newest_first=True
    ),
    Queries.UNFINISHED.name: Question(lambda row, _: row.state in UNFINISHED, attrgetter("begun_at", "id")),
    Queries.TRANSACTIONS_OF.name: Question(
        lambda row, key: key[0] in row.subjects and row.state in key[1:],
        attrgetter("begun_at", "id"),
        newest_first=True,
    ),
    Queries.RECORDS_OF.name: Question(lambda row, key: row.transaction == key[0], attrgetter("stamp")),
    Queries.UNFINISHED_BATCHES.name: Question(lambda row, _: row.finished_at is None, attrgetter("batch_id")),
    Queries.HEURISTICS.name: Question(
        lambda _row, _key: True, attrgetter("decided_at", "transaction"), newest_first=True
    ),
    Queries.SUSPENDED.name: Question(
        lambda row, _: row.damage is not None and any(account.to_suspense for account in row.damage.accounts),
        lambda row: (row.truth_at, 0, row.transaction),
        newest_first=True,
    ),
    Queries.ASSIGNMENTS.name: Question(
        lambda _row, _key: True, attrgetter("assigned_at", "stamp", "assignment_id"), newest_first=True
    ),
    Queries.BEGUN_SINCE.name: Question(lambda row, key: row.begun_at >= int(key[0]), attrgetter("begun_at", "id")),
    Queries.LOST.name: Question(lambda _row, _key: True, attrgetter("begun_at", "transaction"), newest_first=True),
    Queries.SUPPLIED_IN_SUSPENSE.name: Question(
        lambda row, _: row.suspense != 0, lambda row: (row.at, 0, row.transaction), newest_first=True
    ),
    Queries.BOOKS.name: Question(lambda _row, _key: True, attrgetter("name")),
}


def ask(
    rows: Mapping[type, Mapping[Any, Any]],
    query: Query[R],
    key: tuple[str, ...],
    after: tuple[int | str, ...],
    limit: int,
) -> list[R]:
    """One page of the answer to *query*."""
    question = QUESTIONS[query.name]
    found = sorted(
        (row for row in rows[query.kind].values() if question.wants(row, key)),
        key=question.order,
        reverse=question.newest_first,
    )
    if after:
        last = after[0] if len(after) == 1 else after
        found = [
            row
            for row in found
            if (question.order(row) < last) is question.newest_first and question.order(row) != last
        ]
    return found[:limit]
