"""Who may come in where: every route of a whole bank, by every kind of caller, as its policy says; from the routes.

A route without a declared policy fails here, and so does a policy without its route.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from enum import Enum

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.routing import APIRoute

from distribank.api.tokens import Authority
from tests.counter_hall import hall
from tests.hostile.examples import ANA, MARIA, RUI, A, B, Scene, settled
from tests.hostile.town import STRANGER, Headers, Reply, ask


class Policy(Enum):
    """Whom a route lets in."""

    ANYONE = "anyone"
    HOLDER = "a holder"
    OPERATOR = "the operator"
    SIGNED_IN = "a holder or the operator"
    SCRAPER = "the operator or the scraper"
    BANK = "a bank of the roster, by its signature"


POLICIES = {
    "POST /v1/holders": Policy.ANYONE,
    "POST /v1/token": Policy.ANYONE,
    "GET /v1/network": Policy.ANYONE,
    "GET /livez": Policy.ANYONE,
    "GET /healthz": Policy.ANYONE,
    "GET /readyz": Policy.ANYONE,
    "GET /interbank/v1/identity": Policy.ANYONE,
    "GET /v1/holders/me": Policy.HOLDER,
    "POST /v1/accounts": Policy.HOLDER,
    "GET /v1/accounts": Policy.HOLDER,
    "GET /v1/accounts/{account}": Policy.HOLDER,
    "POST /v1/accounts/{account}/close": Policy.HOLDER,
    "POST /v1/accounts/{account}/deposits": Policy.HOLDER,
    "POST /v1/accounts/{account}/withdrawals": Policy.HOLDER,
    "GET /v1/accounts/{account}/statement": Policy.HOLDER,
    "GET /v1/accounts/{account}/events": Policy.HOLDER,
    "POST /v1/transfers": Policy.HOLDER,
    "GET /v1/transfers": Policy.HOLDER,
    "GET /v1/transfers/{transfer_id}": Policy.HOLDER,
    "GET /v1/transfers/{transfer_id}/trace": Policy.SIGNED_IN,
    "POST /v1/transfers/plan": Policy.HOLDER,
    "POST /v1/transfer-batches": Policy.HOLDER,
    "GET /v1/transfer-batches/{batch_id}": Policy.HOLDER,
    "POST /v1/consents": Policy.HOLDER,
    "GET /v1/consents": Policy.HOLDER,
    "DELETE /v1/consents/{consent_id}": Policy.HOLDER,
    "GET /v1/linked-accounts": Policy.HOLDER,
    "GET /v1/operator/in-doubt": Policy.OPERATOR,
    "POST /v1/operator/in-doubt/{transfer_id}/inquire": Policy.OPERATOR,
    "POST /v1/operator/in-doubt/{transfer_id}/resolve": Policy.OPERATOR,
    "GET /v1/operator/heuristics": Policy.OPERATOR,
    "GET /v1/operator/positions": Policy.OPERATOR,
    "GET /v1/operator/books": Policy.OPERATOR,
    "GET /v1/operator/suspense": Policy.OPERATOR,
    "POST /v1/operator/suspense/assignments": Policy.OPERATOR,
    "POST /v1/operator/audit": Policy.OPERATOR,
    "GET /v1/operator/restoration": Policy.OPERATOR,
    "POST /v1/operator/restoration/{transfer_id}/settle": Policy.OPERATOR,
    "GET /metrics": Policy.SCRAPER,
    **{
        f"POST /interbank/v1/{kind}": Policy.BANK
        for kind in ("prepare", "commit", "abort", "inquire", "log", "accounts", "snapshot", "decisions")
    },
}
"""The policy of each route; a new one is added here, or its test fails."""

CALLERS = {
    "nobody": (),
    "a malformed token": (),
    "a password for a token": (),
    "a holder": (Policy.HOLDER, Policy.SIGNED_IN),
    "a co-holder": (Policy.HOLDER, Policy.SIGNED_IN),
    "another holder": (Policy.HOLDER, Policy.SIGNED_IN),
    "a holder whose token has expired": (),
    "the operator": (Policy.OPERATOR, Policy.SIGNED_IN, Policy.SCRAPER),
    "an operator whose token has expired": (),
    "another bank's holder": (),
    "another bank's operator": (),
    "the scraper": (Policy.SCRAPER,),
    "a peer": (Policy.BANK,),
    "a peer, for another bank": (),
    "a peer, an hour ago": (),
    "this bank itself": (),
    "a stranger's signature": (),
    "a stranger's signature under a peer's name": (),
}
"""Every kind of caller, and the policies that let it in, beside those that let in anyone."""

BATCH = b'{"protocol_version":1,"clock":"1","messages":[]}'
THEIRS = ("{account}", "{transfer_id}", "{batch_id}", "{consent_id}")


class Doors:
    """A busy bank A, seen by each kind of caller. A co-holder shares the account that paths name; another holder has
    nothing to do with anything.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.app = scene.town.houses[A].app
        self.routes = [route for route in self.app.routes if isinstance(route, APIRoute)]

    def names(self) -> dict[str, APIRoute]:
        return {f"{method} {route.path}": route for route in self.routes for method in route.methods or ()}

    async def credentials(self, caller: str, path: str) -> Headers:
        """The headers by which *caller* shows who they are to *path*."""
        town = self.scene.town
        tokens = town.houses[A].app.state.edge.tokens
        bearers = {
            "a malformed token": "not.a.token",
            "a password for a token": "correct horse battery",
            "the scraper": "what the scraper was given",
            "a holder": await town.token(A, MARIA),
            "a co-holder": await town.token(A, ANA),
            "another holder": await town.token(A, RUI),
            "the operator": await town.token(A, "operator"),
            "another bank's holder": await town.token(B, MARIA),
            "another bank's operator": town.houses[B].app.state.edge.tokens.issue(Authority.OPERATOR, "operator"),
            "a holder whose token has expired": _expired(tokens, await town.token(A, MARIA)),
            "an operator whose token has expired": _expired(tokens, await town.token(A, "operator")),
        }
        if caller in bearers:
            return [(b"authorization", f"Bearer {bearers[caller]}".encode())]
        target = f"{town.roster.own(A).url}{path}"
        strange = Ed25519PrivateKey.generate()
        signers = {
            "a peer": town.signer(B),
            "a peer, for another bank": town.signer(B),
            "a peer, an hour ago": town.signer(B),
            "this bank itself": town.signer(A),
            "a stranger's signature": town.signer(B, STRANGER, strange),
            "a stranger's signature under a peer's name": town.signer(B, f"{B}:1", strange),
        }
        if caller not in signers:
            assert caller == "nobody"
            return []
        if caller == "a peer, for another bank":
            target = target.replace(A, "99990003")
        if caller == "a peer, an hour ago":
            town.clock.now -= 3_600_000
        signed = signers[caller].sign_request("POST", target, BATCH)
        if caller == "a peer, an hour ago":
            town.clock.now += 3_600_000
        return [(key.encode(), value.encode()) for key, value in signed.headers.items()]

    async def knock(self, route: APIRoute, caller: str, values: dict[str, str]) -> Reply:
        """What *caller* gets from *route*, with nothing in the body but, between banks, an empty batch."""
        (method,) = route.methods or ()
        path = route.path.format(**values)
        headers = await self.credentials(caller, path)
        return await ask(self.app, method, path, headers, BATCH if route.path.startswith("/interbank/") else b"")


