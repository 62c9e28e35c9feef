"""Ordering transfers and seeing what became of them.

The order does not depend on the request: a client that hangs up, or stops waiting, changes nothing, and asks again
with its key.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection
from typing import Annotated, Any, Final

from fastapi import Query, Request
from fastapi.responses import Response

from distribank.api import headers
from distribank.api.accounts import NOT_THEIRS, no_such_account
from distribank.api.answering import REPLAYED, answer
from distribank.api.answers import transfers as answers
from distribank.api.answers.words import Json, Page
from distribank.api.docs import problems
from distribank.api.edge import bank_of, holder_of
from distribank.api.languages import wanted_by
from distribank.api.orders import AccountNumber, TransferOrder
from distribank.api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem, refused
from distribank.api.routes import HolderRoute, OrderRoute, router
from distribank.bank import Bank, KeyName, TransferResult
from distribank.core.holders import Holder
from distribank.core.protocol import State, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Leg, check_legs

ordering = router("Transfers", OrderRoute)
transfers = router("Transfers", HolderRoute)
ROUTE: Final = "transfers"
"""The route under which these idempotency keys stand."""

UNAVAILABLE: Final = frozenset({Code.BANK_UNREACHABLE, Code.INTERRUPTED})
MAX_ACCOUNTS: Final = 1_000
"""Accounts of one holder that are looked at to see which legs concern them."""

_ID: Final = re.compile(r"[0-9A-Za-z.-]{1,96}", re.ASCII)

ORDER_CODES: Final = {
    400: "`idempotency_key_required`, `invalid_idempotency_key`, `malformed_json`",
    409: "`idempotency_in_progress`",
    422: ", ".join(
        f"`{code}`"
        for code in (
            "insufficient_funds",
            "account_not_found",
            "account_closed",
            "unknown_bank",
            "bank_refused",
            "consent_required",
            "consent_exceeded",
            "consent_expired",
            "not_a_holder",
            "approval_required",
            "unbalanced_transfer",
            "too_many_legs",
            "invalid_amount",
            "invalid_account_number",
            "position_limit",
            "limit_exceeded",
            "idempotency_conflict",
            "invalid_request",
        )
    ),
    503: "`bank_unreachable`, `interrupted`: nothing moved, a new key may try again; `outcome_unknown`: ask again "
    "with the same key; `not_ready`",
}


def pending(description: str, model: Any) -> dict[int | str, dict[str, Any]]:
    """The 202 of an order that is not finished yet, with its address."""
    location = {"Location": {"schema": {"type": "string"}, "description": "Where its state can be seen."}}
    return {202: {"description": description, "model": model, "headers": location}}


@ordering.post(
    "/v1/transfers",
    status_code=201,
    response_model=answers.Transfer,
    responses={**pending("Still undecided when the wait ended", answers.Transfer), **problems(ORDER_CODES)},
    openapi_extra={"parameters": [headers.IDEMPOTENCY_KEY, headers.PREFER]},
    summary="Order a transfer",
)
async def order_transfer(request: Request, order: TransferOrder) -> Response:
    """Out of one's accounts here, and elsewhere by consent; into any accounts. All of it happens, or nothing.

    201 once it is committed, 202 with `Location` if that is not known when the wait ends. Send the same key again
    after a lost answer: the transfer is never made twice.
    """
    bank, holder = bank_of(request), holder_of(request)
    key, preference = headers.idempotency_key(request), headers.preference(request)
    legs = order.legs(bank.code)
    refusal = check_legs(legs)
    if refusal is not None:
        raise refused(refusal)
    name = KeyName(holder.holder_id, ROUTE, key, fingerprint(legs, order.description))
    began_ns = 0 if bank.traces is None else time.time_ns()
    result = await bank.ordering.order(holder, legs, order.description, name, preference.wait)
    if bank.traces is not None:
        bank.traces.ordered(result.transaction.id, began_ns)
    return _answer(request, result, preference)


@transfers.get(
    "/v1/transfers",
    response_model=Page[answers.Transfer],
    responses=problems({**NOT_THEIRS, 422: "`invalid_cursor`, `invalid_account_number`, `invalid_request`"}),
    summary="My transfers",
)
async def list_transfers(
    request: Request,
    account: Annotated[AccountNumber | None, Query(description="Only those with a leg on this account here.")] = None,
    status: Annotated[answers.TransferStatus | None, Query(description="Only those in this state.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """Those that the holder ordered here, and those on their accounts here; newest first."""
    bank, holder = bank_of(request), holder_of(request)
    if account is not None and await bank.custody.account_for(holder.holder_id, account) is None:
        raise no_such_account()
    key, states = after(cursor, int, str), tuple(answers.STATUS) if status is None else answers.STATES[status]
    rows: list[Transaction] = []
    if states:
        rows = await bank.reading.transfers_of(holder.holder_id, account, states, limit + 1, key)
    mine = await _numbers(bank, holder)
    return answer(
        page(
            rows, limit, lambda row: answers.transfer(row, bank.code, holder, mine), lambda row: (row.begun_at, row.id)
        )
    )


@transfers.get(
    "/v1/transfers/{transfer_id}",
    response_model=answers.Transfer,
    responses=problems({404: "`not_found`: no such transfer, or none that concerns the caller"}),
    summary="One transfer",
)
async def see_transfer(request: Request, transfer_id: str) -> Response:
    """This bank's own view of it, at any bank that takes part, for the holders of its accounts there."""
    bank, holder = bank_of(request), holder_of(request)
    known = None
    if is_id(transfer_id):
        known = await bank.reading.transfer_for(holder.holder_id, transfer_id)
    if known is None or known.order is None:
        raise Problem("not_found", "there is no such transfer, or it does not concern you")
    mine: Collection[str] = ()
    if known.order.holder_cpf != holder.cpf:
        mine = await _numbers(bank, holder)
    return answer(answers.transfer(known, bank.code, holder, mine))


def fingerprint(legs: tuple[Leg, ...], description: str | None) -> str:
    """What must be the same for a retry to be one: every leg and the description, however they were written."""
    content = repr(([(leg.bank, leg.account, leg.direction.value, leg.amount) for leg in legs], description))
    return hashlib.sha256(content.encode()).hexdigest()


def is_id(text: str) -> bool:
    """Whether *text* could be an id of this network's at all."""
    return _ID.fullmatch(text) is not None


def _answer(request: Request, result: TransferResult, preference: headers.Preference) -> Response:
    """The answer for a transfer as it stands when its holder stops waiting."""
    known = result.transaction
    replayed = REPLAYED if result.replayed else {}
    if known.state is State.ABORTED:
        because = known.because or Refusal(Code.INTERRUPTED, "nothing moved")
        problem = refused(
            because,
            transfer_id=known.id,
            replayed=result.replayed,
            status=503 if because.code in UNAVAILABLE else 0,
        )
        return problem.response(_address(known), wanted_by(request.scope))
    content: Json = answers.transfer(known, bank_of(request).code, holder_of(request), ())
    located = {**replayed, **preference.headers, "Location": _address(known)}
    return answer(content, 202 if content["status"] == "pending" else 201, located)


def _address(known: Transaction) -> str:
    return f"/v1/transfers/{known.id}"


async def _numbers(bank: Bank, holder: Holder) -> frozenset[str]:
    """The accounts that *holder* holds here."""
    return frozenset(row.number for row in await bank.custody.accounts_of(holder.holder_id, MAX_ACCOUNTS))
