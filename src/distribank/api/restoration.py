"""After a restore from a backup, the operator's view: who has told what, and what this bank itself had decided."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import restoration as answers
from distribank.api.docs import problems
from distribank.api.edge import bank_of
from distribank.api.orders import SettleOrder
from distribank.api.paging import DEFAULT_LIMIT, Cursor, Limit, after, page
from distribank.api.problems import Problem, refused
from distribank.api.routes import OperatorRoute, router
from distribank.api.transfers import is_id
from distribank.core.refusals import Refusal
from distribank.core.transfer import Direction

restoration = router("Operator", OperatorRoute)


@restoration.get(
    "/v1/operator/restoration",
    response_model=answers.Restoration,
    responses=problems({422: "`invalid_cursor`, `invalid_request`"}),
    summary="What a restore left to be done",
)
async def see_restoration(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Of a bank that was restored from a backup: how old that was, which banks have told what they know, and, newest
    first, every transfer that this bank had coordinated since, as its participants know it. What they have committed is
    yours to settle: until then the audit names it.
    """
    restoring = bank_of(request).restoring
    listed = await restoring.listed(limit + 1, after(cursor, int, str))
    items = page(listed, limit, answers.lost, lambda each: (each.lost.begun_at, each.lost.transaction))
    peers = [peer.bank for peer in bank_of(request).peers.views()]
    return answer(answers.restoration(restoring.present, peers, items))


@restoration.post(
    "/v1/operator/restoration/{transfer_id}/settle",
    response_model=answers.LostTransfer,
    responses=problems(
        {
            404: "`not_found`: not among what was lost",
            409: "`not_settleable`: nobody is known to have committed it, or a participant has not told yet",
            422: "`account_not_found`, `account_closed`, `unbalanced_transfer`, `invalid_amount`, "
            "`invalid_account_number`, `invalid_request`",
        }
    ),
    summary="Settle what was lost",
)
async def settle(request: Request, transfer_id: str, order: SettleOrder) -> Response:
    """Posts what this bank had decided and lost, at the commit timestamp that a participant tells: what it owes each of
    them, and is owed, in full; the accounts named, each as far as its available balance allows; the rest in suspense,
    from where it can be assigned. Done once: asked again, it says what was done.
    """
    restoring = bank_of(request).restoring
    if not is_id(transfer_id) or await restoring.one(transfer_id) is None:
        raise Problem("not_found", "no such transfer was lost here")
    named = [(leg.account, Direction(leg.direction), leg.amount) for leg in order.legs]
    settled = await restoring.settle(transfer_id, order.reason, named)
    if isinstance(settled, Refusal):
        raise refused(settled, transfer_id=transfer_id)
    return answer(answers.lost(settled))
