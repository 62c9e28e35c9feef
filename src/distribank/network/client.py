"""A small client of the public contract: what a holder's or an operator's program says to a bank over HTTP.

It knows ``docs/api.md`` and nothing else. Every call answers with an ``Answer``, whatever its status; ``expect`` turns
one into its body where only one outcome will do. Amounts are centavos here and decimal strings on the wire.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import httpx

from distribank.breakages import Breakage
from distribank.core.money import format_amount
from distribank.network.layout import LocalBank

TIMEOUT_SECONDS: Final = 40.0
"""More than the longest wait that a client may ask of a bank (30 s)."""
MAX_CONNECTIONS: Final = 256
"""Requests to one bank at a time; more wait their turn."""
EXPIRES: Final = "2099-12-31T23:59:59Z"
"""When a consent ends for which nothing else is said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a bank: its status, its JSON, and how long it took in seconds."""

    asked: str
    status: int
    body: Any
    seconds: float
    headers: httpx.Headers

    @property
    def code(self) -> str | None:
        """The stable code of a problem; ``None`` for anything else."""
        return self.body.get("code") if self.status >= 400 and isinstance(self.body, dict) else None

    def expect(self, *statuses: int) -> Any:
        """The body; ``Breakage`` if the status is none of *statuses* (by default any 2xx)."""
        if self.status in statuses or (not statuses and self.status < 300):
            return self.body
        detail = self.body.get("detail", "") if isinstance(self.body, dict) else ""
        raise Breakage(f"{self.asked} was answered {self.status} {self.code or ''}: {detail}")


@dataclass(frozen=True, slots=True)
class AccountRef:
    """An account as the whole network names it."""

    bank: str
    account: str

    def leg(self, amount: int) -> dict[str, str]:
        """This account's part in a transfer, of *amount* centavos."""
        return {"bank": self.bank, "account": self.account, "amount": format_amount(amount)}


class BankClient:
    """One bank's public address, as anyone may speak to it. Close it, or use it as an async context manager."""

    def __init__(self, code: str, url: str, operator_password: str = "", name: str = "") -> None:
        self.code = code
        self.name = name or code
        self.url = url
        self._operator_password = operator_password
        self._operator: Session | None = None
        self._http = httpx.AsyncClient(
            base_url=url,
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        )

    async def __aenter__(self) -> BankClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, **request: Any) -> Answer:
        """One request, as httpx takes it; ``Breakage`` if nothing answers."""
        asked, begun = f"{method} {self.url}{path}", time.monotonic()
        try:
            response = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise Breakage(f"{asked} was not answered: {_why(error)}") from error
        is_json = "json" in response.headers.get("content-type", "")
        body = response.json() if is_json else response.text
        return Answer(asked, response.status_code, body, time.monotonic() - begun, response.headers)

    async def register(self, name: str, cpf: str, password: str) -> Answer:
        return await self.call("POST", "/v1/holders", json={"name": name, "cpf": cpf, "password": password})

    async def sign_in(self, username: str, password: str) -> Session:
        """A session of that holder (by CPF), or of the operator."""
        form = {"username": username, "password": password}
        token = (await self.call("POST", "/v1/token", data=form)).expect(200)["access_token"]
        return Session(self, token)

    async def join(self, name: str, cpf: str, password: str) -> Session:
        """Register if need be, then sign in."""
        (await self.register(name, cpf, password)).expect(201, 409)
        return await self.sign_in(cpf, password)

    async def operator(self) -> Session:
        """The operator's session, signed in once; its token survives the bank's restarts."""
        if self._operator is None:
            self._operator = await self.sign_in("operator", self._operator_password)
        return self._operator

    async def network(self) -> dict[str, str]:
        """What this bank thinks of each of its peers: ``online``, ``offline`` or ``unknown``."""
        view = (await self.call("GET", "/v1/network")).expect(200)
        return {peer["bank"]: peer["status"] for peer in view["peers"]}

    async def in_doubt(self) -> list[dict[str, Any]]:
        """What is in doubt at this bank, by its operator's list."""
        items: list[dict[str, Any]] = (await (await self.operator()).get("/v1/operator/in-doubt")).expect(200)["items"]
        return items

    async def positions(self) -> dict[str, int]:
        """Centavos that this bank owes each peer; negative where the peer owes it."""
        items = (await (await self.operator()).get("/v1/operator/positions")).expect(200)["items"]
        return {item["bank"]: centavos(item["position"]) for item in items}

    async def books(self) -> dict[str, Any]:
        """All of the bank's entries, added up anew."""
        books: dict[str, Any] = (await (await self.operator()).get("/v1/operator/books")).expect(200)
        return books


