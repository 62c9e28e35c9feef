"""Tokens: who a request speaks for. HS256 JSON Web Tokens of this bank, for this bank, for a while.

A token carries an authority, *holder* or *operator*, and never both. Its signature is checked once; after that it is
remembered until it expires, because checking it again would cost more than a good part of a transfer.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import jwt
from jwt.utils import base64url_decode, base64url_encode

from distribank.core.holders import Holder

ALGORITHM: Final = "HS256"
MAX_TOKEN: Final = 2_048
"""Characters of the longest token that is looked at."""

MAX_REMEMBERED: Final = 20_000
"""Verified tokens kept at once."""

CLOCK_LEEWAY_MS: Final = 60_000
"""How far in this bank's future a token may have been made: its clock may have been set back since."""


class Authority(StrEnum):
    HOLDER = "holder"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token speaks for, until *expires_at* (milliseconds). *holder* is ``None`` for the operator."""

    authority: Authority
    holder: Holder | None
    expires_at: int


class Tokens:
    """The tokens of one bank. *secret* signs them, *lifetime* is in seconds, *wall_ms* tells the time."""

    def __init__(self, bank: str, secret: str, lifetime: int, wall_ms: Callable[[], int]) -> None:
        self.lifetime = lifetime
        self._bank = bank
        self._secret = secret
        self._wall_ms = wall_ms
        self._remembered: OrderedDict[str, Identity] = OrderedDict()

    def issue(self, authority: Authority, subject: str) -> str:
        """A new token: *subject* is the holder's id, or the operator."""
        now = self._wall_ms() // 1000
        claims = {
            "iss": self._bank,
            "aud": self._bank,
            "sub": subject,
            "scope": authority.value,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(claims, self._secret, ALGORITHM)

    async def identify(self, token: str, holder_by_id: Callable[[str], Awaitable[Holder | None]]) -> Identity | None:
        """Whom *token* speaks for; ``None`` if it is not this bank's, has expired, or its holder is not known."""
        known = self._remembered.get(token)
        if known is None:
            known = await self._verify(token, holder_by_id)
            if known is None:
                return None
            self._remember(token, known)
        if known.expires_at <= self._wall_ms():
            self._remembered.pop(token, None)
            return None
        return known

    async def _verify(self, token: str, holder_by_id: Callable[[str], Awaitable[Holder | None]]) -> Identity | None:
        claims = self._claims(token)
        if claims is None:
            return None
        expires_at = claims["exp"] * 1000
        if claims["scope"] == Authority.OPERATOR:
            return Identity(Authority.OPERATOR, None, expires_at)
        if claims["scope"] != Authority.HOLDER:
            return None
        holder = await holder_by_id(claims["sub"])
        if holder is None:
            return None
        return Identity(Authority.HOLDER, replace(holder, password_hash=""), expires_at)

    def _claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that this bank signed for itself; the algorithm is not the token's choice."""
        if len(token) > MAX_TOKEN or not token.isascii():
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._bank,
                issuer=self._bank,
                # Times are judged below, by the bank's own clock, which a test or a simulation may set.
                options={
                    "require": ["iss", "aud", "sub", "iat", "exp", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidTokenError:
            return None
        if not _has_one_form(token.rpartition(".")[2]):
            return None
        whole = all(isinstance(claims[name], int) for name in ("iat", "exp")) and isinstance(claims.get("scope"), str)
        if not whole or claims["iat"] * 1000 > self._wall_ms() + CLOCK_LEEWAY_MS:
            return None
        return claims

    def _remember(self, token: str, identity: Identity) -> None:
        self._remembered[token] = identity
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _has_one_form(signature: str) -> bool:
    """Whether *signature* is written as it was made: spare bits and padding would make many tokens of one."""
    return base64url_encode(base64url_decode(signature)).decode() == signature
