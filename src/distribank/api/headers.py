"""What travels beside a body: Idempotency-Key, Prefer (RFC 7240), Accept, Last-Event-ID."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.requests import HTTPConnection

from distribank.api.problems import Problem

MAX_KEY: Final = 255
DEFAULT_WAIT: Final = 5.0
"""Seconds that a client waits for an outcome if it says nothing."""

MAX_WAIT: Final = 30
"""Seconds that a client may ask to wait."""

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED: Final = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_WAIT: Final = re.compile(r'wait\s*=\s*("?)([0-9]{1,9})\1', re.IGNORECASE)
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)
_CHANGE: Final = re.compile(r"[0-9]{1,18}")

NEGOTIATED: Final = {"Vary": "Accept"}
"""Sent with what would look different for another ``Accept``."""

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "1 to 255 visible characters, quoted or bare, made anew for each order; send the same again to "
    "repeat a request safely: the same key again moves nothing. Kept for 90 days.",
    "schema": {"type": "string", "pattern": r'^([!#-~][!-~]{0,254}|"[!#-\[\]-~]{1,255}")$'},
    "example": "2f1c0f0e-7d5b-4c39-8d54-3f6f0c2b9a11",
}
PREFER: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=n`: wait for the outcome at most *n* seconds (5 if left out, at most 30); `respond-async`: "
    "do not wait (RFC 7240).",
    "schema": {"type": "string"},
    "example": "wait=5",
}
LAST_EVENT_ID: Final[dict[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that was received: the stream goes on behind it.",
    "schema": {"type": "string"},
}


@dataclass(frozen=True, slots=True)
class Preference:
    """How long to wait, in seconds, and what of the Prefer header was taken up, if anything."""

    wait: float
    applied: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Preference-Applied": self.applied} if self.applied else {}


NO_PREFERENCE: Final = Preference(DEFAULT_WAIT, None)


def values(request: HTTPConnection, name: bytes) -> list[str]:
    """What stands in each header *name* (small letters) of this request. Starlette's way decodes all others, too."""
    raw: list[tuple[bytes, bytes]] = request.scope["headers"]
    return [value.decode("latin-1") for header, value in raw if header == name]


def idempotency_key(request: Request) -> str:
    """The key of this request, the same whether quoted or bare; raises a problem if it is no key."""
    given = values(request, b"idempotency-key")
    if not given or not given[0].strip():
        raise Problem("idempotency_key_required", "send an Idempotency-Key header: 1 to 255 visible characters")
    key = given[0].strip()
    if key.startswith('"') and (quoted := _QUOTED.fullmatch(key)) is not None:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif key.startswith('"'):
        key = ""
    if len(given) > 1 or not _VISIBLE.fullmatch(key):
        raise Problem("invalid_idempotency_key", f"one key of 1 to {MAX_KEY} visible ASCII characters, quoted or bare")
    return key


def preference(request: Request) -> Preference:
    """How long this client wants to wait. What cannot be understood is ignored, as RFC 7240 asks."""
    given = values(request, b"prefer")
    if not given:
        return NO_PREFERENCE
    preferences = [part.split(";")[0].strip() for part in ",".join(given).split(",")]
    waits = [found for part in preferences if (found := _WAIT.fullmatch(part)) is not None]
    respond_async = any(part.lower() == "respond-async" for part in preferences)
    applied = ["respond-async"] if respond_async else []
    wait = 0.0 if respond_async else DEFAULT_WAIT
    if waits:
        seconds = min(int(waits[0][2]), MAX_WAIT)
        applied.append(f"wait={seconds}")
        wait = float(seconds)
    return Preference(wait, ", ".join(applied) or None)


def prefers_csv(request: Request) -> bool:
    """Whether the client would rather have text/csv than application/json."""
    return preferred(request, "application/json", "text/csv") == "text/csv"


def preferred(request: Request, *media_types: str) -> str:
    """Which of *media_types* the client would rather have; the first of those that it likes as much."""
    accept = ",".join(request.headers.getlist("accept"))
    return max(media_types, key=lambda media_type: _quality(accept, media_type))


def last_event_id(request: Request) -> int | None:
    """The change number that the client has seen last; ``None`` if it has none of ours."""
    given = request.headers.get("last-event-id", "")
    return int(given) if _CHANGE.fullmatch(given) else None


def _quality(accept: str, media_type: str) -> float:
    """The weight that *accept* gives to *media_type*: that of the most specific range which covers it (RFC 9110)."""
    ranges = {"*/*": 0, media_type.split("/")[0] + "/*": 1, media_type: 2}
    best, weight = -1, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if ranges.get(name, -1) > best:
            found = next((q for piece in parameters if (q := _QUALITY.fullmatch(piece)) is not None), None)
            best, weight = ranges[name], float(found[1]) if found else 1.0
    return weight
