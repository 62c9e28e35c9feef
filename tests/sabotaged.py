"""A bank that loses money: the shipped bank, whose store forgets what transfers bring to the first of its accounts.

Run in a bank's place, ``python -m tests.sabotaged --env-file …``, it shows that the torture test can find something.
"""

from __future__ import annotations

import argparse
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from distribank.config import Settings
from distribank.core.ledger import Account, Entry, EntryKind
from distribank.core.transfer import Direction
from distribank.network.processes import stop_when_stdin_closes
from distribank.ports import Row, Store, Unit
from distribank.service import Wrapping, run

VICTIM = "00000001-9"


class Forgetful:
    """A store that leaves the entry out, and its amount out of the account: all else goes on as ever."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def decide(self, names: Iterable[str], body: Callable[[Unit], Awaitable[Any]]) -> Any:
        return await self._store.decide(names, lambda unit: body(ForgetfulUnit(unit)))  # type: ignore[arg-type]


class ForgetfulUnit:
    """One decision of such a store."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unit, name)

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:
        rows = list(rows)
        lost = sum(row.amount for row in rows if isinstance(row, Entry) and is_lost(row))
        kept = [without(row, lost) for row in rows if not (isinstance(row, Entry) and is_lost(row))]
        return self._unit.write(kept, lazy=lazy)


def is_lost(entry: Entry) -> bool:
    return (entry.account, entry.kind, entry.direction) == (VICTIM, EntryKind.TRANSFER, Direction.CREDIT)


def without(row: Row, lost: int) -> Row:
    return replace(row, posted=row.posted - lost) if isinstance(row, Account) and row.number == VICTIM else row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-file", type=Path, required=True)
    arguments = parser.parse_args()
    stop_when_stdin_closes()
    raise SystemExit(run(Settings.load(arguments.env_file), Wrapping(store=Forgetful)))
