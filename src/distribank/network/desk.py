"""What is in doubt, or in suspense, at the banks of a data directory, asked of each as its operator, by the contract.

All banks are asked at once, each within a limit of time: one that does not answer is named, and keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distribank.breakages import Breakage
from distribank.network.client import Answer, Session, client_of
from distribank.network.layout import LocalBank

LIST_SECONDS: Final = 5.0
"""How long a bank may take to sign its operator in and list."""
ASK_SECONDS: Final = 30.0
"""How long it may take to ask the other banks for an outcome."""

NEXT: Final = {
    "not_in_suspense": "`in-doubt suspense` lists what is there",
    "insufficient_funds": "assign less, wait until the account has it, or write it off (--write-off)",
    "account_closed": "name another account of this bank (--account), or write it off (--write-off)",
    "account_not_found": "name an account of this bank (--account), or write it off (--write-off)",
    "idempotency_conflict": "this key has done something else: leave --key out for a new one",
}
"""What an operator can do where an assignment is refused."""

Json = dict[str, Any]


@dataclass(slots=True)
class Found:
    """What the banks said: ``items``, each with the bank that said it; and, by bank, why there was no answer."""

    items: list[Json] = field(default_factory=list)
    unanswered: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        return {
            "items": self.items,
            "unanswered": [{"bank": bank, "why": why} for bank, why in self.unanswered.items()],
        }

    def only(self, transaction: str) -> Found:
        """What concerns one transaction, given by its id or by the end of it."""
        return Found([item for item in self.items if item["transaction"].endswith(transaction)], self.unanswered)


async def in_doubt(banks: Sequence[LocalBank]) -> Found:
    """Everything that is in doubt."""

    async def ask(operator: Session) -> list[Json]:
        items: list[Json] = (await operator.get("/v1/operator/in-doubt")).expect(200)["items"]
        return items

    return await ask_of_each(banks, ask)


async def forced(banks: Sequence[LocalBank]) -> Found:
    """Every outcome that an operator has forced, and what became of it."""

    async def ask(operator: Session) -> list[Json]:
        items, _ = await whole_list(operator, "/v1/operator/heuristics")
        return items

    return await ask_of_each(banks, ask)


async def suspense(banks: Sequence[LocalBank]) -> Found:
    """What is in suspense, and all that moved it, by bank; a bank that never had any is left out."""

    async def ask(operator: Session) -> list[Json]:
        movements, book = await whole_list(operator, "/v1/operator/suspense")
        sides = {name: book[name] for name in ("balance", "owing", "owed")}
        return [{**sides, "movements": movements}] if movements else []

    return await ask_of_each(banks, ask)


async def assign(bank: LocalBank, order: Json, key: str) -> Json:
    """Assign out of *bank*'s suspense what *order* says, once under *key*: the assignment as the bank has kept it."""
    try:
        answer = await post(bank, "/v1/operator/suspense/assignments", order, key)
    except Breakage as breakage:
        raise Breakage(f"{breakage}; it may have been done: to say it again and do it once, add --key {key}") from None
    try:
        body: Json = answer.expect(201)
    except Breakage as breakage:
        raise Breakage(f"{breakage}; {NEXT[answer.code]}" if answer.code in NEXT else str(breakage)) from None
    return body


async def inquire(bank: LocalBank, transaction: str) -> Json:
    """Have *bank* ask the others now: the doubt as it stands behind that, ``in_doubt`` false if it is settled."""
    answer = await post(bank, f"/v1/operator/in-doubt/{transaction}/inquire", {})
    body: Json = answer.expect(200)
    return body


async def resolve(bank: LocalBank, transaction: str, decision: str, reason: str) -> Json:
    """Force *decision*, ``commit`` or ``abort``, at *bank* alone: what the bank has recorded of it."""
    order = {"decision": decision, "reason": reason}
    body: Json = (await post(bank, f"/v1/operator/in-doubt/{transaction}/resolve", order)).expect()
    return body


async def whole_list(operator: Session, path: str) -> tuple[list[Json], Json]:
    """All items of a list that comes in pages, and its first page."""
    first: Json = (await operator.get(path)).expect(200)
    items, cursor = first["items"], first["next_cursor"]
    while cursor is not None:
        page = (await operator.get(path, cursor=cursor)).expect(200)
        items, cursor = items + page["items"], page["next_cursor"]
    return items, first


async def post(bank: LocalBank, path: str, body: Json, key: str | None = None) -> Answer:
    try:
        async with asyncio.timeout(ASK_SECONDS), client_of(bank) as client:
            return await (await client.operator()).post(path, body, key)
    except TimeoutError:
        raise Breakage(f"{bank.name} ({bank.code}) did not answer within {ASK_SECONDS:.0f} s") from None


async def ask_of_each(banks: Sequence[LocalBank], ask: Callable[[Session], Awaitable[list[Json]]]) -> Found:
    found = Found()

    async def of(bank: LocalBank) -> list[Json]:
        try:
            async with asyncio.timeout(LIST_SECONDS), client_of(bank) as client:
                return await ask(await client.operator())
        except TimeoutError:
            found.unanswered[bank.code] = f"no answer within {LIST_SECONDS:.0f} s"
        except Breakage as breakage:
            found.unanswered[bank.code] = str(breakage)
        return []

    for bank, items in zip(banks, await asyncio.gather(*map(of, banks)), strict=True):
        found.items += [{"bank": bank.code, "bank_name": bank.name, **item} for item in items]
    return found
