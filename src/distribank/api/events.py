"""Balances that update by themselves: server-sent events of one account, resumable without loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic_core import to_json

from distribank.api import headers, views
from distribank.api.accounts import NOT_THEIRS, AccountPath, no_such_account
from distribank.api.answers import Json
from distribank.api.docs import problems
from distribank.api.edge import Edge, edge_of, holder_of, identity_of
from distribank.api.routes import HolderRoute, router
from distribank.bank.reading import Change
from distribank.core.ledger import Account, Entry, Hold

events = router("Accounts", HolderRoute)
KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that nobody in between takes the stream for dead."""

RECONNECT_MS: Final = 1_000


@events.get(
    "/v1/accounts/{account}/events",
    response_class=StreamingResponse,
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
    return StreamingResponse(
        _stream(edge, account, headers.last_event_id(request), seconds),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        media_type="text/event-stream",
    )


async def _stream(edge: Edge, account: str, after: int | None, seconds: float) -> AsyncIterator[bytes]:
    """The events as bytes, until *seconds* have passed, the bank stops or the client goes.

    An event's id is the number of the last change told. A balance alone never moves it past an entry not yet sent.
    """
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    told = after
    async for change in _until_the_end(edge, account, after, seconds):
        if change is None:
            yield KEEPALIVE_COMMENT
            continue
        number, kind, row = change
        if kind != "balance" or told is None:
            told = number
        yield format_sse_event(event=kind, id=str(told), data_str=to_json(_view(row)).decode())


async def _until_the_end(edge: Edge, account: str, after: int | None, seconds: float) -> AsyncIterator[Change | None]:
    """Changes as they come, ``None`` after a silence; the watching is over when this is."""
    changes = edge.bank.reading.watch(account, after)
    stopping = asyncio.ensure_future(edge.stopping.wait())
    coming: asyncio.Future[Change] | None = None
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while not stopping.done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
            coming = coming or asyncio.ensure_future(anext(changes))
            await asyncio.wait((coming, stopping), timeout=min(left, KEEP_ALIVE), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                if not stopping.done():
                    yield None
                continue
            change, coming = coming, None
            try:
                yield change.result()
            except StopAsyncIteration:
                return
    finally:
        stopping.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))


def _view(row: Account | Entry | Hold) -> Json:
    if isinstance(row, Account):
        return views.balance(row)
    return views.entry(row) if isinstance(row, Entry) else views.hold(row)
