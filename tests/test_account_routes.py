"""Accounts, cash, statements and consents as their holders meet them; every answer is what its model describes."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api.answers import accounts as answers
from distribank.api.answers.consents import Consent
from distribank.api.answers.statements import Entry
from distribank.api.answers.words import Page
from distribank.core.documents import account_number
from tests.counter_hall import CONSENT, Hall, check, hall
from tests.world import CPFS


@pytest.fixture
async def bank() -> AsyncIterator[Hall]:
    async with hall(2) as made:
        yield made


async def opened(bank: Hall, order: dict[str, Any], which: int = 0) -> httpx.Response:
    return await bank.client().post("/v1/accounts", json=order, headers=await bank.sign_in(which))


async def cash(
    bank: Hall, number: str, what: str, amount: str, which: int = 0, key: str | None = None
) -> httpx.Response:
    headers = bank.keyed(await bank.sign_in(which), key)
    return await bank.client().post(f"/v1/accounts/{number}/{what}", json={"amount": amount}, headers=headers)


async def test_an_individual_account(bank: Hall) -> None:
    answer = await opened(bank, {"type": "individual"})

    account = check(answers.Account, answer, 201)
    assert account["titular"] == {"name": "Maria da Silva", "cpf_masked": "***.982.247-**"}
    assert account["holders"] == [{**account["titular"], "role": "titular"}]
    assert (account["posted_balance"], account["available_balance"], account["held"]) == ("0.00", "0.00", "0.00")
    assert not {"approval", "company", "closed_at"} & set(account)
    assert answer.headers["location"] == f"/v1/accounts/{account['account']}"


@pytest.mark.parametrize(
    ("approval", "shown"),
    [
        (None, "any"),
        ("any", "any"),
        ("all", "all"),
        ({"at_least": 2}, {"at_least": 2}),
        ({"at_least": 3}, {"at_least": 3}),
    ],
)
async def test_a_joint_account_shows_its_holders_and_its_rule(bank: Hall, approval: Any, shown: Any) -> None:
    await bank.sign_in(1)
    await bank.sign_in(2)
    order: dict[str, Any] = {"type": "joint", "co_holders": ["111.444.777-35", CPFS[2]]}

    account = check(answers.Account, await opened(bank, {**order, **({"approval": approval} if approval else {})}), 201)

    assert [holder["role"] for holder in account["holders"]] == ["titular", "co_holder", "co_holder"]
    assert account["approval"] == shown
    seen = await bank.client().get(f"/v1/accounts/{account['account']}", headers=await bank.sign_in(2))
    assert check(answers.Account, seen) == account


@pytest.mark.parametrize(
    ("co_holders", "approval", "code"),
    [
        ([CPFS[1], CPFS[1]], "any", "duplicate_holder"),
        ([CPFS[0]], "any", "duplicate_holder"),
        ([CPFS[5]], "any", "holder_not_found"),
        ([CPFS[1]], {"at_least": 3}, "invalid_approval"),
        ([CPFS[1]], {"at_least": 0}, "invalid_approval"),
        ([CPFS[1]], {"at_least": True}, "invalid_approval"),
        ([CPFS[1]], "some", "invalid_approval"),
        ([], "any", "invalid_request"),
        ([CPFS[1]] * 40, "any", "invalid_request"),
        ("x", "any", "invalid_request"),
    ],
)
async def test_a_joint_account_that_cannot_be(bank: Hall, co_holders: Any, approval: Any, code: str) -> None:
    await bank.sign_in(1)

    answer = await opened(bank, {"type": "joint", "co_holders": co_holders, "approval": approval})

    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_company_has_one_account_here_and_its_public_name(bank: Hall) -> None:
    order = {"type": "business", "company": {"legal_name": "Padaria Central Ltda", "cnpj": "12.ABC.345/01DE-35"}}

    account = check(answers.Account, await opened(bank, order), 201)
    again = await opened(bank, order, which=1)

    assert account["company"] == {"legal_name": "Padaria Central Ltda", "cnpj": "12ABC34501DE35"}
    assert account["holders"][0]["role"] == "administrator"
    assert (again.status_code, again.json()["code"]) == (409, "company_exists")


async def test_accounts_are_listed_page_by_page(bank: Hall) -> None:
    numbers = [await bank.account() for _ in range(5)]
    who, seen, address = await bank.sign_in(), [], "/v1/accounts?limit=2"

    while address:
        page = check(Page[answers.Account], await bank.client().get(address, headers=who))
        seen += [account["account"] for account in page["items"]]
        address = f"/v1/accounts?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""

    assert seen == numbers


async def test_cash_in_and_out_is_an_entry_and_never_more_than_there_is(bank: Hall) -> None:
    number = await bank.account()

    paid = check(Entry, await cash(bank, number, "deposits", "100.00"), 201)
    taken = check(Entry, await cash(bank, number, "withdrawals", "30.00"), 201)
    refused = await cash(bank, number, "withdrawals", "70.01")

    assert (paid["kind"], paid["direction"], paid["balance_after"]) == ("deposit", "credit", "100.00")
    assert (taken["kind"], taken["direction"], taken["balance_after"]) == ("withdrawal", "debit", "70.00")
    assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_funds")
    assert refused.json()["account"] == number


async def test_the_same_key_pays_in_once(bank: Hall) -> None:
    number, other = await bank.account(), await bank.account()

    first, again = [await cash(bank, number, "deposits", "10.00", key="k") for _ in range(2)]
    quoted = await cash(bank, number, "deposits", "10.00", key='"k"')
    conflict = await cash(bank, number, "deposits", "11.00", key="k")
    elsewhere = await cash(bank, other, "deposits", "10.00", key="k")

    assert first.json() == again.json() == quoted.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == quoted.headers["idempotency-replayed"] == "true"
    for answer in (conflict, elsewhere):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_conflict")


async def test_a_refused_withdrawal_is_refused_again_under_its_key(bank: Hall) -> None:
    number = await bank.account()

    first = await cash(bank, number, "withdrawals", "10.00", key="k")
    await cash(bank, number, "deposits", "50.00")
    again = await cash(bank, number, "withdrawals", "10.00", key="k")

    assert first.json() == again.json()
    assert (again.status_code, again.headers["idempotency-replayed"]) == (422, "true")
    assert "leg" not in first.json(), "cash has no legs"


async def test_cash_needs_a_key(bank: Hall) -> None:
    number = await bank.account()

    answer = await bank.client().post(
        f"/v1/accounts/{number}/deposits", json={"amount": "1.00"}, headers=await bank.sign_in()
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")


async def test_a_withdrawal_that_needs_two_holders_is_refused_until_they_can_approve(bank: Hall) -> None:
    await bank.sign_in(1)
    number = (await opened(bank, {"type": "joint", "co_holders": [CPFS[1]], "approval": "all"})).json()["account"]
    await cash(bank, number, "deposits", "10.00")

    answer = await cash(bank, number, "withdrawals", "1.00")

    assert (answer.status_code, answer.json()["code"]) == (422, "approval_required")


async def test_only_an_empty_account_closes_and_only_by_its_titular(bank: Hall) -> None:
    await bank.sign_in(1)
    number = (await opened(bank, {"type": "joint", "co_holders": [CPFS[1]]})).json()["account"]
    await cash(bank, number, "deposits", "10.00")
    address = f"/v1/accounts/{number}/close"

    full = await bank.client().post(address, headers=await bank.sign_in())
    await cash(bank, number, "withdrawals", "10.00")
    other = await bank.client().post(address, headers=await bank.sign_in(1))
    closed = check(answers.Account, await bank.client().post(address, headers=await bank.sign_in()))
    late = await cash(bank, number, "deposits", "10.00")

    assert (full.status_code, full.json()["code"]) == (409, "account_not_empty")
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")
    assert closed["status"] == "closed"
    assert (late.status_code, late.json()["code"]) == (422, "account_closed")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/accounts/{}"),
        ("GET", "/v1/accounts/{}/statement"),
        ("GET", "/v1/accounts/{}/events"),
        ("POST", "/v1/accounts/{}/close"),
        ("POST", "/v1/accounts/{}/deposits"),
        ("POST", "/v1/accounts/{}/withdrawals"),
        ("GET", "/v1/transfers?account={}"),
    ],
)
async def test_anothers_account_is_as_little_there_as_one_that_is_not(bank: Hall, method: str, path: str) -> None:
    """Pitfall 29: one holder reads or debits another's account by changing an id in a path."""
    number, stranger = await bank.account("10.00"), await bank.sign_in(1)
    problems = []

    for account in (number, account_number(99)):
        answer = await bank.client().request(
            method,
            path.format(account),
            headers=bank.keyed(stranger),
            **({"json": {"amount": "1.00"}} if "deposit" in path or "withdraw" in path else {}),
        )
        assert answer.status_code == 404, answer.text
        problems.append({name: value for name, value in answer.json().items() if name != "instance"})

    assert problems[0] == problems[1]


