"""The clients: people who pay at every bank at once, and readers, all by the public contract.

A transfer is asked for under one key until its outcome is known, whatever happens in between, as a careful client does:
no answer, ``pending``, ``busy`` and the like mean to ask again. Only an outcome that the contract calls final ends it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from distribank.breakages import Breakage
from distribank.network.client import AccountRef, Answer, BankClient, centavos
from distribank.torture.history import History
from distribank.torture.people import MAX_TRANSFER, People

CLIENTS: Final = 12
"""People who pay at each bank at the same time."""
READERS: Final = 3
"""Readers of the whole network."""
READ_PAUSE_SECONDS: Final = 0.25
BALANCE_PAUSE_SECONDS: Final = 0.2
PAGE_TRIES: Final = 5
RETRY_SECONDS: Final = (0.05, 0.4)
"""Before the same is asked again."""
IMPATIENT: Final = 0.1
"""How often a client does not wait for the outcome (``Prefer: respond-async``), and asks later."""
FORGETFUL: Final = 0.02
"""How often a client asks again although it has been told: it must be told the same."""
AGAIN: Final = frozenset({"idempotency_in_progress", "outcome_unknown", "busy", "not_ready"})
"""Codes behind which the same key must be tried again."""
NOTHING_MOVED: Final = frozenset({"bank_unreachable", "interrupted"})
"""Codes of a 503 that is final."""

Leg = tuple[AccountRef, int]


@dataclass(slots=True)
class Counts:
    """What the clients have met so far, for whoever watches."""

    committed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Clients:
    """All clients of a run. They begin nothing new once *stopping* is set, and give up at last once *over* is."""

    people: People
    history: History
    seed: int
    counts: Counts = field(default_factory=Counts)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def pay(self, bank: BankClient, number: int) -> None:
        """One person after another pays at *bank*, as its client *number*."""
        process = f"{bank.code}/{number}"
        chance = random.Random(f"{self.seed} {process}")  # noqa: S311
        while not self.stopping.is_set():
            person, debits, credits_ = transfer(self.people, bank.code, chance)
            op = self.history.op()
            value = {"debits": _told(debits), "credits": _told(credits_)}
            self.history.add(process, "invoke", "transfer", value, bank=bank.code, op=op)
            kind, told = await self._until_known(bank.code, person, debits, credits_, op, chance)
            self.history.add(process, kind, "transfer", told, bank=bank.code, op=op)
            if kind == "ok" and chance.random() < FORGETFUL:
                await self._ask_again(process, bank.code, person, debits, credits_, op)

    async def _until_known(
        self, bank: str, person: int, debits: Sequence[Leg], credits_: Sequence[Leg], op: str, chance: random.Random
    ) -> tuple[str, dict[str, Any]]:
        """Ask until the outcome is known: how it ended, and what was told."""
        tries = 0
        prefer = "respond-async" if chance.random() < IMPATIENT else None
        while not self.over.is_set():
            tries += 1
            try:
                answer = await self._order(bank, person, debits, credits_, op, prefer)
                if answer.status == 401:
                    await self.people.sign_in_again(person, bank)
            except Breakage:
                self.counts.retries["no answer"] += 1
            else:
                known = outcome(answer)
                if known is not None:
                    return self._count(known, tries)
                self.counts.retries[answer.code or str(answer.status)] += 1
            prefer = None
            await asyncio.sleep(chance.uniform(*RETRY_SECONDS))
        return "info", {"tries": tries}

    def _count(self, known: tuple[str, dict[str, Any]], tries: int) -> tuple[str, dict[str, Any]]:
        kind, told = known
        if kind == "ok":
            self.counts.committed += 1
        else:
            self.counts.refused[told.get("code") or str(told["status"])] += 1
        return kind, {**told, "tries": tries}

    async def _order(
        self, bank: str, person: int, debits: Sequence[Leg], credits_: Sequence[Leg], op: str, prefer: str | None
    ) -> Answer:
        session = self.people.sessions[person][bank]
        return await session.transfer(debits, credits_, description=op, key=f"{self.seed}-{op}", prefer=prefer)

    async def _ask_again(
        self, process: str, bank: str, person: int, debits: Sequence[Leg], credits_: Sequence[Leg], op: str
    ) -> None:
        try:
            answer = await self._order(bank, person, debits, credits_, op, None)
        except Breakage:
            return
        known = outcome(answer)
        if known is not None:
            self.history.add(process, "info", "asked again", {"type": known[0], **known[1]}, bank=bank, op=op)

    async def read(self, number: int) -> None:
        """Read the whole network at one random bank after another."""
        process = f"reader/{number}"
        chance = random.Random(f"{self.seed} {process}")  # noqa: S311
        while not self.stopping.is_set():
            bank = chance.choice(self.people.banks)
            await self.audit(process, bank)
            await asyncio.sleep(READ_PAUSE_SECONDS)

    async def audit(self, process: str, bank: BankClient) -> bool:
        """One read of the whole network; whether everything was checked, and holds."""
        op = self.history.op()
        self.history.add(process, "invoke", "read", None, bank=bank.code, op=op)
        try:
            found = (await (await bank.operator()).post("/v1/operator/audit", {})).expect(200)
        except Breakage as breakage:
            self.counts.reads["no answer"] += 1
            self.history.add(process, "fail", "read", str(breakage), bank=bank.code, op=op)
            return False
        told = _read_of(found)
        self.counts.reads["whole" if found["ok"] else "with findings"] += 1
        self.history.add(process, "ok", "read", told, bank=bank.code, op=op)
        return bool(found["ok"])

    async def look(self, bank: BankClient) -> None:
        """Read the balance of one random account of *bank* after another."""
        process = f"{bank.code}/balances"
        chance = random.Random(f"{self.seed} {process}")  # noqa: S311
        while not self.stopping.is_set():
            person = chance.randrange(len(self.people.accounts))
            account = self.people.accounts[person][bank.code]
            op = self.history.op()
            self.history.add(process, "invoke", "balance", name_of(account), bank=bank.code, op=op)
            kind, told = await self.balance(person, account)
            self.counts.reads["balances" if kind == "ok" else "balances, no answer"] += 1
            self.history.add(process, kind, "balance", told, bank=bank.code, op=op)
            await asyncio.sleep(BALANCE_PAUSE_SECONDS)

    async def balance(self, person: int, account: AccountRef) -> tuple[str, Any]:
        """One account as its bank shows it."""
        try:
            answer = await self.people.sessions[person][account.bank].get(f"/v1/accounts/{account.account}")
            if answer.status == 401:
                await self.people.sign_in_again(person, account.bank)
            seen = answer.expect(200)
        except Breakage as breakage:
            return "fail", str(breakage)
        amounts = {name: centavos(seen[f"{name}_balance"]) for name in ("posted", "available")}
        return "ok", {"account": name_of(account), **amounts, "held": centavos(seen["held"])}

    async def statement(self, person: int, account: AccountRef) -> dict[str, Any]:
        """An account's whole statement, oldest entry first, and how it stands."""
        for _try in range(PAGE_TRIES):
            kind, stands = await self.balance(person, account)
            if kind == "ok":
                break
        else:
            raise Breakage(f"{name_of(account)} cannot be read: {stands}")
        entries: list[list[Any]] = []
        more: dict[str, str] = {}
        while True:
            page = await self._page(person, account, more)
            entries += [_entry_of(entry) for entry in page["items"]]
            if page["next_cursor"] is None:
                return {**stands, "entries": entries[::-1]}
            more = {"cursor": page["next_cursor"]}

    async def _page(self, person: int, account: AccountRef, more: Mapping[str, str]) -> dict[str, Any]:
        """One page of a statement, asked for again if need be."""
        for _try in range(PAGE_TRIES):
            try:
                answer = await self.people.sessions[person][account.bank].get(
                    f"/v1/accounts/{account.account}/statement", limit="200", **more
                )
                if answer.status == 401:
                    await self.people.sign_in_again(person, account.bank)
                page: dict[str, Any] = answer.expect(200)
            except Breakage as breakage:
                why = str(breakage)
                await asyncio.sleep(RETRY_SECONDS[1])
            else:
                return page
        raise Breakage(why)


