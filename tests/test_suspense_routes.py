"""What an operator does about what wrong guesses have left in suspense: see it, assign it, never more than is there.

A coordinates, B's part is forced, and the truth differs once B's customer has withdrawn, or closed the account.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from distribank.bank import assigning
from distribank.core.heuristics import Verdict
from distribank.core.protocol import State
from distribank.core.suspense import Assignment
from distribank.network.client import centavos
from tests.counter_hall import Hall, conforms, hall
from tests.engines import on_memory
from tests.weather import in_state, no_vote_arrives, nothing_about_outcomes, only_inquiries

A, B = "99990001", "99990002"
SUSPENSE, ASSIGNMENTS = "/v1/operator/suspense", "/v1/operator/suspense/assignments"


async def withdraw(bank: Hall, account: str, amount: str, which: int = 0) -> httpx.Response:
    who = bank.keyed(await bank.sign_in(which, B))
    return await bank.client(B).post(f"/v1/accounts/{account}/withdrawals", json={"amount": amount}, headers=who)


async def guessed_wrong(bank: Hall, amount: str, verdict: Verdict, gone: str, close: bool = False) -> tuple[str, str]:
    """B's account with 100.00 was to be credited *amount*; B guessed *verdict*, and before the truth, the other one,
    arrived, *gone* was withdrawn: the transaction and the account."""
    mine, theirs, by = await bank.account("1000.00"), await bank.account("100.00", code=B), await operator(bank)
    bank.world.weather = no_vote_arrives if verdict is Verdict.COMMIT else nothing_about_outcomes
    order = {
        "debits": [{"account": mine, "amount": amount}],
        "credits": [{"bank": B, "account": theirs, "amount": amount}],
        "description": "rent",
    }
    who = bank.keyed(await bank.sign_in(), Prefer="wait=5")
    answer = await bank.client().post("/v1/transfers", json=order, headers=who)
    transfer: str = answer.json()["transfer_id"]
    await bank.world.until(lambda: in_state(bank.world, B, transfer, State.PREPARED))
    bank.world.weather = nothing_about_outcomes
    body = {"decision": verdict.value, "reason": "a phone call"}
    address = f"/v1/operator/in-doubt/{transfer}/resolve"
    forced = await bank.client(B).post(address, json=body, headers=by)
    assert forced.status_code == 200, forced.text
    assert (await withdraw(bank, theirs, gone)).status_code == 201
    if close:
        closed = await bank.client(B).post(f"/v1/accounts/{theirs}/close", headers=await bank.sign_in(code=B))
        assert closed.status_code == 200, closed.text
    bank.world.weather = only_inquiries
    await bank.world.banks[B].recovery.inquire_now(transfer)
    settled = State.ABORTED if verdict is Verdict.COMMIT else State.COMMITTED
    await bank.world.until(lambda: in_state(bank.world, B, transfer, settled))
    bank.world.calm()
    await bank.world.settle(transfer)
    return transfer, theirs


async def owed(bank: Hall, amount: str = "30.00", gone: str = "110.00") -> tuple[str, str]:
    """B is owed what the account, which had 100.00 and *amount* by mistake, does not cover any more: 10.00."""
    return await guessed_wrong(bank, amount, Verdict.COMMIT, gone)


async def owing(bank: Hall, amount: str = "30.00") -> tuple[str, str]:
    """B owes *amount*, for the account that it is for was closed."""
    return await guessed_wrong(bank, amount, Verdict.ABORT, "100.00", close=True)


async def operator(bank: Hall) -> dict[str, str]:
    """The headers of B's operator, who signs in once: hashing takes real time, and virtual time would run on."""
    if (B, -1) not in bank.tokens:
        bank.tokens[B, -1] = (await bank.operator(B))["Authorization"]
    return {"Authorization": bank.tokens[B, -1]}


async def assign(bank: Hall, key: str | None = None, **order: Any) -> httpx.Response:
    body = {"direction": "credit", "amount": "1.00", "reason": "she called", **order}
    headers = bank.keyed(await operator(bank), key)
    return await bank.client(B).post(
        ASSIGNMENTS, json={k: v for k, v in body.items() if v is not None}, headers=headers
    )


