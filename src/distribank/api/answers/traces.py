"""One transfer at all its banks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import ConfigDict, Field

from distribank.api.answers.transfers import STATUS, TransferStatus
from distribank.api.answers.words import Answer, Bank, Json, Time
from distribank.bank import Reply
from distribank.core import story
from distribank.core.clock import wall_of
from distribank.core.protocol import IN_DOUBT, Transaction
from distribank.moments import format_ms


class TraceLine(Answer):
    """One record of one bank's log."""

    model_config = ConfigDict(populate_by_name=True)

    bank: Bank
    at: Time = Field(description="When, by that bank's clock.")
    stamp: str = Field(
        description="The hybrid logical clock by which lines are in order.", examples=["117964800000000000"]
    )
    record: str = Field(description="`Begun`, `Prepared`, `Decided`, `Resolved` or `Ended`.")
    from_: str = Field(alias="from", description="The state there before.")
    to: str = Field(description="The state there since.")
    detail: str = Field(description="What happened, in words.")


class TracedBank(Answer):
    """A bank that takes part, and whether its lines are here."""

    bank: Bank
    name: str = Field(description="The bank's name for people.")
    status: Literal["answered", "offline", "silent"] = Field(
        description="`offline`: it could not be reached. `silent`: it did not answer within 2 s."
    )


class Trace(Answer):
    """Every bank's log of one transfer, merged in clock order."""

    transfer_id: str = Field(description="The protocol's transaction id.")
    status: TransferStatus = Field(description="As this bank knows it.")
    in_doubt: bool = Field(description="This bank has voted yes and has not heard the outcome.")
    coordinator: Bank
    lines: list[TraceLine]
    banks: list[TracedBank] = Field(description="Every bank that takes part, this one first.")


def trace(
    known: Transaction, lines: Iterable[story.Line], replies: Mapping[str, Reply], names: Mapping[str, str]
) -> Json:
    """What is *known* here, every bank's *lines* as told, and who replied; *names* has every bank's of those."""
    return {
        "transfer_id": known.id,
        "status": STATUS[known.state],
        "in_doubt": known.state in IN_DOUBT,
        "coordinator": known.coordinator,
        "lines": [_line(line) for line in lines],
        "banks": [{"bank": code, "name": names[code], "status": said.value} for code, said in replies.items()],
    }


def _line(line: story.Line) -> Json:
    return {
        "bank": line.bank,
        "at": format_ms(wall_of(line.record.stamp)),
        "stamp": str(line.record.stamp),
        "record": line.record.kind.value,
        "from": line.record.before,
        "to": line.record.after,
        "detail": line.words,
    }