def transfer(people: People, bank: str, chance: random.Random) -> tuple[int, list[Leg], list[Leg]]:
    """A random transfer to order at *bank*: who orders it, debits, credits. A third each stays within the bank, goes
    between two, and spans two to four from up to three of which money is taken at once.
    """
    person = chance.randrange(len(people.accounts))
    others = [code for code in people.codes if code != bank]
    kind = chance.choice(["within", "between", "composite"])
    if kind == "within":
        return person, *_one(people, person, bank, bank, chance)
    if kind == "between":
        banks = [bank, chance.choice(others)]
        chance.shuffle(banks)
        return person, *_one(people, person, banks[0], banks[1], chance)
    banks = [*chance.sample(others, min(len(others), chance.randint(1, 3))), bank]
    chance.shuffle(banks)
    payers = banks[: chance.randint(1, len(banks) - 1)]
    payees = banks[len(payers) :]
    total = chance.randint(max(len(payers), len(payees)), MAX_TRANSFER)
    debits = [
        (people.accounts[person][code], part)
        for code, part in zip(payers, _parts(total, len(payers), chance), strict=True)
    ]
    credits_ = [
        (chance.choice(people.accounts)[code], part)
        for code, part in zip(payees, _parts(total, len(payees), chance), strict=True)
    ]
    return person, debits, credits_


