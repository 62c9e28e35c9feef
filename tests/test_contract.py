"""The contract (``docs/api.md``) examined from outside, as though somebody else had written the bank.

Real processes, HTTP alone. Every answer of every test is held to three things besides its claim: its status is one
that the bank's own description names for that call, its body is as described, and a no is a problem document that
repeats no password. One network of four banks serves all tests; each makes the people and accounts that it needs.
"""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.conforming import Description
from tests.processes import PASSWORD, RealBank, network_of, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

A, B, C, D = "99990001", "99990002", "99990003", "99990004"
LATER = "2090-12-31T23:59:59Z"
BIG = "99999999.00"


@dataclass
class Examiner:
    """Asks banks over HTTP and holds each answer to the description."""

    banks: dict[str, RealBank]
    http: httpx.AsyncClient
    description: Description
    people: Any = field(default_factory=lambda: itertools.count(300_000_001))
    operators: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, *, at: str = A, who: str | None = None, key: str | None = None, **request: Any
    ) -> httpx.Response:
        """One request at a bank, by the bearer of *who*, under *key*; its answer, found to be as described."""
        headers = {**({"Authorization": f"Bearer {who}"} if who else {}), **({"Idempotency-Key": key} if key else {})}
        headers |= request.pop("headers", {})
        answer = await self.http.request(method, self.banks[at].client.url + path, headers=headers, **request)
        self._hold_to_the_description(method, path.partition("?")[0], answer)
        return answer

    async def post(self, path: str, body: Any, *, key: str | None = None, **request: Any) -> httpx.Response:
        """A POST of JSON under *key*, or a fresh one."""
        return await self.ask("POST", path, json=body, key=key or uuid.uuid4().hex, **request)

    async def person(self, *banks: str, name: str = "Maria da Silva") -> tuple[str, dict[str, str]]:
        """Somebody new, registered at *banks*: their CPF, and a token for each bank."""
        cpf = cpf_of(next(self.people))
        tokens = {}
        for bank in banks or (A,):
            made = await self.post("/v1/holders", {"name": name, "cpf": cpf, "password": PASSWORD}, at=bank)
            assert made.status_code == 201, made.text
            tokens[bank] = await self.sign_in(cpf, PASSWORD, bank)
        return cpf, tokens

    async def sign_in(self, username: str, password: str, at: str = A) -> str:
        form = {"username": username, "password": password}
        answer = await self.ask("POST", "/v1/token", at=at, data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def operator(self, at: str = A) -> str:
        if at not in self.operators:
            self.operators[at] = await self.sign_in("operator", self.banks[at].bank.operator_password, at)
        return self.operators[at]

    async def account(self, who: str, money: str = "", *, at: str = A, **order: Any) -> str:
        """A new account with *money* in it; its number."""
        opened = await self.post("/v1/accounts", order or {"type": "individual"}, at=at, who=who)
        assert opened.status_code == 201, opened.text
        number = str(opened.json()["account"])
        if money:
            paid = await self.post(f"/v1/accounts/{number}/deposits", {"amount": money}, at=at, who=who)
            assert paid.status_code == 201, paid.text
        return number

    async def balances(self, who: str, number: str, at: str = A) -> tuple[str, str, str]:
        seen = (await self.ask("GET", f"/v1/accounts/{number}", at=at, who=who)).json()
        return seen["posted_balance"], seen["available_balance"], seen["held"]

    async def transfer(self, who: str, debits: Any, credits_: Any, *, at: str = A, **request: Any) -> httpx.Response:
        """Order a transfer; *debits* and *credits_* are (bank, account, amount)."""
        order = {"debits": [leg(*one) for one in debits], "credits": [leg(*one) for one in credits_]}
        return await self.post("/v1/transfers", {**order, **request.pop("more", {})}, at=at, who=who, **request)

    async def consent(self, who: str, number: str, at: str, to: str, **more: Any) -> Any:
        order = {"account": number, "initiator_bank": to, "max_per_transfer": "500.00", "expires_at": LATER, **more}
        given = await self.post("/v1/consents", order, at=at, who=who)
        assert given.status_code == 201, given.text
        return given.json()

    def _hold_to_the_description(self, method: str, path: str, answer: httpx.Response) -> None:
        assert PASSWORD not in answer.text, f"{method} {path} answered {answer.status_code}"
        content_type = answer.headers.get("content-type", "")
        assert not self.description.objections(method, path, answer.status_code, content_type, answer.text)


def leg(bank: str, account: str, amount: str) -> dict[str, str]:
    return {"bank": bank, "account": account, "amount": amount}


def cpf_of(number: int) -> str:
    """The CPF whose first nine digits are *number*."""
    digits = [int(digit) for digit in f"{number:09d}"]
    for heaviest in (10, 11):
        rest = sum(digit * weight for digit, weight in zip(digits, range(heaviest, 1, -1), strict=True)) % 11
        digits.append(0 if rest < 2 else 11 - rest)
    return "".join(map(str, digits))


def said(answer: httpx.Response) -> tuple[int, str | None]:
    """An answer's status, and its code if it is a no."""
    return answer.status_code, answer.json().get("code") if answer.status_code >= 400 else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def examiner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Examiner]:
    directory = tmp_path_factory.mktemp("contract") / "network"
    env = {"DISTRIBANK_METRICS_TOKEN": "what the scraper was given"}
    async with network_of(directory, 4, env=env) as banks, httpx.AsyncClient(trust_env=False, timeout=40) as http:
        description = Description((await http.get(banks[0].client.url + "/openapi.json")).json())
        yield Examiner({bank.code: bank for bank in banks}, http, description)


