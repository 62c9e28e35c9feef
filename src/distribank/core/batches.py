"""Transfer batches: many transfers under one key, each atomic on its own.

The batch with all its orders is durable before its first transfer. Item *i* is deduplicated by the key
(batch, *i*), which is written with its decision: a crash repeats none and forgets none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from distribank.core.transfer import Leg
from distribank.core.values import dataclass

MAX_TRANSFERS: Final = 1000


class Mode(StrEnum):
    SEQUENTIAL = "sequential"
    CONCURRENT = "concurrent"


class OnFailure(StrEnum):
    STOP = "stop"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One transfer as ordered in a batch."""

    legs: tuple[Leg, ...]
    description: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was ordered by one holder; *finished_at* (milliseconds) once every item has its result."""

    batch_id: str
    holder_id: str
    mode: Mode
    on_failure: OnFailure
    items: tuple[BatchItem, ...]
    created_at: int
    finished_at: int | None = None


def item_route(batch_id: str) -> str:
    """The route under which the items' idempotency keys stand."""
    return f"batch:{batch_id}"
