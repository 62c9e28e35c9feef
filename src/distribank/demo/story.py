"""The story that the demo tells, chapter by chapter.

Maria has accounts at three banks and pays a bakery at a fourth, João and Ana share accounts with her, Carlos runs the
bakery. Each chapter does something to the banks and claims what must then be so. Amounts are centavos.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from distribank.breakages import Breakage
from distribank.core.money import format_amount
from distribank.demo.claims import Claims
from distribank.network.processes import POLL_SECONDS, BankProcess
from distribank.network.showing import waiting
from distribank.network.speaking import AccountRef, Answer, BankClient, Session

PASSWORD: Final = "demo: correct horse battery staple"
MARIA: Final = ("Maria da Silva", "529.982.247-25")
JOAO: Final = ("João Pereira", "111.444.777-35")
ANA: Final = ("Ana Souza", "390.533.447-05")
CARLOS: Final = ("Carlos Lima", "987.654.321-00")
BAKERY: Final = {"legal_name": "Padaria Central Ltda", "cnpj": "12ABC34501DE35"}

CONCURRENT: Final = 50
"""Transfers on one account at once."""
FAST_MS: Final = 100.0
"""How soon a transfer is refused that needs a bank known to be offline."""
BACK_SECONDS: Final = 3.0
"""How soon a killed bank serves again, the start of Python included."""
PATIENCE_SECONDS: Final = 20.0
"""How long the story waits for what must come."""


@dataclass
class Stage:
    """The four banks as processes and as addresses, who is signed in where, and every account's name."""

    claims: Claims
    processes: list[BankProcess]
    clients: list[BankClient]
    maria: list[Session] = field(default_factory=list)
    """At the banks A, B and C."""
    joao: Session | None = None
    carlos: Session | None = None
    own: list[AccountRef] = field(default_factory=list)
    """Maria's own accounts at A, B and C."""
    household: AccountRef | None = None
    """Maria's and João's, at A; either may debit it."""
    bakery: AccountRef | None = None
    """The company's, at D."""
    cash: int = 0
    """Deposits less withdrawals, over all banks."""

    async def deposit(self, session: Session, account: AccountRef, amount: int) -> None:
        (await session.deposit(account, amount)).expect(201)
        self.cash += amount

    async def balances(self) -> list[tuple[int, int]]:
        """Posted and available, of Maria's three accounts and the bakery's."""
        assert self.carlos is not None and self.bakery is not None
        seen = [await session.balances(account) for session, account in zip(self.maria, self.own, strict=True)]
        return [*seen, await self.carlos.balances(self.bakery)]


async def tell(stage: Stage) -> None:
    """The whole story, in order; ``Breakage`` if it cannot go on."""
    for chapter in (accounts, within_one_bank, three_banks_to_a_fourth, no_trace_of_a_refusal, fifty_at_once):
        await chapter(stage)
    await killed_with_the_votes_cast(stage)
    await books(stage)


async def accounts(stage: Stage) -> None:
    """People register, open accounts of every kind, and pay cash in."""
    claims, (a, b, c, d) = stage.claims, stage.clients
    claims.chapter("People and a company open accounts of every kind")
    stage.maria = [await bank.join(*MARIA, PASSWORD) for bank in (a, b, c)]
    stage.joao = await a.join(*JOAO, PASSWORD)
    for bank, person in ((b, JOAO), (c, JOAO), (c, ANA)):
        (await bank.register(*person, PASSWORD)).expect(201)
    stage.carlos = await d.join(*CARLOS, PASSWORD)
    stage.own = [await session.open_account() for session in stage.maria]
    claims.check(len(stage.own) == 3, "Maria opens an account at three banks", ", ".join(map(_name, stage.own)))

    at_a, at_b, at_c = stage.maria
    household = stage.household = await at_a.open_account(type="joint", co_holders=[JOAO[1]], approval="any")
    savings = await at_b.open_account(type="joint", co_holders=[JOAO[1]], approval="all")
    club = await at_c.open_account(type="joint", co_holders=[JOAO[1], ANA[1]], approval={"at_least": 2})
    shown = [(await s.account(x)).get("approval") for s, x in ((at_a, household), (at_b, savings), (at_c, club))]
    claims.check(shown == ["any", "all", {"at_least": 2}], "joint accounts: either, both, two of three", shown)
    bakery = stage.bakery = await stage.carlos.open_account(type="business", company=BAKERY)
    company = (await stage.carlos.account(bakery)).get("company", {})
    claims.check(company == BAKERY, "a company's account, with the new alphanumeric CNPJ", company.get("cnpj"))

    for session, account, amount in (
        *zip(stage.maria, stage.own, (1_000_00, 800_00, 600_00), strict=True),
        (stage.joao, household, 300_00),
        (at_b, savings, 200_00),
        (stage.carlos, bakery, 50_00),
    ):
        await stage.deposit(session, account, amount)
    (await stage.carlos.withdraw(bakery, 20_00)).expect(201)
    stage.cash -= 20_00
    claims.check(await stage.balances() == _free(1_000_00, 800_00, 600_00, 30_00), "cash in, cash out", _brl(stage.cash))
    refused = await at_b.withdraw(savings, 10_00)
    claims.check(refused.code == "approval_required", "where both must agree, one alone takes nothing", _why(refused))


