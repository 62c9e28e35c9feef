"""Consents: what another bank may debit here for the holder who gave it; and what this bank may debit elsewhere."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import consents as answers
from distribank.api.answers.words import Page
from distribank.api.docs import problems
from distribank.api.edge import bank_of, edge_of, holder_of
from distribank.api.orders import ConsentOrder
from distribank.api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem, refused
from distribank.api.routes import HolderRoute, router
from distribank.api.transfers import is_id
from distribank.core.refusals import Refusal

consents = router("Consents", HolderRoute)


@consents.post(
    "/v1/consents",
    status_code=201,
    response_model=answers.Consent,
    responses=problems(
        {
            422: "`not_a_holder`, `account_closed`, `unknown_bank`, `approval_required`, `invalid_amount`, "
            "`invalid_account_number`, `invalid_request`"
        }
    ),
    summary="Let another bank debit an account here",
)
async def give(request: Request, order: ConsentOrder) -> Response:
    """It serves only the holder who gives it, for orders at `initiator_bank`, up to its ceilings, until it expires."""
    edge = edge_of(request)
    if order.expires_at <= edge.wall_ms():
        raise Problem("invalid_request", "body.expires_at: lies in the past")
    consent = await edge.bank.custody.give_consent(
        holder_of(request),
        order.account,
        order.initiator_bank,
        order.max_per_transfer,
        order.max_total,
        order.expires_at,
    )
    if consent is None:
        raise Problem("not_a_holder", "you hold no such account at this bank", account=order.account)
    if isinstance(consent, Refusal):
        raise refused(consent)
    return answer(answers.consent(consent, edge.wall_ms()), 201)


@consents.get("/v1/consents", response_model=Page[answers.Consent], summary="My consents")
async def list_consents(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Every consent that the holder has given at this bank, newest first, with what was used of it."""
    edge = edge_of(request)
    rows = await edge.bank.custody.consents_of(holder_of(request).holder_id, limit + 1, after(cursor, int, str))
    now = edge.wall_ms()
    return answer(
        page(rows, limit, lambda row: answers.consent(row, now), lambda row: (row.created_at, row.consent_id))
    )


@consents.delete(
    "/v1/consents/{consent_id}",
    response_model=answers.Consent,
    responses=problems({404: "`not_found`: no such consent, or another holder's"}),
    summary="Revoke a consent",
)
async def revoke(request: Request, consent_id: str) -> Response:
    """At once. What is already voted on stands."""
    edge = edge_of(request)
    consent = None
    if is_id(consent_id):
        consent = await edge.bank.custody.revoke_consent(holder_of(request).holder_id, consent_id)
    if consent is None:
        raise Problem("not_found", "there is no such consent, or it is another holder's")
    return answer(answers.consent(consent, edge.wall_ms()))


@consents.get("/v1/linked-accounts", response_model=answers.LinkedAccounts, summary="My accounts at other banks")
async def linked_accounts(request: Request) -> Response:
    """Those on which the holder's consents, given there, let this bank order debits. Every bank is asked now.

    A bank that does not answer within 2 s stands in `offline`. What it said when it last did, since this bank was
    started, is listed with the status `offline`, the time, and without balances.
    """
    bank = bank_of(request)
    names = {peer.bank: peer.name for peer in bank.peers.views()}
    return answer(answers.linked(await bank.following.linked(holder_of(request).cpf), names))
