"""The story that the demo tells, chapter by chapter.

Maria has accounts at the banks A, B and C and pays a bakery at D; João and Ana share accounts with her, Carlos runs the
bakery. Each chapter does something to the banks and claims what must then be so.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from distribank.core.money import format_amount
from distribank.demo.crash import killed_with_the_votes_cast
from distribank.demo.stage import Cast, Stage, brl, free, listed, ms, posted, why
from distribank.network.client import AccountRef, Session, centavos
from distribank.network.terminal import waiting

PASSWORD: Final = "correct horse battery staple"  # noqa: S105
MARIA: Final = ("Maria da Silva", "529.982.247-25")
JOAO: Final = ("João Pereira", "111.444.777-35")
ANA: Final = ("Ana Souza", "390.533.447-05")
CARLOS: Final = ("Carlos Lima", "987.654.321-00")
BAKERY: Final = {"legal_name": "Padaria Central Ltda", "cnpj": "12ABC34501DE35"}
CONCURRENT: Final = 50
"""Transfers on one account at once."""


async def tell(stage: Stage) -> None:
    """The whole story, in order; ``Breakage`` if it cannot go on."""
    cast = await accounts_of_every_kind(stage)
    await within_one_bank(stage, cast)
    await three_banks_to_a_fourth(stage, cast)
    await no_trace_of_a_refusal(stage, cast)
    await fifty_at_once(stage, cast)
    await killed_with_the_votes_cast(stage, cast)
    await books(stage)


async def accounts_of_every_kind(stage: Stage) -> Cast:
    """People register and open accounts; cash is paid in and out."""
    claims, (a, b, c, d) = stage.claims, stage.clients
    claims.chapter("People and a company open accounts of every kind")
    maria = [await bank.join(*MARIA, PASSWORD) for bank in (a, b, c)]
    for bank, person in ((b, JOAO), (c, JOAO), (c, ANA)):
        (await bank.register(*person, PASSWORD)).expect(201)
    joao, carlos = await a.join(*JOAO, PASSWORD), await d.join(*CARLOS, PASSWORD)

    own = [await session.open_account() for session in maria]
    claims.check(
        len(own) == 3,
        "Maria opens an account at three banks",
        ", ".join(f"{account.bank} {account.account}" for account in own),
    )
    household = await maria[0].open_account(type="joint", co_holders=[JOAO[1]], approval="any")
    savings = await maria[1].open_account(type="joint", co_holders=[JOAO[1]], approval="all")
    club = await maria[2].open_account(type="joint", co_holders=[JOAO[1], ANA[1]], approval={"at_least": 2})
    joint = zip(maria, (household, savings, club), strict=True)
    approvals = [(await session.account(account)).get("approval") for session, account in joint]
    claims.check(
        approvals == ["any", "all", {"at_least": 2}],
        "joint accounts, where a debit needs either, both, two of three",
        ", ".join(str(approval).strip("{}").replace("'", "") for approval in approvals),
    )
    bakery = await carlos.open_account(type="business", company=BAKERY)
    company = (await carlos.account(bakery)).get("company", {})
    claims.check(company == BAKERY, "a company's account, under one of the new alphanumeric CNPJs", company.get("cnpj"))

    cast = Cast(maria, own, joao, household, carlos, bakery)
    await _pay_in(stage, cast, savings)
    refused = await maria[1].withdraw(savings, 10_00)
    claims.check(refused.code == "approval_required", "where both must agree, one alone takes nothing", why(refused))
    return cast


async def _pay_in(stage: Stage, cast: Cast, savings: AccountRef) -> None:
    paid_in: list[tuple[Session, AccountRef, int]] = [
        *zip(cast.maria, cast.own, (1_000_00, 800_00, 600_00), strict=True),
        (cast.joao, cast.household, 300_00),
        (cast.maria[1], savings, 200_00),
        (cast.carlos, cast.bakery, 50_00),
    ]
    for session, account, amount in paid_in:
        await stage.deposit(session, account, amount)
    await stage.withdraw(cast.carlos, cast.bakery, 20_00)
    seen = await cast.balances()
    stage.claims.check(
        seen == free(1_000_00, 800_00, 600_00, 30_00),
        "cash is paid in, and a part taken out",
        f"{brl(stage.cash)} at the four banks now",
    )


async def within_one_bank(stage: Stage, cast: Cast) -> None:
    """A transfer that concerns one bank alone is one atomic write there."""
    claims = stage.claims
    claims.chapter("A transfer within one bank")
    paid = await cast.maria[0].pay(cast.own[0], cast.household, 100_00, description="groceries")
    claims.check(paid.status == 201, "Maria pays 100.00 into the household's account", ms(paid))
    seen = await cast.joao.balances(cast.household)
    claims.check(seen == (400_00, 400_00), "João sees it at once", brl(seen[0]))
    others = paid.expect(201)["participants"]
    claims.check(others == [], "no other bank was asked", f"participants: {len(others)}")
    stranger = await cast.joao.pay(cast.own[0], cast.household, 1_00)
    claims.check(stranger.code == "not_a_holder", "João cannot debit what is Maria's alone", why(stranger))


async def three_banks_to_a_fourth(stage: Stage, cast: Cast) -> None:
    """Consents, then A + B + C → D as one transfer."""
    claims, (a, _, _, d) = stage.claims, stage.clients
    claims.chapter("From three banks to a fourth, in one transfer")
    parts = list(zip(cast.own, (300_00, 200_00, 100_00), strict=True))
    unasked = await cast.maria[0].transfer(parts, [(cast.bakery, 600_00)])
    claims.check(unasked.code == "consent_required", "without Maria's consent no bank debits another", why(unasked))
    for session, account in zip(cast.maria[1:], cast.own[1:], strict=True):
        (await session.consent(account, a.code, 10_000_00)).expect(201)
    before = posted(await cast.balances())
    paid = await cast.maria[0].transfer(parts, [(cast.bakery, 600_00)], description="a new oven")
    claims.check(
        (paid.status, paid.body.get("status")) == (201, "completed"),
        "with it, 300.00 + 200.00 + 100.00 arrive as 600.00",
        ms(paid),
    )
    after = await cast.balances()
    moved = [now - was for now, was in zip(posted(after), before, strict=True)]
    claims.check(moved == [-300_00, -200_00, -100_00, 600_00], "each balance moved by exactly that", listed(moved))
    claims.check(after == free(*posted(after)), "and nothing is left held", "on any of the four accounts")
    seen = await cast.carlos.transfer_status(paid.expect(201)["transfer_id"])
    claims.check(seen["status"] == "completed", f"the bakery sees it at {d.name}", seen["end_to_end_id"])


async def no_trace_of_a_refusal(stage: Stage, cast: Cast) -> None:
    """One part lacks funds: nothing moves anywhere, nothing stays held."""
    claims, c = stage.claims, stage.clients[2]
    claims.chapter("One of three has too little: nothing moves, and nothing stays behind")
    before = await cast.balances()
    parts = list(zip(cast.own, (10_00, 10_00, 5_000_00), strict=True))
    refused = await cast.maria[0].transfer(parts, [(cast.bakery, 5_020_00)])
    lacking = (refused.body.get("bank"), refused.body.get("account"))
    claims.check(
        refused.code == "insufficient_funds" and lacking == (c.code, cast.own[2].account),
        "it is refused, naming the account that lacks the money",
        f"{why(refused)} at {lacking[0]} {lacking[1]}",
    )
    took = await stage.until(stage.nothing_in_doubt, "the other banks have heard of it")
    after = await cast.balances()
    claims.check(after == before, "every balance is what it was, nothing is held", f"after {took * 1000:.0f} ms")


async def fifty_at_once(stage: Stage, cast: Cast) -> None:
    """A busy account makes a transfer wait its turn, never fail."""
    claims, maria = stage.claims, cast.maria[0]
    claims.chapter("Fifty transfers at once, on one account that covers exactly fifty")
    purse = await maria.open_account()
    await stage.deposit(maria, purse, CONCURRENT * 1_00)
    claims.say(f"Maria opens one more account, pays {brl(CONCURRENT * 1_00)} in, and orders {CONCURRENT} × R$ 1.00")
    begun = time.monotonic()
    with waiting(claims.console, "until fifty transfers are done"):
        answers = await asyncio.gather(*(maria.pay(purse, cast.bakery, 1_00) for _ in range(CONCURRENT)))
    seconds = time.monotonic() - begun
    succeeded = sum(answer.status == 201 for answer in answers)
    claims.check(
        succeeded == CONCURRENT,
        "all of them succeed",
        f"{succeeded} of {CONCURRENT} in {seconds:.2f} s, {CONCURRENT / seconds:.0f} a second",
    )
    left = await maria.balances(purse)
    claims.check(left == (0, 0), "the account is empty to the centavo", brl(left[0]))
    one_more = await maria.pay(purse, cast.bakery, 1_00)
    claims.check(one_more.code == "insufficient_funds", "and one more is refused", why(one_more))


async def books(stage: Stage) -> None:
    """Everything added up anew, at each bank and across them.

    What a bank has, the cash, is what it owes: to its customers, and to other banks less what they owe it.
    """
    claims = stage.claims
    claims.chapter("The books balance, at each bank and across the network")
    kept = {bank.name: await bank.books() for bank in stage.clients}
    for name, found in kept.items():
        books = {book: centavos(amount) for book, amount in found["books"].items()}
        others = sum(amount for book, amount in books.items() if book.startswith("position:"))
        owing = f"{'+' if others >= 0 else '-'} {format_amount(abs(others))} {'owed to' if others >= 0 else 'due from'}"
        figures = (
            f"cash {format_amount(-books['cash'])} = {found['customers']} of its customers {owing} other banks, "
            f"in {found['entries']} entries"
        )
        adds_up = found["balanced"] is True and -books["cash"] == centavos(found["customers"]) + others
        claims.check(adds_up and not found["findings"], f"{name} balances", figures)
    await _positions_agree(stage)
    customers = sum(centavos(found["customers"]) for found in kept.values())
    cash = sum(centavos(found["books"]["cash"]) for found in kept.values())
    claims.check(
        customers == stage.cash == -cash,
        "what customers have is what was paid in less what was paid out, to the centavo",
        f"{brl(customers)} = {brl(stage.cash)}",
    )


async def _positions_agree(stage: Stage) -> None:
    names = {bank.code: bank.name for bank in stage.clients}
    owes = {bank.code: await bank.positions() for bank in stage.clients}
    pairs = [(one, other) for one in names for other in names if one != other]
    stage.claims.check(
        all(owes[one].get(other, 0) == -owes[other].get(one, 0) for one, other in pairs),
        "what one bank owes another is what that one says it is owed",
        ", ".join(
            f"{names[one]} owes {names[other]} {format_amount(amount)}"
            for one, other in pairs
            if (amount := owes[one].get(other, 0)) > 0
        ),
    )
