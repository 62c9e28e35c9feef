"""What the peers have in common: one command line, one way to be served and ended, and the front that clients speak to.

::

    python -m distribank.benchmarks.peers.NAME --port P --data DIR --accounts N
                                               [--token-secret S] [--until-stdin-closes]

There are two banks with *N* accounts each, numbered from the first, with 1,000,000.00 BRL on every one. *DIR* is empty,
or made. Once it serves, a peer prints ``ready {"processes": {role: pid, …}}``; it ends with status 0 on SIGTERM (or, if
told so, once its standard input is closed), its children with it. Where it cannot run it prints ``cannot: `` and why,
and ends with status 3. ``GET /sum`` tells the money at both banks and how many transfers were committed. Everything is
on this machine, and reached over its loopback.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from distribank.api import headers
from distribank.api.answering import answer
from distribank.api.answers import transfers as answers
from distribank.api.edge import bearer_token
from distribank.api.orders import TransferOrder
from distribank.api.problems import REFUSALS, Problem, on_refusal, refused
from distribank.api.server import BACKLOG, Server, bind, configured, run
from distribank.api.tokens import Tokens
from distribank.breakages import Breakage
from distribank.core.holders import Holder
from distribank.core.protocol import Role, State, Transaction, Voted
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Order, check_legs
from distribank.network.processes import stop_when_stdin_closes

HOST: Final = "127.0.0.1"
DEBTOR: Final = "99990001"
"""The bank whose accounts are debited: clients speak to it, and it coordinates."""

CREDITOR: Final = "99990002"
OPENING: Final = 100_000_000
"""Centavos on every account at the start."""

TOKEN_LIFETIME: Final = 3_600
CANNOT: Final = 3
"""The exit status of a peer that cannot run here."""


class CannotRun(Breakage):
    """This peer cannot run here; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line: *accounts* is how many at each bank."""

    port: int
    data: Path
    accounts: int
    token_secret: str


class Sum(BaseModel):
    """The money of both banks in centavos, and the transfers committed so far."""

    centavos: int
    transfers: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One transfer as ordered: out of *debit* at the debtor's bank, into *credit* at the other; *amount* in centavos.

    *id* is new; *key* is the order's idempotency key, with the holder's id before it.
    """

    id: str
    key: str
    debit: str
    credit: str
    amount: int


Pay = Callable[[Payment], Awaitable[str]]
"""Carries a payment out: the id of what was committed under its key, once that is durable. Raises ``Problem``."""

Serving = tuple[FastAPI, dict[str, int]]
"""An application, and the pid of each process that works for it, by role."""


def main(peer: Callable[[Asked], AbstractAsyncContextManager[Serving]]) -> None:
    """Run *peer* as a program: this is the whole of its ``__main__``."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--token-secret", default="")
    parser.add_argument("--until-stdin-closes", action="store_true")
    given = vars(parser.parse_args())
    if given.pop("until_stdin_closes"):
        stop_when_stdin_closes()
    asked = Asked(**given)
    try:
        sys.exit(run(_serve(asked, peer)))
    except CannotRun as why:
        print(f"cannot: {why}", flush=True)
        sys.exit(CANNOT)


async def _serve(asked: Asked, peer: Callable[[Asked], AbstractAsyncContextManager[Serving]]) -> int:
    with bind(HOST, asked.port) as listening:
        async with peer(asked) as (app, processes):
            listening.listen(BACKLOG)
            print("ready", json.dumps({"processes": processes}), flush=True)
            await Server(configured(app, HttpToolsProtocol), lambda: None).serve(sockets=[listening])
    return 0


def application(title: str) -> FastAPI:
    """An application without routes that says what is wrong as a bank does, and describes nothing."""
    return FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers=dict.fromkeys(REFUSALS, on_refusal),
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )


def front(title: str, token_secret: str, pay: Pay, total: Callable[[], Awaitable[Sum]]) -> FastAPI:
    """The application of a peer that moves money by *pay*: a standard FastAPI route, tokens checked as banks do."""
    app = application(title)
    tokens = Tokens(DEBTOR, token_secret, TOKEN_LIFETIME, wall_ms)

    @app.post("/v1/transfers", status_code=201, response_model=answers.Transfer)
    async def order_transfer(request: Request, order: TransferOrder) -> Response:
        identity = await tokens.identify(bearer_token(request) or "", _holder)
        if identity is None or identity.holder is None:
            raise Problem("unauthorized", "send a holder's token: `Authorization: Bearer …`")
        holder, key = identity.holder, headers.idempotency_key(request)
        begun_at = wall_ms()
        payment = _payment(order, f"{holder.holder_id} {key}")
        paid = await pay(payment)
        return answer(answers.transfer(_committed(paid, order, holder, begun_at), DEBTOR, holder, ()), 201)

    @app.get("/sum", response_model=Sum)
    async def sum_of_all() -> Sum:
        return await total()

    return app


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def refuse(code: Code, detail: str, bank: str, account: str) -> Problem:
    """The problem that a refused leg is."""
    return refused(Refusal(code, detail, bank, account))


async def _holder(holder_id: str) -> Holder:
    """Whoever has a token is a holder here."""
    return Holder("52998224725", holder_id, "Maria da Silva", "", 0)


def _payment(order: TransferOrder, key: str) -> Payment:
    legs = order.legs(DEBTOR)
    refusal = check_legs(legs)
    if refusal is not None:
        raise refused(refusal)
    if [leg.bank for leg in legs] != [DEBTOR, CREDITOR]:
        raise Problem("invalid_request", f"this peer takes one debit at {DEBTOR} and one credit at {CREDITOR}")
    debit, credit = legs
    return Payment(f"{DEBTOR}.{secrets.token_hex(16)}", key, debit.account, credit.account, debit.amount)


def _committed(transfer: str, order: TransferOrder, holder: Holder, begun_at: int) -> Transaction:
    """A transfer that has just been decided, in the words of the core, so that its answer is a bank's own."""
    now = wall_ms()
    minute = datetime.fromtimestamp(begun_at / 1000, UTC).strftime("%Y%m%d%H%M")
    return Transaction(
        transfer,
        Role.COORDINATOR,
        State.COMMITTING,
        begun_at,
        (CREDITOR,),
        Order(
            f"E{DEBTOR}{minute}{transfer[-11:]}",
            holder.cpf,
            holder.holder_id,
            order.description,
            begun_at,
            order.legs(DEBTOR),
        ),
        decided_at=now,
        votes=(Voted(CREDITOR, True, now),),
    )
