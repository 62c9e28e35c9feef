"""Problems: every no is an RFC 9457 document with a stable code, whoever says it; a bug is one without detail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from distribank.api.problems import TABLE, Invalid, Problem, broken, refused
from distribank.breakages import (
    DurabilityLost,
    KeyInProgress,
    KeyReused,
    Misconfigured,
    OutcomeUnknown,
    Unreachable,
)
from distribank.core.refusals import Code, Refusal
from tests.counter_hall import hall


@pytest.mark.parametrize("code", Code)
def test_every_refusal_has_a_status_and_a_title(code: Code) -> None:
    status, title = TABLE[code]

    assert status in (409, 422, 503)
    assert title


def test_a_problem_is_a_document_of_its_media_type() -> None:
    response = refused(
        Refusal(
            Code.INSUFFICIENT_FUNDS, "the available balance does not cover this debit", "99990001", "00000001-9", 1
        ),
        transfer_id="t1",
    ).response("/v1/transfers/t1")

    assert response.status_code == 422
    assert response.media_type == "application/problem+json"
    assert Problem("not_found", "x").document(None) == {
        "type": "urn:distribank:problem:not_found",
        "title": "There is nothing here",
        "status": 404,
        "detail": "x",
        "code": "not_found",
    }


@pytest.mark.parametrize(
    ("breakage", "status", "code"),
    [
        (KeyReused(), 422, "idempotency_conflict"),
        (KeyInProgress("t1"), 409, "idempotency_in_progress"),
        (OutcomeUnknown("t1"), 503, "outcome_unknown"),
        (DurabilityLost("disk full"), 503, "outcome_unknown"),
        (Unreachable("99990002", "refused"), 503, "bank_unreachable"),
        (Misconfigured("x"), 500, "internal_error"),
    ],
)
def test_a_breakage_has_its_status(breakage: Any, status: int, code: str) -> None:
    problem = broken(breakage)

    assert (problem.status_code, problem.code) == (status, code)
    assert problem.extensions.get("transfer_id") == getattr(breakage, "transfer_id", None)


def test_what_passes_by_itself_says_when_to_come_back() -> None:
    for code in ("not_ready", "busy", "idempotency_in_progress", "outcome_unknown"):
        assert dict(Problem(code, "x").headers or {})["Retry-After"] == "1"


def test_401_says_how_to_authenticate() -> None:
    assert dict(Problem("unauthorized", "x").headers or {})["WWW-Authenticate"] == "Bearer"


def test_a_long_list_of_errors_is_cut() -> None:
    error = {"type": "string_type", "loc": ("body", "x" * 1000, 3), "msg": "Input should be a valid string"}

    document = Invalid([error] * 500).document(None)

    assert len(document["errors"]) == 20
    assert len(str(document)) < 4000


async def test_what_is_not_there_is_404_and_what_is_not_done_is_405() -> None:
    async with hall() as bank:
        nothing = await bank.client().get("/v1/nothing")
        wrong = await bank.client().patch("/v1/transfers")

    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    for answer in (nothing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["instance"] == answer.request.url.path


async def test_what_is_named_outright_is_no_id_at_the_same_address() -> None:
    async with hall() as bank:
        wrong = await bank.client().patch("/v1/transfers/plan")

    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_head_is_answered_as_get_is_without_the_body() -> None:
    async with hall() as bank:
        number, who = await bank.account("1.00"), await bank.sign_in()
        for path, status in (("/livez", 200), ("/v1/nothing", 404), ("/v1/accounts", 200), ("/docs", 200)):
            shown = await bank.client().get(path, headers=who)
            head = await bank.client().head(path, headers=who)
            assert (head.status_code, head.content) == (status, b""), path
            assert head.headers == shown.headers, path
        assert (await bank.client().head("/v1/transfers/plan/x", headers=who)).status_code == 404
        assert (await bank.client().head("/v1/token")).status_code == 405
        assert (await bank.client().head(f"/v1/accounts/{number}", headers=who)).status_code == 200


@pytest.mark.parametrize(
    ("keep", "places", "code"),
    [
        ("5", ["body.keep"], "invalid_amount"),
        (5, ["body.keep"], "invalid_amount"),
        ([{"account": "00000001-9"}], ["body.keep.0.amount"], "invalid_request"),
        ([{"account": "00000001-9", "amount": "x"}], ["body.keep.0.amount"], "invalid_amount"),
        ([{"account": "00000001-9", "amount": "1.00", "a[b]": 1}], ["body.keep.0.a[b]"], "invalid_request"),
        ([{"account": "00000001-9", "amount": "1.00"}] * 65, ["body.keep"], "invalid_request"),
    ],
)
async def test_what_is_wrong_in_one_of_several_kinds_is_told_of_that_kind_alone(
    keep: object, places: list[str], code: str
) -> None:
    async with hall() as bank:
        content = {"amount": "1.00", "to": {"account": "00000001-9"}, "keep": keep}
        said = (await bank.client().post("/v1/transfers/plan", json=content, headers=await bank.sign_in())).json()

    assert [".".join(str(part) for part in error["loc"]) for error in said["errors"]] == places
    assert said["code"] == code


async def test_a_wrong_approval_rule_is_told_once_at_its_own_place() -> None:
    async with hall() as bank:
        who = await bank.sign_in()
        for rule, place in (("some", "body.approval"), ({"at_least": 99}, "body.approval.at_least")):
            content = {"type": "joint", "co_holders": ["111.444.777-35"], "approval": rule}
            said = (await bank.client().post("/v1/accounts", json=content, headers=who)).json()
            assert [".".join(error["loc"]) for error in said["errors"]] == [place]
            assert said["code"] == "invalid_approval"


async def test_a_bug_is_a_500_without_detail_and_a_log_line_without_words(caplog: pytest.LogCaptureFixture) -> None:
    secret = "-".join(["a", "secret"])

    async def buggy(*_: object) -> None:
        raise ValueError(secret)

    async with hall() as bank:
        who = await bank.sign_in()
        bank.apps["99990001"].state.edge.bank.custody.accounts_of = buggy
        with caplog.at_level(logging.ERROR):
            answer = await bank.client().get("/v1/accounts", headers=who)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert secret not in answer.text + caplog.text
    assert "ValueError" in caplog.text


async def test_before_readiness_only_liveness_metrics_and_the_documentation_are_served() -> None:
    async with hall() as bank:
        who, operator = await bank.sign_in(), await bank.operator()
        bank.world.banks["99990001"].bank.ready = False
        client = bank.client()

        for path in ("/livez", "/healthz", "/openapi.json", "/docs", "/static/swagger-ui.css", "/metrics"):
            assert (await client.get(path, headers=operator)).status_code == 200, path
        for path in ("/readyz", "/v1/accounts", "/v1/network", "/v1/operator/in-doubt", "/v1/nothing"):
            answer = await client.get(path, headers=who)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready"), path
            assert answer.headers["retry-after"] == "1"
