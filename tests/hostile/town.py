"""A town: whole banks in one process, edge to edge, as ``distribank serve`` puts them together, without sockets.

Each bank has its store, its peers over signed HTTP, its recovery and its application with the routes for clients and
for other banks. ``Town.exchanges`` keeps every request between banks and its answer as they travelled, for whoever
wants to tamper with them. ``ask`` sends any bytes to an application, as raw as ASGI takes them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from distribank.api.app import create_app
from distribank.api.interbank import Interbank
from distribank.bank import Bank
from distribank.peers.client import HttpPeers
from distribank.peers.roster import Roster, RosterEntry
from distribank.peers.signatures import Signer, Verifier
from distribank.recovery import Recovery
from distribank.store.memory import MemoryStore
from tests.counter_hall import OPERATOR, PASSWORD, Stopwatch, settings_for
from tests.world import CPFS, WallClock, codes

Headers = list[tuple[bytes, bytes]]
STRANGER = "99990009:1"
"""A keyid that no bank of the town knows."""


@dataclass(frozen=True)
class Reply:
    """What an application answered."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        return next((value.decode("latin-1") for key, value in self.headers if key.decode().lower() == name), "")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Exchange:
    """One request between banks and its answer, as they travelled."""

    sender: str
    to: str
    kind: str
    headers: Headers
    body: bytes
    reply: Reply

    @property
    def path(self) -> str:
        return f"/interbank/v1/{self.kind}"


async def ask(app: FastAPI, method: str, path: str, headers: Iterable[tuple[bytes, bytes]] = (), *body: bytes) -> Reply:
    """One request: *path* as it stands in the request line, *body* in so many chunks."""
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("bank", 80),
    }
    arriving = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    arriving.append({"type": "http.request", "body": b"", "more_body": False})
    gone = asyncio.Event()
    said: list[Any] = []

    async def receive() -> Any:
        if arriving:
            return arriving.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)
        if message["type"] == "http.response.body" and message.get("body", b"").startswith(b"event:"):
            gone.set()  # of a stream that would last for ever the first event is enough

    await app(scope, receive, send)
    start = next(message for message in said if message["type"] == "http.response.start")
    content = b"".join(message.get("body", b"") for message in said if message["type"] == "http.response.body")
    return Reply(start["status"], list(start["headers"]), content)


@dataclass
class House:
    """One bank that is up."""

    bank: Bank
    recovery: Recovery
    verifier: Verifier
    app: FastAPI
    stack: AsyncExitStack