class Session:
    """One bank, spoken to with one token."""

    def __init__(self, bank: BankClient, token: str) -> None:
        self.bank = bank
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, media_type: str = "application/json", **params: str) -> Answer:
        headers = {**self._headers, "Accept": media_type}
        return await self.bank.call("GET", path, headers=headers, params=params)

    async def post(self, path: str, body: Any, key: str | None = None, prefer: str | None = None) -> Answer:
        """A POST under the idempotency key *key*, or a fresh one."""
        headers = {**self._headers, "Idempotency-Key": key or uuid.uuid4().hex}
        if prefer is not None:
            headers["Prefer"] = prefer
        return await self.bank.call("POST", path, json=body, headers=headers)

    async def open_account(self, **order: Any) -> AccountRef:
        """Open an account; *order* as the contract has it, an individual's if nothing is said."""
        account = (await self.post("/v1/accounts", order or {"type": "individual"})).expect(201)
        return AccountRef(account["bank"], account["account"])

    async def account(self, account: AccountRef) -> dict[str, Any]:
        """The account as its holder sees it."""
        body: dict[str, Any] = (await self.get(f"/v1/accounts/{account.account}")).expect(200)
        return body

    async def balances(self, account: AccountRef) -> tuple[int, int]:
        """Posted and available, in centavos."""
        seen = await self.account(account)
        return centavos(seen["posted_balance"]), centavos(seen["available_balance"])

    async def deposit(self, account: AccountRef, amount: int, key: str | None = None) -> Answer:
        return await self.post(f"/v1/accounts/{account.account}/deposits", {"amount": format_amount(amount)}, key)

    async def withdraw(self, account: AccountRef, amount: int, key: str | None = None) -> Answer:
        return await self.post(f"/v1/accounts/{account.account}/withdrawals", {"amount": format_amount(amount)}, key)

    async def consent(self, account: AccountRef, initiator_bank: str, amount: int) -> Answer:
        """Let *initiator_bank* order debits of up to *amount* each on *account*, for this holder."""
        body = {
            "account": account.account,
            "initiator_bank": initiator_bank,
            "max_per_transfer": format_amount(amount),
            "expires_at": EXPIRES,
        }
        return await self.post("/v1/consents", body)

    async def transfer(
        self,
        debits: Sequence[tuple[AccountRef, int]],
        credits: Sequence[tuple[AccountRef, int]],  # noqa: A002
        *,
        description: str | None = None,
        key: str | None = None,
        prefer: str | None = None,
    ) -> Answer:
        """Order a transfer from this bank: *debits* and *credits* are accounts and centavos."""
        order: dict[str, Any] = {
            "debits": [account.leg(amount) for account, amount in debits],
            "credits": [account.leg(amount) for account, amount in credits],
        }
        if description is not None:
            order["description"] = description
        return await self.post("/v1/transfers", order, key, prefer)

    async def pay(self, debit: AccountRef, credit: AccountRef, amount: int, **options: Any) -> Answer:
        """A transfer from one account to one other."""
        return await self.transfer([(debit, amount)], [(credit, amount)], **options)

    async def transfer_status(self, transfer_id: str) -> dict[str, Any]:
        """The transfer as this bank knows it."""
        body: dict[str, Any] = (await self.get(f"/v1/transfers/{transfer_id}")).expect(200)
        return body


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "no bank can be reached there; does it run?"
    if isinstance(error, httpx.TimeoutException):
        return "the bank takes too long; is it frozen?"
    return f"{type(error).__name__} {error}".rstrip()


def centavos(amount: str) -> int:
    """A balance or a position, which may be zero or negative, in centavos."""
    whole, _point, fraction = amount.partition(".")
    assert len(fraction) == 2, f"{amount!r} is not an amount"
    return int(whole + fraction)


def client_of(bank: LocalBank) -> BankClient:
    """A client for a bank of a data directory, its operator included."""
    return BankClient(bank.code, bank.url, bank.operator_password, bank.name)
