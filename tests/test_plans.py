"""Proposed transfers: they can be ordered as they are, and leave alone what is to be left alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api.answers import plans as answers
from distribank.core.protocol import Message, ShowAccounts
from tests.counter_hall import Hall, check, hall, leg
from tests.world import CPFS, codes

A, B, C = codes(3)


@pytest.fixture
async def banks() -> AsyncIterator[Hall]:
    async with hall(3) as made:
        yield made


async def ask(banks: Hall, amount: str, to: tuple[str, str], **more: Any) -> httpx.Response:
    content = {"amount": amount, "to": {"bank": to[0], "account": to[1]}, **more}
    return await banks.client(A).post("/v1/transfers/plan", json=content, headers=await banks.sign_in())


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_plan_over_two_banks_can_be_ordered_as_it_is(banks: Hall) -> None:
    here, there, payee = await banks.account("60.00"), await banks.account("90.00", 0, B), await banks.account(code=C)
    await banks.world.consent(B, there, A, each=50_00)
    plan = check(answers.Plan, await ask(banks, "100.00", (C, payee), description="rent"))
    assert plan == {
        "debits": [leg(A, here, "60.00"), leg(B, there, "40.00")],
        "credits": [leg(C, payee, "100.00")],
        "description": "rent",
    }
    ordered = await banks.client(A).post("/v1/transfers", json=plan, headers=banks.keyed(await banks.sign_in()))
    assert ordered.status_code == 201, ordered.text


async def test_what_does_not_reach_is_refused_with_the_most_that_does(banks: Hall) -> None:
    await banks.account("60.00")
    there, payee = await banks.account("90.00", 0, B), await banks.account("5.00")
    await banks.world.consent(B, there, A, each=50_00, total=30_00)
    refused = await ask(banks, "100.00", (A, payee))
    assert said(refused) == (422, "insufficient_funds")
    assert "at most 90.00 can be reached" in refused.json()["detail"]
    await banks.world.crash(B)
    refused = await ask(banks, "100.00", (A, payee))
    assert refused.json()["detail"] == f"at most 60.00 can be reached; these banks did not answer: {B}"


async def test_what_is_to_be_kept_is_left_and_only_the_accounts_named_are_drawn_on(banks: Hall) -> None:
    first, second, payee = await banks.account("60.00"), await banks.account("40.00"), await banks.account(code=B)
    of_first = [{"account": first, "amount": amount} for amount in ("35.00", "20.00")]
    for keep, expected in (
        ("10.00", [leg(A, first, "50.00"), leg(A, second, "5.00")]),
        (of_first[:1], [leg(A, second, "40.00"), leg(A, first, "15.00")]),
        (of_first, [leg(A, second, "40.00"), leg(A, first, "15.00")]),
    ):
        plan = check(answers.Plan, await ask(banks, "55.00", (B, payee), keep=keep))
        assert plan["debits"] == expected
    plan = check(answers.Plan, await ask(banks, "5.00", (B, payee), **{"from": [{"account": second}]}))
    assert plan["debits"] == [leg(A, second, "5.00")]


async def test_accounts_that_the_holder_cannot_draw_on_are_refused_by_name(banks: Hall) -> None:
    payee, there = await banks.account("1.00", 1), await banks.account("9.00", 0, B)
    for name, code in (
        ({"account": payee}, "not_a_holder"),
        ({"bank": B, "account": there}, "consent_required"),
        ({"bank": "99990009", "account": there}, "unknown_bank"),
    ):
        assert said(await ask(banks, "1.00", (A, payee), **{"from": [name]})) == (422, code)
    assert said(await ask(banks, "0.00", (A, payee))) == (422, "invalid_amount")
    assert (await ask(banks, "1.00", (A, payee), keep=[{"account": payee, "amount": 1}])).status_code == 422


async def test_accounts_that_need_other_holders_approval_are_not_proposed(banks: Hall) -> None:
    own, payee = await banks.account("10.00"), await banks.account(code=B)
    await banks.sign_in(1)
    who = await banks.sign_in()
    joint = {"type": "joint", "co_holders": [CPFS[1]], "approval": "all"}
    opened = await banks.client(A).post("/v1/accounts", json=joint, headers=who)
    number = opened.json()["account"]
    paid = await banks.client(A).post(
        f"/v1/accounts/{number}/deposits", json={"amount": "90.00"}, headers=banks.keyed(who)
    )
    assert paid.status_code == 201
    assert "at most 10.00" in (await ask(banks, "11.00", (B, payee))).json()["detail"]
    assert said(await ask(banks, "1.00", (B, payee), **{"from": [{"account": number}]})) == (422, "not_a_holder")
    plan = check(answers.Plan, await ask(banks, "1.00", (A, number)))
    assert plan["debits"] == [leg(A, own, "1.00")]


async def test_what_is_to_be_kept_must_be_on_an_account_that_can_be_drawn_on(banks: Hall) -> None:
    own, payee = await banks.account("10.00"), await banks.account(code=B)
    for name, code in (
        ({"bank": B, "account": own}, "consent_required"),
        ({"account": "00012345-5"}, "not_a_holder"),
        ({"bank": "99990009", "account": own}, "unknown_bank"),
    ):
        assert said(await ask(banks, "1.00", (B, payee), keep=[{**name, "amount": "9.00"}])) == (422, code)


async def test_no_plan_is_made_for_a_bank_that_is_away(banks: Hall) -> None:
    own, payee = await banks.account("10.00"), await banks.account(code=B)

    async def b_hangs(_sender: str, to: str, message: Message) -> str:
        if to == B and isinstance(message, ShowAccounts):
            await asyncio.Event().wait()
        return "deliver"

    banks.world.weather = b_hangs
    for more in ({}, {"from": [{"account": own}]}):
        refused = await ask(banks, "1.00", (B, payee), **more)
        assert said(refused) == (503, "bank_unreachable")
        assert refused.json()["bank"] == B
    banks.world.calm()
    await banks.world.crash(B)
    assert said(await ask(banks, "1.00", (B, payee))) == (503, "bank_unreachable")
    assert (await ask(banks, "1.00", (C, await banks.account(code=C)))).status_code == 200


async def test_an_account_here_that_cannot_be_credited_is_refused_as_the_transfer_would_be(banks: Hall) -> None:
    await banks.account("10.00")
    assert said(await ask(banks, "1.00", (A, "00012345-5"))) == (422, "account_not_found")
    closed = await banks.account()
    shut = await banks.client(A).post(f"/v1/accounts/{closed}/close", headers=await banks.sign_in())
    assert shut.status_code == 200
    assert said(await ask(banks, "1.00", (A, closed))) == (422, "account_closed")


async def test_more_small_accounts_than_a_transfer_has_legs_are_told_apart_from_too_little_money(banks: Hall) -> None:
    for _ in range(65):
        await banks.account("1.00")
    payee = await banks.account(code=B)
    refused = await ask(banks, "64.00", (B, payee))
    assert said(refused) == (422, "insufficient_funds")
    assert refused.json()["detail"] == ("at most 63.00 can be reached with 63 debits, all that a transfer has room for")
    plan = check(answers.Plan, await ask(banks, "63.00", (B, payee)))
    ordered = await banks.client(A).post("/v1/transfers", json=plan, headers=banks.keyed(await banks.sign_in()))
    assert ordered.status_code == 201, ordered.text


async def test_no_bank_is_to_owe_more_than_its_limit_lets_it() -> None:
    async with hall(3, position_limit="30.00") as banks:
        own, payee = await banks.account("10.00"), await banks.account(which=1)
        for code in (B, C):
            await banks.world.consent(code, await banks.account("100.00", 0, code), A)
        refused = await ask(banks, "71.00", (A, payee))
        assert refused.json()["detail"] == "at most 70.00 can be reached"
        plan = check(answers.Plan, await ask(banks, "70.00", (A, payee)))
        ordered = await banks.client(A).post("/v1/transfers", json=plan, headers=banks.keyed(await banks.sign_in()))
        assert ordered.status_code == 201, ordered.text
        assert "at most 0.00" in (await ask(banks, "1.00", (A, own))).json()["detail"]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_proposed_is_accepted_as_it_is(seed: int) -> None:
    """Random accounts, consents, minimums and payees; only a payee at another bank that does not exist may refuse."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    async with hall(3) as banks:
        await banks.sign_in(1)
        mine = [(A, await banks.account("20.00"))]
        for _ in range(chance.randint(1, 8)):
            code, money = chance.choice((A, B, C)), f"{chance.choice((0, 1, 7, 40))}.{chance.randint(0, 99):02d}"
            mine.append((code, await banks.account(money, 0, code)))
            for _ in range(chance.randint(0, 2) if code != A else 0):
                each, total = chance.choice((50, 9_00, 10**9)), chance.choice((None, 5_00, 20_00))
                await banks.world.consent(*mine[-1], chance.choice((A, A, B if code == C else C)), each, 0, total)
        theirs = [(code, await banks.account("1.00", 1, code)) for code in (A, B, C)]
        planned = 0
        for _ in range(12):
            more: dict[str, Any] = {}
            if chance.random() < 0.3:
                more["keep"] = f"{chance.randint(0, 3)}.00"
            if chance.random() < 0.2:
                more["from"] = [{"bank": bank, "account": number} for bank, number in chance.sample(mine, 1)]
            amount = f"{chance.randint(0, 30)}.{chance.randint(1, 99):02d}"
            proposed = await ask(banks, amount, chance.choice(theirs + mine), **more)
            if proposed.status_code == 422:
                assert proposed.json()["code"] in ("insufficient_funds", "consent_required")
                continue
            who = banks.keyed(await banks.sign_in())
            ordered = await banks.client(A).post("/v1/transfers", json=proposed.json(), headers=who)
            assert ordered.status_code == 201, (proposed.json(), ordered.json())
            await banks.world.settle(ordered.json()["transfer_id"])
            planned += 1
        assert planned, "a world in which nothing could be planned shows nothing"
        await banks.world.check_books()