@dataclass
class Town:
    """The banks by code. *lost* says of a kind of message whether it gets lost on its way."""

    count: int
    clock: WallClock = field(default_factory=WallClock)
    houses: dict[str, House] = field(default_factory=dict)
    stores: dict[str, MemoryStore] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    lost: Callable[[str, str], bool] = lambda _to, _kind: False
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {code: Ed25519PrivateKey.generate() for code in codes(self.count)}
        self.roster = Roster(
            RosterEntry(code, f"Bank {code}", f"http://bank-{code}.test", {f"{code}:1": key.public_key()})
            for code, key in self.keys.items()
        )
        self.chance = random.Random(4)  # noqa: S311 - repeatable, and secret from nobody
        self.stopwatch = Stopwatch()

    # Banks

    def signer(self, code: str, keyid: str = "", key: Ed25519PrivateKey | None = None) -> Signer:
        return Signer(keyid or f"{code}:1", key or self.keys[code], self.clock, self.chance)

    async def start(self, code: str) -> House:
        """Start a bank on its store, new or old; its memory of nonces is new."""
        store = self.stores.setdefault(code, MemoryStore(chance=self.chance))
        verifier = Verifier(self.roster.keys, self.clock)
        peers = HttpPeers(
            self.roster,
            self.signer(code),
            verifier,
            clock=self.clock,
            chance=self.chance,
            clock_now=lambda: bank.clock_now(),
            on_clock=lambda _bank, stamp: bank.rhythm.hear(stamp),
            transport=httpx.MockTransport(lambda request: self._carry(code, request)),
            probe_interval=3_600,
        )
        bank = Bank(code, f"Bank {code}", store, peers, self.clock, self.chance)
        recovery = Recovery(bank)
        interbank = Interbank(
            code, self.roster, self.signer(code), verifier, lambda: bank if bank.ready else None, peers.heard_from
        )
        stack = AsyncExitStack()
        app = create_app(
            settings_for(code),
            bank,
            clock=self.clock,
            inquire_now=recovery.inquire_now,
            interbank=interbank.router().routes,
            monotonic=self.stopwatch,
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        await stack.enter_async_context(peers)
        await stack.enter_async_context(bank)
        await recovery.start()
        house = self.houses[code] = House(bank, recovery, verifier, app, stack)
        return house

    async def restart(self, code: str) -> None:
        """Stop a bank in order, and start it again on what it has written."""
        await self.houses[code].stack.aclose()
        self.stores[code] = self.stores[code].crash(keep_in_flight=True)
        await self.start(code)

    async def _carry(self, sender: str, request: httpx.Request) -> httpx.Response:
        to = next(entry.code for entry in self.roster if str(request.url).startswith(entry.url))
        kind = request.url.path.rpartition("/")[2]
        if self.lost(to, kind):
            raise httpx.ConnectError("lost on its way")
        reply = await ask(self.houses[to].app, "POST", request.url.path, request.headers.raw, request.content)
        self.exchanges.append(Exchange(sender, to, kind, request.headers.raw, request.content, reply))
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)

    # What people do

    async def call(
        self, code: str, method: str, path: str, body: Any = None, who: str | None = None, **headers: str
    ) -> Reply:
        """One honest request in JSON by *who*, a CPF or ``operator``, under a fresh key."""
        given = {"content-type": "application/json", "idempotency-key": f"k{self.chance.getrandbits(64)}"}
        if who is not None:
            given["authorization"] = f"Bearer {await self.token(code, who)}"
        raw = [(name.encode(), value.encode()) for name, value in {**given, **headers}.items()]
        return await ask(self.houses[code].app, method, path, raw, b"" if body is None else json.dumps(body).encode())

    async def made(self, code: str, path: str, body: Any, who: str, *expected: int) -> Any:
        """The answer to a POST that must be one of *expected*, 201 if nothing is said."""
        reply = await self.call(code, "POST", path, body, who)
        assert reply.status in (expected or (201,)), reply.body
        return reply.json()

    async def token(self, code: str, who: str) -> str:
        """The bearer token of a person, who is registered if need be, or of the operator."""
        if (code, who) not in self.tokens:
            password = OPERATOR
            if who != "operator":
                password = PASSWORD
                await self.call(
                    code, "POST", "/v1/holders", {"name": "Maria da Silva", "cpf": who, "password": PASSWORD}
                )
            form = f"username={who}&password={password}".replace(" ", "+").encode()
            reply = await ask(
                self.houses[code].app,
                "POST",
                "/v1/token",
                [(b"content-type", b"application/x-www-form-urlencoded")],
                form,
            )
            assert reply.status == 200, reply.body
            self.tokens[code, who] = reply.json()["access_token"]
        return self.tokens[code, who]

    async def account(self, code: str, who: str = CPFS[0], money: str = "", **order: Any) -> str:
        """A new account with *money* in it; its number."""
        number: str = (await self.made(code, "/v1/accounts", order or {"type": "individual"}, who))["account"]
        if money:
            await self.made(code, f"/v1/accounts/{number}/deposits", {"amount": money}, who)
        return number

    async def consent(self, code: str, number: str, to: str, who: str = CPFS[0], most: str = "500.00") -> str:
        order = {
            "account": number,
            "initiator_bank": to,
            "max_per_transfer": most,
            "expires_at": "2040-01-01T00:00:00Z",
        }
        consent: str = (await self.made(code, "/v1/consents", order, who))["consent_id"]
        return consent

    # What can be seen

    def money(self) -> str:
        """All rows of all banks, in words: where two are equal, nothing has moved in between."""
        told = []
        for code, store in sorted(self.stores.items()):
            for kind, rows in sorted(store.disk.rows.items(), key=lambda item: item[0].__name__):
                told += [f"{code} {kind.__name__} {key!r} {row!r}" for key, row in sorted(rows.items(), key=repr)]
        return "\n".join(told)

    async def settle(self) -> None:
        """Wait until every bank has written what it has queued."""
        for store in self.stores.values():
            await store.flushed()


@asynccontextmanager
async def town(count: int = 3) -> AsyncIterator[Town]:
    """*count* banks, up; all stopped at the end."""
    made = Town(count)
    try:
        for code in codes(count):
            await made.start(code)
        yield made
    finally:
        for house in made.houses.values():
            await house.stack.aclose()
