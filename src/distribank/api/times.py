"""Times as clients write and read them: RFC 3339, in UTC with ``Z``. Inside they are milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS: Final = 86_400_000
_WHAT_IS_MEANT: Final = "a time is written as in 2026-11-23T12:00:00Z (RFC 3339)"


def parse_moment(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time; ``ValueError`` for anything else, times without a zone included."""
    if not _MOMENT.fullmatch(text):
        raise ValueError(_WHAT_IS_MEANT)
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)  # what has no year of four digits there overflows
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise ValueError(_WHAT_IS_MEANT) from None


def parse_bound(text: str, *, end: bool) -> int:
    """The same for one end of a period, where a day will do: its beginning, or with *end* that of the next day."""
    text = text.replace(" ", "+")  # an offset whose plus sign was not escaped in the address
    if not _DAY.fullmatch(text):
        return parse_moment(text)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("a day is written as in 2026-11-23") from None
    return (day - _EPOCH.date()).days * _DAY_MS + (_DAY_MS if end else 0)