# Statements -------------------------------------------------------------------------------------------------------


async def test_a_statement_runs_backwards_page_by_page(bank: Hall) -> None:
    number = await bank.account()
    for amount in ("1.00", "2.00", "3.00", "4.00", "5.00"):
        await cash(bank, number, "deposits", amount)
    who, seen, address = await bank.sign_in(), [], f"/v1/accounts/{number}/statement?limit=2"

    while address:
        page = check(Page[Entry], await bank.client().get(address, headers=who))
        seen += [(entry["amount"], entry["balance_after"]) for entry in page["items"]]
        following = page["next_cursor"]
        address = f"/v1/accounts/{number}/statement?limit=2&cursor={following}" if following else ""

    assert seen == [("5.00", "15.00"), ("4.00", "10.00"), ("3.00", "6.00"), ("2.00", "3.00"), ("1.00", "1.00")]


@pytest.mark.parametrize(
    ("query", "amounts"),
    [
        ("", ["2.00", "1.00"]),
        ("?from=2027-01-16", ["2.00"]),
        ("?from=2027-01-15T08:00:00Z", ["2.00", "1.00"]),
        ("?from=2027-01-15T08:00:00.001Z", ["2.00"]),
        ("?to=2027-01-15", ["1.00"]),
        ("?to=2027-01-15T08:00:00Z", []),
        ("?to=2027-01-15T10:00:00%2B02:00", []),
        ("?to=2027-01-15T10:00:01+02:00", ["1.00"]),
        ("?from=2027-01-15&to=2027-01-16", ["2.00", "1.00"]),
        ("?from=0001-01-01&to=9999-12-31", ["2.00", "1.00"]),
        ("?from=&to=", ["2.00", "1.00"]),
    ],
)
async def test_a_statement_of_a_period(bank: Hall, query: str, amounts: list[str]) -> None:
    number = await bank.account("1.00")  # on 15 January 2027 at 08:00:00, by the clock of these banks
    bank.world.clock.now += 86_400_000
    bank.tokens.clear()
    await cash(bank, number, "deposits", "2.00")

    page = (await bank.client().get(f"/v1/accounts/{number}/statement{query}", headers=await bank.sign_in())).json()

    assert [entry["amount"] for entry in page["items"]] == amounts