# Holders and tokens -----------------------------------------------------------------------------------------------


async def test_a_person_registers_once_and_signs_in(examiner: Examiner) -> None:
    cpf, tokens = await examiner.person()
    again = await examiner.post("/v1/holders", {"name": "Maria", "cpf": cpf, "password": PASSWORD})
    me = await examiner.ask("GET", "/v1/holders/me", who=tokens[A])
    punctuated = f"{cpf[:3]}.{cpf[3:6]}.{cpf[6:9]}-{cpf[9:]}"

    assert said(again) == (409, "holder_exists")
    assert me.json()["name"] == "Maria da Silva"
    assert cpf not in me.text
    assert await examiner.sign_in(punctuated, PASSWORD)


async def test_a_failed_sign_in_tells_nobody_which_documents_exist(examiner: Examiner) -> None:
    cpf, _ = await examiner.person()

    answers = [
        await examiner.ask("POST", "/v1/token", data={"username": username, "password": "a guess"})
        for username in (cpf, cpf_of(next(examiner.people)), "nobody")
    ]

    assert [said(answer) for answer in answers] == [(401, "invalid_credentials")] * 3
    assert len({answer.text for answer in answers}) == 1


async def test_guesses_are_throttled_and_leave_other_holders_alone(examiner: Examiner) -> None:
    (cpf, _), (other, _) = await examiner.person(C), await examiner.person(C)
    guess = {"username": cpf, "password": "a guess"}

    answers = []
    for _ in range(2):  # of more new connections than 64 at once a slow one may be closed
        answers += await asyncio.gather(*(examiner.ask("POST", "/v1/token", at=C, data=guess) for _ in range(50)))

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(answers) - len(refused) <= 30
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert await examiner.sign_in(other, PASSWORD, C)


async def test_documents_are_what_their_check_digits_say(examiner: Examiner) -> None:
    _, tokens = await examiner.person(B)

    async def person(cpf: str) -> tuple[int, str | None]:
        return said(await examiner.post("/v1/holders", {"name": "X", "cpf": cpf, "password": PASSWORD}, at=B))

    async def company(cnpj: str) -> tuple[int, str | None]:
        order = {"type": "business", "company": {"legal_name": "X Ltda", "cnpj": cnpj}}
        return said(await examiner.post("/v1/accounts", order, at=B, who=tokens[B]))

    for cpf in ("52998224725", "111.444.777-35", "00000000191"):
        assert await person(cpf) == (201, None), cpf
    for cpf in (
        "00000000000",
        "11111111111",
        "52998224724",
        "５２９９８２２４７２５",
        "529 982 247 25",
        "52998224725\n",
    ):
        assert await person(cpf) == (422, "invalid_cpf"), cpf
    for cnpj in ("12ABC34501DE35", "12.ABC.345/0001-88", "00000000000191", "ABCDEFGHIJKL80"):
        assert await company(cnpj) == (201, None), cnpj
    for cnpj in ("00000000000000", "12abc34501de35", "12ABC34501DE36", "12ABC34501DE45", "50685362000135"):
        assert await company(cnpj) == (422, "invalid_cnpj"), cnpj
    assert await company("12ABC34501DE35") == (409, "company_exists")


async def test_every_route_opens_to_its_own_authority_alone(examiner: Examiner) -> None:
    """Pitfall 32. The routes are those that the description names; the tokens all that a stranger might try."""
    _, tokens = await examiner.person(A, B)
    operator = await examiner.operator()
    unsigned = tokens[A].rpartition(".")[0] + "."
    holders_routes = operators_routes = 0
    for path, operations in examiner.description.document["paths"].items():
        for method, operation in operations.items():
            if "security" not in operation:
                continue
            address = re.sub(r"\{account\}", "00000001-9", re.sub(r"\{\w+_id\}", "x", path))
            ask = method.upper(), address
            for stranger in (None, "x", unsigned, tokens[B], await examiner.operator(B)):
                assert said(await examiner.ask(*ask, who=stranger)) == (401, "unauthorized"), ask
            if path.endswith("/trace"):  # for holders and the operator
                for friend in (tokens[A], operator):
                    assert said(await examiner.ask(*ask, who=friend)) == (404, "not_found"), ask
                continue
            for_operator = "/operator/" in path or path == "/metrics"
            wrong = tokens[A] if for_operator else operator
            assert said(await examiner.ask(*ask, who=wrong)) == (403, "forbidden"), ask
            operators_routes += for_operator
            holders_routes += not for_operator
    assert (holders_routes >= 17, operators_routes >= 4) == (True, True)


