"""Transfers and batches as clients meet them: statuses, keys, waiting, and who may see what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api.answers import operator as desk
from distribank.api.answers import transfers as answers
from distribank.api.answers.batches import Batch
from distribank.api.answers.network import Network
from distribank.api.answers.words import Items, Page
from distribank.bank.reading import OVERDUE_MS
from distribank.core.documents import account_number
from distribank.core.protocol import Message, Prepare
from tests.counter_hall import CONSENT, Hall, check, hall, leg, order
from tests.weather import Gate, once_voted

A, B, C = "99990001", "99990002", "99990003"


@pytest.fixture
async def banks() -> AsyncIterator[Hall]:
    async with hall(3) as made:
        yield made


async def cut_off(_sender: str, _to: str, message: Message) -> str:
    """The weather in which no prepare arrives."""
    return "lose request" if isinstance(message, Prepare) else "deliver"


async def test_a_transfer_from_three_banks_to_one_is_completed(banks: Hall) -> None:
    here, there = await banks.account("300.00"), await banks.account("200.00", 0, B)
    payee = await banks.account("0.00", 1, C)
    consent = {**CONSENT, "account": there, "initiator_bank": A}
    given = await banks.client(B).post("/v1/consents", json=consent, headers=await banks.sign_in(0, B))
    assert given.status_code == 201

    answer = await order(banks, [leg(A, here, "300.00"), leg(B, there, "200.00")], [leg(C, payee, "500.00")])

    transfer = check(answers.Transfer, answer, 201)
    assert (transfer["status"], transfer["in_doubt"]) == ("completed", False)
    assert transfer["iso20022"] == {"status": "ACSC"}
    assert [participant["vote"] for participant in transfer["participants"]] == ["yes", "yes"]
    assert answer.headers["location"] == f"/v1/transfers/{transfer['transfer_id']}"


async def test_each_party_sees_its_own_legs_and_the_others_masked(banks: Hall) -> None:
    here, there = await banks.account("300.00"), await banks.account("0.00", 1, B)
    transfer = (await order(banks, [leg(A, here, "300.00")], [leg(B, there, "300.00")])).json()
    address = f"/v1/transfers/{transfer['transfer_id']}"

    payer = check(answers.Transfer, await banks.client(A).get(address, headers=await banks.sign_in(0, A)))
    payee = check(answers.Transfer, await banks.client(B).get(address, headers=await banks.sign_in(1, B)))

    assert payer["debits"] == [leg(A, here, "300.00")]
    assert payer["credits"] == [leg(B, there, "300.00")]
    assert payee["debits"] == []
    assert payee["credits"] == [leg(B, there, "300.00")]
    assert payee["counterparties"] == [{"bank": A, "name_masked": "Maria d*** S***", "direction": "debit"}]
    assert payee["iso20022"] == {"status": "ACCC"}
    for which, bank in [(1, A), (2, A), (2, B), (0, C)]:
        hidden = await banks.client(bank).get(address, headers=await banks.sign_in(which, bank))
        assert hidden.status_code == 404


async def test_a_refusal_names_its_transfer_bank_and_account_and_leaves_nothing_behind(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)

    answer = await order(banks, [leg(A, here, "10.01")], [leg(B, there, "10.01")])

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "insufficient_funds")
    assert (problem["bank"], problem["account"]) == (A, here)
    seen = await banks.client(A).get(f"/v1/transfers/{problem['transfer_id']}", headers=await banks.sign_in())
    transfer = check(answers.Transfer, seen)
    assert transfer["status"] == "aborted"
    assert transfer["iso20022"] == {"status": "RJCT", "reason": "AM04"}
    assert transfer["reason"]["code"] == "insufficient_funds"


@pytest.mark.parametrize(
    ("debits", "credits_", "code"),
    [
        (["1.00"], ["2.00"], "unbalanced_transfer"),
        ([], ["1.00"], "unbalanced_transfer"),
        (["1.00"], [], "unbalanced_transfer"),
        ([], [], "unbalanced_transfer"),
        (["1.00"] * 33, ["1.00"] * 33, "too_many_legs"),
    ],
)
async def test_legs_that_are_no_transfer_are_refused_with_a_precise_code(
    banks: Hall, debits: list[str], credits_: list[str], code: str
) -> None:
    """Pitfall 33: thousands of legs."""
    here = await banks.account("100.00")

    answer = await order(banks, [leg(A, here, d) for d in debits], [leg(A, here, c) for c in credits_])

    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("debit", "credit", "code"),
    [
        ((A, account_number(99)), (B, ""), "account_not_found"),
        (("99990009", "00000001-9"), (B, ""), "unknown_bank"),
        ((B, "own"), (A, ""), "consent_required"),
        ((A, "others"), (B, ""), "not_a_holder"),
    ],
)
async def test_who_may_not_debit_hears_why(
    banks: Hall, debit: tuple[str, str], credit: tuple[str, str], code: str
) -> None:
    accounts = {
        "own": await banks.account("5.00", 0, B),
        "others": await banks.account("5.00", 1, A),
        A: await banks.account(),
        B: await banks.account("0.00", 1, B),
    }

    answer = await order(
        banks,
        [leg(debit[0], accounts.get(debit[1], debit[1]), "1.00")],
        [leg(credit[0], accounts[credit[0]], "1.00")],
    )

    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


async def test_a_bank_that_cannot_be_reached_is_503_and_nothing_moved(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    banks.world.weather = cut_off

    answer = await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")])

    assert (answer.status_code, answer.json()["code"]) == (503, "bank_unreachable")
    assert answer.json()["transfer_id"]
    account = await banks.client(A).get(f"/v1/accounts/{here}", headers=await banks.sign_in())
    assert (account.json()["available_balance"], account.json()["held"]) == ("10.00", "0.00")


async def test_whoever_does_not_wait_gets_202_and_finds_it_under_its_address_and_its_key(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    arrived, released = asyncio.Event(), asyncio.Event()

    async def held_up(_sender: str, _to: str, message: Message) -> str:
        if isinstance(message, Prepare):
            arrived.set()
            await released.wait()
        return "deliver"

    banks.world.weather = held_up
    answer = await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], key="k", Prefer="respond-async")

    pending = check(answers.Transfer, answer, 202)
    assert pending["status"] == "pending"
    assert pending["iso20022"] == {"status": "PDNG"}
    assert answer.headers["preference-applied"] == "respond-async"
    await arrived.wait()
    again = await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], key="k", Prefer="respond-async")
    assert again.status_code == 202
    assert again.json()["transfer_id"] == pending["transfer_id"]
    released.set()
    await banks.world.settle(pending["transfer_id"])
    seen = await banks.client(A).get(answer.headers["location"], headers=await banks.sign_in())
    assert seen.json()["status"] == "completed"


async def test_the_same_key_while_the_first_request_runs_is_told_to_wait(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    arrived, released = asyncio.Event(), asyncio.Event()

    async def held_up(_sender: str, _to: str, _message: Message) -> str:
        arrived.set()
        await released.wait()
        return "deliver"

    banks.world.weather = held_up
    first = asyncio.create_task(order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], key="k"))
    await arrived.wait()
    second = await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], key="k")
    released.set()
    done = await first

    assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_progress")
    assert second.headers["retry-after"] == "1"
    assert second.json()["transfer_id"] == done.json()["transfer_id"]


async def test_the_same_key_is_the_same_transfer(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    legs = [leg(A, here, "1.00")], [leg(B, there, "1.00")]

    first, again, quoted = [await order(banks, *legs, key=key) for key in ("k", "k", '"k"')]
    implied = await order(banks, [{"account": here, "amount": "1.00"}], legs[1], key="k")
    conflict = await order(banks, [leg(A, here, "2.00")], [leg(B, there, "2.00")], key="k")

    for answer in (again, quoted, implied):
        assert answer.status_code == 201
        assert answer.json() == first.json()
        assert answer.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert (conflict.status_code, conflict.json()["code"]) == (422, "idempotency_conflict")


async def test_a_key_belongs_to_one_holder(banks: Hall) -> None:
    """Pitfall 31: the same idempotency key, by another holder, answers with somebody else's result."""
    mine, theirs = await banks.account("10.00"), await banks.account("10.00", 1)

    first = await order(banks, [leg(A, mine, "1.00")], [leg(A, theirs, "1.00")], key="k")
    second = await order(banks, [leg(A, theirs, "1.00")], [leg(A, mine, "1.00")], which=1, key="k")

    assert first.status_code == second.status_code == 201
    assert first.json()["transfer_id"] != second.json()["transfer_id"]


