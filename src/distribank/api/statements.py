"""Statements: an account's entries, newest first, a page at a time or whole as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Query, Request
from fastapi.responses import Response, StreamingResponse

from distribank.api.accounts import NOT_THEIRS, AccountPath, no_such_account
from distribank.api.answering import answer
from distribank.api.answers import statements as answers
from distribank.api.answers.words import Json, Page
from distribank.api.docs import problems
from distribank.api.edge import bank_of, holder_of
from distribank.api.headers import NEGOTIATED, prefers_csv
from distribank.api.paging import DEFAULT_LIMIT, MAX_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem
from distribank.api.routes import HolderRoute, router
from distribank.api.times import parse_bound
from distribank.bank import Bank
from distribank.core.ledger import Entry
from distribank.core.protocol import Transaction

statements = router("Accounts", HolderRoute)
Line = tuple[Entry, Transaction | None]
COLUMNS: Final = (
    "entry_id",
    "posted_at",
    "direction",
    "amount",
    "balance_after",
    "kind",
    "transfer_id",
    "counterparties",
    "description",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute instead of show."""


@statements.get(
    "/v1/accounts/{account}/statement",
    response_model=Page[answers.Entry],
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
        **problems({**NOT_THEIRS, 422: "`invalid_account_number`, `invalid_cursor`, `invalid_request`"}),
    },
    summary="Statement",
)
async def statement(
    request: Request,
    account: AccountPath,
    from_: Annotated[
        str | None, Query(alias="from", max_length=40, description="Posted at or after: RFC 3339, or a day in UTC.")
    ] = None,
    to: Annotated[
        str | None, Query(max_length=40, description="Posted before: RFC 3339; or a day in UTC, which is included.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """Entries newest first, each with the balance behind it. `Accept: text/csv` gives all of the period as one file."""
    bank = bank_of(request)
    if await bank.custody.account_for(holder_of(request).holder_id, account) is None:
        raise no_such_account()
    period = (_bound("from", from_, end=False), _bound("to", to, end=True))
    if prefers_csv(request):
        first = await bank.reading.statement(account, *period, MAX_LIMIT)
        named = {**NEGOTIATED, "Content-Disposition": f'attachment; filename="statement-{account}.csv"'}
        return StreamingResponse(_file(bank, account, period, first), headers=named, media_type="text/csv")
    rows = await bank.reading.statement(account, *period, limit + 1, after(cursor, int))
    content = page(rows, limit, lambda row: answers.entry(row[0], bank.code, row[1]), lambda row: (row[0].change,))
    return answer(content, headers=NEGOTIATED)


def _bound(name: str, text: str | None, *, end: bool) -> int | None:
    """One end of the period in milliseconds; none where it is left open."""
    if not text:
        return None
    try:
        return max(0, parse_bound(text, end=end))
    except ValueError as error:
        raise Problem("invalid_request", f"query.{name}: {error}") from None


async def _file(
    bank: Bank, account: str, period: tuple[int | None, int | None], rows: list[Line]
) -> AsyncIterator[str]:
    """The lines of the file, read page by page while they are sent."""
    yield _line(COLUMNS)
    while rows:
        for entry, transaction in rows:
            yield _line(_cells(answers.entry(entry, bank.code, transaction)))
        rows = await bank.reading.statement(account, *period, MAX_LIMIT, (rows[-1][0].change,))


def _cells(entry: Json) -> list[str]:
    parties = "; ".join(
        f"{party['direction']} {party['bank']} {party['name_masked'] or '?'}"
        for party in entry.get("counterparties", ())
    )
    cells: dict[str, Any] = {**entry, "counterparties": parties}
    return [_harmless(str(cells.get(column, ""))) for column in COLUMNS]


def _harmless(cell: str) -> str:
    """*cell* as text for a spreadsheet, too: a description must not become a formula at whoever opens the file."""
    return "'" + cell if cell.startswith(_FORMULA) else cell


def _line(cells: list[str] | tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
