"""The network-wide snapshot and its five checks, for operators."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import audits as answers
from distribank.api.edge import bank_of
from distribank.api.routes import OperatorRoute, router

audits = router("Operator", OperatorRoute)


@audits.post("/v1/operator/audit", response_model=answers.Audit, summary="Audit the network")
async def audit(request: Request) -> Response:
    """Every bank's books at one moment, which is as late as any bank's clock is now, and five checks over them:
    each bank's entries sum to zero; each two banks agree on what one owes the other; customers' money is the cash
    paid in less the cash paid out; no account is overdrawn, and every hold belongs to an open transaction; whatever is
    in doubt, forced or unreachable is named. Nothing is paused. Takes up to 20 s where a bank does not answer.
    """
    bank = bank_of(request)
    done = await bank.auditing.audit()
    names = {bank.code: bank.name, **{peer.bank: peer.name for peer in bank.peers.views()}}
    return answer(answers.audit(done, names))