async def test_a_refusal_is_the_same_refusal_again(banks: Hall) -> None:
    here, there = await banks.account(), await banks.account("0.00", 1)

    first, again = [await order(banks, [leg(A, here, "1.00")], [leg(A, there, "1.00")], key="k") for _ in range(2)]

    assert first.status_code == again.status_code == 422
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_transfer_needs_a_key(banks: Hall) -> None:
    leg_ = {"account": "00000001-9", "amount": "1.00"}

    answer = await banks.client(A).post(
        "/v1/transfers", json={"debits": [leg_], "credits": [leg_]}, headers=await banks.sign_in()
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")


async def test_transfers_are_listed_newest_first_by_account_and_by_status(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, A)
    made = []
    for amount in ("1.00", "2.00", "900.00", "3.00"):
        banks.world.clock.now += 1000
        answer = await order(banks, [leg(A, here, amount)], [leg(A, there, amount)])
        made.append(answer.json()["transfer_id"])

    async def listed(query: str, which: int = 0) -> list[str]:
        seen, cursor = [], ""
        while True:
            address = f"/v1/transfers?limit=2{query}{cursor}"
            answer = await banks.client(A).get(address, headers=await banks.sign_in(which))
            page = check(Page[answers.Transfer], answer)
            seen += [transfer["transfer_id"] for transfer in page["items"]]
            if page["next_cursor"] is None:
                return seen
            cursor = f"&cursor={page['next_cursor']}"

    assert await listed("") == made[::-1]
    assert await listed("&status=aborted") == [made[2]]
    assert await listed("&status=completed") == [made[3], made[1], made[0]]
    assert await listed("&status=awaiting_approval") == []
    assert await listed(f"&account={here}&status=completed") == [made[3], made[1], made[0]]
    assert await listed("", which=1) == [made[3], made[1], made[0]]


async def test_another_party_hears_nothing_of_the_payers_money(banks: Hall) -> None:
    """An abort reaches everyone who prepared; its reason is the payer's own affair."""
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    mine = await banks.account("50.00", 0, C)
    banks.world.weather = once_voted(banks.world, B, C)
    answer = await order(banks, [leg(A, here, "5.00"), leg(C, mine, "5.00")], [leg(B, there, "10.00")])
    transfer_id = answer.json()["transfer_id"]
    await banks.world.settle(transfer_id)

    seen = await banks.client(B).get(f"/v1/transfers/{transfer_id}", headers=await banks.sign_in(1, B))

    assert (answer.status_code, answer.json()["code"]) == (422, "consent_required")
    assert seen.json()["reason"] == {"code": "bank_refused", "detail": "another party's bank refused"}


# Batches ----------------------------------------------------------------------------------------------------------


async def batch(
    banks: Hall, transfers: list[Any], key: str | None = None, prefer: str = "", **more: Any
) -> httpx.Response:
    headers = banks.keyed(await banks.sign_in(), key, **({"Prefer": prefer} if prefer else {}))
    return await banks.client(A).post("/v1/transfer-batches", json={"transfers": transfers, **more}, headers=headers)


def payment(payer: str, payee: str, amount: str) -> dict[str, Any]:
    return {"debits": [leg(A, payer, amount)], "credits": [leg(B, payee, amount)], "description": f"of {amount}"}


@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_a_batch_answers_each_transfer_in_the_order_given(banks: Hall, mode: str) -> None:
    here, there = await banks.account("100.00"), await banks.account("0.00", 1, B)
    unbalanced = {"debits": [leg(A, here, "1.00")], "credits": [leg(B, there, "2.00")]}
    transfers = [payment(here, there, "1.00"), payment(here, there, "999.00"), unbalanced, payment(here, there, "2.00")]

    answer = await batch(banks, transfers, mode=mode, on_failure="continue")

    content = check(Batch, answer, 201)
    results = content["results"]
    assert content["status"] == "completed"
    assert [result["index"] for result in results] == [0, 1, 2, 3]
    assert [result["status"] for result in results] == ["completed", "aborted", "aborted", "completed"]
    assert results[1]["reason"]["code"] == "insufficient_funds"
    assert (results[2]["transfer_id"], results[2]["reason"]["code"]) == (None, "unbalanced_transfer")
    for result in (results[0], results[3]):
        check_transfer = {name: value for name, value in result.items() if name != "index"}
        answers.Transfer.model_validate(check_transfer, strict=True)
    seen = await banks.client(A).get(answer.headers["location"], headers=await banks.sign_in())
    assert seen.json() == content


async def test_a_sequential_batch_stops_behind_a_failure(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    transfers = [payment(here, there, amount) for amount in ("1.00", "999.00", "2.00")]

    results = (await batch(banks, transfers, mode="sequential")).json()["results"]

    assert [result["status"] for result in results] == ["completed", "aborted", "cancelled"]
    assert results[2]["reason"]["code"] == "not_run"


async def test_the_same_key_runs_a_batch_once(banks: Hall) -> None:
    here, there = await banks.account("100.00"), await banks.account("0.00", 1, B)
    transfers = [payment(here, there, "1.00")] * 3

    first, again = [await batch(banks, transfers, key="k", mode="concurrent") for _ in range(2)]
    conflict = await batch(banks, transfers[:2], key="k", mode="concurrent")

    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert (conflict.status_code, conflict.json()["code"]) == (422, "idempotency_conflict")


async def test_whoever_does_not_wait_for_a_batch_gets_202_and_its_address(banks: Hall) -> None:
    here, there = await banks.account("100.00"), await banks.account("0.00", 1, B)
    released = asyncio.Event()

    async def held_up(_sender: str, _to: str, _message: Message) -> str:
        await released.wait()
        return "deliver"

    banks.world.weather = held_up
    answer = await batch(banks, [payment(here, there, "1.00")], prefer="wait=0", mode="concurrent")

    content = check(Batch, answer, 202)
    assert content["status"] == "running"
    assert content["results"][0]["status"] == "pending"
    assert answer.headers["preference-applied"] == "wait=0"
    released.set()
    done = await batch_until_completed(banks, answer.headers["location"])
    assert done["results"][0]["status"] == "completed"


async def batch_until_completed(banks: Hall, address: str) -> Any:
    async def finished() -> bool:
        return (await banks.client(A).get(address, headers=await banks.sign_in())).json()["status"] == "completed"

    await banks.world.until(finished)
    return (await banks.client(A).get(address, headers=await banks.sign_in())).json()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"transfers": []}, "invalid_request"),
        ({"mode": "parallel"}, "invalid_request"),
        ({"on_failure": "panic"}, "invalid_request"),
        ({"mode": None}, "invalid_request"),
        ({"transfers": [{"debits": [{"account": "00000001-9", "amount": 1}], "credits": []}]}, "invalid_amount"),
        ({"transfers": [{"debits": [], "credits": []}] * 1001}, "invalid_request"),
    ],
)
async def test_a_batch_that_cannot_be(banks: Hall, change: dict[str, Any], code: str) -> None:
    order_ = {"transfers": [{"debits": [], "credits": []}], "mode": "concurrent", **change}

    answer = await batch(banks, **order_)

    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_anothers_batch_is_not_there(banks: Hall) -> None:
    here, there = await banks.account("100.00"), await banks.account("0.00", 1, B)
    answer = await batch(banks, [payment(here, there, "1.00")], mode="concurrent")

    seen = await banks.client(A).get(answer.headers["location"], headers=await banks.sign_in(1))

    assert seen.status_code == 404


