"""Proposed transfers: they can be ordered as they are, and leave alone what is to be left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api import answers
from tests.counter_hall import Hall, hall
from tests.test_account_routes import check
from tests.test_transfer_routes import A, B, C, leg
from tests.world import CPFS


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
    for keep, expected in (
        ("10.00", [leg(A, first, "50.00"), leg(A, second, "5.00")]),
        ([{"account": first, "amount": "35.00"}], [leg(A, second, "40.00"), leg(A, first, "15.00")]),
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