async def within_one_bank(stage: Stage) -> None:
    """A transfer that concerns one bank alone is one atomic write there."""
    claims, joao = stage.claims, _there(stage.joao)
    claims.chapter("A transfer within one bank")
    household = _there(stage.household)
    paid = await stage.maria[0].pay(stage.own[0], household, 100_00, description="groceries")
    claims.check(paid.status == 201, "Maria pays 100.00 into the household account", f"{paid.seconds * 1000:.0f} ms")
    seen = await joao.balances(household)
    claims.check(seen == (400_00, 400_00), "João sees it at once", _brl(seen[0]))
    claims.check(paid.body.get("participants") == [], "and no other bank was asked", "0 participants")
    stranger = await joao.pay(stage.own[0], household, 1_00)
    claims.check(stranger.code == "not_a_holder", "João cannot debit what is Maria's alone", _why(stranger))


async def three_banks_to_a_fourth(stage: Stage) -> None:
    """Consents, then A + B + C → D as one transfer."""
    claims, (a, _b, _c, d) = stage.claims, stage.clients
    claims.chapter("From three banks to a fourth, in one transfer")
    bakery = _there(stage.bakery)
    parts = list(zip(stage.own, (300_00, 200_00, 100_00), strict=True))
    unasked = await stage.maria[0].transfer(parts, [(bakery, 600_00)])
    claims.check(unasked.code == "consent_required", "without Maria's consent, no bank debits another", _why(unasked))
    for session, account in zip(stage.maria[1:], stage.own[1:], strict=True):
        (await session.consent(account, a.code, 10_000_00)).expect(201)
    before = await stage.balances()
    paid = await stage.maria[0].transfer(parts, [(bakery, 600_00)], description="a new oven")
    claims.check(
        (paid.status, paid.body.get("status")) == (201, "completed"),
        "300.00 + 200.00 + 100.00 arrive as 600.00, at all banks or at none",
        f"{paid.seconds * 1000:.0f} ms",
    )
    moved = [now - then for (now, _), (then, _) in zip(await stage.balances(), before, strict=True)]
    claims.check(moved == [-300_00, -200_00, -100_00, 600_00], "each balance moved by exactly that", _signed(moved))
    seen = await _there(stage.carlos).transfer_status(paid.expect(201)["transfer_id"])
    claims.check(seen["status"] == "completed", f"the bakery sees the same transfer at {d.code}", seen["end_to_end_id"])


async def no_trace_of_a_refusal(stage: Stage) -> None:
    """One part lacks funds: nothing moves anywhere, nothing stays held."""
    claims, c = stage.claims, stage.clients[2]
    claims.chapter("One of three has too little: nothing moves, and nothing stays behind")
    before = await stage.balances()
    parts = list(zip(stage.own, (10_00, 10_00, 5_000_00), strict=True))
    refused = await stage.maria[0].transfer(parts, [(_there(stage.bakery), 5_020_00)])
    claims.check(
        refused.code == "insufficient_funds" and refused.body.get("bank") == c.code,
        "refused, naming the bank and the account that lack the money",
        f"{_why(refused)} at {refused.body.get('bank')} {refused.body.get('account')}",
    )
    took = await _until(lambda: _nothing_in_doubt(stage), "nothing is in doubt any more")
    after = await stage.balances()
    claims.check(after == before, "every balance is what it was, nothing is held", f"after {took * 1000:.0f} ms")


