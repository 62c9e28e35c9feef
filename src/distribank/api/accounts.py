"""Accounts and cash. Whoever does not hold an account finds nothing at its address."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated

from fastapi import Body, Path, Request
from fastapi.responses import Response

from distribank.api import headers
from distribank.api.answering import REPLAYED, answer
from distribank.api.answers import accounts as answers
from distribank.api.answers import statements
from distribank.api.answers.words import Page
from distribank.api.docs import problems
from distribank.api.edge import bank_of, holder_of
from distribank.api.orders import (
    AccountNumber,
    AccountOrder,
    AtLeast,
    BusinessAccountOrder,
    CashOrder,
    JointAccountOrder,
)
from distribank.api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem, refused
from distribank.api.routes import HolderRoute, router
from distribank.bank import Approval
from distribank.core.ledger import AccountType, EntryKind
from distribank.core.refusals import Code, Refusal

accounts = router("Accounts", HolderRoute)
AccountPath = Annotated[
    AccountNumber,
    Path(
        description="Eight digits, a hyphen, a check digit.",
        openapi_examples={"first": {"summary": "A bank's first account", "value": "00000001-9"}},
    ),
]
NOT_THEIRS = {404: "`not_found`: no such account, or none of the caller's"}
CASH_CODES = {
    400: "`idempotency_key_required`, `invalid_idempotency_key`, `malformed_json`",
    **NOT_THEIRS,
    422: "`insufficient_funds`, `account_closed`, `approval_required`, `invalid_amount`, `invalid_account_number`, "
    "`limit_exceeded`, `idempotency_conflict`, `invalid_request`",
}


@accounts.post(
    "/v1/accounts",
    status_code=201,
    response_model=answers.Account,
    responses=problems(
        {
            409: "`company_exists`",
            422: "`duplicate_holder`, `holder_not_found`, `invalid_approval`, `invalid_cpf`, `invalid_cnpj`, "
            "`invalid_request`",
        }
    ),
    summary="Open an account",
)
async def open_account(request: Request, order: Annotated[AccountOrder, Body()]) -> Response:
    """For oneself, with others (who must be registered here, by CPF), or for a company (one account per bank)."""
    bank = bank_of(request)
    co_holders: list[str] = []
    approval: Approval = "any"
    company = None
    if isinstance(order, JointAccountOrder):
        co_holders = order.co_holders
        approval = order.approval.at_least if isinstance(order.approval, AtLeast) else order.approval
    elif isinstance(order, BusinessAccountOrder):
        company = (order.company.legal_name, order.company.cnpj)
    opened = await bank.custody.open_account(holder_of(request), AccountType(order.type), co_holders, approval, company)
    if isinstance(opened, Refusal):
        raise refused(opened)
    return answer(answers.account(opened, bank.code), 201, {"Location": f"/v1/accounts/{opened.number}"})


@accounts.get("/v1/accounts", response_model=Page[answers.Account], summary="My accounts")
async def list_accounts(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Every account that the holder holds here, by number, closed ones included."""
    bank = bank_of(request)
    rows = await bank.custody.accounts_of(holder_of(request).holder_id, limit + 1, after(cursor, str))
    return answer(page(rows, limit, lambda row: answers.account(row, bank.code), lambda row: (row.number,)))


@accounts.get(
    "/v1/accounts/{account}",
    response_model=answers.Account,
    responses=problems({**NOT_THEIRS, 422: "`invalid_account_number`"}),
    summary="One account",
)
async def see_account(request: Request, account: AccountPath) -> Response:
    """Its balances are those of this moment: posted, available, held."""
    bank = bank_of(request)
    found = await bank.custody.account_for(holder_of(request).holder_id, account)
    if found is None:
        raise no_such_account()
    return answer(answers.account(found, bank.code))


@accounts.post(
    "/v1/accounts/{account}/close",
    response_model=answers.Account,
    responses=problems({**NOT_THEIRS, 409: "`account_not_empty`", 422: "`invalid_account_number`"}),
    summary="Close an account",
)
async def close(request: Request, account: AccountPath) -> Response:
    """Only its titular (or a company's administrator) closes an account, only empty, with nothing held. For good."""
    bank = bank_of(request)
    closed = await bank.custody.close_account(holder_of(request).holder_id, account)
    if closed is None:
        raise no_such_account()
    if isinstance(closed, Refusal):
        if closed.code is Code.NOT_A_HOLDER:
            raise Problem("forbidden", closed.detail, account=account)
        raise refused(closed)
    return answer(answers.account(closed, bank.code))


@accounts.post(
    "/v1/accounts/{account}/deposits",
    status_code=201,
    response_model=statements.Entry,
    responses=problems(CASH_CODES),
    openapi_extra={"parameters": [headers.IDEMPOTENCY_KEY]},
    summary="Pay cash in",
)
async def deposit(request: Request, account: AccountPath, order: CashOrder) -> Response:
    """At this bank, at once. The same key again answers with the same entry."""
    return await _cash(request, account, EntryKind.DEPOSIT, order)


@accounts.post(
    "/v1/accounts/{account}/withdrawals",
    status_code=201,
    response_model=statements.Entry,
    responses=problems(CASH_CODES),
    openapi_extra={"parameters": [headers.IDEMPOTENCY_KEY]},
    summary="Take cash out",
)
async def withdraw(request: Request, account: AccountPath, order: CashOrder) -> Response:
    """At this bank, at once, never more than is available. The same key again answers with the same entry."""
    return await _cash(request, account, EntryKind.WITHDRAWAL, order)


def no_such_account() -> Problem:
    """What a stranger hears, whether the account exists or not."""
    return Problem("not_found", "there is no such account, or you do not hold it")


async def _cash(request: Request, account: str, kind: EntryKind, order: CashOrder) -> Response:
    key = headers.idempotency_key(request)
    fingerprint = hashlib.sha256(f"{kind} {account} {order.amount}".encode()).hexdigest()
    bank = bank_of(request)
    result = await bank.custody.cash(holder_of(request).holder_id, account, kind, order.amount, key, fingerprint)
    if result is None:
        raise no_such_account()
    if result.refusal is not None:
        raise refused(replace(result.refusal, leg=None), replayed=result.replayed)
    assert result.entry is not None, "cash that was not refused has an entry"
    return answer(statements.entry(result.entry, bank.code), 201, REPLAYED if result.replayed else None)
