"""The framework alone: the body and the answer of a transfer on a standard FastAPI route, and nothing between them.

No token is looked at and no money moves. What this answers in a second is the ceiling of any standard route.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from distribank.api.answers import transfers as answers
from distribank.api.orders import TransferOrder
from distribank.benchmarks.peers.front import CREDITOR, DEBTOR, OPENING, Asked, Serving, Sum, application, main

_ANSWER: Final = {
    "transfer_id": f"{DEBTOR}.00000000000000000000000000000000",
    "end_to_end_id": f"E{DEBTOR}202611231200abcdefghijk",
    "status": "committed",
    "in_doubt": False,
    "iso20022": {"status": "ACSC"},
    "coordinator": DEBTOR,
    "debits": [{"bank": DEBTOR, "account": "00000001-9", "amount": "1.00"}],
    "credits": [{"bank": CREDITOR, "account": "00000001-9", "amount": "1.00"}],
    "participants": [{"bank": CREDITOR, "vote": "yes", "acknowledged_at": None}],
    "created_at": "2026-11-23T12:00:00.000Z",
    "decided_at": "2026-11-23T12:00:00.004Z",
}


@asynccontextmanager
async def noop(asked: Asked) -> AsyncIterator[Serving]:
    app, answered = application("no-op"), 0

    @app.post("/v1/transfers", status_code=201, response_model=answers.Transfer, response_model_exclude_unset=True)
    async def order_transfer(_: TransferOrder) -> Any:
        nonlocal answered
        answered += 1
        return _ANSWER

    @app.get("/sum", response_model=Sum)
    async def sum_of_all() -> Any:
        return {"centavos": 2 * asked.accounts * OPENING, "transfers": answered}

    yield app, {"noop": os.getpid()}


if __name__ == "__main__":
    main(noop)
