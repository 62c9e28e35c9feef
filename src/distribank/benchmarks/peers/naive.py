"""Two-phase commit as a competent person writes it first: right, durable, signed, and nothing waits for company.

For every transfer: an httpx request for the prepare and one for the commit, each signed, verified and answered alone;
and five durable commits, one for each record: intent, prepared (at the other bank), decided with the debit, posted (at
the other bank), done. Only then is the client answered. The debited account is locked from intent to decision, so that
no hold is needed. The other bank is a process of its own, ``naive_participant``.

It has the success path and what refuses a payment. It has no recovery, but its records would do for one: an intent
without a decision is an abort, and a decision that is not done is sent again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from distribank.api.problems import Problem
from distribank.benchmarks.peers.front import (
    CREDITOR,
    DEBTOR,
    HOST,
    Asked,
    Payment,
    Serving,
    Sum,
    front,
    main,
    refuse,
)
from distribank.benchmarks.peers.naive_participant import Book, Message, Vote, keys, post, write_record
from distribank.core.refusals import Code
from distribank.locks import Locks
from distribank.network.processes import free_base_port
from distribank.peers.roster import create_private_key, public_key_text
from distribank.peers.signatures import Signer, Verifier


class Coordinator:
    """The bank that is debited, and that clients speak to."""

    def __init__(self, book: Book, http: httpx.AsyncClient, url: str, signer: Signer, verifier: Verifier) -> None:
        self._book = book
        self._http = http
        self._url = url
        self._signer = signer
        self._verifier = verifier
        self._accounts = Locks()

    async def pay(self, payment: Payment) -> str:
        """See ``front.Pay``."""
        debit = Message(transfer=payment.id, account=payment.debit, amount=payment.amount)
        credit = Message(transfer=payment.id, account=payment.credit, amount=payment.amount)
        async with self._accounts.hold([payment.key, payment.debit]):
            known = self._book.ordered(payment.key)
            if known is not None:
                return _known(*known)
            self._check_covered(payment)

            def intend(database: sqlite3.Connection) -> None:
                database.execute("INSERT INTO ordered VALUES (?, ?)", (payment.key, payment.id))
                write_record(database, "intent", debit)

            await self._book.write(intend)
            if not await self._ask("/prepare", credit):
                await self._book.write(lambda database: write_record(database, "aborted", debit))
                raise refuse(Code.ACCOUNT_NOT_FOUND, "there is no such account", CREDITOR, payment.credit)

            def decide(database: sqlite3.Connection) -> None:
                write_record(database, "decided", debit)
                post(database, payment.debit, -payment.amount)

            await self._book.write(decide)
        await self._ask("/commit", credit)
        await self._book.write(lambda database: write_record(database, "done", debit))
        return payment.id

    async def total(self) -> Sum:
        there = Sum.model_validate_json((await self._http.get(f"{self._url}/sum")).content)
        return Sum(centavos=self._book.total() + there.centavos, transfers=self._book.count("done"))

    def _check_covered(self, payment: Payment) -> None:
        balance = self._book.balance(payment.debit)
        if balance is None:
            raise refuse(Code.ACCOUNT_NOT_FOUND, "there is no such account", DEBTOR, payment.debit)
        if balance < payment.amount:
            raise refuse(Code.INSUFFICIENT_FUNDS, "the account does not cover this", DEBTOR, payment.debit)

    async def _ask(self, route: str, message: Message) -> bool:
        """One request to the other bank; whether it says yes."""
        url, content = f"{self._url}{route}", message.model_dump_json().encode()
        signed = self._signer.sign_request("POST", url, content)
        headers = {**signed.headers, "content-type": "application/json"}
        response = (await self._http.post(url, content=content, headers=headers)).raise_for_status()
        self._verifier.verify_response(
            response.status_code, response.headers.raw, response.content, bank=CREDITOR, nonce=signed.nonce
        )
        return Vote.model_validate_json(response.content).yes


def _known(transfer: str, decided: bool) -> str:
    if not decided:
        raise Problem("idempotency_conflict", "this key ordered a transfer that was not made; use a new one")
    return transfer


@asynccontextmanager
async def naive(asked: Asked) -> AsyncIterator[Serving]:
    port = free_base_port(1, asked.port + 1)
    _make_network(asked.data, {DEBTOR: asked.port, CREDITOR: port})
    roster, signer, verifier = keys(asked.data, DEBTOR)
    book = Book(asked.data / f"{DEBTOR}.db", asked.accounts)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with _other_bank(asked, port) as other:
        async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as http:
            coordinator = Coordinator(book, http, roster.own(CREDITOR).url, signer, verifier)
            app = front("naive", asked.token_secret, coordinator.pay, coordinator.total)
            yield app, {"coordinator": os.getpid(), **other}
    book.close()


def _make_network(data: Path, ports: dict[str, int]) -> None:
    """A new key for each bank, and the network file that both of them read."""
    data.mkdir(parents=True, exist_ok=True)
    banks = [
        {
            "code": code,
            "name": code,
            "url": f"http://{HOST}:{port}",
            "public_keys": [public_key_text(1, create_private_key(data / f"{code}.pem"))],
        }
        for code, port in ports.items()
    ]
    (data / "network.json").write_text(json.dumps({"banks": banks}), encoding="utf-8")


@contextmanager
def _other_bank(asked: Asked, port: int) -> Iterator[dict[str, int]]:
    """The participant's process by its role, serving inside the block, ended behind it."""
    program = [sys.executable, "-m", "distribank.benchmarks.peers.naive_participant", "--until-stdin-closes"]
    options = ["--port", str(port), "--data", str(asked.data), "--accounts", str(asked.accounts)]
    process = subprocess.Popen(  # noqa: S603
        [*program, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )
    try:
        assert process.stdout is not None
        ready, _, told = process.stdout.readline().partition(" ")
        assert ready == "ready", "the participant's own words say why, above"
        yield dict(json.loads(told)["processes"])
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main(naive)
