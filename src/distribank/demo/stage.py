"""The stage of the demo: the banks, who is signed in where, and how figures are written. Amounts are centavos."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distribank.breakages import Breakage
from distribank.core.money import format_amount
from distribank.demo.claims import Claims
from distribank.network.client import AccountRef, Answer, BankClient, Session
from distribank.network.processes import POLL_SECONDS, BankProcess
from distribank.network.terminal import waiting

PATIENCE_SECONDS: Final = 60.0
"""How long the story waits for what must come."""

Balances = list[tuple[int, int]]
"""Posted and available, of Maria's accounts at A, B and C and of the bakery's at D."""


@dataclass(slots=True)
class Cast:
    """Who is signed in where, and the accounts that the story moves money between."""

    maria: list[Session]
    """At the banks A, B and C."""
    own: list[AccountRef]
    """Maria's own accounts there."""
    joao: Session
    """At A."""
    household: AccountRef
    """Maria's and João's, at A; either may debit it."""
    carlos: Session
    """At D."""
    bakery: AccountRef
    """The company's, at D."""

    async def balances(self) -> Balances:
        seen = [await session.balances(account) for session, account in zip(self.maria, self.own, strict=True)]
        return [*seen, await self.carlos.balances(self.bakery)]


@dataclass(slots=True)
class Stage:
    """Four banks, as processes and as addresses."""

    claims: Claims
    processes: list[BankProcess]
    clients: list[BankClient]
    cash: int = 0
    """Deposits less withdrawals, over all banks."""

    async def deposit(self, session: Session, account: AccountRef, amount: int) -> None:
        (await session.deposit(account, amount)).expect(201)
        self.cash += amount

    async def withdraw(self, session: Session, account: AccountRef, amount: int) -> None:
        (await session.withdraw(account, amount)).expect(201)
        self.cash -= amount

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str) -> float:
        """Ask again until *holds* says yes, showing *what* is waited for; seconds taken. ``Breakage`` if never."""
        begun = time.monotonic()
        with waiting(self.claims.console, f"until {what}"):
            while not await holds():
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    raise Breakage(f"waited {PATIENCE_SECONDS:.0f} s until {what}")
                await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    async def nothing_in_doubt(self) -> bool:
        """Whether no bank lists anything as in doubt."""
        return not any([await bank.in_doubt() for bank in self.clients])


async def doubt_about(transfer_id: str, bank: BankClient) -> dict[str, Any] | None:
    """What *bank* lists about this transfer as in doubt; ``None`` if nothing."""
    return next((item for item in await bank.in_doubt() if item["transfer_id"] == transfer_id), None)


def free(*amounts: int) -> Balances:
    """Balances of which nothing is held."""
    return [(amount, amount) for amount in amounts]


def posted(balances: Balances) -> list[int]:
    return [amount for amount, _available in balances]


def brl(amount: int) -> str:
    return f"R$ {format_amount(amount)}"


def listed(amounts: Sequence[int]) -> str:
    return ", ".join(format_amount(amount) for amount in amounts)


def ms(answer: Answer) -> str:
    return f"{answer.seconds * 1000:.0f} ms"


def why(answer: Answer) -> str:
    return f"{answer.status} {answer.code}"
