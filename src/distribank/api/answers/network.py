"""This bank among the others, and whether it is well."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distribank.api.answers.words import Answer, Bank, Json, Time
from distribank.core.protocol import PROTOCOL_VERSION
from distribank.moments import format_ms
from distribank.ports import PeerView


class Peer(Answer):
    """Another bank of the network as this one finds it."""

    bank: Bank
    name: str = Field(description="The bank's name for people.")
    url: str = Field(description="Where it is served.")
    status: Literal["online", "offline", "unknown"]
    since: Time = Field(description="Since when it has had this status.")
    rtt_ms: float | None = Field(description="Round trip of the last exchange, in milliseconds.")
    last_error: str | None = Field(description="What went wrong last; null while nothing does.")


class Network(Answer):
    """This bank and the others of its roster."""

    bank: Bank
    name: str = Field(description="This bank's name for people.")
    protocol_version: int = Field(description="What it speaks with other banks.")
    peers: list[Peer]


def network(bank: str, name: str, peers: list[PeerView]) -> Json:
    return {"bank": bank, "name": name, "protocol_version": PROTOCOL_VERSION, "peers": [_peer(view) for view in peers]}


def _peer(view: PeerView) -> Json:
    return {
        "bank": view.bank,
        "name": view.name,
        "url": view.url,
        "status": view.status.value,
        "since": format_ms(view.since),
        "rtt_ms": None if view.rtt_ms is None else round(view.rtt_ms, 1),
        "last_error": view.last_error,
    }


class Health(Answer):
    status: Literal["alive", "ready"]
    bank: Bank
