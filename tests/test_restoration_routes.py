"""What an operator sees of a restore, and settles: the routes, their answers and their refusals."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from distribank.core.protocol import Commit
from tests.counter_hall import Hall, conforms, hall, leg, order
from tests.restores import backup, put_back
from tests.weather import losing

A, B = "99990001", "99990002"
ROUTE = "/v1/operator/restoration"


async def seen(bank: Hall, who: dict[str, str], **query: Any) -> Any:
    answer = await bank.client().get(ROUTE, params=query, headers=who)
    assert answer.status_code == 200, answer.text
    assert await conforms(bank, answer.json(), "Restoration")
    return answer.json()


async def settle(bank: Hall, who: dict[str, str], transfer: str, *legs: dict[str, str]) -> httpx.Response:
    body = {"reason": "her receipt", "legs": [*legs]}
    return await bank.client().post(f"{ROUTE}/{transfer}/settle", json=body, headers=who)


def own(account: str, direction: str, amount: str) -> dict[str, str]:
    return {"account": account, "direction": direction, "amount": amount}


async def restore(bank: Hall, taken: Any) -> None:
    """A comes back on a backup, behind the application that it had."""
    await bank.world.crash(A)
    put_back(bank.world, A, taken)
    running = await bank.world.start(A)
    bank.apps[A].state.edge.bank = running.bank


async def test_a_bank_that_was_never_restored_says_so() -> None:
    async with hall(2) as bank:
        who = await bank.operator()
        assert await seen(bank, who) == {
            "restored_at": None,
            "backup_at": None,
            "backup_stamp": None,
            "asked_since": None,
            "resupplied": 0,
            "peers": [],
            "items": [],
            "next_cursor": None,
        }
        for name in ("x", f"{A}.{'a' * 32}.{'b' * 32}"):
            refused = await settle(bank, who, name)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_what_was_lost_is_listed_settled_and_found_in_suspense() -> None:
    async with hall(2) as bank:
        mine, theirs, who = await bank.account("100.00"), await bank.account(code=B), await bank.operator()
        taken = await backup(bank.world, A)
        made = [await order(bank, [leg(A, mine, "5.00")], [leg(B, theirs, "5.00")]) for _ in range(2)]
        first, second = (answer.json()["transfer_id"] for answer in made)
        await restore(bank, taken)
        found = await seen(bank, who)
        assert found["peers"] == [{**found["peers"][0], "bank": B, "status": "told", "resupplied": 0}]
        item = next(each for each in found["items"] if each["transfer_id"] == first)
        assert item == {
            "transfer_id": first,
            "end_to_end_id": made[0].json()["end_to_end_id"],
            "ordered_at": item["ordered_at"],
            "ordered_by": "***.982.247-**",
            "description": "rent",
            "outcome": "committed",
            "participants": [
                {"bank": B, "state": "committed", "flow": "5.00", "legs": [own(theirs, "credit", "5.00")]},
            ],
            "status": None,
            "settled": None,
            "next": "the operator of this bank settles it: name the accounts here that it had debited or credited",
        }
        page = await seen(bank, who, limit=1)
        rest = await seen(bank, who, cursor=page["next_cursor"])
        assert [*page["items"], *rest["items"]] == found["items"]

        for legs, code in (
            ([own(mine, "debit", "5.01")], "unbalanced_transfer"),
            ([own(mine, "credit", "5.00")], "unbalanced_transfer"),
            ([own("00000003-5", "debit", "5.00")], "account_not_found"),
            ([own("00000003-4", "debit", "5.00")], "invalid_account_number"),
            ([own(mine, "debit", "0.00")], "invalid_amount"),
        ):
            refused = await settle(bank, who, first, *legs)
            assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
        done = await settle(bank, who, first, own(mine, "debit", "3.00"))
        assert done.status_code == 200, done.text
        assert await conforms(bank, done.json(), "LostTransfer")
        settled = done.json()["settled"]
        assert (settled["reason"], settled["suspense"], done.json()["status"]) == ("her receipt", "-2.00", "committed")
        again = await settle(bank, who, first, own(mine, "debit", "1.00"))
        assert (again.status_code, again.json()["settled"]) == (200, settled)
        assert (await settle(bank, who, second)).status_code == 200

        suspense = (await bank.client().get("/v1/operator/suspense", headers=who)).json()
        assert await conforms(bank, suspense, "Suspense")
        assert (suspense["balance"], suspense["owed"]) == ("-7.00", "7.00")
        assert {each["kind"] for each in suspense["items"]} == {"restoration"}
        holder = await bank.sign_in()
        known = (await bank.client().get(f"/v1/transfers/{first}", headers=holder)).json()
        assert known["status"] in ("committed", "completed")
        line = (await bank.client().get(f"/v1/accounts/{mine}/statement", headers=holder)).json()["items"][0]
        assert (line["transfer_id"], line["amount"], line["kind"]) == (first, "3.00", "transfer")
        trace = (await bank.client().get(f"/v1/transfers/{first}/trace", headers=who)).json()
        assert await conforms(bank, trace, "Trace")
        told = [each["detail"] for each in trace["lines"] if "its operator settled it" in each["detail"]]
        assert [words.endswith("; because: her receipt") for words in told] == [True]
        hers = (await bank.client().get(f"/v1/transfers/{first}/trace", headers=holder)).text
        assert "its operator settled it" in hers
        assert "her receipt" not in hers, "why is between the operator and the auditor"


@pytest.mark.parametrize("language", ["en", "pt-BR"])
async def test_what_is_in_doubt_elsewhere_names_who_must_act_and_is_not_settled(language: str) -> None:
    async with hall(2) as bank:
        mine, theirs, who = await bank.account("100.00"), await bank.account(code=B), await bank.operator()
        taken = await backup(bank.world, A)
        bank.world.weather = losing(Commit, "lose request")
        made = await order(bank, [leg(A, mine, "5.00")], [leg(B, theirs, "5.00")], Prefer="wait=1")
        transfer = made.json()["transfer_id"]
        await bank.world.crash(A)
        bank.world.calm()
        put_back(bank.world, A, taken)
        bank.apps[A].state.edge.bank = (await bank.world.start(A)).bank
        (item,) = (await seen(bank, who))["items"]
        assert (item["outcome"], item["participants"][0]["state"]) == ("in doubt", "prepared")
        assert item["next"].startswith(f"the operator of {B} resolves it there")
        refused = await settle(bank, {**who, "Accept-Language": language}, transfer)
        assert (refused.status_code, refused.json()["code"]) == (409, "not_settleable")
        assert ("nenhum" in refused.json()["detail"]) is (language == "pt-BR")