async def test_a_statement_as_a_file_has_everything_and_no_formulas(bank: Hall) -> None:
    number, other = await bank.account("1000.00"), await bank.account("0.00", 1, "99990002")
    who = await bank.sign_in()
    for index in range(450):
        await cash(bank, number, "deposits", f"{index + 1}.00")
    order = {
        "debits": [{"account": number, "amount": "1.00"}],
        "credits": [{"bank": "99990002", "account": other, "amount": "1.00"}],
        "description": '=HYPERLINK("evil"), "quoted"',
    }
    assert (await bank.client().post("/v1/transfers", json=order, headers=bank.keyed(who))).status_code == 201

    file = await bank.client().get(f"/v1/accounts/{number}/statement?limit=1", headers={**who, "Accept": "text/csv"})

    lines = list(csv.DictReader(io.StringIO(file.text)))
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert file.headers["content-disposition"] == f'attachment; filename="statement-{number}.csv"'
    assert len(lines) == 452
    assert lines[0]["description"] == '\'=HYPERLINK("evil"), "quoted"'
    assert lines[0]["counterparties"] == "credit 99990002 Maria d*** S***"
    assert lines[-1]["balance_after"] == "1000.00"


async def test_the_same_number_at_two_banks_is_two_accounts(bank: Hall) -> None:
    """Pitfall 3: the same account number at the source and at the destination is taken for one account."""
    number, same = await bank.account("10.00"), await bank.account("0.00", 1, "99990002")
    assert number == same
    order = {
        "debits": [{"account": number, "amount": "4.00"}],
        "credits": [{"bank": "99990002", "account": number, "amount": "4.00"}],
    }
    await bank.client().post("/v1/transfers", json=order, headers=bank.keyed(await bank.sign_in()))

    for code, which, direction, other in [("99990001", 0, "debit", "credit"), ("99990002", 1, "credit", "debit")]:
        answer = await bank.client(code).get(
            f"/v1/accounts/{number}/statement?limit=1", headers=await bank.sign_in(which, code)
        )
        (entry,) = check(Page[Entry], answer)["items"]
        assert (entry["direction"], entry["amount"]) == (direction, "4.00")
        assert [party["direction"] for party in entry["counterparties"]] == [other]