# The operator -----------------------------------------------------------------------------------------------------


async def test_what_is_in_doubt_is_listed_with_why_and_can_be_asked_about_again(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)

    async def answers_are_lost(sender: str, _to: str, message: Message) -> str:
        return "lose answer" if sender == A and isinstance(message, Prepare) else "lose request"

    banks.world.weather = answers_are_lost
    await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], Prefer="respond-async")
    operator, client = await banks.operator(B), banks.client(B)

    async def in_doubt() -> bool:
        return bool((await client.get("/v1/operator/in-doubt", headers=operator)).json()["items"])

    await banks.world.until(in_doubt)
    listed = check(Items[desk.InDoubt], await client.get("/v1/operator/in-doubt", headers=operator))
    (doubt,) = listed["items"]
    assert (doubt["role"], doubt["in_doubt"], doubt["coordinator"]) == ("participant", True, A)
    assert doubt["accounts"] == [{"bank": B, "account": there, "direction": "credit", "amount": "1.00"}]
    address = f"/v1/operator/in-doubt/{doubt['transfer_id']}/inquire"
    check(desk.InDoubt, await client.post(address, headers=operator))
    banks.world.calm()
    asked = await client.post(address, headers=operator)
    assert asked.status_code in (200, 404)  # 404 if the bank's own recovery was quicker
    await banks.world.settle(doubt["transfer_id"])
    assert (await client.post(address, headers=operator)).status_code == 404