async def test_no_token_opens_the_routes_between_banks(examiner: Examiner) -> None:
    """Pitfall 27: interbank routes open to anyone: a bare prepare and commit mints money."""
    _, tokens = await examiner.person()
    batch = {"protocol_version": 1, "clock": "1", "messages": []}
    for kind in ("prepare", "commit", "abort", "inquire", "log", "accounts"):
        for who in (None, tokens[A], await examiner.operator()):
            assert said(await examiner.post(f"/interbank/v1/{kind}", batch, who=who)) == (401, "unauthorized")


# What is not understood -------------------------------------------------------------------------------------------


async def test_whatever_is_asked_wrongly_gets_a_problem_document(examiner: Examiner) -> None:
    """Only that: ``Examiner.ask`` holds each no to it."""
    _, tokens = await examiner.person()
    for method, path, expected in [
        ("GET", "/v1", (404, "not_found")),
        ("GET", "/v1/nothing", (404, "not_found")),
        ("GET", "/static/%2e%2e/app.py", (404, "not_found")),
        ("DELETE", "/v1/accounts", (405, "method_not_allowed")),
        ("GET", "/interbank/v1/prepare", (405, "method_not_allowed")),
        ("GET", "/v1/accounts/00000001-8", (422, "invalid_account_number")),
        ("GET", "/v1/accounts/%00", (422, "invalid_account_number")),
        ("GET", "/v1/transfers/%2e%2e", (404, "not_found")),
        ("GET", f"/v1/transfers/{'x' * 5000}", (404, "not_found")),
        ("GET", "/v1/transfer-batches/%F0%9F%98%80", (404, "not_found")),
        ("DELETE", "/v1/consents/'--", (404, "not_found")),
        ("GET", "/v1/accounts?limit=0", (422, "invalid_request")),
        ("GET", "/v1/accounts?limit=201", (422, "invalid_request")),
        ("GET", "/v1/transfers?limit=abc", (422, "invalid_request")),
        ("GET", "/v1/transfers?cursor=x", (422, "invalid_cursor")),
        ("GET", "/v1/transfers?status=lost", (422, "invalid_request")),
    ]:
        assert said(await examiner.ask(method, path, who=tokens[A])) == expected, path


