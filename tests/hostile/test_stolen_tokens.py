"""Tokens that were altered, forged, or made for somewhere else: at a whole bank's door each is a plain 401."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from distribank.peers.roster import raw_public_key
from tests.hostile.examples import MARIA, A, B
from tests.hostile.town import Town, ask, town

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FIGURES = {"altered": 0, "forged": 0}


@pytest.fixture
async def made() -> AsyncIterator[Town]:
    async with town(2) as banks:
        yield banks


async def status(banks: Town, token: bytes) -> int:
    headers = [(b"authorization", b"Bearer " + token)]
    return (await ask(banks.houses[A].app, "GET", "/v1/accounts", headers)).status


def text(value: Any) -> bytes:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def signed(header: Any, claims: Any, secret: bytes, digest: str = "sha256") -> bytes:
    """A token over whatever is given, by an HMAC under *secret*."""
    body = text(header) + b"." + text(claims)
    return body + b"." + text(hmac.new(secret, body, digest).digest())


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def altered(token: str) -> Iterator[str]:
    """Every character exchanged for each of eight others and for what no token holds; left out; doubled; cut off."""
    for place, character in enumerate(token):
        before, after = token[:place], token[place + 1 :]
        near = [ALPHABET[(ALPHABET.find(character) + step) % 64] for step in (1, 2, 3, 4, 8, 16, 32, 63)]
        for other in [*near, ".", "=", " ", "%", "\x00", "é", ""]:
            if other != character:
                yield before + other + after
        yield before + character * 2 + after
        yield before
    yield from (f"{token}.", f"{token}=", f".{token}", f"{token}.{token}", token.swapcase(), token[::-1])


async def test_no_altered_token_opens_anything(made: Town) -> None:
    token = await made.token(A, MARIA)
    assert await status(made, token.encode()) == 200

    opened = []
    for other in altered(token):
        FIGURES["altered"] += 1
        if other.strip() != token and await status(made, other.encode("latin-1")) != 401:
            opened.append(other)
    print(f"tokens: {FIGURES['altered']} altered")

    assert FIGURES["altered"] > 4_000
    assert opened == []


async def test_no_forged_token_opens_anything(made: Town) -> None:
    settings = {code: made.houses[code].app.state.edge.settings for code in (A, B)}
    ours, theirs = (settings[code].token_secret.get_secret_value().encode() for code in (A, B))
    good = claims_of(await made.token(A, MARIA))
    header = {"alg": "HS256", "typ": "JWT"}
    assert await status(made, signed(header, good, ours)) == 200, "the forger's tools work"
    public = raw_public_key(made.keys[A].public_key())
    embedded = {**header, "jwk": {"kty": "oct", "k": text(b"known").decode()}}
    forged = [
        *(text({"alg": alg, "typ": "JWT"}) + b"." + text(good) + b"." for alg in ("none", "None", "NONE", "nOnE", "")),
        *(signed({"alg": alg}, good, ours) for alg in ("HS384", "HS512", "RS256", "ES256", "EdDSA", "none", "hs256")),
        *(signed({"alg": f"HS{bits}"}, good, ours, f"sha{bits}") for bits in (384, 512)),
        *(signed(header, good, secret) for secret in (theirs, b"", b"secret", b"change-me", public, A.encode())),
        *(signed(each, good, b"known") for each in (embedded, {**header, "jku": "http://evil.test/keys"})),
        *(signed({**header, "x5u": "http://evil.test"}, good, b"known"),),
        *(
            signed({**header, "kid": kid}, good, b"")
            for kid in ("../../dev/null", "/dev/null", "' UNION SELECT ''--", 0)
        ),
        *(
            signed({**header, "crit": ["exp"]}, good, ours),
            signed({**header, "b64": False, "crit": ["b64"]}, good, ours),
        ),
        *(signed(each, good, ours) for each in ([], "HS256", None, 1, {"alg": ["HS256"]}, {"alg": None}, {})),
        *(signed(each, good, ours) for each in (b"[" * 1_000, b'{"a":' * 300, b"\xff", b"", b'{"alg":NaN}')),
        *(signed(header, each, ours) for each in ([], "x", None, 1, b"", b"[" * 1_000, b"\xff", b'{"exp":NaN}')),
        *(signed(header, {**good, "aud": aud}, ours) for aud in (B, [B], None, "", "*", {}, [])),
        *(signed(header, {**good, "iss": iss}, ours) for iss in (B, None, "", [A], 1)),
        *(signed(header, {**good, "sub": sub}, ours) for sub in ("nobody", "", None, 1, "operator", "' OR 1=1")),
        *(
            signed(header, {**good, "scope": scope}, ours)
            for scope in ("admin", "", None, ["holder"], "holder operator")
        ),
        *(signed(header, {**good, "exp": exp}, ours) for exp in (0, -1, good["iat"] - 1, "x", None, 1.5, float("inf"))),
        *(signed(header, {**good, "iat": iat}, ours) for iat in (good["exp"] + 10**6, 10**400, "x", None)),
        signed(header, claims_of(await made.token(B, MARIA)), theirs),
        (await made.token(B, MARIA)).encode(),
        b"x" * 100_000,
        b"\xff" * 100,
    ]
    forged += [signed(header, {key: value for key, value in good.items() if key != name}, ours) for name in good]
    FIGURES["forged"] = len(forged)

    opened = [token for token in forged if await status(made, token) != 401]
    print(f"tokens: {len(forged)} forged")

    assert opened == []


async def test_a_token_in_any_other_place_opens_nothing(made: Town) -> None:
    token = (await made.token(A, MARIA)).encode()
    app = made.houses[A].app
    for headers in (
        [(b"cookie", b"access_token=" + token)],
        [(b"authorization", b"Basic " + base64.b64encode(b"x:" + token))],
        [(b"authorization", token)],
        [(b"x-authorization", b"Bearer " + token)],
        [(b"proxy-authorization", b"Bearer " + token)],
        [(b"authorization", b"Bearer"), (b"authorization", b"Bearer " + token)],
    ):
        assert (await ask(app, "GET", "/v1/accounts", headers)).status == 401, headers
    assert (await ask(app, "GET", f"/v1/accounts?access_token={token.decode()}")).status == 401