# Consents ---------------------------------------------------------------------------------------------------------


async def test_a_consent_is_given_seen_and_revoked_by_its_holder_alone(bank: Hall) -> None:
    number, who, stranger = await bank.account(), await bank.sign_in(), await bank.sign_in(1)
    order = {"account": number, **CONSENT, "max_total": "900.00"}

    given = check(Consent, await bank.client().post("/v1/consents", json=order, headers=who), 201)
    listed = check(Page[Consent], await bank.client().get("/v1/consents", headers=who))
    address = f"/v1/consents/{given['consent_id']}"
    by_stranger = await bank.client().delete(address, headers=stranger)
    revoked = check(Consent, await bank.client().delete(address, headers=who))

    assert listed["items"] == [given]
    assert (given["status"], given["used"], given["max_total"]) == ("active", "0.00", "900.00")
    assert given["expires_at"] == "2030-12-31T23:59:59.000Z"
    assert by_stranger.status_code == 404
    assert revoked["status"] == "revoked"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"account": account_number(99)}, "not_a_holder"),
        ({"initiator_bank": "99990009"}, "unknown_bank"),
        ({"initiator_bank": "99990001"}, "unknown_bank"),
        ({"initiator_bank": "x"}, "unknown_bank"),
        ({"max_per_transfer": "0.00"}, "invalid_amount"),
        ({"max_total": 5}, "invalid_amount"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "invalid_request"),
        ({"expires_at": "2030-01-01"}, "invalid_request"),
        ({"expires_at": "2030-01-01T00:00:00"}, "invalid_request"),
        ({"expires_at": 1893456000}, "invalid_request"),
        ({"expires_at": "9999-12-31T23:59:59-00:01"}, "invalid_request"),  # in UTC it has no year of four digits
    ],
)
async def test_a_consent_that_cannot_be(bank: Hall, change: dict[str, Any], code: str) -> None:
    order = {"account": await bank.account(), **CONSENT, **change}

    answer = await bank.client().post("/v1/consents", json=order, headers=await bank.sign_in())

    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


async def test_a_consent_on_anothers_account_is_refused_as_on_none(bank: Hall) -> None:
    order = {"account": await bank.account(), **CONSENT}

    answer = await bank.client().post("/v1/consents", json=order, headers=await bank.sign_in(1))

    assert (answer.status_code, answer.json()["code"]) == (422, "not_a_holder")
