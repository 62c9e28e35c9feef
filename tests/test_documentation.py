"""The description: complete, true, with examples that work when pasted, and shown without internet access."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.counter_hall import Hall, hall
from tests.world import CPFS

VERBS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def bank() -> AsyncIterator[Hall]:
    async with hall(2) as made:
        yield made


async def description(bank: Hall) -> Any:
    return (await bank.client().get("/openapi.json")).json()


def operations(schema: Any) -> list[tuple[str, str, Any]]:
    return [
        (method, path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in VERBS
    ]


async def test_every_route_of_the_contract_is_described(bank: Hall) -> None:
    described = {f"{method.upper()} {path}" for method, path, _ in operations(await description(bank))}

    assert described >= {
        "POST /v1/holders",
        "POST /v1/token",
        "GET /v1/holders/me",
        "POST /v1/accounts",
        "GET /v1/accounts",
        "GET /v1/accounts/{account}",
        "POST /v1/accounts/{account}/close",
        "POST /v1/accounts/{account}/deposits",
        "POST /v1/accounts/{account}/withdrawals",
        "GET /v1/accounts/{account}/statement",
        "GET /v1/accounts/{account}/events",
        "POST /v1/transfers",
        "GET /v1/transfers",
        "GET /v1/transfers/{transfer_id}",
        "POST /v1/transfer-batches",
        "GET /v1/transfer-batches/{batch_id}",
        "POST /v1/consents",
        "GET /v1/consents",
        "DELETE /v1/consents/{consent_id}",
        "GET /v1/network",
        "GET /livez",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /v1/operator/in-doubt",
        "POST /v1/operator/in-doubt/{transfer_id}/inquire",
        "GET /v1/operator/positions",
    }


async def test_every_operation_says_what_it_is_and_every_no_is_a_problem(bank: Hall) -> None:
    for method, path, operation in operations(await description(bank)):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert len(operation["tags"]) == 1, where
        for status, response in operation["responses"].items():
            if status >= "400":
                assert set(response["content"]) == {"application/problem+json"}, where
                assert "`" in response["description"], where
        if path.startswith("/v1/"):
            assert "503" in operation["responses"], where
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= set(operation["responses"]), where


async def test_every_field_that_holds_a_value_is_described(bank: Hall) -> None:
    models = (await description(bank))["components"]["schemas"]
    for model, schema in models.items():
        for name, field in schema.get("properties", {}).items():
            speaks_for_itself = {"$ref", "enum", "const"} & set(field) or field.get("type") == "array"
            assert speaks_for_itself or field.get("description"), f"{model}.{name}"


async def test_whoever_needs_a_token_is_told_so(bank: Hall) -> None:
    open_to_anyone = {"/v1/holders", "/v1/token", "/v1/network", "/livez", "/healthz", "/readyz"}
    for method, path, operation in operations(await description(bank)):
        assert ("security" in operation) == (path not in open_to_anyone), f"{method} {path}"
        if "security" in operation:
            assert {"401", "403"} <= set(operation["responses"]), f"{method} {path}"


async def test_authorize_signs_in_where_the_description_says(bank: Hall) -> None:
    schema = await description(bank)
    (scheme,) = schema["components"]["securitySchemes"].values()
    await bank.sign_in()

    token_url = scheme["flows"]["password"]["tokenUrl"]
    form = {"grant_type": "password", "username": CPFS[0], "password": "correct horse battery"}

    assert (await bank.client().post(token_url, data=form)).status_code == 200


async def test_the_description_refers_to_nothing_that_is_missing(bank: Hall) -> None:
    schema = await description(bank)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', str(schema).replace("'", '"')))

    assert references <= set(schema["components"]["schemas"])
    assert not {"HTTPValidationError", "ValidationError"} & set(schema["components"]["schemas"])


async def test_the_examples_work_when_pasted(bank: Hall) -> None:
    """In the order of a first visit: register, sign in, open accounts, pay in, transfer."""
    schema = (await description(bank))["components"]["schemas"]

    def example(model: str) -> Any:
        return schema[model]["examples"][0]

    client, person = bank.client(), example("Registration")
    other = {**person, "cpf": example("JointAccountOrder")["co_holders"][0]}
    for one in (person, other):
        assert (await client.post("/v1/holders", json=one)).status_code == 201
    form = {"username": person["cpf"], "password": person["password"]}
    token = (await client.post("/v1/token", data=form)).json()["access_token"]
    who = {"Authorization": f"Bearer {token}"}
    for model in ("IndividualAccountOrder", "JointAccountOrder", "BusinessAccountOrder"):
        assert (await client.post("/v1/accounts", json=example(model), headers=who)).status_code == 201
    await bank.account("0.00", 2, "99990002")

    for path, model in [
        ("/v1/accounts/00000001-9/deposits", "CashOrder"),
        ("/v1/transfers", "TransferOrder"),
        ("/v1/transfer-batches", "BatchOrder"),
        ("/v1/consents", "ConsentOrder"),
    ]:
        answer = await client.post(path, json=example(model), headers=bank.keyed(who))
        assert answer.status_code == 201, f"{path}: {answer.text}"
        assert "aborted" not in answer.text
    planned = await client.post("/v1/transfers/plan", json=example("PlanOrder"), headers=who)
    assert planned.status_code == 200, planned.text
    ordered = await client.post("/v1/transfers", json=planned.json(), headers=bank.keyed(who))
    assert ordered.status_code == 201, ordered.text


async def test_the_page_loads_everything_from_here(bank: Hall) -> None:
    page = await bank.client().get("/docs")

    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"].startswith("text/html")
    assert "/static/swagger-ui-bundle.js" in loaded
    for address in [*loaded, "/openapi.json"]:
        assert address.startswith("/"), f"{address} is elsewhere"
        assert (await bank.client().get(address)).status_code == 200
    assert (await bank.client().get("/redoc")).status_code == 404


async def test_an_idempotency_key_is_asked_for_where_money_moves(bank: Hall) -> None:
    for method, path, operation in operations(await description(bank)):
        names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter.get("required")}
        moves = path in ("/v1/transfers", "/v1/transfer-batches") or path.endswith(
            ("/deposits", "/withdrawals", "/assignments")
        )
        assert ("Idempotency-Key" in names) == (moves and method == "post"), f"{method} {path}"


async def test_an_account_in_a_path_is_prefilled_so_that_the_page_can_be_tried_out(bank: Hall) -> None:
    """The page takes a parameter's own examples, not those of its schema."""
    paths = [
        (path, parameter)
        for _, path, operation in operations(await description(bank))
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "path" and parameter["name"] == "account"
    ]
    assert len(paths) >= 6
    for path, parameter in paths:
        assert [example["value"] for example in parameter["examples"].values()] == ["00000001-9"], path