async def fifty_at_once(stage: Stage) -> None:
    """A busy account makes a transfer wait its turn, never fail."""
    claims, maria, bakery = stage.claims, stage.maria[0], _there(stage.bakery)
    claims.chapter("Fifty transfers at once on one account that covers exactly fifty")
    purse = await maria.open_account()
    await stage.deposit(maria, purse, CONCURRENT * 1_00)
    begun = time.monotonic()
    with waiting(claims.console, "fifty transfers under way"):
        answers = await asyncio.gather(*(maria.pay(purse, bakery, 1_00) for _ in range(CONCURRENT)))
    seconds = time.monotonic() - begun
    succeeded = sum(answer.status == 201 for answer in answers)
    claims.check(
        succeeded == CONCURRENT,
        "all of them succeed",
        f"{succeeded} of {CONCURRENT} in {seconds:.2f} s, {CONCURRENT / seconds:.0f} a second",
    )
    claims.check(await maria.balances(purse) == (0, 0), "the account is empty to the centavo", "0.00")
    one_more = await maria.pay(purse, bakery, 1_00)
    claims.check(one_more.code == "insufficient_funds", "and one more is refused", _why(one_more))


async def killed_with_the_votes_cast(stage: Stage) -> None:
    """The coordinator dies between the votes and the decision; its return settles what was in doubt."""
    claims, (a, b, c, d) = stage.claims, stage.clients
    claims.chapter("The coordinator is killed when the votes are cast")
    before = await stage.balances()
    transfer_id = await _kill_behind_the_votes(stage)
    claims.say(f"{a.code} was killed (SIGKILL) and {d.code} goes on; nobody can know what was decided")
    await _money_is_held(stage, transfer_id, before)
    await _others_go_on(stage)
    await _return_of_the_coordinator(stage, transfer_id)
    maria, carlos = stage.maria, _there(stage.carlos)
    with waiting(claims.console, "until no bank is in doubt"):
        settled = await _until(lambda: _nothing_in_doubt(stage), "no bank is in doubt")
    views = [await session.transfer_status(transfer_id) for session in maria]
    statuses = [view["status"] for view in views]
    if (known := await carlos.get(f"/v1/transfers/{transfer_id}")).status != 404:  # 404: it never voted there
        statuses.append(known.expect(200)["status"])
    outcome = {"aborted": "aborted", "committed": "committed", "completed": "committed"}
    agreed = {outcome.get(status, status) for status in statuses}
    claims.check(
        len(agreed) == 1 and agreed <= {"aborted", "committed"},
        "all banks agree on the outcome",
        f"{statuses[0]}, {settled:.1f} s behind the return: {_reason(views[0])}",
    )
    after = await stage.balances()
    paid = [0, 5_00, 0, -5_00]  # what went on in the meantime
    share = [40_00, 30_00, 20_00, -90_00] if agreed == {"committed"} else [0, 0, 0, 0]
    expected = _free(*(was[0] - part - extra for was, part, extra in zip(before, share, paid, strict=True)))
    claims.check(after == expected, "nothing is held any more, and nothing was lost or made", _balances(after))
    del b, c


async def _kill_behind_the_votes(stage: Stage) -> str:
    """Order A + B + C → D with D frozen; when B and C have voted yes, kill A. The transfer's id."""
    claims, (a, b, c, d) = stage.claims, stage.clients
    await asyncio.gather(*(bank.operator() for bank in (a, b, c, d)))  # signed in before the clock matters
    parts = list(zip(stage.own, (40_00, 30_00, 20_00), strict=True))
    coordinator, frozen = stage.processes[0], stage.processes[3]
    frozen.freeze()
    try:
        ordered = await stage.maria[0].transfer(parts, [(_there(stage.bakery), 90_00)], prefer="respond-async")
        transfer_id: str = ordered.expect(202)["transfer_id"]
        claims.check(ordered.status == 202, f"{d.code} is frozen; the order is taken and pending", "202")
        took = await _until(lambda: _in_doubt_at(transfer_id, b, c), f"{b.code} and {c.code} have voted")
        coordinator.kill()
    finally:
        frozen.thaw()
    claims.check(True, f"{b.code} and {c.code} had voted yes and wait for the outcome", f"after {took * 1000:.0f} ms")
    return transfer_id