async def seen(bank: Hall, address: str = SUSPENSE, **query: Any) -> Any:
    answer = await bank.client(B).get(address, params=query, headers=await operator(bank))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def stands(bank: Hall) -> tuple[str, str, str]:
    """Balance, owing, owed; once the books balance and say the same."""
    await bank.world.check_books()
    found, books = await seen(bank), await seen(bank, "/v1/operator/books")
    assert (books["balanced"], books["findings"], books["books"]["suspense"]) == (True, [], found["balance"])
    assert found["next_cursor"] is None
    assert sum(centavos(item["amount"]) for item in found["items"]) == centavos(found["balance"])
    return found["balance"], found["owing"], found["owed"]


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_bank_that_never_guessed_wrong_has_nothing_in_suspense() -> None:
    async with hall(2) as bank:
        found = await seen(bank)
        assert found == {"items": [], "next_cursor": None, "balance": "0.00", "owing": "0.00", "owed": "0.00"}
        refused = await assign(bank)
        assert said(refused) == (409, "not_in_suspense")
        assert refused.json()["detail"] == "0.00 is left in suspense to be credited"


async def test_what_is_owed_is_seen_with_who_wanted_it_and_paid_by_whom_the_operator_names() -> None:
    async with hall(2) as bank:
        transfer, theirs = await owed(bank)
        assert await stands(bank) == ("-10.00", "0.00", "10.00")
        (item,) = (await seen(bank))["items"]
        wanted = {"account": theirs, "direction": "debit", "wanted": "30.00", "corrected": "20.00"}
        assert {name: item[name] for name in item if name != "at"} == {
            "kind": "correction",
            "amount": "-10.00",
            "transaction": transfer,
            "transfer_id": transfer,
            "wanted_by": [{**wanted, "to_suspense": "10.00"}],
            "assignment": None,
        }
        other = await bank.account("8.00", code=B)
        made = await assign(bank, direction="debit", amount="7.50", account=other, transaction=transfer)
        assert made.status_code == 201, made.text
        body = made.json()
        assert await conforms(bank, body, "Assignment")
        assert (body["account"], body["amount"], body["transfer_id"]) == (other, "7.50", transfer)
        assert await stands(bank) == ("-2.50", "0.00", "2.50")
        found = await seen(bank)
        assert await conforms(bank, found, "Suspense")
        assert [(i["kind"], i["amount"], i["assignment"]) for i in found["items"]] == [
            ("assignment", "7.50", body),
            ("correction", "-10.00", None),
        ]
        who = await bank.sign_in(code=B)
        line = (await bank.client(B).get(f"/v1/accounts/{other}/statement", headers=who)).json()["items"][0]
        assert (line["entry_id"], line["kind"], line["direction"]) == (body["entry_id"], "correction", "debit")
        assert (line["amount"], line["balance_after"], line["transfer_id"]) == ("7.50", "0.50", transfer)
        file = await bank.client(B).get(f"/v1/accounts/{other}/statement", headers={**who, "Accept": "text/csv"})
        assert f",debit,7.50,0.50,correction,{transfer}," in file.text


async def test_whoever_pays_for_another_is_not_told_the_others_business() -> None:
    async with hall(2) as bank:
        transfer, theirs = await owed(bank)
        anas = await bank.account("8.00", which=1, code=B)
        assert (await assign(bank, direction="debit", amount="8.00", account=anas, transaction=transfer)).is_success
        for which, account, told in ((1, anas, False), (0, theirs, True)):
            who = await bank.sign_in(which, B)
            page = (await bank.client(B).get(f"/v1/accounts/{account}/statement", headers=who)).json()
            (line,) = (line for line in page["items"] if line["kind"] == "correction")
            assert ("counterparties" in line, line.get("description") == "rent") == (told, told)
            seen_by = await bank.client(B).get(f"/v1/transfers/{transfer}", headers=who)
            assert seen_by.status_code == (200 if told else 404)


async def test_what_the_bank_owes_is_credited_to_another_account() -> None:
    async with hall(2) as bank:
        transfer, closed = await owing(bank)
        assert await stands(bank) == ("30.00", "30.00", "0.00")
        other = await bank.account(code=B)
        for account, code in ((closed, "account_closed"), ("00000003-5", "account_not_found")):
            refused = await assign(bank, account=account, amount="30.00")
            assert said(refused) == (422, code)
            assert refused.json()["account"] == account
        assert (await assign(bank, account=other, amount="30.00")).status_code == 201
        assert await stands(bank) == ("0.00", "0.00", "0.00")
        line = (await bank.client(B).get(f"/v1/accounts/{other}/statement", headers=await bank.sign_in(code=B))).json()[
            "items"
        ][0]
        assert ("transfer_id" in line, line["kind"], line["balance_after"]) == (False, "correction", "30.00")
        assert transfer == (await seen(bank))["items"][-1]["transaction"]


