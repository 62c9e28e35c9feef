"""The other bank of the naive peer: it votes on credits and posts them; and the book that both of its banks keep.

One durable SQLite commit for each record, one request for each message, signed both ways as banks sign.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from distribank.api.problems import Problem
from distribank.benchmarks.peers.front import CREDITOR, OPENING, Asked, Serving, Sum, application, main
from distribank.core.documents import account_number
from distribank.peers.roster import Roster, load_private_key
from distribank.peers.signatures import NotSigned, Signer, Verifier
from distribank.service import SystemClock

_SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE account (number TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) WITHOUT ROWID;
    CREATE TABLE record (
        transfer TEXT, kind TEXT, account TEXT, amount INTEGER, PRIMARY KEY (transfer, kind)
    ) WITHOUT ROWID;
    CREATE TABLE ordered (key TEXT PRIMARY KEY, transfer TEXT NOT NULL) WITHOUT ROWID;
"""


class Message(BaseModel):
    """What the coordinator says of one transfer; both its messages say it all."""

    transfer: str
    account: str
    amount: int


class Vote(BaseModel):
    """Whether this bank will post the credit, if it is told to."""

    yes: bool


class Book:
    """One bank's database. Each ``write`` is one durable commit, made in a thread while the loop serves others."""

    def __init__(self, path: Path, accounts: int) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        with self._transaction():
            numbers = ((account_number(serial), OPENING) for serial in range(1, accounts + 1))
            self._database.executemany("INSERT INTO account VALUES (?, ?)", numbers)
        self._one_at_a_time = asyncio.Lock()

    async def write(self, change: Callable[[sqlite3.Connection], None]) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(self._write, change)

    def balance(self, account: str) -> int | None:
        """Centavos on *account*; ``None`` if there is no such account."""
        row = self._database.execute("SELECT balance FROM account WHERE number = ?", (account,)).fetchone()
        return None if row is None else int(row[0])

    def ordered(self, key: str) -> tuple[str, bool] | None:
        """The transfer that was ordered under *key*, and whether it is decided."""
        row = self._database.execute(
            "SELECT transfer, EXISTS (SELECT 1 FROM record WHERE transfer = ordered.transfer AND kind = 'decided')"
            " FROM ordered WHERE key = ?",
            (key,),
        ).fetchone()
        return None if row is None else (row[0], bool(row[1]))

    def total(self) -> int:
        return int(self._database.execute("SELECT sum(balance) FROM account").fetchone()[0])

    def count(self, kind: str) -> int:
        return int(self._database.execute("SELECT count(*) FROM record WHERE kind = ?", (kind,)).fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def _write(self, change: Callable[[sqlite3.Connection], None]) -> None:
        with self._transaction():
            change(self._database)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def write_record(database: sqlite3.Connection, kind: str, message: Message) -> None:
    """One line of the log: *kind* is intent, prepared, decided, aborted, posted or done."""
    database.execute(
        "INSERT INTO record VALUES (?, ?, ?, ?)", (message.transfer, kind, message.account, message.amount)
    )


def post(database: sqlite3.Connection, account: str, amount: int) -> None:
    """Move a balance by *amount* centavos, negative for a debit."""
    database.execute("UPDATE account SET balance = balance + ? WHERE number = ?", (amount, account))


def keys(data: Path, code: str) -> tuple[Roster, Signer, Verifier]:
    """What bank *code* signs and verifies with, out of the files that the coordinator made in *data*."""
    roster, clock = Roster.load(data / "network.json"), SystemClock()
    signer = Signer(f"{code}:1", load_private_key(data / f"{code}.pem"), clock, random.SystemRandom())
    return roster, signer, Verifier(roster.keys, clock)


@asynccontextmanager
async def participant(asked: Asked) -> AsyncIterator[Serving]:
    """The bank that is credited, as an application for the coordinator alone."""
    roster, signer, verifier = keys(asked.data, CREDITOR)
    own_url, book, app = roster.own(CREDITOR).url, Book(asked.data / f"{CREDITOR}.db", asked.accounts), application("B")

    async def signed(request: Request) -> str:
        """The nonce of a request that the coordinator signed."""
        try:
            url = f"{own_url}{request.url.path}"
            return verifier.verify_request("POST", url, request.headers.raw, await request.body()).nonce
        except NotSigned:
            raise Problem("unauthorized", "not signed by a bank of the network") from None

    def answer(vote: Vote, nonce: str) -> Response:
        content = vote.model_dump_json().encode()
        return Response(content, 200, signer.sign_response(200, content, nonce), "application/json")

    @app.post("/prepare", response_model=Vote)
    async def prepare(request: Request, message: Message) -> Response:
        nonce, yes = await signed(request), book.balance(message.account) is not None
        if yes:
            await book.write(lambda database: write_record(database, "prepared", message))
        return answer(Vote(yes=yes), nonce)

    @app.post("/commit", response_model=Vote)
    async def commit(request: Request, message: Message) -> Response:
        nonce = await signed(request)

        def posted(database: sqlite3.Connection) -> None:
            write_record(database, "posted", message)
            post(database, message.account, message.amount)

        await book.write(posted)
        return answer(Vote(yes=True), nonce)

    @app.get("/sum", response_model=Sum)
    async def sum_of_all() -> Sum:
        return Sum(centavos=book.total(), transfers=book.count("posted"))

    try:
        yield app, {"participant": os.getpid()}
    finally:
        book.close()


if __name__ == "__main__":
    main(participant)