def _one(people: People, person: int, payer: str, payee: str, chance: random.Random) -> tuple[list[Leg], list[Leg]]:
    """From a person's account to another one."""
    amount = chance.randint(1, MAX_TRANSFER)
    others = [own[payee] for other, own in enumerate(people.accounts) if payer != payee or other != person]
    return [(people.accounts[person][payer], amount)], [(chance.choice(others), amount)]


def _parts(total: int, many: int, chance: random.Random) -> list[int]:
    """*total* in *many* parts, each at least 1."""
    cuts = [0, *sorted(chance.sample(range(1, total), many - 1)), total]
    return [end - begin for begin, end in pairwise(cuts)]


def outcome(answer: Answer) -> tuple[str, dict[str, Any]] | None:
    """How a transfer ended by this answer (``ok`` or ``fail``), and what was told; ``None`` if it must be asked again.

    An answer that the contract does not know is told as ``unexpected``.
    """
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status == 201 and body.get("status") in ("completed", "committed"):
        return "ok", {"status": body["status"], "transfer_id": body["transfer_id"]}
    if answer.status in (202, 401) or answer.code in AGAIN:
        return None
    told = {"status": answer.status, "code": answer.code, "transfer_id": body.get("transfer_id")}
    if answer.status == 422 or (answer.status == 503 and answer.code in NOTHING_MOVED):
        return "fail", told
    return "fail", {**told, "unexpected": True}


def name_of(account: AccountRef) -> str:
    return f"{account.bank}/{account.account}"


def _told(legs: Sequence[Leg]) -> list[list[Any]]:
    return [[name_of(account), amount] for account, amount in legs]


def _entry_of(entry: dict[str, Any]) -> list[Any]:
    """``[signed amount, balance after, kind, transfer, op]``."""
    amount = centavos(entry["amount"])
    signed = amount if entry["direction"] == "credit" else -amount
    return [
        signed,
        centavos(entry["balance_after"]),
        entry["kind"],
        entry.get("transfer_id"),
        entry.get("description"),
    ]


def _read_of(found: dict[str, Any]) -> dict[str, Any]:
    """What an audit says, in centavos, without the evidence."""
    return {
        "ok": found["ok"],
        "as_of": found["as_of"],
        "customers": {
            bank["bank"]: centavos(bank["customers"]) if bank["status"] == "answered" else None
            for bank in found["banks"]
        },
        "positions": [[each["bank"], each["peer"], centavos(each["owes"])] for each in found["positions"]],
        "in_doubt": [
            [each["bank"], each["transaction"], centavos(each["customers"]), each["settled"]]
            for each in found["in_doubt"]
        ],
        "findings": [[each["code"], each.get("bank"), each["detail"]] for each in found["findings"]],
    }
