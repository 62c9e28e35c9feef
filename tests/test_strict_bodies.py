"""Bodies: one JSON text that all readers would read alike, not too large, of the right type; else a precise no.

What is sent is never repeated in the answer, secrets least of all.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from distribank.api import paging
from tests.counter_hall import Hall, hall
from tests.world import CPFS

CANARY = "s3cr3t-canary-that-must-not-come-back"


@pytest.fixture
async def bank() -> AsyncIterator[Hall]:
    async with hall() as made:
        yield made


async def post(bank: Hall, body: bytes, path: str = "/v1/accounts", **headers: str) -> Any:
    who = await bank.sign_in()
    headers = {"Content-Type": "application/json", **who, **headers}
    return await bank.client().post(path, content=body, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'type': 'individual'}",
        b'{"type": "individual",}',
        b'{"type": "individual"} x',
        b'{"type": "individual", "type": "joint"}',
        b'{"type": NaN}',
        b'{"type": Infinity}',
        b'{"type": -Infinity}',
        b'{"type": 1e999}',
        b'{"type": "\\ud800"}',
        b'{"type": "\xff"}',
        '{"type": "individual"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"type": "individual"}',
        b"[" * 17 + b"]" * 17,
        b"[" * 50_000,
        b'{"type": ' + b"9" * 5000 + b"}",
        b'{"type": "a\x00b"}',
    ],
    ids=lambda body: repr(body[:30]),
)
@pytest.mark.parametrize("path", ["/v1/accounts", "/v1/transfers", "/v1/transfer-batches"])
async def test_what_is_not_json_is_malformed_json(bank: Hall, path: str, body: bytes) -> None:
    answer = await post(bank, body, path, **{"Idempotency-Key": "k"})

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "malformed_json"


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b"1", b'"individual"', b"{}", b'{"type": "individual", "more": 1}', b'{"type": 7}']
)
@pytest.mark.parametrize("path", ["/v1/accounts", "/v1/transfers"])
async def test_well_formed_and_invalid_is_422(bank: Hall, path: str, body: bytes) -> None:
    answer = await post(bank, body, path, **{"Idempotency-Key": "k"})

    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"


AMOUNTS = [
    150,
    150.0,
    True,
    None,
    "150",
    "150.0",
    "150.000",
    "-1.00",
    "+1.00",
    "0.00",
    "1,00",
    "1.00 ",
    " 1.00",
    "1.00\n",
    "１.００",
    "1e2",
    "NaN",
    "99999999999999.00",
    "",
    "1" * 5000,
    [],
    {},
]


@pytest.mark.parametrize("amount", AMOUNTS, ids=lambda amount: repr(amount)[:24])
async def test_an_amount_that_is_no_amount_is_invalid_amount(bank: Hall, amount: Any) -> None:
    """Pitfall 4: a negative, zero, fractional, boolean, textual or enormous amount is accepted."""
    number = await bank.account("10.00")
    who = await bank.sign_in()
    order = {"debits": [{"account": number, "amount": amount}], "credits": [{"account": number, "amount": amount}]}

    for path, body in [("/v1/transfers", order), (f"/v1/accounts/{number}/deposits", {"amount": amount})]:
        answer = await bank.client().post(path, json=body, headers=bank.keyed(who))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_amount")


@pytest.mark.parametrize("number", ["00000012-5", "12-4", "", "00000012-4 ", "０0000012-4", "00000012_4", 12])
async def test_a_mistyped_account_is_refused_as_such(bank: Hall, number: Any) -> None:
    who = await bank.sign_in()
    leg = {"account": number, "amount": "1.00"}

    answer = await bank.client().post(
        "/v1/transfers", json={"debits": [leg], "credits": [leg]}, headers=bank.keyed(who)
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_account_number")


@pytest.mark.parametrize("code", ["nowhere", "9999000１", "", "99990001 "])
async def test_what_cannot_be_a_banks_code_is_an_unknown_bank(bank: Hall, code: str) -> None:
    who = await bank.sign_in()
    leg = {"bank": code, "account": "00000001-9", "amount": "1.00"}

    answer = await bank.client().post(
        "/v1/transfers", json={"debits": [leg], "credits": [leg]}, headers=bank.keyed(who)
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_bank")


@pytest.mark.parametrize(
    "cpf", ["00000000000", "52998224724", "５２９98224725", "", "529 982 247 25", None, 52998224725]
)
async def test_what_is_no_cpf_is_invalid_cpf(bank: Hall, cpf: Any) -> None:
    person = {"name": "Maria", "cpf": cpf, "password": CANARY}

    answer = await bank.client().post("/v1/holders", json=person)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cpf")
    assert CANARY not in answer.text


@pytest.mark.parametrize("cnpj", ["00000000000000", "12abc34501de35", "12ABC34501DE36", "11222333000182", 1])
async def test_what_is_no_cnpj_is_invalid_cnpj(bank: Hall, cnpj: Any) -> None:
    who = await bank.sign_in()
    order = {"type": "business", "company": {"legal_name": "Padaria", "cnpj": cnpj}}

    answer = await bank.client().post("/v1/accounts", json=order, headers=who)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cnpj")


@pytest.mark.parametrize(
    "person",
    [
        {"name": "Maria", "cpf": CPFS[0], "password": CANARY, "pasword": CANARY},
        {"name": 7, "cpf": CPFS[0], "password": CANARY},
        {"name": "", "cpf": CPFS[0], "password": CANARY},
        {"name": " ", "cpf": CPFS[0], "password": CANARY},
        {"name": "a\nb", "cpf": CPFS[0], "password": CANARY},
        {"name": "\u200b\u00ad", "cpf": CPFS[0], "password": CANARY},
        {"name": "a\u2028b", "cpf": CPFS[0], "password": CANARY},
        {"name": "\u202eairaM", "cpf": CPFS[0], "password": CANARY},
        {"name": "a\x85b", "cpf": CPFS[0], "password": CANARY},
        {"name": "Maria", "cpf": CPFS[0], "password": [CANARY]},
        {"name": "Maria", "cpf": CPFS[0], "password": CANARY * 100},
        {"name": "Maria", "cpf": CANARY, "password": CANARY},
        {"name": "Maria", "cpf": CPFS[0], "password": CANARY, "email": CANARY},
        {"type": CANARY},
    ],
    ids=lambda person: repr(person)[:60],
)
async def test_a_failed_validation_repeats_nothing_that_was_sent(bank: Hall, person: Any) -> None:
    """Pitfall 34: a failed validation echoes the password that was sent."""
    who = await bank.sign_in(1)

    for path in ("/v1/holders", "/v1/accounts"):
        answer = await bank.client().post(path, json=person, headers=who)
        assert answer.status_code == 422
        assert CANARY not in answer.text


async def test_an_unknown_fields_name_is_repeated_only_in_part(bank: Hall) -> None:
    answer = await bank.client().post("/v1/holders", json={"x" * 10_000: 1})

    assert len(answer.text) < 1500


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "x"])
async def test_a_body_of_another_type_is_415(bank: Hall, media_type: str) -> None:
    for path in ("/v1/accounts", "/v1/transfers"):
        answer = await post(bank, b'{"type": "individual"}', path, **{"Content-Type": media_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_compressed_body_is_415(bank: Hall) -> None:
    for path in ("/v1/accounts", "/v1/transfers"):
        answer = await post(bank, gzip.compress(b'{"type": "individual"}'), path, **{"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("description", ["a\nb", "a\x85b", "a\u2028b", "\u202eb", "\u2066b", "x" * 141, 7])
async def test_a_description_that_would_not_show_as_it_is_is_refused(bank: Hall, description: Any) -> None:
    number, who = await bank.account("1.00"), await bank.sign_in()
    leg = {"account": number, "amount": "1.00"}
    order = {"debits": [leg], "credits": [leg], "description": description}

    answer = await bank.client().post("/v1/transfers", json=order, headers=bank.keyed(who))

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("description", ["é" * 140, "👩‍👩‍👧 aluguel", "=1+1", "שכר דירה"])
async def test_a_description_in_any_script_comes_back_as_it_was(bank: Hall, description: str) -> None:
    number, who = await bank.account("1.00"), await bank.sign_in()
    leg = {"account": number, "amount": "1.00"}
    order = {"debits": [leg], "credits": [leg], "description": description}

    answer = await bank.client().post("/v1/transfers", json=order, headers=bank.keyed(who))

    assert (answer.status_code, answer.json()["description"]) == (201, description)


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON", ""])
async def test_json_is_taken_by_any_of_its_names_and_without_one(bank: Hall, media_type: str) -> None:
    answer = await post(bank, b'{"type": "individual"}', **{"Content-Type": media_type})

    assert answer.status_code == 201, answer.text


async def test_json_is_no_form(bank: Hall) -> None:
    answer = await bank.client().post("/v1/token", json={"username": CPFS[0], "password": CANARY})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_body_over_its_limit_is_413_however_it_is_framed(bank: Hall) -> None:
    """Pitfall 33: an enormous body."""

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b" " * 1024

    who = await bank.sign_in()
    for path, limit in [("/v1/accounts", 64), ("/v1/transfers", 64), ("/v1/transfer-batches", 4096)]:
        headers = bank.keyed(who, **{"Content-Type": "application/json"})
        whole = await bank.client().post(path, content=b" " * (limit * 1024 + 1), headers=headers)
        chunked = await bank.client().post(path, content=chunks((limit + 1) * 1024), headers=headers)
        for answer in (whole, chunked):
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        inside = await bank.client().post(path, content=chunks(limit * 1024), headers=headers)
        assert inside.json()["code"] == "malformed_json"


async def test_who_may_come_in_is_settled_before_the_body_is_read(bank: Hall) -> None:
    for path in ("/v1/accounts", "/v1/transfers", "/v1/consents", "/v1/transfer-batches"):
        answer = await bank.client().post(path, content=b"{")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_a_bodiless_order_needs_no_body(bank: Hall) -> None:
    number = await bank.account()

    answer = await bank.client().post(f"/v1/accounts/{number}/close", headers=await bank.sign_in())

    assert answer.json()["status"] == "closed"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/accounts?limit=0",
        "/v1/accounts?limit=201",
        "/v1/accounts?limit=99999999999999999999999999",
        "/v1/accounts?limit=%EF%BC%91",
        "/v1/accounts?limit=x",
        "/v1/transfers?status=lost",
        "/v1/accounts/{}/statement?from=yesterday",
        "/v1/accounts/{}/statement?from=2026-02-30",
        "/v1/accounts/{}/statement?to=2026-11-23T12:00:00",
        "/v1/accounts/{}/statement?to=99999-01-01",
    ],
)
async def test_a_query_that_is_not_valid_is_422(bank: Hall, path: str) -> None:
    number = await bank.account()

    answer = await bank.client().get(path.format(number), headers=await bank.sign_in())

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


@pytest.mark.parametrize(
    "cursor",
    ["x", "%00", "bnVsbA", "WzFd", "WyJhIl0", "W10", "WyJcdWQ4MDAiXQ", "WzFlOTk5XQ", "%F0%9F%98%80", "e30" * 60],
)
@pytest.mark.parametrize("path", ["/v1/transfers", "/v1/consents", "/v1/accounts/{}/statement"])
async def test_a_cursor_that_is_none_of_the_banks_is_invalid_cursor(bank: Hall, path: str, cursor: str) -> None:
    number = await bank.account()

    answer = await bank.client().get(f"{path.format(number)}?cursor={cursor}", headers=await bank.sign_in())

    if (path, cursor) != ("/v1/accounts/{}/statement", "WzFd"):  # that is [1], a change number
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), answer.text


LISTS: dict[str, list[int]] = {
    "/v1/accounts": [],
    "/v1/transfers": [1],
    "/v1/consents": [1],
    "/v1/operator/heuristics": [1],
    "/v1/operator/suspense": [1, 1],
    "/v1/operator/restoration": [1],
}
"""Each list whose cursor ends with a text, and what stands before that."""


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_holds_no_text_that_some_store_cannot_take(bank: Hall, path: str) -> None:
    who = await bank.operator() if "operator" in path else await bank.sign_in()
    for text in ("\0", "x\0", "\x1f", "\x7f"):
        cursor = paging.encode((*LISTS[path], text))
        answer = await bank.client().get(f"{path}?cursor={cursor}", headers=who)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), answer.text

    greatest = paging.encode((*(2**63 - 1 for _ in LISTS[path]), "~"))
    assert (await bank.client().get(f"{path}?cursor={greatest}", headers=who)).status_code == 200


@pytest.mark.parametrize("name", ["%00", "%FF", "x" * 5000, "..%2f..", "%F0%9F%98%80", "'--", "1"])
async def test_an_id_that_cannot_be_one_is_not_found(bank: Hall, name: str) -> None:
    who, operator = await bank.sign_in(), await bank.operator()

    for method, path, headers in [
        ("GET", f"/v1/transfers/{name}", who),
        ("GET", f"/v1/transfer-batches/{name}", who),
        ("DELETE", f"/v1/consents/{name}", who),
        ("POST", f"/v1/operator/in-doubt/{name}/inquire", operator),
    ]:
        answer = await bank.client().request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


@pytest.mark.parametrize("path", ["/livez", "/v1/accounts", "/v1/transfers", "/v1/nothing"])
async def test_an_address_with_a_line_feed_behind_it_is_another_one(bank: Hall, path: str) -> None:
    answer = await bank.client().get(f"{path}%0A", headers=await bank.sign_in())

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