async def _money_is_held(stage: Stage, transfer_id: str, before: list[tuple[int, int]]) -> None:
    claims, b, maria = stage.claims, stage.clients[1], stage.maria[1]
    posted, available = await maria.balances(stage.own[1])
    claims.check(
        (posted, available) == (before[1][0], before[1][0] - 30_00),
        f"at {b.code}, Maria's 30.00 are held: still hers, not to be spent",
        f"posted {_brl(posted)}, available {_brl(available)}",
    )
    greedy = await maria.withdraw(stage.own[1], posted)
    claims.check(greedy.code == "insufficient_funds", "what is held cannot be withdrawn", _why(greedy))
    seen = await maria.transfer_status(transfer_id)
    claims.check(
        seen["in_doubt"] is True and seen["status"] == "pending",
        "she sees the transfer as in doubt, never as failed",
        f"status {seen['status']}, in_doubt {str(seen['in_doubt']).lower()}",
    )
    listed = [item for item in await b.in_doubt() if item["transfer_id"] == transfer_id]
    claims.check(len(listed) == 1 and bool(listed[0]["why"]), "its operator sees why", *(i["why"] for i in listed))


async def _others_go_on(stage: Stage) -> None:
    """With A dead: a transfer that does not need it works, one that does is refused at once."""
    claims, (a, b, _c, d) = stage.claims, stage.clients
    maria = stage.maria[1]
    paid = await maria.pay(stage.own[1], _there(stage.bakery), 5_00)
    claims.check(paid.status == 201, f"{b.code} → {d.code} goes on without {a.code}", f"{paid.seconds * 1000:.0f} ms")
    with waiting(claims.console, f"until {b.code} knows that {a.code} is offline"):
        took = await _until(lambda: _is_offline(b, a.code), f"{b.code} knows that {a.code} is offline")
    claims.check(True, f"{b.code} notices that {a.code} is offline", f"within {took:.1f} s")
    refused = await maria.pay(stage.own[1], _there(stage.household), 5_00)
    milliseconds = refused.seconds * 1000
    claims.check(
        refused.code == "bank_unreachable" and milliseconds < FAST_MS,
        "a transfer that needs it is refused at once",
        f"{_why(refused)} after {milliseconds:.1f} ms",
    )


async def _return_of_the_coordinator(stage: Stage, transfer_id: str) -> None:
    """Past every time-out the hold still stands; then A comes back."""
    claims, (a, b, *_) = stage.claims, stage.clients
    held_for = time.monotonic() - stage.processes[0].started_at
    del held_for
    listed = [item for item in await b.in_doubt() if item["transfer_id"] == transfer_id]
    if listed:
        claims.say(f"{b.code} has asked: {_said(listed[0])}")
    with waiting(claims.console, f"starting {a.code} again"):
        seconds = await stage.processes[0].restart()
    claims.check(seconds < BACK_SECONDS, f"{a.code} is back and has read its log", f"ready {seconds:.2f} s after its start")


async def books(stage: Stage) -> None:
    """Everything added up anew, at each bank and across them."""
    claims = stage.claims
    claims.chapter("The books balance, at each bank and across the network")
    kept = {bank.code: await bank.books() for bank in stage.clients}
    positions = {bank.code: await bank.positions() for bank in stage.clients}
    for code, found in kept.items():
        claims.check(found["balanced"] is True and not found["findings"], f"{code} balances", _book_line(found))
    pairs = [(one, other) for one in positions for other in positions if one < other]
    owed = [(one, other, positions[one].get(other, 0), positions[other].get(one, 0)) for one, other in pairs]
    claims.check(
        all(mine == -theirs for _, _, mine, theirs in owed),
        "what one bank owes another is what the other says it is owed",
        "; ".join(f"{one[-1]}→{other[-1]} {format_amount(mine)}" for one, other, mine, _ in owed if mine),
    )
    customers = sum(_cents(found["customers"]) for found in kept.values())
    cash = sum(_cents(found["books"]["cash"]) for found in kept.values())
    claims.check(
        customers == stage.cash == -cash,
        "customers' money is what was paid in less what was paid out, to the centavo",
        f"{_brl(customers)} = {_brl(stage.cash)}",
    )
