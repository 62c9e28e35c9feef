"""People for a network to be tried out with: Maria, João, Ana and a company, and a transfer ready to paste.

Only the public contract is used, and the network file says where the banks are. Whatever is there already is left as it
is, so that doing it again adds nothing, and finishes what was broken off. Their password is made afresh, printed as
soon as the first of them has it, and kept nowhere: whoever comes again has to give it (``DISTRIBANK_PASSWORD``).

* Maria: an account at each of the first three banks, and consents at the second and third for the first;
* João: a joint account with Maria at the second bank, which either may debit;
* Ana: an account at the fourth bank, or the last, and there that of the company, too, which she runs.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from distribank.breakages import Breakage, Misconfigured
from distribank.core.money import format_amount
from distribank.network.client import AccountRef, BankClient, Session
from distribank.network.layout import no_banks
from distribank.peers.roster import Roster

MARIA: Final = ("Maria da Silva", "31415926590")
JOAO: Final = ("João Pereira", "27182818205")
ANA: Final = ("Ana Souza", "16180339805")
COMPANY: Final = {"legal_name": "Feira Livre Ltda", "cnpj": "FEIRA001000187"}
CASH: Final = 1_000_00
"""What is paid into each account, in centavos."""
CONSENTED: Final = 500_00
"""What the first bank may debit elsewhere in each transfer."""
PARTS: Final = (30_00, 20_00, 10_00)
"""What the transfer debits Maria's accounts with, as many as there are; Ana is credited with the sum."""
PASSWORD: Final = "DISTRIBANK_PASSWORD"  # noqa: S105 - the variable's name
WAIT_SECONDS: Final = 60.0
"""How long the banks may take to be ready."""
POLL_SECONDS: Final = 0.2

Say = Callable[[str], None]


@dataclass(slots=True)
class _Seeding:
    """One run: who speaks, with which password, and what it has added so far."""

    password: str
    added: list[str] = field(default_factory=list)

    async def join(self, bank: BankClient, name: str, cpf: str) -> Session:
        if (await bank.register(name, cpf, self.password)).expect(201, 409).get("holder_id"):
            self.added.append(f"{name} at {bank.name}")
        answer = await bank.call("POST", "/v1/token", data={"username": cpf, "password": self.password})
        if answer.status == 401:
            raise Breakage(f"{PASSWORD} is not the password that {name} has at {bank.name}: it was printed at first")
        return Session(bank, answer.expect(200)["access_token"])

    async def account(self, session: Session, kind: str, **order: Any) -> AccountRef:
        """The holder's first open account of that kind, opened if there is none, and money in it."""
        items = (await session.get("/v1/accounts", limit="200")).expect(200)["items"]
        found = sorted(item["account"] for item in items if item["type"] == kind and item["status"] == "open")
        if found:
            account = AccountRef(session.bank.code, found[0])
        else:
            account = await session.open_account(type=kind, **order)
            self.added.append(f"{kind} account {account.account} at {session.bank.name}")
        statement = await session.get(f"/v1/accounts/{account.account}/statement", limit="1")
        if not statement.expect(200)["items"]:  # the key keeps two runs at the same time from paying in twice
            (await session.deposit(account, CASH, key=f"people-{account.account}")).expect(201)
        return account

    async def consent(self, session: Session, account: AccountRef, initiator: str) -> None:
        given = (await session.get("/v1/consents", limit="200")).expect(200)["items"]
        terms = (account.account, initiator, "active")
        if not any((item["account"], item["initiator_bank"], item["status"]) == terms for item in given):
            (await session.consent(account, initiator, CONSENTED)).expect(201)
            self.added.append(f"consent at {session.bank.name}")


