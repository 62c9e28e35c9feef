"""Signing in: the same answer at the same cost for whoever is not let in; failures are throttled, successes are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from distribank.api import passwords
from distribank.api.edge import Edge
from distribank.api.passwords import Passwords
from distribank.api.problems import Problem
from tests.counter_hall import OPERATOR, PASSWORD, Hall, hall
from tests.world import CPFS


@pytest.fixture
async def bank() -> AsyncIterator[Hall]:
    async with hall() as made:
        yield made


def edge(bank: Hall) -> Edge:
    found = bank.apps["99990001"].state.edge
    assert isinstance(found, Edge)
    return found


def count_hashes(bank: Hall) -> list[str]:
    """Every password that is verified from now on."""
    seen: list[str] = []
    verify = edge(bank).passwords._verify

    def counting(encoded: str, password: str) -> bool:
        seen.append(password)
        return verify(encoded, password)

    edge(bank).passwords._verify = counting  # type: ignore[method-assign]
    return seen


async def guess(bank: Hall, username: str = CPFS[0], password: str = "wrong") -> httpx.Response:  # noqa: S107
    return await bank.client().post("/v1/token", data={"username": username, "password": password})


@pytest.mark.parametrize("username", [CPFS[0], "529.982.247-25", "52998224725"])
async def test_a_cpf_signs_in_with_or_without_punctuation(bank: Hall, username: str) -> None:
    await bank.sign_in()

    answer = await guess(bank, username, PASSWORD)

    assert answer.json()["token_type"] == "bearer"
    assert answer.json()["expires_in"] == 3600
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "username", [CPFS[0], CPFS[1], "00000000000", "nobody", "５２９98224725", "OPERATOR", "x" * 256, "'--", "\x00"]
)
async def test_no_answer_and_no_cost_tells_which_documents_exist(bank: Hall, username: str) -> None:
    """Pitfall 30: a bad login tells which documents exist."""
    await bank.sign_in()
    hashed = count_hashes(bank)

    answer = await guess(bank, username)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "invalid_credentials"
    assert answer.json()["detail"] == "the document or the password is wrong"
    assert hashed == ["wrong"]


async def test_the_operator_signs_in_with_the_operators_authority_only(bank: Hall) -> None:
    who = await bank.operator()

    assert (await bank.client().get("/v1/operator/in-doubt", headers=who)).status_code == 200
    assert (await bank.client().get("/v1/accounts", headers=who)).status_code == 403
    assert (await guess(bank, "operator")).status_code == 401
    assert (await guess(bank, "operator", OPERATOR + " ")).status_code == 401


async def test_a_thousand_guesses_at_once_are_few_hashes(bank: Hall) -> None:
    await bank.sign_in()
    hashed = count_hashes(bank)

    answers = await asyncio.gather(*(guess(bank, password=str(number)) for number in range(1000)))

    assert len(hashed) <= 10
    assert {answer.status_code for answer in answers} == {401, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "too_many_requests"
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_thousand_guesses_at_many_documents_are_few_hashes_too(bank: Hall) -> None:
    hashed = count_hashes(bank)

    await asyncio.gather(*(guess(bank, username=f"someone {number}") for number in range(1000)))

    assert len(hashed) <= 30


async def test_once_exhausted_even_the_right_password_waits_and_then_passes(bank: Hall) -> None:
    await bank.sign_in()
    for _ in range(10):
        assert (await guess(bank)).status_code == 401

    assert (await guess(bank, password=PASSWORD)).status_code == 429
    bank.stopwatch.seconds += 6
    assert (await guess(bank, password=PASSWORD)).status_code == 200


async def test_the_guesses_at_one_document_do_not_lock_out_another(bank: Hall) -> None:
    await bank.sign_in(1)
    for _ in range(12):
        await guess(bank, CPFS[0])

    assert (await guess(bank, CPFS[1], PASSWORD)).status_code == 200


async def test_a_crowd_of_good_passwords_is_not_throttled(bank: Hall) -> None:
    await bank.sign_in()

    answers = await asyncio.gather(*(guess(bank, password=PASSWORD) for _ in range(200)))

    assert {answer.status_code for answer in answers} == {200}


async def test_the_operators_password_is_throttled_like_any_other(bank: Hall) -> None:
    answers = [await guess(bank, "operator") for _ in range(15)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 5


@pytest.mark.parametrize(
    "form",
    [{}, {"username": CPFS[0]}, {"password": "x"}, {"username": CPFS[0], "password": "x", "grant_type": "implicit"}],
)
async def test_a_form_that_is_not_the_password_form_is_invalid(bank: Hall, form: dict[str, str]) -> None:
    answer = await bank.client().post("/v1/token", data=form)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_what_swagger_sends_is_taken(bank: Hall) -> None:
    await bank.sign_in()
    form = {"grant_type": "password", "username": CPFS[0], "password": PASSWORD, "scope": "", "client_id": ""}

    answer = await bank.client().post("/v1/token", data=form, headers={"Authorization": "Basic Og=="})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic Og==", "Bearer x.y.z", "bearer é", "Token abc", "Bearer a b"]
)
async def test_whoever_has_no_token_is_told_how_to_get_one(bank: Hall, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}

    answer = await bank.client().get("/v1/accounts", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_token_of_another_bank_opens_nothing() -> None:
    async with hall(2) as both:
        who = await both.sign_in(0, "99990001")
        await both.sign_in(0, "99990002")

        assert (await both.client("99990002").get("/v1/holders/me", headers=who)).status_code == 401


# Registering ------------------------------------------------------------------------------------------------------


async def register(bank: Hall, **changes: Any) -> httpx.Response:
    person = {"name": "Maria da Silva", "cpf": CPFS[0], "password": PASSWORD, **changes}
    return await bank.client().post("/v1/holders", json=person)


async def test_a_person_is_registered_once(bank: Hall) -> None:
    first, again = await register(bank), await register(bank, cpf="529.982.247-25")

    assert first.status_code == 201
    assert first.json()["cpf_masked"] == "***.982.247-**"
    assert (again.status_code, again.json()["code"]) == (409, "holder_exists")
    assert PASSWORD not in first.text + again.text


async def test_two_registrations_at_once_make_one_holder(bank: Hall) -> None:
    answers = await asyncio.gather(*(register(bank) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_trying_documents_by_registering_them_is_throttled(bank: Hall) -> None:
    await register(bank)
    for _ in range(60):
        assert (await register(bank)).status_code == 409

    refused = await register(bank)

    assert refused.status_code == 429
    bank.stopwatch.seconds += 1
    assert (await register(bank)).status_code == 409


async def test_more_waiting_than_the_bound_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MAX_WAITING", 3)
    hashing = Passwords(64, 1)
    held = [hashing.slot() for _ in range(passwords.THREADS)]
    for slot in held:
        await slot.__aenter__()
    waiting = [asyncio.ensure_future(hashing.slot().__aenter__()) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(Problem) as problem:
        await hashing.slot().__aenter__()

    assert (problem.value.status_code, problem.value.code) == (503, "busy")
    for task in waiting:
        task.cancel()
    for slot in held:
        await slot.__aexit__(None, None, None)
    hashing.close()


async def test_a_password_of_any_script_is_taken_as_it_is() -> None:
    hashing = Passwords(64, 1)

    encoded = await hashing.hash("çãé 密码 🔑")

    assert await hashing.matches(encoded, "çãé 密码 🔑")
    assert not await hashing.matches(encoded, "cae")
    assert not await hashing.matches("not a hash", "x")
    assert not await hashing.matches(None, "x")
    hashing.close()
