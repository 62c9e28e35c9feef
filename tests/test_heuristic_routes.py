"""What an operator does over HTTP about a part in doubt: force it, see what was forced, and what came of it."""

from __future__ import annotations

from typing import Any

import pytest

from distribank.core.protocol import State, Transaction
from tests.counter_hall import Hall, conforms, hall
from tests.weather import in_state, nothing_about_outcomes

A, B = "99990001", "99990002"
REASON = "the coordinator's disk is lost"


async def in_doubt(bank: Hall) -> tuple[str, str]:
    """A transfer of 30.00 from A that B has voted on and A committed, unknown to B; its id and the account at B."""
    mine, theirs = await bank.account("100.00"), await bank.account("100.00", code=B)
    bank.world.weather = nothing_about_outcomes
    order = {
        "debits": [{"account": mine, "amount": "30.00"}],
        "credits": [{"bank": B, "account": theirs, "amount": "30.00"}],
    }
    ordered = await bank.client().post("/v1/transfers", json=order, headers=bank.keyed(await bank.sign_in()))
    assert ordered.status_code == 201, ordered.text
    return ordered.json()["transfer_id"], theirs


async def resolve(bank: Hall, transfer: str, decision: str = "abort", *, code: str = B, **more: Any) -> Any:
    body = {"decision": decision, "reason": REASON, **more}
    address = f"/v1/operator/in-doubt/{transfer}/resolve"
    return await bank.client(code).post(address, json=body, headers=await bank.operator(code))


async def heuristics(bank: Hall, **query: Any) -> Any:
    answer = await bank.client(B).get("/v1/operator/heuristics", params=query, headers=await bank.operator(B))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_forced_part_is_told_to_the_operator_and_stays_pending_for_holders() -> None:
    async with hall(2) as bank:
        transfer, _ = await in_doubt(bank)
        forced = await resolve(bank, transfer)
        assert forced.status_code == 200, forced.text
        body = forced.json()
        assert {name: body[name] for name in body if name != "decided_at"} == {
            "transaction": transfer,
            "transfer_id": transfer,
            "coordinator": A,
            "decision": "abort",
            "reason": REASON,
            "truth": None,
            "truth_at": None,
            "matched": None,
            "damage": None,
        }
        assert await conforms(bank, body, "Heuristic")
        listed = (await bank.client(B).get("/v1/operator/in-doubt", headers=await bank.operator(B))).json()["items"]
        assert [(item["transaction"], item["in_doubt"], item["why"]) for item in listed] == [
            (transfer, True, f"forced abort by the operator: {REASON}; the truth is not known yet")
        ]
        seen = await bank.client(B).get(f"/v1/transfers/{transfer}", headers=await bank.sign_in(code=B))
        assert (seen.json()["status"], seen.json()["in_doubt"]) == ("pending", True)
        assert await heuristics(bank) == {"items": [body], "next_cursor": None}


async def test_the_truth_and_the_damage_are_told_and_the_statement_finds_the_transfer() -> None:
    async with hall(2) as bank:
        transfer, theirs = await in_doubt(bank)
        await resolve(bank, transfer)
        bank.world.calm()
        await bank.world.settle(transfer)
        (item,) = (await heuristics(bank))["items"]
        assert (item["truth"], item["matched"]) == ("commit", False)
        assert item["damage"] == {
            "accounts": [
                {
                    "account": theirs,
                    "direction": "credit",
                    "wanted": "30.00",
                    "corrected": "30.00",
                    "to_suspense": "0.00",
                }
            ],
            "position": {"bank": A, "amount": "-30.00"},
            "suspense": "0.00",
        }
        assert await conforms(bank, item, "Heuristic")
        who = await bank.sign_in(code=B)
        page = (await bank.client(B).get(f"/v1/accounts/{theirs}/statement", headers=who)).json()
        newest = page["items"][0]
        assert (newest["kind"], newest["transfer_id"], newest["amount"]) == ("correction", transfer, "30.00")
        assert [party["bank"] for party in newest["counterparties"]] == [A]
        seen = await bank.client(B).get(f"/v1/transfers/{transfer}", headers=who)
        assert (seen.json()["status"], seen.json()["in_doubt"]) == ("completed", False)


async def test_the_list_comes_in_pages_newest_first() -> None:
    async with hall(2) as bank:
        transfers = [(await in_doubt(bank))[0] for _ in range(3)]
        for transfer in transfers:
            await resolve(bank, transfer)
            bank.world.clock.now += 1000
        first = await heuristics(bank, limit=2)
        rest = await heuristics(bank, limit=2, cursor=first["next_cursor"])
        assert [item["transfer_id"] for item in first["items"] + rest["items"]] == transfers[::-1]
        assert rest["next_cursor"] is None


async def test_what_is_not_in_doubt_here_is_not_found() -> None:
    async with hall(2) as bank:
        transfer, _ = await in_doubt(bank)
        bank.world.calm()
        await bank.world.settle(transfer)
        for name in (transfer, "t1", f"{A}.{'0' * 32}.{'1' * 32}"):
            answer = await resolve(bank, name)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name


async def test_what_is_in_doubt_but_no_vote_is_not_resolvable() -> None:
    async with hall(2) as bank:
        transfer, _ = await in_doubt(bank)
        decided = await resolve(bank, transfer, code=A)
        assert (decided.status_code, decided.json()["code"]) == (409, "not_resolvable")
        assert "its outcome is decided" in decided.json()["detail"]
        assert (await resolve(bank, transfer)).status_code == 200
        again = await resolve(bank, transfer, "commit")
        assert (again.status_code, again.json()["code"], again.json()["transfer_id"]) == (
            *(409, "not_resolvable"),
            transfer,
        )
        assert "already" in again.json()["detail"]
        assert await in_state(bank.world, B, transfer, State.FORCED_ABORT)


@pytest.mark.parametrize(
    "change",
    [{"decision": "ask"}, {"reason": ""}, {"reason": "x" * 501}, {"reason": " "}, {"reason": "a\nb"}, {"more": 1}],
    ids=["decision", "no reason", "too long", "blank", "two lines", "unknown field"],
)
async def test_a_reason_is_required_and_readable(change: dict[str, Any]) -> None:
    async with hall(2) as bank:
        transfer, _ = await in_doubt(bank)
        body = {"reason": "x" * 500, **change}
        answer = await resolve(bank, transfer, **body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert await in_state(bank.world, B, transfer, State.PREPARED)


async def test_only_the_operator_forces_and_sees_what_was_forced() -> None:
    """Pitfall 32."""
    async with hall(2) as bank:
        transfer, _ = await in_doubt(bank)
        client, body = bank.client(B), {"decision": "abort", "reason": REASON}
        for who, status in ((await bank.sign_in(code=B), 403), ({}, 401), (await bank.operator(A), 401)):
            address = f"/v1/operator/in-doubt/{transfer}/resolve"
            assert (await client.post(address, json=body, headers=who)).status_code == status
            assert (await client.get("/v1/operator/heuristics", headers=who)).status_code == status
        known = await bank.world.stores[B].get(Transaction, transfer)
        assert known is not None
        assert known.state is State.PREPARED