async def seed(
    data_dir: Path,
    say: Say,
    *,
    password: str | None = None,
    show_as: str | None = None,
    wait: float = WAIT_SECONDS,
    banks: int | None = None,
) -> None:
    """Make sure that the people are there, and *say* what was done, the password if it is new, and their transfer.

    Only the first *banks* of the network file take part, all if not given: others may not be running.
    *show_as* is how the banks' addresses are printed, with ``{port}``, ``{code}`` and ``{number}``; as they stand in
    the network file if not given. ``Breakage`` if a bank is not ready within *wait* seconds, or refuses: what is there
    by then stays, and doing it again with the same password goes on from there.
    """
    if not (data_dir / "network.json").exists():
        raise no_banks(data_dir)
    entries = sorted(Roster.load(data_dir / "network.json"), key=lambda entry: entry.code)[:banks]
    if len(entries) < 2:
        raise Misconfigured("people want a network of two banks or more: their transfer goes from one to another")
    shown = [_address(show_as, entry.url, entry.code, place) for place, entry in enumerate(entries, 1)]
    async with AsyncExitStack() as stack:
        clients = [BankClient(entry.code, entry.url, name=entry.name) for entry in entries[:4]]
        for client in clients:
            await stack.enter_async_context(client)
        await asyncio.gather(*(_ready(client, wait) for client in clients))
        seeding = _Seeding(password or secrets.token_urlsafe(15))
        if password is None and not await _first(clients[0], seeding, say):
            say(
                "Maria, João and Ana are here already: nothing was added. Their password was printed when they came\n"
                f"and is kept nowhere; with {PASSWORD} set to it, this finishes what may be missing, and prints\n"
                "their transfer again."
            )
            return
        order = await _seed(clients, seeding)
    if seeding.added:
        say(f"Added, with R$ {format_amount(CASH)} in each account:\n  " + "\n  ".join(seeding.added))
    else:
        say("Maria, João and Ana are here already, with all that is theirs: nothing was added.")
    say(_to_paste(shown[0], seeding.password, order))


async def _first(bank: BankClient, seeding: _Seeding, say: Say) -> bool:
    """Register Maria, and with her the new password, at once said: whether she was not there before."""
    secret = f"Their password, printed this once and kept nowhere:  {seeding.password}"
    try:
        answer = await bank.register(*MARIA, seeding.password)
    except BaseException:  # broken off, and she may be registered
        say(secret)
        raise
    if answer.code == "holder_exists":
        return False
    answer.expect(201)
    say(secret)
    seeding.added.append(f"{MARIA[0]} at {bank.name}")
    return True


async def _seed(banks: Sequence[BankClient], seeding: _Seeding) -> dict[str, Any]:
    """All that there is to be; the transfer that Maria may then order at the first bank."""
    first, second, last = banks[0], banks[1], banks[-1]
    own: list[AccountRef] = []
    for bank in banks[:3]:
        maria = await seeding.join(bank, *MARIA)
        own.append(await seeding.account(maria, "individual"))
        if bank is not first:
            await seeding.consent(maria, own[-1], first.code)
        if bank is second:
            await seeding.join(bank, *JOAO)
            await seeding.account(maria, "joint", co_holders=[JOAO[1]], approval="any")
    ana = await seeding.join(last, *ANA)
    hers = await seeding.account(ana, "individual")
    await seeding.account(ana, "business", company=COMPANY)
    parts = list(zip(own, PARTS, strict=False))
    return {
        "debits": [account.leg(amount) for account, amount in parts],
        "credits": [hers.leg(sum(amount for _account, amount in parts))],
        "description": f"from {len(parts)} banks at once",
    }


async def _ready(bank: BankClient, within: float) -> None:
    give_up = time.monotonic() + within
    while True:
        try:
            if (await bank.call("GET", "/readyz", timeout=2.0)).status == 200:
                return
            why = "not ready yet"
        except Breakage as breakage:
            why = str(breakage)
        if time.monotonic() > give_up:
            raise Breakage(f"bank {bank.name} was not ready after {within:.0f} s: {why}")
        await asyncio.sleep(POLL_SECONDS)


def _address(show_as: str | None, url: str, code: str, number: int) -> str:
    if show_as is None:
        return url
    try:
        return show_as.format(port=urlsplit(url).port, code=code, number=number).rstrip("/")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise Misconfigured(f"addresses are shown with {{port}}, {{code}} and {{number}}, not as {show_as!r}") from None


def _to_paste(url: str, password: str, order: dict[str, Any]) -> str:
    """The transfer as commands that bash and zsh take alike, and as what `/docs` takes."""
    body = json.dumps(order, ensure_ascii=False)
    return f"""
Maria pays Ana from all her banks at once. In another terminal, paste:

export {PASSWORD}='{password}'
token=$(curl -s {url}/v1/token -d username={MARIA[1]} --data-urlencode "password=${PASSWORD}" | sed -E 's/.*"access_token":"([^"]+)".*/\\1/')
curl -s {url}/v1/transfers -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -H "Idempotency-Key: $(date +%s)-$RANDOM" -d '{body}'; echo

or in a browser: {url}/docs, Authorize as {MARIA[1]} with that password, then
POST /v1/transfers with an Idempotency-Key of your own and

{json.dumps(order, indent=2, ensure_ascii=False)}
"""  # noqa: E501 - lines to paste


def password_given(environment: dict[str, str]) -> str | None:
    """The people's password, if whoever runs this has it."""
    return environment.get(PASSWORD) or None
