"""A batch and what became of its transfers."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from distribank.api.answers.transfers import Reason, TransferStatus, reason, transfer
from distribank.api.answers.words import Answer, Json, Time
from distribank.bank import BatchResult
from distribank.core.holders import Holder
from distribank.core.protocol import Transaction
from distribank.core.refusals import Code, Refusal
from distribank.moments import format_ms


class BatchItem(Answer):
    """What became of one transfer of a batch: the transfer's own fields, or the reason why there is none."""

    model_config = ConfigDict(extra="allow")

    index: int = Field(description="Its place in the order given, from 0.")
    transfer_id: str | None = Field(description="Null where no transfer was begun.")
    status: TransferStatus
    reason: Reason | None = Field(default=None, description="Why nothing moved, where nothing did.")


class Batch(Answer):
    """A batch and its results so far."""

    batch_id: str = Field(description="As in the address of the batch.")
    status: Literal["running", "completed"]
    mode: Literal["sequential", "concurrent"]
    on_failure: Literal["stop", "continue"]
    created_at: Time = Field(description="When it was ordered.")
    completed_at: Time | None = Field(default=None, description="When its last transfer had ended.")
    results: list[BatchItem] = Field(description="In the order given.")


def batch(result: BatchResult, bank: str, viewer: Holder) -> Json:
    """A batch with its results so far, for the holder who ordered it."""
    row = result.batch
    view = {
        "batch_id": row.batch_id,
        "status": "running" if row.finished_at is None else "completed",
        "mode": row.mode.value,
        "on_failure": row.on_failure.value,
        "created_at": format_ms(row.created_at),
        "results": [
            {"index": index, **_item(item, bank, viewer, running=row.finished_at is None)}
            for index, item in enumerate(result.results)
        ],
    }
    if row.finished_at is not None:
        view["completed_at"] = format_ms(row.finished_at)
    return view


def _item(item: Transaction | Refusal | None, bank: str, viewer: Holder, *, running: bool) -> Json:
    if isinstance(item, Transaction):
        return transfer(item, bank, viewer, ())
    if item is None:
        return {"transfer_id": None, "status": "pending" if running else "cancelled"}
    status = "cancelled" if item.code is Code.NOT_RUN else "aborted"
    return {"transfer_id": None, "status": status, "reason": reason(item)}