@pytest.mark.parametrize("direction", ["credit", "debit"])
async def test_a_write_off_is_the_banks_own_cash_paid_in_or_taken_out(direction: str) -> None:
    async with hall(2) as bank:
        await (owing(bank) if direction == "credit" else owed(bank))
        await stands(bank)
        before = (await seen(bank, "/v1/operator/books"))["books"]
        made = await assign(bank, direction=direction, amount="4.00")
        assert made.status_code == 201, made.text
        assert (made.json()["account"], made.json()["entry_id"]) == (None, None)
        await stands(bank)
        after = (await seen(bank, "/v1/operator/books"))["books"]
        moved = 4_00 if direction == "credit" else -4_00
        assert centavos(after["cash"]) - centavos(before["cash"]) == moved
        assert centavos(after["suspense"]) - centavos(before["suspense"]) == -moved


@pytest.mark.parametrize("direction", ["credit", "debit"])
async def test_nothing_is_taken_that_is_not_there(direction: str) -> None:
    async with hall(2) as bank:
        transfer, _ = await (owing(bank, "10.00") if direction == "credit" else owed(bank))
        other = "debit" if direction == "credit" else "credit"
        account = await bank.account("99.00", code=B)
        before = await stands(bank)
        for order, there in (
            ({"direction": direction, "amount": "10.01"}, "10.00"),
            ({"direction": other, "amount": "0.01"}, "0.00"),
            ({"direction": other, "amount": "0.01", "transaction": transfer}, "0.00"),
            ({"direction": direction, "amount": "10.01", "transaction": transfer}, "10.00"),
            ({"direction": direction, "amount": "0.01", "transaction": f"{A}.x"}, "0.00"),
        ):
            for to in (account, None):
                refused = await assign(bank, account=to, **order)
                assert said(refused) == (409, "not_in_suspense"), order
                assert refused.json()["detail"].startswith(f"{there} "), refused.text
        assert await stands(bank) == before


async def test_claims_of_different_people_never_pay_for_each_other() -> None:
    """The book stands at 20.00, yet 30.00 can be credited and 10.00 debited, each to the centavo and only once."""
    async with hall(2) as bank:
        to_pay, _ = await owing(bank)
        to_get, _ = await owed(bank)
        assert await stands(bank) == ("20.00", "30.00", "10.00")
        account = await bank.account("10.00", code=B)
        assert said(await assign(bank, amount="10.01", direction="debit")) == (409, "not_in_suspense")
        assert said(await assign(bank, amount="0.01", direction="credit", transaction=to_get))[0] == 409
        assert (await assign(bank, amount="10.00", direction="debit", account=account, transaction=to_get)).is_success
        assert await stands(bank) == ("30.00", "30.00", "0.00")
        assert (await assign(bank, amount="20.00", account=account)).is_success
        assert said(await assign(bank, amount="10.01", account=account, transaction=to_pay)) == (409, "not_in_suspense")
        assert (await assign(bank, amount="10.00", account=account, transaction=to_pay)).is_success
        assert await stands(bank) == ("0.00", "0.00", "0.00")


async def test_a_debit_reaches_as_far_as_the_available_balance_and_no_hold_is_touched() -> None:
    async with hall(2) as bank:
        await owed(bank)
        payer, elsewhere, heard = await bank.account("9.00", code=B), await bank.account(), asyncio.Event()
        await operator(bank)

        async def silence(_sender: str, _to: str, _message: object) -> str:
            await heard.wait()
            return "deliver"

        bank.world.weather = silence
        order = {
            "debits": [{"account": payer, "amount": "5.00"}],
            "credits": [{"bank": A, "account": elsewhere, "amount": "5.00"}],
        }
        who = bank.keyed(await bank.sign_in(code=B), Prefer="respond-async")
        ordered = await bank.client(B).post("/v1/transfers", json=order, headers=who)
        assert ordered.status_code == 202, ordered.text
        refused = await assign(bank, direction="debit", account=payer, amount="4.01")
        assert said(refused) == (422, "insufficient_funds")
        assert "leg" not in refused.json()
        assert (await assign(bank, direction="debit", account=payer, amount="4.00")).status_code == 201
        held = (await bank.client(B).get(f"/v1/accounts/{payer}", headers=await bank.sign_in(code=B))).json()
        assert (held["posted_balance"], held["held"], held["available_balance"]) == ("5.00", "5.00", "0.00")
        heard.set()
        await bank.world.settle(ordered.json()["transfer_id"])
        await stands(bank)


