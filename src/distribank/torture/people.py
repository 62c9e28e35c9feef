"""Who pays in a run: eight people, each with one account at every bank, who let every other bank debit it.

The original parameters, per bank: eight accounts with a total of 100, here centavos (R$ 1.00), and transfers of at most
5. So money is scarce, and refusals are common.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from distribank.network.client import AccountRef, BankClient, Session

CPFS: Final = (
    "90000000175",
    "90000000256",
    "90000000337",
    "90000000418",
    "90000000507",
    "90000000680",
    "90000000760",
    "90000000841",
)
ACCOUNTS: Final = len(CPFS)
"""Accounts at each bank."""
TOTAL: Final = 100
"""Centavos at each bank, to begin with."""
MAX_TRANSFER: Final = 5
"""Centavos that one transfer moves, at most."""


@dataclass(slots=True)
class People:
    """Everybody's accounts and sessions, by person and by bank."""

    banks: Sequence[BankClient]
    password: str = field(default_factory=lambda: secrets.token_urlsafe(15))
    accounts: list[dict[str, AccountRef]] = field(default_factory=list)
    sessions: list[dict[str, Session]] = field(default_factory=list)

    @property
    def codes(self) -> list[str]:
        return [bank.code for bank in self.banks]

    def all_accounts(self) -> list[tuple[int, AccountRef]]:
        """Every account, with the person whose it is."""
        return [(person, account) for person, own in enumerate(self.accounts) for account in own.values()]

    async def sign_in_again(self, person: int, bank: str) -> None:
        """A new token, where a bank refuses the old one; ``Breakage`` if it gives none."""
        client = next(client for client in self.banks if client.code == bank)
        self.sessions[person][bank] = await client.sign_in(CPFS[person], self.password)


def share(person: int) -> int:
    """What a person has at each bank, to begin with."""
    return TOTAL // ACCOUNTS + (person < TOTAL % ACCOUNTS)


async def gather(banks: Sequence[BankClient]) -> People:
    """Everybody registered at every bank, with accounts, money and consents."""
    people = People(banks)
    for person, cpf in enumerate(CPFS):
        joined = await asyncio.gather(*(bank.join(f"Person {person + 1}", cpf, people.password) for bank in banks))
        people.sessions.append(dict(zip(people.codes, joined, strict=True)))
        opened = await asyncio.gather(*(session.open_account() for session in joined))
        people.accounts.append(dict(zip(people.codes, opened, strict=True)))
        await asyncio.gather(*(_settle_in(people, person, account) for account in opened))
    return people


async def _settle_in(people: People, person: int, account: AccountRef) -> None:
    session = people.sessions[person][account.bank]
    (await session.deposit(account, share(person))).expect(201)
    for initiator in people.codes:
        if initiator != account.bank:
            (await session.consent(account, initiator, MAX_TRANSFER)).expect(201)
