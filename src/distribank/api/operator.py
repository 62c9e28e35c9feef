"""The operator's view: what is in doubt, what was forced, what is in suspense, positions, the books, the metrics."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from distribank.api import headers
from distribank.api.answering import REPLAYED, answer
from distribank.api.answers import operator as answers
from distribank.api.answers.words import Items, Page
from distribank.api.docs import SIGN_IN, problems
from distribank.api.edge import bank_of, bearer_token, edge_of
from distribank.api.orders import AssignmentOrder, ResolveOrder
from distribank.api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem, refused
from distribank.api.routes import OperatorRoute, Route, router
from distribank.api.tokens import Authority
from distribank.api.transfers import is_id
from distribank.bank.assigning import place_of
from distribank.core.heuristics import Verdict
from distribank.core.refusals import Refusal
from distribank.core.transfer import Direction

operator = router("Operator", OperatorRoute)
scraping = router("Operator", Route)


@operator.get("/v1/operator/in-doubt", response_model=Items[answers.InDoubt], summary="What is in doubt")
async def list_in_doubt(request: Request) -> Response:
    """From the moment of the vote, every transaction voted yes whose outcome is unknown here; every decided commit
    that some bank has yet to acknowledge; and what this bank coordinates and has not decided in time. With why, who was
    asked and what they said.
    """
    return answer({"items": [answers.in_doubt(doubt) for doubt in await bank_of(request).reading.in_doubt()]})


@operator.post(
    "/v1/operator/in-doubt/{transfer_id}/inquire",
    response_model=answers.InDoubt,
    responses=problems({404: "`not_found`: not in doubt here"}),
    summary="Ask again now",
)
async def inquire(request: Request, transfer_id: str) -> Response:
    """Asks the coordinator, then the other participants, and says what is known behind that."""
    edge = edge_of(request)
    before = await edge.bank.reading.doubt_about(transfer_id) if is_id(transfer_id) else None
    if before is None:
        raise Problem("not_found", "no such transaction is in doubt here")
    await edge.inquire_now(transfer_id)
    doubt = await edge.bank.reading.doubt_about(transfer_id)
    if doubt is None:
        return answer({**answers.in_doubt(before), "in_doubt": False, "why": "settled just now: not in doubt any more"})
    return answer(answers.in_doubt(doubt))


@operator.post(
    "/v1/operator/in-doubt/{transfer_id}/resolve",
    response_model=answers.Heuristic,
    responses=problems(
        {
            404: "`not_found`: not in doubt here",
            409: "`not_resolvable`: in doubt, but not a prepared participant's part",
        }
    ),
    summary="Force an outcome",
)
async def resolve(request: Request, transfer_id: str, order: ResolveOrder) -> Response:
    """The last resort, where nobody who knows the outcome will ever answer: this bank's part is committed or aborted
    on the operator's word. To other banks it stays undecided, and they are still asked; if the truth arrives and
    differs, the books are corrected by new entries and the damage is listed.
    """
    bank = bank_of(request)
    doubt = await bank.reading.doubt_about(transfer_id) if is_id(transfer_id) else None
    if doubt is None:
        raise Problem("not_found", "no such transaction is in doubt here")
    forced = await bank.participating.force(transfer_id, Verdict(order.decision), order.reason)
    if isinstance(forced, Refusal):
        raise refused(forced, transfer_id=transfer_id)
    return answer(answers.heuristic(forced))


@operator.get(
    "/v1/operator/heuristics",
    response_model=Page[answers.Heuristic],
    responses=problems({422: "`invalid_cursor`, `invalid_request`"}),
    summary="What was forced",
)
async def heuristics(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Every outcome that an operator forced here, newest first, each with the truth and the damage once known."""
    rows = await bank_of(request).reading.heuristics(limit + 1, after(cursor, int, str))
    return answer(page(rows, limit, answers.heuristic, lambda row: (row.decided_at, row.transaction)))


@operator.get("/v1/operator/positions", response_model=Items[answers.Position], summary="Positions")
async def positions(request: Request) -> Response:
    """What this bank owes each peer, and is owed."""
    bank = bank_of(request)
    return answer(answers.positions(await bank.reading.books(), [peer.bank for peer in bank.peers.views()]))


@operator.get("/v1/operator/books", response_model=answers.Books, summary="Recount the books")
async def books(request: Request) -> Response:
    """All that is posted, added up anew; slow by design."""
    return answer(answers.recount(await bank_of(request).reading.recount()))


@operator.get(
    "/v1/operator/suspense",
    response_model=answers.Suspense,
    responses=problems({422: "`invalid_cursor`, `invalid_request`"}),
    summary="What is in suspense",
)
async def suspense(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """What wrong guesses have left owed to somebody, or by somebody, until it is assigned; and, newest first, all that
    was left there or assigned, with the accounts that wanted it and the operator's reasons.
    """
    found = await bank_of(request).assigning.suspense(limit + 1, after(cursor, int, int, str))
    return answer(answers.suspense(found, page(found.movements, limit, answers.movement, place_of)))


@operator.post(
    "/v1/operator/suspense/assignments",
    status_code=201,
    response_model=answers.Assignment,
    responses=problems(
        {
            400: "`idempotency_key_required`, `invalid_idempotency_key`, `malformed_json`",
            409: "`not_in_suspense`: there is less than that to be credited, or debited",
            422: "`account_not_found`, `account_closed`, `insufficient_funds`, `limit_exceeded`, `invalid_amount`, "
            "`invalid_account_number`, `idempotency_conflict`, `invalid_request`",
        }
    ),
    openapi_extra={"parameters": [headers.IDEMPOTENCY_KEY]},
    summary="Assign out of suspense",
)
async def assign(request: Request, order: AssignmentOrder) -> Response:
    """An account of this bank is credited what the bank owes, or pays what the bank is owed, as far as its available
    balance allows; the account being left out, the bank's own cash pays or keeps it. Never more than is there.
    """
    key = headers.idempotency_key(request)
    fingerprint = hashlib.sha256(order.model_dump_json().encode()).hexdigest()
    result = await bank_of(request).assigning.assign(
        Direction(order.direction), order.amount, order.account, order.reason, order.transaction, key, fingerprint
    )
    if result.refusal is not None:
        raise refused(result.refusal, replayed=result.replayed)
    assert result.assignment is not None, "what was not refused is assigned"
    return answer(answers.assignment(result.assignment), 201, REPLAYED if result.replayed else None)


@scraping.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus"},
        **problems({401: "`unauthorized`", 403: "`forbidden`: the operator's or the scraper's token is needed"}),
    },
    openapi_extra={"security": [{SIGN_IN: []}]},
    summary="Metrics",
)
async def metrics(request: Request) -> Response:
    """For the operator's token, or the one that the scraper was given (`DISTRIBANK_METRICS_TOKEN`)."""
    edge = edge_of(request)
    scrapers, given = edge.settings.metrics_token, bearer_token(request)
    known = scrapers is not None and given is not None and _same(given, scrapers.get_secret_value())
    if not known:
        await edge.admit(request, Authority.OPERATOR)
    await edge.bank.refresh_metrics()
    content = generate_latest(edge.bank.metrics.registry)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())