async def test_a_key_does_it_once_says_it_again_and_is_not_taken_for_something_else() -> None:
    async with hall(2) as bank:
        await owing(bank)
        account = await bank.account(code=B)
        first = await assign(bank, "k", account=account, amount="2.00")
        again = await assign(bank, '"k"', account=account, amount="2.00")
        assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        for change in (
            {"amount": "2.01"},
            {"direction": "debit"},
            {"reason": "he called"},
            {"account": None},
            {"transaction": "t"},
        ):
            answer = await assign(bank, "k", **{"account": account, "amount": "2.00", **change})
            assert said(answer) == (422, "idempotency_conflict"), change
        too_much = [await assign(bank, "much", account=account, amount="99.00") for _ in range(2)]
        assert [said(answer) for answer in too_much] == [(409, "not_in_suspense")] * 2
        assert [answer.headers.get("idempotency-replayed") for answer in too_much] == [None, "true"]
        paid = await bank.client(B).post(
            f"/v1/accounts/{account}/deposits",
            json={"amount": "2.00"},
            headers=bank.keyed(await bank.sign_in(code=B), "k"),
        )
        assert paid.status_code == 201, "each kind of order has its own keys"
        headers = await bank.operator(B)
        body = {"direction": "credit", "amount": "1.00", "reason": "she called"}
        assert said(await bank.client(B).post(ASSIGNMENTS, json=body, headers=headers))[1] == "idempotency_key_required"
        assert await stands(bank) == ("28.00", "28.00", "0.00")


async def test_one_key_at_once_from_everywhere_is_one_assignment() -> None:
    async with hall(2) as bank:
        await owing(bank)
        account = await bank.account(code=B)
        answers = await asyncio.gather(*(assign(bank, "k", account=account, amount="2.00") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["assignment_id"] for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert await stands(bank) == ("28.00", "28.00", "0.00")


@pytest.mark.parametrize(("amount", "covered"), [("30.00", 1), ("1.00", 30)])
async def test_of_a_hundred_assignments_at_once_as_many_are_made_as_are_covered(amount: str, covered: int) -> None:
    async with hall(2) as bank:
        await owing(bank)
        accounts = [await bank.account(code=B) for _ in range(4)]
        to = [*accounts, None] * 20
        answers = await asyncio.gather(*(assign(bank, account=account, amount=amount) for account in to))
        assert sorted(answer.status_code for answer in answers) == [201] * covered + [409] * (100 - covered)
        assert await stands(bank) == ("0.00", "0.00", "0.00")


async def test_a_withdrawal_at_the_same_moment_leaves_no_account_below_zero() -> None:
    async with hall(2) as bank:
        await owed(bank)
        account = await bank.account("10.00", code=B)
        made, taken = await asyncio.gather(
            assign(bank, direction="debit", account=account, amount="10.00"), withdraw(bank, account, "10.00")
        )
        assert sorted([made.status_code, taken.status_code]) == [201, 422]
        await stands(bank)


async def test_the_list_comes_in_pages_newest_first_and_is_added_up_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigning, "PAGE", 2)
    async with hall(2) as bank:
        first, _ = await owing(bank)
        bank.world.clock.now += 1000
        for amount in ("1.00", "2.00", "3.00"):
            assert (await assign(bank, amount=amount)).is_success
        bank.world.clock.now += 1000
        second, _ = await owing(bank, "20.00")
        assert (await assign(bank, amount="4.00", transaction=second)).is_success
        assert said(await assign(bank, amount="40.01")) == (409, "not_in_suspense")
        pages, cursor = [], ""
        while cursor is not None:
            page = await seen(bank, limit=2, **({"cursor": cursor} if cursor else {}))
            assert page["balance"] == "40.00"
            pages.append([(item["amount"], item["transaction"]) for item in page["items"]])
            cursor = page["next_cursor"]
        assert pages == [
            [("-4.00", second), ("20.00", second)],
            [("-3.00", None), ("-2.00", None)],
            [("-1.00", None), ("30.00", first)],
        ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "0.00"}, "invalid_amount"),
        ({"amount": "-1.00"}, "invalid_amount"),
        ({"amount": "1"}, "invalid_amount"),
        ({"amount": "1.005"}, "invalid_amount"),
        ({"amount": 1}, "invalid_amount"),
        ({"account": "00000001-8"}, "invalid_account_number"),
        ({"direction": "both"}, "invalid_request"),
        ({"reason": ""}, "invalid_request"),
        ({"reason": "x" * 501}, "invalid_request"),
        ({"reason": "a\nb"}, "invalid_request"),
        ({"reason": "\u200b"}, "invalid_request"),
        ({"transaction": ""}, "invalid_request"),
        ({"holder": "Maria"}, "invalid_request"),
    ],
)
async def test_an_order_is_held_to_the_contract(change: dict[str, Any], code: str) -> None:
    async with hall(2) as bank:
        assert said(await assign(bank, **change)) == (422, code)


