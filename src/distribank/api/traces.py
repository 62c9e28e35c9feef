"""Where is my money: one transfer at all its banks, as JSON, as a story, as a diagram."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from distribank.api import headers
from distribank.api.answering import answer
from distribank.api.answers import traces as answers
from distribank.api.answers.words import Json
from distribank.api.docs import problems
from distribank.api.edge import bank_of, identity_of
from distribank.api.problems import Problem
from distribank.api.routes import SignedInRoute, router
from distribank.api.transfers import is_id
from distribank.core import story
from distribank.core.protocol import RecordKind

TEXT = "text/plain"
MERMAID = "text/vnd.mermaid"

traces = router("Transfers", SignedInRoute)


@traces.get(
    "/v1/transfers/{transfer_id}/trace",
    response_model=answers.Trace,
    responses={
        200: {"content": {TEXT: {"schema": {"type": "string"}}, MERMAID: {"schema": {"type": "string"}}}},
        **problems({404: "`not_found`: no such transfer, or none that concerns the caller"}),
    },
    summary="Where is my money",
)
async def trace(request: Request, transfer_id: str) -> Response:
    """Every bank's log of this transfer, merged in clock order, each line in words. For its holders and the operator.

    `Accept: text/plain` gives it as a story, `text/vnd.mermaid` as a sequence diagram. A bank that does not answer
    within 2 s is named, and its lines are missing.
    """
    bank, holder = bank_of(request), identity_of(request).holder
    known = None
    if is_id(transfer_id):
        known = await bank.reading.transaction_for(holder.holder_id if holder else None, transfer_id)
    if known is None or (known.order is None and holder is not None):
        raise Problem("not_found", "there is no such transfer, or it does not concern you")
    found = await bank.following.trace(known)
    # Why a bank refused says something about an account there: for whoever gave the order, and for operators.
    frank = holder is None or (known.order is not None and known.order.holder_cpf == holder.cpf)
    # A bank that refused at once has not kept who else was asked; that it was asked itself is known.
    participants = known.participants or tuple(code for code in found.replies if code != known.coordinator)
    lines = story.tell(found.logs, participants, frank=frank)
    if holder is None:
        lines = story.with_reason(lines, bank.code, await bank.restoring.reason_for(known.id))
    views_of = {peer.bank: peer.name for peer in bank.peers.views()}
    names = {code: bank.name if code == bank.code else views_of.get(code, code) for code in found.replies}
    wanted = headers.preferred(request, "application/json", TEXT, MERMAID)
    if wanted == MERMAID:
        begun = any(line.record.kind is RecordKind.BEGUN for line in lines)  # what never began, nobody else heard of
        drawn = story.diagram(lines, names, known.coordinator, participants if begun else ())
        return Response(drawn, headers=headers.NEGOTIATED, media_type=MERMAID)
    content = answers.trace(known, lines, found.replies, names)
    if wanted == TEXT:
        return Response(_text(content), headers=headers.NEGOTIATED, media_type=TEXT)
    return answer(content, headers=headers.NEGOTIATED)


def _text(content: Json) -> str:
    """The same for people: who did what and when, who did not answer, and how it stands."""
    names = {bank["bank"]: bank["name"] for bank in content["banks"]}
    told = [f"Transfer {content['transfer_id']}", ""]
    told += [f"{line['at']}  {line['bank']} {names[line['bank']]} {line['detail']}." for line in content["lines"]]
    tellers = {line["bank"] for line in content["lines"]}
    told += [
        f"{bank['bank']} {bank['name']} has no record of it to show here."
        for bank in content["banks"]
        if bank["status"] == "answered" and bank["bank"] not in tellers
    ]
    told += [
        f"{bank['bank']} {bank['name']} did not answer ({bank['status']}): what it did is not told here."
        for bank in content["banks"]
        if bank["status"] != "answered"
    ]
    doubt = ", in doubt" if content["in_doubt"] else ""
    told += ["", f"At the bank asked it is {content['status']}{doubt}.", ""]
    # Another bank's words end on somebody's terminal: they must not clear it, nor turn the direction of writing.
    return "\n".join("".join(sign if sign.isprintable() else " " for sign in line) for line in told)
