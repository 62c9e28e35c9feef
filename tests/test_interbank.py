"""The routes for other banks: closed to everyone who is not one, and bare to whoever is turned away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from distribank.api.interbank import MAX_UNDER_WAY, Interbank
from distribank.breakages import DurabilityLost
from distribank.core.protocol import Acknowledged, Answer, Message, Refused, Violation, Yes
from distribank.peers import wire
from distribank.peers.client import HttpPeers
from distribank.peers.signatures import Signed
from distribank.ports import PeerStatus
from tests.between_banks import A, B, C, Network, a_commit, a_prepare


class FakeBank:
    """Votes yes to every prepare, acknowledges the rest, and remembers what it was told."""

    incarnation = "0c" * 16

    def __init__(self) -> None:
        self.received: list[tuple[str, int, list[Message]]] = []
        self.breaks: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.full = asyncio.Event()

    def clock_now(self) -> int:
        return 4711

    async def receive(self, sender: str, clock: int, messages: Sequence[Message]) -> list[Answer]:
        self.received.append((sender, clock, list(messages)))
        if len(self.received) == MAX_UNDER_WAY:
            self.full.set()
        await self.may_answer.wait()
        if self.breaks:
            raise self.breaks
        return [Yes(1) if wire.kind_of(message) == "prepare" else Acknowledged() for message in messages]


class House:
    """Bank B behind its routes."""

    def __init__(self) -> None:
        self.network = Network()
        self.bank: FakeBank | None = FakeBank()
        self.heard: list[str] = []
        self.app = FastAPI()
        verifier, signer = self.network.verifier(), self.network.signer(B)
        routes = Interbank(B, self.network.roster, signer, verifier, lambda: self.bank, self.heard.append)
        self.app.include_router(routes.router())
        self.transport = httpx.ASGITransport(self.app)

    def signed(self, body: bytes, kind: str = "prepare", sender: str = A, to: str = B) -> Signed:
        url = f"{self.network.roster.own(to).url}/interbank/v1/{kind}"
        return self.network.signer(sender).sign_request("POST", url, body)

    async def post(
        self, body: bytes, headers: dict[str, str], kind: str = "prepare", host: str = "b"
    ) -> httpx.Response:
        async with httpx.AsyncClient(transport=self.transport, trust_env=False) as client:
            return await client.post(f"http://{host}/interbank/v1/{kind}", content=body, headers=headers)

    @property
    def there(self) -> FakeBank:
        assert self.bank is not None
        return self.bank


@pytest.fixture
async def house() -> House:
    return House()


BATCH = wire.encode_batch(5, [wire.encode_message(a_prepare())])


async def test_a_signed_batch_reaches_the_bank_and_its_answers_come_back_signed(house: House) -> None:
    signed = house.signed(BATCH)
    response = await house.post(BATCH, signed.headers, host="whatever.the.host.header.says")

    assert response.status_code == 200
    assert house.there.received == [(A, 5, [a_prepare()])]
    assert house.heard == [A]
    house.network.verifier().verify_response(200, response.headers.raw, response.content, bank=B, nonce=signed.nonce)
    assert wire.decode_answers(A, ["prepare"], response.content) == wire.Answers(4711, [Yes(1)])


async def test_messages_that_cannot_be_read_are_refused_between_the_others(house: House) -> None:
    good, bad = wire.encode_message(a_commit(1)), b'{"kind":"commit"}'
    body = wire.encode_batch(5, [bad, good, b'{"kind":"steal"}', wire.encode_message(a_commit(2))])
    response = await house.post(body, house.signed(body, "commit").headers, "commit")

    answers = wire.decode_answers(A, ["commit"] * 4, response.content).answers
    assert [type(answer) for answer in answers] == [Refused, Acknowledged, Refused, Acknowledged]
    assert [a.code for a in answers if isinstance(a, Refused)] == [Violation.INVALID_MESSAGE, Violation.UNKNOWN_KIND]
    assert house.there.received == [(A, 5, [a_commit(1), a_commit(2)])]


async def test_a_probe_brings_its_clock_and_no_messages(house: House) -> None:
    body = wire.encode_batch(5, [])
    response = await house.post(body, house.signed(body, "inquire").headers, "inquire")
    assert response.status_code == 200
    assert house.there.received == [(A, 5, [])]


def _bearer(_house: House) -> dict[str, str]:
    return {"authorization": "Bearer a.holders.token"}


STRANGERS: dict[str, Any] = {
    "nothing": lambda _house: {},
    "a holder's token": _bearer,
    "a signature over another body": lambda house: house.signed(BATCH + b" ").headers,
    "a signature for another bank": lambda house: house.signed(BATCH, to=C).headers,
    "a signature for another route": lambda house: house.signed(BATCH, "commit").headers,
    "this bank's own signature": lambda house: house.signed(BATCH, sender=B).headers,
    "an unknown keyid": lambda house: {
        name: value.replace("99990001:1", "99990001:2") for name, value in house.signed(BATCH).headers.items()
    },
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
async def test_a_stranger_learns_nothing(house: House, stranger: Any) -> None:
    response = await house.post(BATCH, stranger(house))
    assert response.status_code == 401
    assert response.json() == {
        "type": "urn:distribank:problem:unauthorized",
        "title": "Unauthorized",
        "status": 401,
        "code": "unauthorized",
    }
    assert "signature" not in response.headers
    assert house.there.received == []
    assert house.heard == []


async def test_a_replayed_request_is_turned_away(house: House) -> None:
    headers = house.signed(BATCH).headers
    assert (await house.post(BATCH, headers)).status_code == 200
    assert (await house.post(BATCH, headers)).status_code == 401
    assert len(house.there.received) == 1


async def test_a_bank_that_has_not_read_its_log_says_so_and_no_more(house: House) -> None:
    house.bank = None
    response = await house.post(BATCH, house.signed(BATCH).headers)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "not_ready"
    assert house.heard == []


async def test_a_bank_that_cannot_write_answers_nothing_that_counts(house: House) -> None:
    house.there.breaks = DurabilityLost("disk full")
    signed = house.signed(BATCH)
    response = await house.post(BATCH, signed.headers)
    assert response.status_code == 503
    assert "signature" not in response.headers
    assert b"disk" not in response.content


async def test_a_body_beyond_its_bound_is_refused_unread(house: House) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * (1024 * 1024)

    async with httpx.AsyncClient(transport=house.transport, trust_env=False) as client:
        announced = await client.post("http://b/interbank/v1/prepare", content=b" " * (wire.MAX_BODY + 1))
        streamed = await client.post("http://b/interbank/v1/prepare", content=endless())
    assert (announced.status_code, streamed.status_code) == (413, 413)
    assert announced.json()["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b'{"protocol_version":2,"clock":"1","messages":[]}', 422, "unsupported_version"),
        (b'{"protocol_version":1,"clock":"1"}', 422, "invalid_request"),
    ],
)
async def test_a_signed_batch_that_cannot_be_read_is_answered_with_signed_reasons(
    house: House, body: bytes, status: int, code: str
) -> None:
    signed = house.signed(body)
    response = await house.post(body, signed.headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    house.network.verifier().verify_response(status, response.headers.raw, response.content, bank=B, nonce=signed.nonce)
    assert house.there.received == []


async def test_one_bank_cannot_have_unboundedly_many_requests_under_way(house: House) -> None:
    house.there.may_answer.clear()
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(house.post(BATCH, house.signed(BATCH).headers)) for _ in range(MAX_UNDER_WAY)]
        await house.there.full.wait()
        assert (await house.post(BATCH, house.signed(BATCH).headers)).status_code == 503
        house.there.may_answer.set()
    assert {task.result().status_code for task in first} == {200}
    assert (await house.post(BATCH, house.signed(BATCH, sender=C).headers)).status_code == 200


async def test_identity_says_who_the_bank_is(house: House) -> None:
    async with httpx.AsyncClient(transport=house.transport, trust_env=False) as client:
        identity = (await client.get("http://b/interbank/v1/identity")).json()
        house.bank = None
        before = (await client.get("http://b/interbank/v1/identity")).json()
    assert identity["code"] == B
    assert identity["public_keys"][0].startswith("1:")
    assert identity["versions"]["protocol"] == [1]
    assert (identity["incarnation"], before["incarnation"]) == ("0c" * 16, None)


async def test_the_client_and_the_routes_understand_each_other(house: House) -> None:
    network = house.network
    async with HttpPeers(
        network.roster,
        network.signer(A),
        network.verifier(),
        clock=network.clock,
        chance=random.SystemRandom(),
        clock_now=lambda: 7,
        on_clock=lambda _bank, _stamp: None,
        transport=house.transport,
    ) as peers:
        assert await peers.ask(B, a_prepare()) == Yes(1)
        assert await peers.ask(B, a_commit()) == Acknowledged()
        view = peers.view(B)
        assert view is not None
        assert view.status is PeerStatus.ONLINE


async def test_every_route_is_described(house: House) -> None:
    paths = house.app.openapi()["paths"]
    assert set(paths) == {f"/interbank/v1/{kind}" for kind in (*wire.KINDS, "identity")}
    for kind in wire.KINDS:
        operation = paths[f"/interbank/v1/{kind}"]["post"]
        assert operation["tags"] == ["interbank"]
        assert set(operation["responses"]) == {"200", "400", "401", "413", "422", "503"}
        assert operation["requestBody"]["required"]


async def test_a_query_that_was_not_signed_for_is_part_of_another_target(house: House) -> None:
    async with httpx.AsyncClient(transport=house.transport, trust_env=False) as client:
        headers = house.signed(BATCH).headers
        response = await client.post("http://b/interbank/v1/prepare?x=1", content=BATCH, headers=headers)
        assert response.status_code == 401
        assert house.there.received == []