async def test_only_the_operator_sees_and_assigns() -> None:
    """Pitfall 32."""
    async with hall(2) as bank:
        await owing(bank)
        client, body = bank.client(B), {"direction": "credit", "amount": "1.00", "reason": "me"}
        for who, status in ((await bank.sign_in(code=B), 403), ({}, 401), (await bank.operator(A), 401)):
            assert (await client.get(SUSPENSE, headers=who)).status_code == status
            assert (await client.post(ASSIGNMENTS, json=body, headers=bank.keyed(who))).status_code == status
        assert await stands(bank) == ("30.00", "30.00", "0.00")


async def test_a_refusal_is_told_in_portuguese() -> None:
    async with hall(2) as bank:
        transfer, _ = await owing(bank)
        for order, detail in (
            ({}, "restam 30.00 em suspenso para creditar"),
            ({"direction": "debit"}, "restam 0.00 em suspenso para debitar"),
            ({"transaction": transfer}, "desta transação restam 30.00 em suspenso para creditar"),
        ):
            body = {"direction": "credit", "amount": "99.00", "reason": "x", **order}
            headers = bank.keyed(await bank.operator(B), **{"Accept-Language": "pt-BR"})
            problem = (await bank.client(B).post(ASSIGNMENTS, json=body, headers=headers)).json()
            assert (problem["title"], problem["detail"]) == ("Não há tanto em suspenso", detail)


async def test_whoever_watches_the_account_hears_of_it_as_of_any_other_entry() -> None:
    async with hall(2) as bank:
        await owing(bank)
        account = await bank.account(code=B)
        changes = bank.world.banks[B].bank.reading.watch(account, 0)
        assert (await anext(changes))[1] == "balance"
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        made = (await assign(bank, account=account, amount="2.00")).json()
        number, kind, _ = await waiting
        assert (f"{account}.{number}", kind) == (made["entry_id"], "entry")
        await changes.aclose()


@on_memory
@pytest.mark.parametrize("keep_in_flight", [False, True])
async def test_a_bank_that_dies_while_it_assigns_has_done_all_of_it_or_nothing(keep_in_flight: bool) -> None:
    async with hall(2) as bank:
        await owing(bank)
        account, world = await bank.account(code=B), bank.world
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.stores[B].flush_gate = lambda: gate
        asked = asyncio.ensure_future(assign(bank, "k", account=account, amount="2.00"))
        for _ in range(1000):
            if queued(bank, Assignment):
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # its flush begins
        assert queued(bank, Assignment)
        await world.crash(B, keep_in_flight=keep_in_flight)
        answer = (await asyncio.gather(asked, return_exceptions=True))[0]
        assert isinstance(answer, BaseException) or answer.status_code == 503
        await world.start(B)
        bank.apps[B].state.edge.bank = world.banks[B].bank
        assert await stands(bank) == (("28.00",) * 2 if keep_in_flight else ("30.00",) * 2) + ("0.00",)
        again = await assign(bank, "k", account=account, amount="2.00")
        assert (again.status_code, "idempotency-replayed" in again.headers) == (201, keep_in_flight)
        assert await stands(bank) == ("28.00", "28.00", "0.00")


def queued(bank: Hall, kind: type) -> bool:
    """Whether B's store has queued a row of *kind*, or is flushing one."""
    store = bank.world.stores[B]
    return any(group.puts[kind] for group in (store._dirty, store._flushing) if group is not None)


async def test_an_assignment_while_a_correction_is_written_counts_what_is_durable() -> None:
    async with hall(2) as bank:
        await owing(bank)
        world, wrong = bank.world, asyncio.ensure_future(owing(bank, "20.00"))
        answers = []
        for _ in range(200):
            if wrong.done():
                break
            answers.append(await assign(bank, amount="2.00"))
        await wrong
        made = sum(answer.status_code == 201 for answer in answers)
        assert {answer.status_code for answer in answers} <= {201, 409}
        balance, there, nothing = await stands(bank)
        assert (balance, nothing) == (there, "0.00")
        assert centavos(there) == 50_00 - made * 2_00
        await world.check_books()