async def test_only_plain_json_of_moderate_size_is_taken(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    number = await examiner.account(tokens[A])

    async def sent(body: bytes, **headers: str) -> tuple[int, str | None]:
        headers = {"Content-Type": "application/json", **headers}
        path, key = f"/v1/accounts/{number}/deposits", uuid.uuid4().hex
        return said(await examiner.ask("POST", path, who=tokens[A], key=key, content=body, headers=headers))

    good = b'{"amount": "1.00"}'
    for body in (
        b"",
        b'{"amount": NaN}',
        b'{"amount": "1.00", "amount": "2.00"}',
        b'{"amount": "\\ud800"}',
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        b'{"amount": "\xff"}',
        b"[" * 60_000,
        good + good,
    ):
        assert await sent(body) == (400, "malformed_json"), body[:20]
    assert await sent(b'{"amount": "1.00", "more": 1}') == (422, "invalid_request")
    assert await sent(good, **{"Content-Type": "text/plain"}) == (415, "unsupported_media_type")
    assert await sent(good, **{"Content-Encoding": "gzip"}) == (415, "unsupported_media_type")
    assert await sent(good + b" " * 65_536) == (413, "body_too_large")
    assert await sent(good) == (201, None)
    assert (await examiner.balances(tokens[A], number))[0] == "1.00"


async def test_an_amount_is_a_positive_decimal_string(examiner: Examiner) -> None:
    """Pitfall 4: a negative, zero, fractional, boolean, textual or enormous amount is accepted."""
    _, tokens = await examiner.person()
    number = await examiner.account(tokens[A])
    deposits = f"/v1/accounts/{number}/deposits"
    numbers: list[Any] = [150, 150.0, 10**400, True, None, [], {}]
    for amount in [*numbers, "", "150", "150.0", "1e2", "-1.00", "0.00", " 1.00", "１.００", "99999999999999.00"]:
        answer = await examiner.post(deposits, {"amount": amount}, who=tokens[A])
        assert said(answer) == (422, "invalid_amount"), amount
    assert (await examiner.balances(tokens[A], number))[0] == "0.00"


# Accounts ---------------------------------------------------------------------------------------------------------


async def test_each_kind_of_account_shows_what_it_is(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    co_holder, others = await examiner.person(name="João Souza")
    who = tokens[A]

    async def opened(**order: Any) -> Any:
        number = await examiner.account(who, **order)
        return (await examiner.ask("GET", f"/v1/accounts/{number}", who=who)).json()

    individual = await opened(type="individual")
    assert (individual["titular"]["name"], individual["currency"]) == ("Maria da Silva", "BRL")
    assert re.fullmatch(r"[0-9]{8}-[0-9]", individual["account"])
    assert not {"approval", "company"} & set(individual)
    for approval in ("any", "all", {"at_least": 2}):
        joint = await opened(type="joint", co_holders=[co_holder], approval=approval)
        assert joint["approval"] == approval
        assert [one["role"] for one in joint["holders"]] == ["titular", "co_holder"]
        seen = await examiner.ask("GET", f"/v1/accounts/{joint['account']}", who=others[A])
        assert seen.json() == joint
    business = await opened(type="business", company={"legal_name": "Padaria", "cnpj": "1A.2B3.C4D/5E6F-34"})
    assert business["company"] == {"legal_name": "Padaria", "cnpj": "1A2B3C4D5E6F34"}
    assert [one["role"] for one in business["holders"]] == ["administrator"]
    twice = {"type": "joint", "co_holders": [co_holder, co_holder], "approval": "any"}
    assert said(await examiner.post("/v1/accounts", twice, who=who)) == (422, "duplicate_holder")


async def test_a_debit_that_needs_two_holders_waits_for_approvals_to_be_built(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    co_holder, _ = await examiner.person()
    who = tokens[A]
    number = await examiner.account(who, "10.00", type="joint", co_holders=[co_holder], approval="all")
    consent = {"account": number, "initiator_bank": B, "max_per_transfer": "1.00", "expires_at": LATER}

    withdrawal = await examiner.post(f"/v1/accounts/{number}/withdrawals", {"amount": "1.00"}, who=who)
    transfer = await examiner.transfer(who, [(A, number, "1.00")], [(A, number, "1.00")])
    given = await examiner.post("/v1/consents", consent, who=who)

    assert [said(answer) for answer in (withdrawal, transfer, given)] == [(422, "approval_required")] * 3


async def test_anothers_account_is_as_absent_as_one_that_is_not(examiner: Examiner) -> None:
    """Pitfall 29: one holder reads or debits another's account by changing an id in a path."""
    (_, mine), (_, theirs) = await examiner.person(), await examiner.person()
    number = await examiner.account(theirs[A], "10.00")
    for method, rest in [
        ("GET", ""),
        ("GET", "/statement"),
        ("GET", "/events"),
        ("POST", "/close"),
        ("POST", "/deposits"),
        ("POST", "/withdrawals"),
    ]:
        body: dict[str, Any] = {"json": {"amount": "1.00"}} if rest in ("/deposits", "/withdrawals") else {}
        answers = [
            await examiner.ask(method, f"/v1/accounts/{one}{rest}", who=mine[A], key=uuid.uuid4().hex, **body)
            for one in (number, "00012345-5")
        ]
        assert [said(answer) for answer in answers] == [(404, "not_found")] * 2, rest
        assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert (await examiner.balances(theirs[A], number))[0] == "10.00"


async def test_only_an_empty_account_closes_and_then_takes_nothing(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    who, other = tokens[A], await examiner.account(tokens[A], "5.00")
    number = await examiner.account(who, "1.00")

    assert said(await examiner.ask("POST", f"/v1/accounts/{number}/close", who=who)) == (409, "account_not_empty")
    assert said(await examiner.post(f"/v1/accounts/{number}/withdrawals", {"amount": "1.00"}, who=who)) == (201, None)
    closed = await examiner.ask("POST", f"/v1/accounts/{number}/close", who=who)
    paid = await examiner.post(f"/v1/accounts/{number}/deposits", {"amount": "1.00"}, who=who)
    sent = await examiner.transfer(who, [(A, other, "1.00")], [(A, number, "1.00")])

    assert closed.json()["status"] == "closed"
    assert [said(answer) for answer in (paid, sent)] == [(422, "account_closed")] * 2


async def test_a_statement_runs_backwards_in_pages_and_as_a_file(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    who, number = tokens[A], await examiner.account(tokens[A], "10.00")
    other = await examiner.account(who)
    for description in ("=1+1", 'a "b", c', "rent"):
        more = {"description": description}
        assert (await examiner.transfer(who, [(A, number, "1.00")], [(A, other, "1.00")], more=more)).is_success
    address = f"/v1/accounts/{number}/statement"

    whole = (await examiner.ask("GET", address, who=who)).json()["items"]
    pages: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await examiner.ask("GET", f"{address}?limit=3&cursor={cursor}", who=who)).json()
        pages, cursor = pages + page["items"], page["next_cursor"]
    file = await examiner.ask("GET", address, who=who, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(file.text, newline="")))
    since = (await examiner.ask("GET", f"{address}?from={whole[1]['posted_at']}", who=who)).json()["items"]

    assert [(one["kind"], one["balance_after"]) for one in whole] == [
        ("transfer", "7.00"),
        ("transfer", "8.00"),
        ("transfer", "9.00"),
        ("deposit", "10.00"),
    ]
    assert pages == whole
    assert since == [one for one in whole if one["posted_at"] >= whole[1]["posted_at"]]
    assert [row["description"] for row in rows] == ["rent", 'a "b", c', "'=1+1", ""]
    assert file.text.count("\r\n") == len(rows) + 1


async def test_events_begin_with_the_balance_and_resume_without_loss(examiner: Examiner) -> None:
    _, tokens = await examiner.person()
    who, number = tokens[A], await examiner.account(tokens[A], "10.00")

    first = await heard(examiner, who, number, "balance")
    for _ in range(3):
        await examiner.post(f"/v1/accounts/{number}/deposits", {"amount": "1.00"}, who=who)
    behind = await heard(examiner, who, number, "balance", after=first[-1]["id"])

    assert json.loads(first[0]["data"])["posted_balance"] == "10.00"
    entries = [json.loads(event["data"]) for event in behind if event["event"] == "entry"]
    assert [entry["balance_after"] for entry in entries] == ["11.00", "12.00", "13.00"]
    assert json.loads(behind[-1]["data"])["available_balance"] == "13.00"


async def heard(examiner: Examiner, who: str, number: str, last: str, after: str = "") -> list[dict[str, str]]:
    """The events of an account behind *after*, until the first of kind *last*."""
    url = f"{examiner.banks[A].client.url}/v1/accounts/{number}/events"
    headers = {"Authorization": f"Bearer {who}", **({"Last-Event-ID": after} if after else {})}
    events: list[dict[str, str]] = []
    async with examiner.http.stream("GET", url, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            fields[name] = value
            if not line and "event" in fields:
                events.append(fields)
                if fields["event"] == last:
                    return events
            fields = fields if line else {}
    raise AssertionError(f"the stream ended behind {events}")


# Transfers --------------------------------------------------------------------------------------------------------


async def test_three_banks_pay_a_fourth_and_each_party_sees_its_own_part(examiner: Examiner) -> None:
    _, maria = await examiner.person(A, B, C)
    _, ana = await examiner.person(D, name="Ana Lima")
    _, stranger = await examiner.person(A, D)
    a = await examiner.account(maria[A], "100.00")
    b = await examiner.account(maria[B], "100.00", at=B)
    c = await examiner.account(maria[C], "100.00", at=C)
    d = await examiner.account(ana[D], at=D)
    await examiner.consent(maria[B], b, B, A)
    await examiner.consent(maria[C], c, C, A)
    debits = [(A, a, "50.00"), (B, b, "30.00"), (C, c, "20.00")]

    paid = await examiner.transfer(maria[A], debits, [(D, d, "100.00")], more={"description": "rent"})
    address = f"/v1/transfers/{paid.json()['transfer_id']}"
    mine = (await examiner.ask("GET", address, who=maria[A])).json()
    at_b = (await examiner.ask("GET", address, at=B, who=maria[B])).json()
    hers = (await examiner.ask("GET", address, at=D, who=ana[D])).json()
    (entry,) = (await examiner.ask("GET", f"/v1/accounts/{d}/statement", at=D, who=ana[D])).json()["items"]

    assert paid.status_code == 201
    assert paid.headers["location"] == address
    assert re.fullmatch(r"E99990001[0-9]{12}[A-Za-z0-9]{11}", mine["end_to_end_id"])
    assert (mine["debits"], mine["iso20022"]) == ([leg(*one) for one in debits], {"status": "ACSC"})
    assert {one["bank"]: one["vote"] for one in mine["participants"]} == {B: "yes", C: "yes", D: "yes"}
    assert (at_b["debits"], at_b["credits"]) == ([leg(B, b, "30.00")], [])
    assert (hers["debits"], hers["credits"], hers["status"]) == ([], [leg(D, d, "100.00")], "completed")
    assert hers["iso20022"] == {"status": "ACCC"}
    assert {one["bank"] for one in hers["counterparties"]} == {A, B, C}
    assert (entry["kind"], entry["description"], entry["transfer_id"]) == ("transfer", "rent", mine["transfer_id"])
    assert "Maria da Silva" not in json.dumps([hers, entry])
    for bank in (A, D):
        assert said(await examiner.ask("GET", address, at=bank, who=stranger[bank])) == (404, "not_found")


async def test_a_refused_transfer_says_why_and_leaves_nothing_behind(examiner: Examiner) -> None:
    (_, maria), (_, joao) = await examiner.person(A, B), await examiner.person(A)
    a, b, his = [
        await examiner.account(maria[A], "10.00"),
        await examiner.account(maria[B], "10.00", at=B),
        await examiner.account(joao[A], "10.00"),
    ]
    one = (A, a, "1.00")
    for debits, credits_, code in [
        ([(A, a, "10.01")], [(B, b, "10.01")], "insufficient_funds"),
        ([(A, a, "6.00"), (A, a, "6.00")], [(B, b, "12.00")], "insufficient_funds"),
        ([one], [(B, b, "1.01")], "unbalanced_transfer"),
        ([one] * 33, [(B, b, "1.00")] * 33, "too_many_legs"),
        ([one], [(D, "00012345-5", "1.00")], "account_not_found"),
        ([one], [("12345678", b, "1.00")], "unknown_bank"),
        ([one], [(B, "00000001-8", "1.00")], "invalid_account_number"),
        ([(A, his, "1.00")], [one], "not_a_holder"),
        ([(B, b, "1.00")], [one], "consent_required"),
    ]:
        answer = await examiner.transfer(maria[A], debits, credits_)
        assert said(answer) == (422, code), answer.text
        if "transfer_id" in answer.json():
            seen = (await examiner.ask("GET", f"/v1/transfers/{answer.json()['transfer_id']}", who=maria[A])).json()
            assert (seen["status"], seen["reason"]["code"], seen["iso20022"]["status"]) == ("aborted", code, "RJCT")
    order = {"debits": [leg(*one)], "credits": [leg(*one)], "description": "x" * 141}
    assert said(await examiner.post("/v1/transfers", order, who=maria[A])) == (422, "invalid_request")
    assert await examiner.balances(maria[A], a) == ("10.00", "10.00", "0.00")
    assert await examiner.balances(maria[B], b, B) == ("10.00", "10.00", "0.00")


async def test_an_account_may_stand_in_many_legs_and_on_both_sides(examiner: Examiner) -> None:
    """Pitfall 2: two debit legs on one account are each checked against the full balance, or wait for each other."""
    _, maria = await examiner.person(A, D)
    a, d = await examiner.account(maria[A], "10.00"), await examiner.account(maria[D], at=D)

    many = await examiner.transfer(maria[A], [(A, a, "0.10")] * 32, [(D, d, "0.10")] * 32)
    both = await examiner.transfer(maria[A], [(A, a, "5.00"), (A, a, "1.00")], [(A, a, "2.00"), (D, d, "4.00")])

    assert (many.status_code, both.status_code) == (201, 201)
    assert (await examiner.balances(maria[A], a))[0] == "2.80"
    assert (await examiner.balances(maria[D], d, D))[0] == "7.20"


async def test_one_key_is_one_transfer_for_its_holder_and_its_route(examiner: Examiner) -> None:
    """Pitfall 31: the same idempotency key by another holder answers with somebody else's result."""
    (_, maria), (_, joao) = await examiner.person(A, D), await examiner.person(A)
    a, d, his = [
        await examiner.account(maria[A], "10.00"),
        await examiner.account(maria[D], at=D),
        await examiner.account(joao[A], "10.00"),
    ]
    key, poor = uuid.uuid4().hex, uuid.uuid4().hex

    async def pay(key: str, amount: str = "1.00") -> httpx.Response:
        return await examiner.transfer(maria[A], [(A, a, amount)], [(D, d, amount)], key=key)

    first, again, other = await pay(key), await pay(f'"{key}"'), await pay(key, "2.00")
    refused = [await pay(poor, BIG), await pay(poor, BIG)]
    elsewhere = await examiner.post(f"/v1/accounts/{a}/deposits", {"amount": "1.00"}, who=maria[A], key=key)
    by_joao = await examiner.transfer(joao[A], [(A, his, "1.00")], [(A, a, "1.00")], key=key)

    assert again.json()["transfer_id"] == first.json()["transfer_id"]
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert said(other) == (422, "idempotency_conflict")
    assert [said(one) for one in refused] == [(422, "insufficient_funds")] * 2
    assert refused[0].json() == refused[1].json()
    assert refused[1].headers["idempotency-replayed"] == "true"
    for fresh in (first, elsewhere, by_joao):
        assert fresh.status_code == 201
        assert "idempotency-replayed" not in fresh.headers
    assert (await examiner.balances(maria[A], a))[0] == "11.00"
    order: dict[str, Any] = {"debits": [], "credits": []}
    for bad, code in [("", "idempotency_key_required"), ("x" * 256, "invalid_idempotency_key"), ('"x', "invalid_")]:
        answer = await examiner.ask(
            "POST", "/v1/transfers", who=maria[A], json=order, headers={"Idempotency-Key": bad} if bad else {}
        )
        assert answer.status_code == 400
        assert answer.json()["code"].startswith(code)


async def test_of_64_debits_of_a_balance_that_covers_one_exactly_one_succeeds(examiner: Examiner) -> None:
    """Pitfall 6: check and hold happen in two steps: two transfers pass on one balance."""
    _, maria = await examiner.person(A, D)
    a, d = await examiner.account(maria[A], "7.00"), await examiner.account(maria[D], at=D)

    answers = await asyncio.gather(
        *(examiner.transfer(maria[A], [(A, a, "7.00")], [(D, d, "7.00")]) for _ in range(64))
    )

    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 63
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"insufficient_funds"}


async def test_transfers_are_listed_newest_first_in_pages_and_by_status(examiner: Examiner) -> None:
    _, maria = await examiner.person(A)
    a, other = await examiner.account(maria[A], "10.00"), await examiner.account(maria[A])
    for amount in ("1.00", "2.00", BIG, "3.00"):
        await examiner.transfer(maria[A], [(A, a, amount)], [(A, other, amount)])

    async def listed(query: str) -> tuple[list[str], str | None]:
        page = (await examiner.ask("GET", f"/v1/transfers?{query}", who=maria[A])).json()
        return [item["debits"][0]["amount"] for item in page["items"]], page["next_cursor"]

    whole, _ = await listed("")
    first, cursor = await listed("limit=3")
    rest, end = await listed(f"limit=3&cursor={cursor}")

    assert whole == ["3.00", BIG, "2.00", "1.00"]
    assert (first + rest, end) == (whole, None)
    assert (await listed("status=aborted"))[0] == [BIG]
    assert (await listed(f"account={other}&status=completed"))[0] == ["3.00", "2.00", "1.00"]


# Consents and batches ---------------------------------------------------------------------------------------------


async def test_a_consent_reaches_as_far_as_it_says_and_serves_only_who_gave_it(examiner: Examiner) -> None:
    """Pitfall 28: a coordinator debits any account at any bank on its own word."""
    (_, maria), (_, joao) = await examiner.person(A, B, C), await examiner.person(A)
    a, b = await examiner.account(maria[A]), await examiner.account(maria[B], "100.00", at=B)
    c, his = await examiner.account(maria[C], at=C), await examiner.account(joao[A])
    given = await examiner.consent(maria[B], b, B, A, max_per_transfer="10.00", max_total="15.00")

    async def draw(amount: str, who: str = maria[A], to: str = a, at: str = A) -> tuple[int, str | None]:
        return said(await examiner.transfer(who, [(B, b, amount)], [(at, to, amount)], at=at))

    async def seen() -> tuple[str, str]:
        items = (await examiner.ask("GET", "/v1/consents", at=B, who=maria[B])).json()["items"]
        return next((one["status"], one["used"]) for one in items if one["consent_id"] == given["consent_id"])

    assert await draw("10.01") == (422, "consent_exceeded")
    assert await draw("1.00", joao[A], his) == (422, "consent_required")
    assert await draw("1.00", maria[C], c, C) == (422, "consent_required")
    assert await draw("10.00") == (201, None)
    assert await draw("5.01") == (422, "consent_exceeded")
    assert await seen() == ("active", "10.00")
    assert await draw("5.00") == (201, None)
    assert await seen() == ("used_up", "15.00")
    other = await examiner.consent(maria[B], b, B, C)
    address = f"/v1/consents/{other['consent_id']}"
    assert said(await examiner.ask("DELETE", address, who=maria[A])) == (404, "not_found")
    assert (await examiner.ask("DELETE", address, at=B, who=maria[B])).json()["status"] == "revoked"
    assert await draw("1.00", maria[C], c, C) == (422, "consent_required")


@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_a_batch_runs_once_and_answers_in_the_order_given(examiner: Examiner, mode: str) -> None:
    _, maria = await examiner.person(A, D)
    a, d = await examiner.account(maria[A], "50.00"), await examiner.account(maria[D], at=D)
    good = {"debits": [leg(A, a, "1.00")], "credits": [leg(D, d, "1.00")]}
    bad = {"debits": [leg(A, a, BIG)], "credits": [leg(D, d, BIG)]}
    lopsided = {"debits": [leg(A, a, "1.00")], "credits": [leg(D, d, "2.00")]}
    order = {"transfers": [good, bad, lopsided, good], "mode": mode, "on_failure": "continue"}
    key = uuid.uuid4().hex

    first = await examiner.post("/v1/transfer-batches", order, who=maria[A], key=key)
    again = await examiner.post("/v1/transfer-batches", order, who=maria[A], key=key)
    stopped = await examiner.post("/v1/transfer-batches", {**order, "on_failure": "stop"}, who=maria[A])
    seen = await examiner.ask("GET", first.headers["location"], who=maria[A])

    outcomes = [(one["index"], one["status"], one.get("reason", {}).get("code")) for one in first.json()["results"]]
    assert outcomes == [
        (0, "completed", None),
        (1, "aborted", "insufficient_funds"),
        (2, "aborted", "unbalanced_transfer"),
        (3, "completed", None),
    ]
    assert again.headers["idempotency-replayed"] == "true"
    ids = [[one["transfer_id"] for one in answer.json()["results"]] for answer in (first, again, seen)]
    assert ids[0] == ids[1] == ids[2]
    last = [one["status"] for one in stopped.json()["results"]][-1]
    assert last == ("cancelled" if mode == "sequential" else "completed")
    for transfers in ([], [good] * 1001):
        answer = await examiner.post("/v1/transfer-batches", {**order, "transfers": transfers}, who=maria[A])
        assert said(answer) == (422, "invalid_request")


# The network, and what goes wrong in it ---------------------------------------------------------------------------


async def test_anyone_may_ask_whether_a_bank_is_well_and_whom_it_sees(examiner: Examiner) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        assert (await examiner.ask("GET", path)).json()["bank"] == A

    async def every_other_is_online() -> bool:
        peers = (await examiner.ask("GET", "/v1/network")).json()["peers"]
        return [(peer["bank"], peer["status"]) for peer in peers] == [(bank, "online") for bank in (B, C, D)]

    await until(every_other_is_online, "it sees every other bank")
    metrics = await examiner.ask("GET", "/metrics", who="what the scraper was given")

    assert metrics.headers["content-type"].startswith("text/plain")


async def test_a_frozen_bank_leaves_a_transfer_pending_then_refused_and_is_used_again_when_it_thaws(
    examiner: Examiner,
) -> None:
    """Pitfall 24: a dead peer is discovered afresh, at full time-out, by every transfer."""
    _, maria = await examiner.person(A, B, D)
    a, b = await examiner.account(maria[A], "10.00"), await examiner.account(maria[B], at=B)
    d = await examiner.account(maria[D], at=D)
    key, order = uuid.uuid4().hex, ([(A, a, "3.00")], [(D, d, "3.00")])

    examiner.banks[D].freeze()
    try:
        waiting = await examiner.transfer(maria[A], *order, key=key, headers={"Prefer": "wait=0"})
        address = waiting.headers["location"]
        held = await examiner.balances(maria[A], a)

        async def refused() -> bool:
            status: str = (await examiner.ask("GET", address, who=maria[A])).json()["status"]
            return status == "aborted"

        async def away() -> bool:
            peers = (await examiner.ask("GET", "/v1/network")).json()["peers"]
            return (D, "offline") in [(peer["bank"], peer["status"]) for peer in peers]

        await until(refused, "the vote's deadline has passed")
        again = await examiner.transfer(maria[A], *order, key=key)
        await until(away, "the bank counts as offline")
        known = await examiner.transfer(maria[A], *order)
        unaffected = await examiner.transfer(maria[A], [(A, a, "1.00")], [(B, b, "1.00")])
    finally:
        examiner.banks[D].thaw()

    assert (waiting.status_code, waiting.json()["status"]) == (202, "pending")
    assert waiting.json()["iso20022"] == {"status": "PDNG"}
    assert held == ("10.00", "7.00", "3.00")
    assert said(again) == said(known) == (503, "bank_unreachable")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["transfer_id"] == waiting.json()["transfer_id"]
    assert "is offline; nothing moved" in known.json()["detail"], "a bank that is known to be away is not waited for"
    assert unaffected.status_code == 201

    async def used_again() -> bool:
        return (await examiner.transfer(maria[A], *order)).status_code == 201

    await until(used_again, "the bank that returned takes part again")


async def test_keys_tokens_and_money_outlive_a_killed_bank(examiner: Examiner) -> None:
    _, maria = await examiner.person(A, D)
    a, d = await examiner.account(maria[A], "10.00"), await examiner.account(maria[D], at=D)
    keys = [uuid.uuid4().hex for _ in range(2)]

    async def everything() -> list[httpx.Response]:
        return [
            await examiner.transfer(maria[A], [(A, a, "3.00")], [(D, d, "3.00")], key=keys[0]),
            await examiner.post(f"/v1/accounts/{a}/deposits", {"amount": "2.00"}, who=maria[A], key=keys[1]),
        ]

    before = await everything()
    examiner.banks[A].kill()
    await examiner.banks[A].restart()
    after = await everything()

    for one, other in zip(before, after, strict=True):
        assert (one.status_code, other.status_code) == (201, 201)
        assert other.headers["idempotency-replayed"] == "true"
    assert after[0].json()["transfer_id"] == before[0].json()["transfer_id"]
    assert after[1].json() == before[1].json()
    assert (await examiner.balances(maria[A], a))[0] == "9.00"


async def test_behind_all_this_nothing_is_in_doubt_and_the_books_balance_everywhere(examiner: Examiner) -> None:
    async def quiet() -> bool:
        lists = [
            await examiner.ask("GET", "/v1/operator/in-doubt", at=bank, who=await examiner.operator(bank))
            for bank in examiner.banks
        ]
        return not any(answer.json()["items"] for answer in lists)

    await until(quiet, "nothing is in doubt anywhere")
    positions = {}
    for bank in examiner.banks:
        operator = await examiner.operator(bank)
        books = (await examiner.ask("GET", "/v1/operator/books", at=bank, who=operator)).json()
        assert (books["balanced"], books["findings"], books["holds"]) == (True, [], 0)
        for item in (await examiner.ask("GET", "/v1/operator/positions", at=bank, who=operator)).json()["items"]:
            positions[bank, item["bank"]] = float(item["position"])
    assert len(positions) == len(examiner.banks) * (len(examiner.banks) - 1)
    assert all(owed == -positions[peer, bank] for (bank, peer), owed in positions.items())