async def test_what_is_not_decided_in_time_is_listed_and_counted_on_its_own(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    banks.world.weather = gate = Gate(Prepare)
    accepted = await order(banks, [leg(A, here, "1.00")], [leg(B, there, "1.00")], Prefer="respond-async")
    await gate.reached.wait()
    driven = banks.world.banks[A].bank.coordinating.live(accepted.json()["transfer_id"])
    assert driven is not None
    operator, client, clock = await banks.operator(), banks.client(A), banks.world.clock
    clock.now = driven.transaction.vote_by + OVERDUE_MS
    assert (await client.get("/v1/operator/in-doubt", headers=operator)).json()["items"] == []

    clock.now += 1

    listed = check(Items[desk.InDoubt], await client.get("/v1/operator/in-doubt", headers=operator))
    (doubt,) = listed["items"]
    assert (doubt["role"], doubt["status"], doubt["in_doubt"]) == ("coordinator", "pending", False)
    assert "undecided, though the time for votes is over" in doubt["why"]
    await client.get("/metrics", headers=operator)
    metrics = banks.world.banks[A].bank.metrics
    assert [gauge._value.get() for gauge in (metrics.undecided, metrics.unacknowledged, metrics.in_doubt)] == [1, 0, 0]
    gate.open.set()


async def test_positions_with_every_peer_and_books_agree_with_what_moved(banks: Hall) -> None:
    here, there = await banks.account("10.00"), await banks.account("0.00", 1, B)
    await order(banks, [leg(A, here, "4.00")], [leg(B, there, "4.00")])

    peers = set(banks.apps)
    for bank, other, position in [(A, B, "4.00"), (B, A, "-4.00")]:
        operator = await banks.operator(bank)
        answer = await banks.client(bank).get("/v1/operator/positions", headers=operator)
        shown = {item["bank"]: item["position"] for item in check(Items[desk.Position], answer)["items"]}
        assert shown == {**dict.fromkeys(peers - {bank}, "0.00"), other: position}
        books = check(desk.Books, await banks.client(bank).get("/v1/operator/books", headers=operator))
        assert books["balanced"] is True
        assert books["findings"] == []


async def test_metrics_are_for_the_operator_and_the_scraper() -> None:
    async with hall() as bank:
        tokens = {
            200: [await bank.operator(), {"Authorization": "Bearer what the scraper was given"}],
            401: [{}, {"Authorization": "Bearer x"}],
            403: [await bank.sign_in()],
        }
        for status, headers in tokens.items():
            for header in headers:
                answer = await bank.client().get("/metrics", headers=header)
                assert answer.status_code == status
        assert "distribank_transfers_total" in (await bank.client().get("/metrics", headers=tokens[200][0])).text


async def test_the_network_is_shown_to_anyone(banks: Hall) -> None:
    network = check(Network, await banks.client(A).get("/v1/network"))

    assert (network["bank"], network["protocol_version"]) == (A, 1)
    assert [(peer["bank"], peer["status"]) for peer in network["peers"]] == [(B, "online"), (C, "online")]
