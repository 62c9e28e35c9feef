"""Moments in words: RFC 3339, in UTC with ``Z`` and milliseconds, as clients and other banks read them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def format_ms(ms: int) -> str:
    """*ms* since 1970 as people and programs read it: ``2026-11-23T12:00:00.000Z``."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Remembered, because the times of a transfer mostly lie in one second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
