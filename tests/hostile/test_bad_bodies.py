"""Thousands of bad requests, made by rules from good ones: each gets a described no, repeats nothing, moves nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.conforming import Description
from tests.hostile.corpus import CANARY, spoilt
from tests.hostile.examples import MARIA, Scene, settled
from tests.hostile.tampering import one_of_each, quiet
from tests.hostile.town import Headers, Reply, ask

BANK = "99990001"
ANSWERED: Counter[int] = Counter()
"""How many bad requests were answered with each status."""


@dataclass
class Examined:
    """A scene whose every answer is held to the description. *found* is what was wrong, *before* all that there was."""

    scene: Scene
    description: Description
    before: str = ""
    sent: int = 0
    found: list[str] = field(default_factory=list)

    async def send(self, method: str, path: str, headers: Headers, *body: bytes) -> Reply:
        """One bad request: its answer is a described no without anything that was sent."""
        reply = await ask(self.scene.town.houses[BANK].app, method, path, headers, *body)
        self.sent += 1
        ANSWERED[reply.status] += 1
        text = reply.body.decode()
        told = f"{b''.join(body)[:300]!r}"
        objections = self.description.objections(
            method, path.partition("?")[0], reply.status, reply.header("content-type"), text
        )
        if not 400 <= reply.status < 500:
            objections.append(f"{method} {path} took it with {reply.status}")
        if CANARY in text or any(CANARY.encode() in value for _, value in reply.headers):
            objections.append(f"{method} {path} repeated what was sent")
        self.found += [f"{objection} <- {told}" for objection in objections]
        return reply

    async def headers(self, who: str | None, content_type: str = "application/json") -> Headers:
        given = [(b"content-type", content_type.encode()), (b"idempotency-key", b"a-key")]
        if who is not None:
            token = await self.scene.town.token(BANK, who)
            given.append((b"authorization", f"Bearer {token}".encode()))
        return given


@pytest.fixture
async def examined() -> AsyncIterator[Examined]:
    """A scene, and behind the test the check that nothing in it has moved."""
    async with settled() as scene:
        reply = await ask(scene.town.houses[BANK].app, "GET", "/openapi.json")
        made = Examined(scene, Description(reply.json()))
        await scene.town.settle()
        made.before = scene.town.money()
        yield made
        await scene.town.settle()
        assert not made.found, "\n".join([f"{len(made.found)} of {made.sent}:", *made.found[:20]])
        assert scene.town.money() == made.before, "something has moved"


async def test_the_examples_name_every_route_that_takes_json(examined: Examined) -> None:
    for template, operations in examined.description.document["paths"].items():
        takes_json = "application/json" in operations.get("post", {}).get("requestBody", {}).get("content", {})
        if takes_json and not template.startswith("/interbank/"):
            pattern = re.sub(r"\{\w+\}", "[^/]+", template)
            assert any(re.fullmatch(pattern, order.path(examined.scene.values)) for order in examined.scene.orders), (
                f"{template} has no good example in tests/hostile/examples.py"
            )


async def test_the_examples_are_good() -> None:
    async with settled() as scene:
        for order in scene.orders:
            reply = await scene.town.call(BANK, "POST", order.path(scene.values), order.body, order.who)
            refused = ("insufficient_funds", "not_in_suspense", "not_settleable")
            assert reply.status in (200, 201) or reply.json()["code"] in refused, f"{order}: {reply.body!r}"


async def test_a_bad_body_is_a_described_no_that_repeats_nothing_and_moves_nothing(examined: Examined) -> None:
    for order in examined.scene.orders:
        headers = await examined.headers(order.who)
        for body in spoilt(order.body):
            await examined.send(order.method, order.path(examined.scene.values), headers, body)
    assert examined.sent >= 2_000


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/xml",
        "application/octet-stream",
        "application/jsonp",
        "json",
        "/",
        ";",
        "application/json, text/plain",
        "\xff",
        "x" * 5_000,
    ],
)
async def test_a_body_of_another_type_is_refused(examined: Examined, content_type: str) -> None:
    for order in examined.scene.orders:
        headers = [(b"content-type", content_type.encode("latin-1")), *(await examined.headers(order.who))[1:]]
        reply = await examined.send(
            order.method, order.path(examined.scene.values), headers, json.dumps(order.body).encode()
        )
        assert reply.status == 415, (order, content_type, reply)


async def test_a_large_body_is_refused_in_one_piece_or_many(examined: Examined) -> None:
    for order in examined.scene.orders:
        limit = 4 * 1024 * 1024 if order.route == "/v1/transfer-batches" else 64 * 1024
        path, headers = order.path(examined.scene.values), await examined.headers(order.who)
        large = json.dumps(order.body).encode() + b" " * limit
        for body in ((large,), tuple(large[i : i + 8192] for i in range(0, len(large), 8192))):
            for announced in (None, b"1", b"-1", b"9" * 30, b"0x10", b"1, 2", b"\xb2"):
                length = [] if announced is None else [(b"content-length", announced)]
                assert (await examined.send("POST", path, [*headers, *length], *body)).status in (400, 413)


async def test_a_bad_key_is_refused_wherever_one_is_needed(examined: Examined) -> None:
    keys = [
        b"",
        b" ",
        b"\x00",
        b"a b",
        b"\xff",
        b'"',
        b'""',
        b'"a',
        b'a"\x7f',
        b"x" * 256,
        b'"' + b"x" * 256 + b'"',
        b"\t",
    ]
    for order in examined.scene.orders:
        operation = examined.description.operation("POST", order.path(examined.scene.values))
        if not any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", ())):
            continue
        rest = [header for header in await examined.headers(order.who) if header[0] != b"idempotency-key"]
        body, path = json.dumps(order.body).encode(), order.path(examined.scene.values)
        given: list[Headers] = [[], *([(b"idempotency-key", key)] for key in keys)]
        given.append([(b"idempotency-key", b"one"), (b"idempotency-key", b"two")])
        for headers in given:
            assert (await examined.send("POST", path, [*rest, *headers], body)).status == 400, (order.route, headers)


FORMS = [
    b"",
    b"username",
    b"username=%&password=%",
    b"username=%FF&password=%FF",
    b"username=%ED%A0%80&password=%ED%A0%80",
    b"username=%00&password=%00",
    b"username=x&username=y&password=z",
    b"username=operator&password=" + CANARY.encode(),
    b"username=" + b"x" * 300 + b"&password=" + CANARY.encode(),
    b"username=52998224725&password=" + b"x" * 2_000,
    b"username=52998224725&password=x&grant_type=client_credentials",
    b"username=52998224725&password=x&grant_type=",
    b"username[]=x&password[]=y",
    b"&" * 30_000,
    b"a=b&" * 15_000,
    b"username=52998224725;password=x",
    "username=５２９９８２２４７２５&password=x".encode(),
    b"{}",
    b"--x\r\n",
    b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n52998224725\r\n--x',
    b'--x\r\nContent-Disposition: form-data; name="username"; filename="a"\r\n\r\n5\r\n--x--\r\n',
    b"--x\r\nContent-Disposition: form-data\r\n\r\n5\r\n--x--\r\n",
    b"--x\r\nContent-Disposition: form-data; name*=utf-16''%ff\r\n\r\n5\r\n--x--\r\n",
    b"--x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n5\r\n--x--\r\n",
    b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n5\r\n' * 1_100 + b"--x--\r\n",
]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-16",
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=",
        "multipart/form-data",
        "multipart/form-data; boundary=x; charset=nonsense",
        "multipart/form-data; boundary=" + "x" * 300,
        "",
    ],
)
async def test_a_bad_form_signs_nobody_in(examined: Examined, content_type: str) -> None:
    for body in FORMS:
        examined.scene.town.stopwatch.seconds += 3_600  # no guess is throttled here
        headers = await examined.headers(None, content_type)
        assert (await examined.send("POST", "/v1/token", headers, body)).status in (400, 401, 413, 415, 422)


async def test_a_rogue_banks_bad_messages_are_refused_between_its_good_ones_and_move_nothing(
    examined: Examined,
) -> None:
    """Well signed, by a bank of the roster: whatever is not as the protocol writes it gets a refusal, never a bug."""
    town = examined.scene.town
    await quiet(examined.scene)
    examined.before = town.money()
    for one in one_of_each(examined.scene):
        signer, target = town.signer(one.sender), town.roster.own(one.to).url + one.path
        for body in spoilt(json.loads(one.body)):
            headers = [(k.encode(), v.encode()) for k, v in signer.sign_request("POST", target, body).headers.items()]
            reply = await ask(town.houses[one.to].app, "POST", one.path, headers, body)
            examined.sent += 1
            ANSWERED[reply.status] += 1
            content_type, text = reply.header("content-type"), reply.body.decode()
            found = examined.description.objections("POST", one.path, reply.status, content_type, text)
            if reply.status not in (200, 400, 422) or CANARY in text:
                found.append(f"{one.path} answered {reply.status}: {text}")
            examined.found += [f"{objection} <- {body[:300]!r}" for objection in found]
            assert dict(reply.headers).get(b"signature"), "an answer to a bank of the roster is signed"
    assert examined.sent >= 2_000


BAD_IDS = (
    "%00",
    "%FF",
    "%ED%A0%80",
    "x" * 5_000,
    "%2e%2e",
    "..%2f..",
    "%F0%9F%98%80",
    "'--",
    "%",
    "%zz",
    "{account}",
    "null",
)
"""Of an account these are mistyped numbers; of anything else they are ids that nobody has."""


async def test_an_id_that_cannot_be_one_is_not_found_on_any_route(examined: Examined) -> None:
    for template, operations in examined.description.document["paths"].items():
        if "{" not in template:
            continue
        bodies = {order.route: order.body for order in examined.scene.orders}
        for method in operations:
            who = "operator" if "/operator/" in template else MARIA
            headers, body = await examined.headers(who), json.dumps(bodies.get(template, {})).encode()
            if template.endswith("/resolve"):
                body = b'{"decision": "abort", "reason": "r"}'
            for bad in BAD_IDS:
                reply = await examined.send(method.upper(), re.sub(r"\{\w+\}", bad, template), headers, body)
                assert reply.status in (404, 422), (template, bad, reply)


BAD_QUERIES = {
    "limit": ["0", "-1", "201", "9" * 30, "1e2", "%EF%BC%91", "x", "true", "[]", "0x10", "%00", "NaN"],
    "cursor": [
        "x",
        "%00",
        "bnVsbA",
        "WzFd==",
        "WyJhIl0.",
        "W10",
        "WyJcdWQ4MDAiXQ",
        "WzFlOTk5XQ",
        "%F0%9F%98%80",
        "e30" * 200,
    ],
    "status": ["lost", "", "COMPLETED", "%00", "completed%20", "null"],
    "account": ["1", "00000001-8", "%00", "%EF%BC%90", "x" * 5_000, "00000001-9%0a"],
    "from": ["yesterday", "2026-02-30", "2026-1-1", "99999-01-01", "2026-11-23T12:00:00", "%00", "x" * 5_000, "NaN"],
    "to": ["0", "2026-13-01", "2026-11-23T25:00:00Z", "2026-11-23T12:00:00%2B99:00", "%EF%BC%92026-01-01", "'--"],
}
"""By parameter, what is refused wherever it is taken."""


async def test_a_bad_query_is_refused_on_every_list(examined: Examined) -> None:
    for template, operations in examined.description.document["paths"].items():
        for method, operation in operations.items():
            named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
            assert named <= set(BAD_QUERIES), f"{template} takes {named - set(BAD_QUERIES)}: give bad examples"
            headers = await examined.headers("operator" if "/operator/" in template else MARIA)
            for name in named:
                for bad in BAD_QUERIES[name]:
                    path = f"{template.format(**examined.scene.values)}?{name}={bad}"
                    assert (await examined.send(method.upper(), path, headers)).status == 422, path
