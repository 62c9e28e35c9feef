"""Lists in pages: a limit, and an opaque cursor that says where the next page begins.

A cursor is the sort key of the last row of the page before, so that a page stays right while rows are added.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

from fastapi import Query

from distribank.api.problems import Problem

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_CURSOR: Final = 256

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items per page, 1 to 200.")]
Cursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR, description="`next_cursor` of the page before; leave out for the first.")
]
SortKey = tuple[int | str, ...]
Row = TypeVar("Row")


def after(cursor: str | None, *kinds: type[int] | type[str]) -> Any:
    """The sort key in *cursor*, whose parts are of *kinds*; empty without a cursor. Raises ``invalid_cursor``."""
    if not cursor:
        return ()
    key = _decode(cursor)
    if (
        key is None
        or len(key) != len(kinds)
        or any(type(part) is not kind for part, kind in zip(key, kinds, strict=True))
    ):
        raise Problem("invalid_cursor", "send a cursor as this list's `next_cursor` gave it, or none")
    return tuple(key)


def page(
    rows: Sequence[Row], limit: int, view: Callable[[Row], dict[str, Any]], sort_key: Callable[[Row], SortKey]
) -> dict[str, Any]:
    """The answer for *rows*, of which one more than *limit* was asked for, to see whether there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"items": [view(row) for row in shown], "next_cursor": encode(sort_key(shown[-1])) if more else None}


def encode(sort_key: SortKey) -> str:
    """*sort_key* as a cursor."""
    text = json.dumps(sort_key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> list[Any] | None:
    """The parts of a cursor, or ``None`` if it is none of ours. Integers fit what a store can compare."""
    if not _BASE64URL.fullmatch(cursor):
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(key, list) or encode(tuple(key)) != cursor:
        return None
    return key if all(_is_comparable(part) for part in key) else None


def _is_comparable(part: object) -> bool:
    """Whether a store can compare its rows with *part*."""
    if isinstance(part, str):
        return part.isascii() and part.isprintable()  # PostgreSQL takes no NUL
    return isinstance(part, int) and 0 <= part < 2**63
