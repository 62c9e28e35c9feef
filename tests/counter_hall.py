"""Banks of ``world`` with their public edge in front: what a client sees, without a socket.

``hall`` puts a ``create_app`` application before each bank. Passwords are hashed as cheaply as argon2 can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import TypeAdapter

from distribank.api.app import create_app
from distribank.config import Settings
from tests.conforming import flaws
from tests.world import CPFS, World, world

OPERATOR = "the operator's own password"
PASSWORD = "correct horse battery"
CONSENT = {"initiator_bank": "99990002", "max_per_transfer": "500.00", "expires_at": "2030-12-31T23:59:59Z"}


class Stopwatch:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def settings_for(code: str, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "bank_code": code,
        "bank_name": f"Bank {code}",
        "network_file": Path("network.json"),
        "private_key_file": Path("key.pem"),
        "token_secret": f"a secret of {code} that nobody else has, long enough",
        "operator_password": OPERATOR,
        "metrics_token": "what the scraper was given",
        "password_profile": "cheap-for-tests",
    }
    return Settings(**{**given, **changes})


@dataclass
class Hall:
    """The banks' applications, and one client that reaches them by address: ``http://<code>/…``."""

    world: World
    apps: dict[str, FastAPI]
    clients: dict[str, httpx.AsyncClient]
    stopwatch: Stopwatch
    tokens: dict[tuple[str, int], str] = field(default_factory=dict)

    def client(self, code: str = "99990001") -> httpx.AsyncClient:
        return self.clients[code]

    async def sign_in(self, which: int = 0, code: str = "99990001") -> dict[str, str]:
        """The headers of a person, registered there if need be."""
        if (code, which) not in self.tokens:
            person = {"name": "Maria da Silva", "cpf": CPFS[which], "password": PASSWORD}
            await self.client(code).post("/v1/holders", json=person)
            form = {"username": CPFS[which], "password": PASSWORD}
            answer = await self.client(code).post("/v1/token", data=form)
            assert answer.status_code == 200, answer.text
            self.tokens[code, which] = answer.json()["access_token"]
        return {"Authorization": f"Bearer {self.tokens[code, which]}"}

    async def operator(self, code: str = "99990001") -> dict[str, str]:
        answer = await self.client(code).post("/v1/token", data={"username": "operator", "password": OPERATOR})
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    async def account(self, money: str = "0.00", which: int = 0, code: str = "99990001") -> str:
        """An individual account with *money* in it; its number."""
        who = await self.sign_in(which, code)
        opened = await self.client(code).post("/v1/accounts", json={"type": "individual"}, headers=who)
        assert opened.status_code == 201, opened.text
        number: str = opened.json()["account"]
        if money != "0.00":
            paid = await self.client(code).post(
                f"/v1/accounts/{number}/deposits", json={"amount": money}, headers=self.keyed(who)
            )
            assert paid.status_code == 201, paid.text
        return number

    def keyed(self, who: dict[str, str], key: str | None = None, **more: str) -> dict[str, str]:
        """The same headers with an idempotency key."""
        return {**who, "Idempotency-Key": key or self.world.key(), **more}


@asynccontextmanager
async def hall(banks: int = 1, **changes: Any) -> AsyncIterator[Hall]:
    """*banks* banks that serve clients, stopped at the end."""
    stopwatch = Stopwatch()
    position_cap = settings_for("99990001", **changes).position_limit_centavos
    async with world(banks, position_cap=position_cap) as network:
        apps = {
            code: create_app(
                settings_for(code, **changes),
                running.bank,
                clock=network.clock,
                inquire_now=running.recovery.inquire_now,
                monotonic=stopwatch,
            )
            for code, running in network.banks.items()
        }
        clients = {
            code: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{code}")
            for code, app in apps.items()
        }
        try:
            yield Hall(network, apps, clients, stopwatch)
        finally:
            for code, app in apps.items():
                await clients[code].aclose()
                async with app.router.lifespan_context(app):
                    pass


def check(model: Any, answer: httpx.Response, status: int = 200) -> Any:
    """The answer's content, once it has the status and is what *model* describes."""
    assert answer.status_code == status, answer.text
    TypeAdapter(model).validate_json(answer.content, strict=True)
    return answer.json()


async def conforms(bank: Hall, body: Any, model: str) -> bool:
    """Whether *body* is as the description has *model*."""
    models = (await bank.client().get("/openapi.json")).json()["components"]["schemas"]
    return flaws(body, models[model], models) == []


def leg(bank: str, account: str, amount: str) -> dict[str, str]:
    return {"bank": bank, "account": account, "amount": amount}


async def order(
    banks: Hall, debits: list[dict[str, str]], credits_: list[dict[str, str]], which: int = 0, **headers: str
) -> httpx.Response:
    """A transfer ordered at the first bank by a person."""
    content = {"debits": debits, "credits": credits_, "description": "rent"}
    key = headers.pop("key", None)
    return await banks.client().post(
        "/v1/transfers", json=content, headers=banks.keyed(await banks.sign_in(which), key, **headers)
    )
