"""Tokens: this bank's own, unexpired, under the one algorithm; everything else opens nothing."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

import jwt
import pytest

from distribank.api import tokens
from distribank.api.tokens import Authority, Tokens
from distribank.core.holders import Holder
from tests.world import WallClock

SECRET = "a secret of this bank alone, long enough for HS256"
HOLDER = Holder("52998224725", "h1", "Maria da Silva", "$argon2id$…", 0)


class Registry:
    """Looks holders up, and counts how often."""

    def __init__(self) -> None:
        self.lookups = 0

    async def holder_by_id(self, holder_id: str) -> Holder | None:
        self.lookups += 1
        return HOLDER if holder_id == "h1" else None


def bank(clock: WallClock | None = None, code: str = "99990001", secret: str = SECRET) -> Tokens:
    return Tokens(code, secret, 3600, (clock or WallClock()).wall_ms)


async def opens(verifier: Tokens, token: str) -> bool:
    return await verifier.identify(token, Registry().holder_by_id) is not None


def forged(key: Any = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = WallClock().wall_ms() // 1000
    claims = {"iss": "99990001", "aud": "99990001", "sub": "h1", "scope": "holder", "jti": "x", "iat": now}
    claims = {**claims, "exp": now + 60, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


async def test_a_token_speaks_for_its_holder_without_their_password() -> None:
    ours = bank()

    identity = await ours.identify(ours.issue(Authority.HOLDER, "h1"), Registry().holder_by_id)

    assert identity is not None
    assert identity.authority is Authority.HOLDER
    assert identity.holder is not None
    assert (identity.holder.cpf, identity.holder.password_hash) == (HOLDER.cpf, "")


async def test_a_token_survives_a_restart_of_its_bank() -> None:
    assert await opens(bank(), bank().issue(Authority.HOLDER, "h1"))


async def test_a_verified_token_is_remembered_until_it_expires() -> None:
    clock, registry = WallClock(), Registry()
    ours = bank(clock)
    token = ours.issue(Authority.HOLDER, "h1")

    for _ in range(100):
        assert await ours.identify(token, registry.holder_by_id) is not None
    assert registry.lookups == 1
    clock.now += 3_600_000
    assert await ours.identify(token, registry.holder_by_id) is None


async def test_no_more_tokens_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 10)
    ours = bank()

    for _ in range(30):
        assert await opens(ours, ours.issue(Authority.HOLDER, "h1"))

    assert len(ours._remembered) == 10


async def test_another_banks_token_opens_nothing_even_under_the_same_secret() -> None:
    assert not await opens(bank(), bank(code="99990002").issue(Authority.HOLDER, "h1"))
    assert not await opens(bank(), bank(secret="another bank's secret, also long enough").issue(Authority.HOLDER, "h1"))


async def test_a_holder_who_is_not_known_here_is_let_in_nowhere() -> None:
    ours = bank()

    assert not await opens(ours, ours.issue(Authority.HOLDER, "nobody"))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
        {"scope": None},
        {"scope": "admin"},
        {"scope": ["holder"]},
        {"exp": "tomorrow"},
        {"exp": 1.5e300},
        {"exp": 1_700_000_000},
        {"iat": 1_900_000_000},
        {"aud": "99990002"},
        {"iss": "99990002"},
        {"sub": ""},
    ],
    ids=str,
)
async def test_a_signed_token_with_wrong_claims_opens_nothing(claims: dict[str, Any]) -> None:
    assert not await opens(bank(), forged(**claims))


async def test_the_algorithm_is_not_the_tokens_choice() -> None:
    header, claims, _ = forged().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).decode().rstrip("=")

    assert not await opens(bank(), f"{none}.{claims}.")
    assert not await opens(bank(), f"{header}.{claims}.")
    assert not await opens(bank(), forged(key=SECRET + SECRET, algorithm="HS512"))


async def test_a_token_with_one_character_changed_opens_nothing() -> None:
    token = bank().issue(Authority.HOLDER, "h1")
    ours = bank()

    for place, character in enumerate(token):
        other = "A" if character != "A" else "B"
        assert not await opens(ours, token[:place] + other + token[place + 1 :]), place


async def test_a_token_has_one_written_form() -> None:
    """The last character of a signature has two bits that say nothing, and padding would say nothing either."""
    token, ours = bank().issue(Authority.HOLDER, "h1"), bank()

    others = {token[:-1] + last for last in string.ascii_letters + string.digits + "-_"} - {token}
    for other in (*others, f"{token}=", f"{token}=="):
        assert not await opens(ours, other), other


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é" * 40, "x" * 100_000, "\x00", "null"])
async def test_what_is_no_token_opens_nothing(token: str) -> None:
    assert not await opens(bank(), token)
