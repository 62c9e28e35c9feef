"""Balances that update by themselves: server-sent events of one account, resumable without loss."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request
from fastapi.responses import Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from distribank.api import headers
from distribank.api.accounts import NOT_THEIRS, AccountPath, no_such_account
from distribank.api.answers.accounts import balance, hold
from distribank.api.answers.statements import entry
from distribank.api.answers.words import Json
from distribank.api.docs import problems
from distribank.api.edge import Edge, edge_of, holder_of, identity_of
from distribank.api.routes import HolderRoute, router
from distribank.core.ledger import Account, Entry, Hold
from distribank.core.protocol import Transaction

events = router("Accounts", HolderRoute)
KEEP_ALIVE: Final = 15.0
"""Seconds between comments, so that nobody in between takes a silent stream for dead."""

RECONNECT_MS: Final = 1_000


@events.get(
    "/v1/accounts/{account}/events",
    response_class=Response,
    responses={
        200: {
            "description": "`balance` (the whole balance, at once and after each change), `entry`, `hold`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems({**NOT_THEIRS, 422: "`invalid_account_number`"}),
    },
    openapi_extra={"parameters": [headers.LAST_EVENT_ID]},
    summary="Balance, entries and holds as they happen",
)
async def watch(request: Request, account: AccountPath) -> Response:
    """Server-sent events. With `Last-Event-ID` the stream goes on behind that event. It ends with the token's hour."""
    edge = edge_of(request)
    if await edge.bank.custody.account_for(holder_of(request).holder_id, account) is None:
        raise no_such_account()
    seconds = (identity_of(request).expires_at - edge.wall_ms()) / 1000
    return EventStream(edge, account, headers.last_event_id(request), seconds)


class EventStream(Response):
    """The events of *account* behind change number *after*, for *seconds*, or until the client goes or the bank stops.

    An event's id is the number of the last change told. A balance alone never moves it past an entry not yet sent.
    """

    media_type = "text/event-stream"

    def __init__(self, edge: Edge, account: str, after: int | None, seconds: float) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._edge = edge
        self._account = account
        self._after = after
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(_keep_alive(send))
            ends = (
                group.create_task(self._tell(send)),
                group.create_task(_client_gone(receive)),
                group.create_task(self._edge.stopping.wait()),
            )
            await asyncio.wait(ends, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in (keeping, *ends):
                task.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Send) -> None:
        await _send_part(send, f"retry: {RECONNECT_MS}\n\n".encode())
        bank, told = self._edge.bank, self._after
        async for number, kind, row in bank.reading.watch(self._account, self._after):
            if kind != "balance" or told is None:
                told = number
            known = await bank.reading.transfer_of(row) if isinstance(row, Entry) else None
            data = to_json(_view(row, bank.code, known)).decode()
            await _send_part(send, format_sse_event(event=kind, id=str(told), data_str=data))


async def _keep_alive(send: Send) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE)
        await _send_part(send, KEEPALIVE_COMMENT)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _view(row: Account | Entry | Hold, bank: str, known: Transaction | None) -> Json:
    if isinstance(row, Account):
        return balance(row)
    return entry(row, bank, known) if isinstance(row, Entry) else hold(row)
