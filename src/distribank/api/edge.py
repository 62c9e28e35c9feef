"""What one application holds: the bank, its settings, and whatever decides who may come in.

Endpoints find it through their request. It has no state but what stands here, so that several banks can live in one
process, each behind its own application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fastapi import Request
from starlette.requests import HTTPConnection

from distribank.api.headers import values
from distribank.api.passwords import Passwords
from distribank.api.problems import Problem
from distribank.api.throttle import Throttle
from distribank.api.tokens import Authority, Identity, Tokens
from distribank.config import Settings
from distribank.core.holders import Holder

if TYPE_CHECKING:
    from distribank.bank import Bank

EDGE: Final = "distribank.edge"
"""Where in a request's scope stands the edge that it came to; ``Boundary`` puts it there."""

IDENTITY: Final = "distribank.identity"
"""Where in a request's scope stands whom it speaks for."""


@dataclass
class Edge:
    """One bank as seen from its public edge. *wall_ms* is wall-clock time, *monotonic* seconds that never jump."""

    bank: Bank
    settings: Settings
    inquire_now: Callable[[str], Awaitable[None]]
    wall_ms: Callable[[], int]
    monotonic: Callable[[], float] = time.monotonic
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the bank begins to stop: streams that would last for ever end."""
    refusals_waiting: int = 0
    """How many throttled attempts will be refused within a moment."""

    def __post_init__(self) -> None:
        settings = self.settings
        self.passwords = Passwords(*settings.password_cost)
        self.tokens = Tokens(
            settings.bank_code, settings.token_secret.get_secret_value(), settings.token_lifetime, self.wall_ms
        )
        self.guesses_at_document = Throttle(10, 1 / 6, self.monotonic)
        self.guesses_from_address = Throttle(30, 0.5, self.monotonic)
        self.taken_documents = Throttle(60, 1.0, self.monotonic)
        self.registrations = Throttle(500, 20.0, self.monotonic)

    async def identify(self, connection: HTTPConnection) -> Identity:
        """Whom the request's bearer token speaks for; raises ``unauthorized``."""
        token = bearer_token(connection)
        if token is None:
            raise Problem("unauthorized", "send a token from POST /v1/token: `Authorization: Bearer …`")
        identity = await self.tokens.identify(token, self.bank.custody.holder_by_id)
        if identity is None:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Problem("unauthorized", "this token is not valid here, or not any more", headers=challenge)
        return identity

    async def admit(self, request: Request, *authorities: Authority) -> None:
        """Let in who has one of *authorities*, noted in the request; raises ``unauthorized`` or ``forbidden``."""
        identity = await self.identify(request)
        if identity.authority not in authorities:
            needed = " or ".join(_WHOSE[authority] for authority in authorities)
            raise Problem("forbidden", f"this needs the authority of {needed}")
        request.scope[IDENTITY] = identity


_WHOSE: Final = {Authority.HOLDER: "a holder", Authority.OPERATOR: "the operator"}


def edge_of(connection: HTTPConnection) -> Edge:
    """The edge that this request came to."""
    edge: Edge = connection.scope[EDGE]
    return edge


def bank_of(connection: HTTPConnection) -> Bank:
    """The bank that this request came to."""
    return edge_of(connection).bank


def holder_of(connection: HTTPConnection) -> Holder:
    """The holder whom this request, admitted as a holder's, speaks for. Their password's hash is not here."""
    holder: Holder | None = connection.scope[IDENTITY].holder
    assert holder is not None, "a route for holders admits holders"
    return holder


def identity_of(connection: HTTPConnection) -> Identity:
    """Whom an admitted request speaks for."""
    identity: Identity = connection.scope[IDENTITY]
    return identity


def bearer_token(connection: HTTPConnection) -> str | None:
    """The token in the Authorization header, if there is one."""
    given = values(connection, b"authorization")
    scheme, _, token = given[0].partition(" ") if given else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
