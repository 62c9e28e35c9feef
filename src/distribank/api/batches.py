"""Batches: up to a thousand transfers in one request, each atomic on its own."""

from __future__ import annotations

import hashlib
from typing import Final

from fastapi import Request
from fastapi.responses import Response

from distribank.api import headers
from distribank.api.answering import REPLAYED, answer
from distribank.api.answers import batches as answers
from distribank.api.docs import problems
from distribank.api.edge import bank_of, holder_of
from distribank.api.orders import BatchOrder
from distribank.api.problems import Problem
from distribank.api.routes import HolderRoute, OrderRoute, router
from distribank.api.transfers import fingerprint, is_id, pending
from distribank.bank import KeyName
from distribank.core.batches import BatchItem, Mode, OnFailure

ordering = router("Transfers", OrderRoute)
batches = router("Transfers", HolderRoute)
ROUTE: Final = "transfer-batches"


@ordering.post(
    "/v1/transfer-batches",
    status_code=201,
    response_model=answers.Batch,
    responses={
        **pending("Still running when the wait ended", answers.Batch),
        **problems(
            {
                400: "`idempotency_key_required`, `invalid_idempotency_key`, `malformed_json`",
                422: "`idempotency_conflict`, `invalid_amount`, `invalid_account_number`, `unknown_bank`, "
                "`invalid_request`; what is wrong with one transfer alone stands in its result",
            }
        ),
    },
    openapi_extra={"parameters": [headers.IDEMPOTENCY_KEY, headers.PREFER]},
    summary="Order many transfers",
)
async def order_batch(request: Request, order: BatchOrder) -> Response:
    """`sequential`: one after the other, stopping behind the first that fails unless `on_failure` is `continue`;
    `concurrent`: all at once. Under one key: a retry, or a crash, runs none of them twice.
    """
    bank, holder = bank_of(request), holder_of(request)
    key, preference = headers.idempotency_key(request), headers.preference(request)
    items = order.items(bank.code)
    mode, on_failure = Mode(order.mode), OnFailure(order.on_failure)
    name = KeyName(holder.holder_id, ROUTE, key, _fingerprint(items, mode, on_failure))
    result = await bank.batching.order(holder, items, mode, on_failure, name, preference.wait)
    finished = result.batch.finished_at is not None
    located = {**preference.headers, "Location": f"/v1/transfer-batches/{result.batch.batch_id}"}
    return answer(
        answers.batch(result, bank.code, holder),
        201 if finished else 202,
        {**located, **REPLAYED} if result.replayed else located,
    )


@batches.get(
    "/v1/transfer-batches/{batch_id}",
    response_model=answers.Batch,
    responses=problems({404: "`not_found`: no such batch, or another holder's"}),
    summary="One batch",
)
async def see_batch(request: Request, batch_id: str) -> Response:
    """With each transfer as it stands now, in the order given."""
    bank, holder = bank_of(request), holder_of(request)
    result = await bank.batching.batch_for(holder.holder_id, batch_id) if is_id(batch_id) else None
    if result is None:
        raise Problem("not_found", "there is no such batch, or it is another holder's")
    return answer(answers.batch(result, bank.code, holder))


def _fingerprint(items: tuple[BatchItem, ...], mode: Mode, on_failure: OnFailure) -> str:
    digest = hashlib.sha256(f"{mode} {on_failure}".encode())
    for item in items:
        digest.update(fingerprint(item.legs, item.description).encode())
    return digest.hexdigest()
