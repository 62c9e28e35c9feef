"""What a holder sees at one bank of what they have at others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from distribank.api.answers import consents as answers
from distribank.core.protocol import Message, ShowAccounts
from tests.counter_hall import Hall, check, hall
from tests.world import CPFS, codes

A, B, C = codes(3)


@pytest.fixture
async def banks() -> AsyncIterator[Hall]:
    async with hall(3) as made:
        yield made


async def linked(banks: Hall, which: int = 0) -> Any:
    who = await banks.sign_in(which)
    return check(answers.LinkedAccounts, await banks.client(A).get("/v1/linked-accounts", headers=who))


async def test_accounts_with_a_consent_to_this_bank_are_listed_with_their_balances(banks: Hall) -> None:
    there = await banks.account("120.00", 0, B)
    await banks.account("7.00", 0, B)
    consent = await banks.world.consent(B, there, A, each=50_00, total=90_00)
    await banks.world.consent(C, await banks.account("1.00", 0, C), B)
    found = await linked(banks)
    (item,) = found["items"]
    assert (item["bank"], item["bank_name"], item["account"], item["status"]) == (B, f"Bank {B}", there, "online")
    assert (item["posted_balance"], item["available_balance"]) == ("120.00", "120.00")
    assert (item["consent_id"], item["max_per_transfer"], item["max_total"]) == (consent, "50.00", "90.00")
    assert found["offline"] == []
    assert (await linked(banks, 1))["items"] == []


async def test_a_bank_that_is_down_or_hangs_is_named_and_the_others_are_listed(banks: Hall) -> None:
    there = await banks.account("120.00", 0, B)
    await banks.world.consent(B, there, A)

    async def c_hangs(_sender: str, to: str, message: Message) -> str:
        if to == C and isinstance(message, ShowAccounts):
            await asyncio.Event().wait()
        return "deliver"

    banks.world.weather = c_hangs
    found = await linked(banks)
    assert [item["account"] for item in found["items"]] == [there]
    assert found["offline"] == [C]
    before = found["items"][0]
    assert before["status"] == "online"
    await banks.world.crash(B)
    found = await linked(banks)
    without_balances = {name: value for name, value in before.items() if not name.endswith("_balance")}
    assert found == {"items": [{**without_balances, "status": "offline"}], "offline": [B, C]}
    assert (await linked(banks, 1))["items"] == []


async def test_what_a_bank_said_before_is_forgotten_once_it_is_over(banks: Hall) -> None:
    consent = await banks.world.consent(B, await banks.account("1.00", 0, B), A)
    assert len((await linked(banks))["items"]) == 1
    custody = banks.world.banks[B].bank.custody
    holder = await custody.holder_by_cpf(CPFS[0])
    assert holder is not None
    await custody.revoke_consent(holder.holder_id, consent)
    assert (await linked(banks))["items"] == []
    await banks.world.consent(B, await banks.account("1.00", 0, B), A)
    assert len((await linked(banks))["items"]) == 1
    await banks.world.crash(B)
    assert len((await linked(banks))["items"]) == 1
    banks.world.clock.now += 86_400_000  # a consent's day; a token's hour is over, too
    banks.tokens.clear()
    assert await linked(banks) == {"items": [], "offline": [B]}


async def test_a_bank_remembers_the_latest_of_what_others_said_and_no_more(
    banks: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distribank.bank.following.MAX_REMEMBERED", 1)
    for which in (0, 1):
        await banks.world.consent(B, await banks.account("1.00", which, B), A, which=which)
        assert len((await linked(banks, which))["items"]) == 1
    await banks.world.crash(B)
    assert [(await linked(banks, which))["items"] == [] for which in (0, 1)] == [True, False]