def _expired(tokens: object, token: str) -> str:
    """The same claims, well signed, an hour too old."""
    secret = tokens._secret  # type: ignore[attr-defined]
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode({**claims, "iat": claims["iat"] - 7_200, "exp": claims["exp"] - 7_200}, secret, "HS256")


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with settled() as scene:
        joint = {"type": "joint", "co_holders": [ANA], "approval": "any"}
        scene.values["account"] = await scene.town.account(A, MARIA, "7.00", **joint)
        yield Doors(scene)


async def test_every_route_has_a_policy_and_every_policy_its_route(doors: Doors) -> None:
    assert set(doors.names()) == set(POLICIES)


async def test_every_route_lets_in_whom_its_policy_says_and_nobody_else(doors: Doors) -> None:
    """Pitfalls 27 and 32: interbank routes open to anyone; operator routes reachable without the authority."""
    wrong = []
    for name, route in doors.names().items():
        policy = POLICIES[name]
        for caller, opens in CALLERS.items():
            status = (await doors.knock(route, caller, doors.scene.values)).status
            if policy is Policy.ANYONE:
                expected = status not in (401, 403)
            elif policy in opens:
                expected = status not in (401, 403) or (status == 403 and name.endswith("/close"))
            else:  # a token of this bank's own that does not reach so far is 403, where tokens count at all
                known = policy is not Policy.BANK and set(opens) - {Policy.SCRAPER, Policy.BANK}
                expected = status == (403 if known else 401)
            if not expected:
                wrong.append(f"{name}, which is for {policy.value}, answered {status} to {caller}")
    assert not wrong, "\n".join(wrong)


async def test_what_is_somebody_elses_does_not_exist_for_other_holders(doors: Doors) -> None:
    """Every route that names a thing in its path: for its holders it is there, for a co-holder where it is shared."""
    scene = doors.scene
    bodies = {order.route: json.dumps(order.body).encode() for order in scene.orders}
    theirs = {name: route for name, route in doors.names().items() if any(part in name for part in THEIRS)}
    checked = 0
    for name, route in theirs.items():
        if POLICIES[name] not in (Policy.HOLDER, Policy.SIGNED_IN):
            continue
        (method,) = route.methods or ()
        path = route.path.format(**scene.values)
        replies = {}
        for caller in ("another holder", "a co-holder"):
            headers = [*await doors.credentials(caller, path), (b"idempotency-key", b"k")]
            replies[caller] = await ask(doors.app, method, path, headers, bodies.get(route.path, b""))
        assert replies["another holder"].status == 404, (name, replies)
        missing = {**scene.values, **dict.fromkeys(("transfer_id", "batch_id", "consent_id"), "nobody's")}
        missing["account"] = "00012345-5"
        headers = [*await doors.credentials("another holder", path), (b"idempotency-key", b"k")]
        nothing = await ask(doors.app, method, route.path.format(**missing), headers, bodies.get(route.path, b""))
        told, told_of_nothing = (reply.json() | {"instance": ""} for reply in (replies["another holder"], nothing))
        assert told == told_of_nothing, f"{name} tells a stranger what exists"
        shared = "{account}" in route.path
        assert (replies["a co-holder"].status != 404) == shared, (name, replies)
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/static/swagger-ui.css", "/nothing"])
async def test_what_is_no_route_for_clients_shows_no_state(path: str) -> None:
    async with hall() as bank:
        await bank.account("123.45")

        assert "123.45" not in (await bank.client().get(path)).text
