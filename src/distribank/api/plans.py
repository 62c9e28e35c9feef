"""Proposing the debit legs of a transfer from what its holder can draw on, here and elsewhere. Moves nothing."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from fastapi.responses import Response

from distribank.api.answering import answer
from distribank.api.answers import plans as answers
from distribank.api.docs import problems
from distribank.api.edge import bank_of, holder_of
from distribank.api.orders import PlanOrder
from distribank.api.problems import Problem, refused
from distribank.api.routes import HolderRoute, router
from distribank.api.transfers import MAX_ACCOUNTS
from distribank.bank import Bank, Linked
from distribank.core.holders import Holder
from distribank.core.money import MAX_BALANCE, format_amount
from distribank.core.planning import MAX_DEBITS, Plan, Source, plan, within
from distribank.core.transfer import Direction, Leg

plans = router("Transfers", HolderRoute)

Name = tuple[str, str]
"""An account's bank and number."""


@plans.post(
    "/v1/transfers/plan",
    response_model=answers.Plan,
    responses=problems(
        {
            422: "`insufficient_funds`: the detail says how much can be reached; `unknown_bank`, `not_a_holder`, "
            "`consent_required`, `account_not_found`, `account_closed`, `limit_exceeded`, `invalid_amount`, "
            "`invalid_account_number`, `invalid_request`",
            503: "`bank_unreachable`: the bank to be credited did not answer within 2 s; `not_ready`",
        }
    ),
    summary="Propose where the money comes from",
)
async def plan_transfer(request: Request, order: PlanOrder) -> Response:
    """From the accounts here that the holder may debit alone, and by consent elsewhere, at as few banks as can be.

    The answer can be ordered as it is with `POST /v1/transfers`. Nothing is reserved: balances may change until then.
    Whether the account exists into which it goes is known only where that is at this bank.
    """
    bank, holder = bank_of(request), holder_of(request)
    to = order.to.name(bank.code)
    chosen = None if order.from_ is None else {account.name(bank.code) for account in order.from_}
    named = {*(chosen or ()), *order.kept_on(bank.code)}
    asked = {to[0], *(name[0] for name in named)}
    for code in sorted(asked):
        if code != bank.code and bank.peers.view(code) is None:
            raise Problem("unknown_bank", "no such bank in this network", bank=code)
    linked = await bank.following.linked(holder.cpf, None if chosen is None else asked)
    if to[0] in linked.offline:
        raise Problem("bank_unreachable", "the bank to be credited did not answer; try again later", bank=to[0])
    rooms = await _rooms(bank, holder, linked)
    _check(named, rooms, bank.code, linked.offline)
    sources = [
        Source(*name, min(available - order.kept(name, bank.code), ceiling))
        for name, (available, ceiling) in rooms.items()
        if name != to and (chosen is None or name in chosen)
    ]
    ceilings = await bank.ordering.drawable({source.bank for source in sources} - {bank.code, to[0]})
    made = plan(order.amount, within(sources, ceilings), (bank.code, to[0]))
    if not made.debits:
        raise _out_of_reach(made, linked.offline)
    legs = _legs(made, to, order.amount)
    refusal = await bank.ordering.refusal_of(holder, legs)
    if refusal is not None:
        raise refused(refusal)
    return answer(answers.plan(legs, order.description))


async def _rooms(bank: Bank, holder: Holder, linked: Linked) -> dict[Name, tuple[int, int]]:
    """What each account has available, and the most that one transfer may debit there, in centavos."""
    own = await bank.custody.accounts_of(holder.holder_id, MAX_ACCOUNTS)
    rooms = {
        (bank.code, account.number): (account.available, account.available)
        for account in own
        if account.closed_at is None and account.approval <= 1
    }
    for code, accounts in linked.accounts.items():
        for account in accounts:  # one consent must cover all that a transfer debits from an account: rooms do not add
            name = code, account.account
            left = (MAX_BALANCE if account.max_total is None else account.max_total) - account.used
            _, best = rooms.get(name, (0, 0))
            rooms[name] = account.available, max(best, min(account.max_per_transfer, left))
    return rooms


def _check(named: Collection[Name], rooms: Collection[Name], own: str, offline: Collection[str]) -> None:
    """Refuse accounts that the holder cannot draw on; of a bank that did not answer, that is not known."""
    for bank, account in sorted(named):
        if (bank, account) in rooms or bank in offline:
            continue
        code, detail = "consent_required", "no consent lets this bank debit this account"
        if bank == own:
            code, detail = "not_a_holder", "this bank has no such account that you may debit alone"
        raise Problem(code, detail, bank=bank, account=account)


def _out_of_reach(made: Plan, offline: Collection[str]) -> Problem:
    """How much there is instead, and why it may not be all."""
    amount, silent = format_amount(made.reachable), ", ".join(offline)
    detail = f"at most {amount} can be reached"
    if made.crowded:
        detail = f"at most {amount} can be reached with {MAX_DEBITS} debits, all that a transfer has room for"
    if silent:
        detail = f"{detail}; these banks did not answer: {silent}"
    return Problem("insufficient_funds", detail)


def _legs(made: Plan, to: Name, amount: int) -> tuple[Leg, ...]:
    debits = [
        Leg(number, debit.bank, debit.account, Direction.DEBIT, debit.room)
        for number, debit in enumerate(made.debits, start=1)
    ]
    return (*debits, Leg(len(debits) + 1, *to, Direction.CREDIT, amount))
