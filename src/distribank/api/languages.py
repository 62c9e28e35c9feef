"""In which language a problem is told: English, unless the request's ``Accept-Language`` would rather have Portuguese.

RFC 9110, 12.5.4. Nothing here can fail: what cannot be understood counts as not said. It is read only once something
has been refused, never on the way to a success.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Language(StrEnum):
    """What a problem can be told in, as ``Content-Language`` names it."""

    ENGLISH = "en"
    PORTUGUESE = "pt-BR"


MAX_RANGES: Final = 20
"""Languages that one request may list; those behind are not read."""

_RANGE: Final = re.compile(
    r"\s*(?P<tag>[a-z]{1,8}(?:-[a-z0-9]{1,8}){0,8}|\*)\s*(?:;\s*q=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?",
    re.IGNORECASE | re.ASCII,
)


def wanted_by(scope: Mapping[str, Any]) -> Language:
    """The language in which to answer the request of this ASGI scope."""
    lines = [value for name, value in scope["headers"] if name == b"accept-language"]
    return language_of(b",".join(lines).decode("latin-1")) if lines else Language.ENGLISH


def language_of(accept_language: str) -> Language:
    """The language that weighs most; of two that weigh the same the one listed first; English if neither is wanted.

    A variety speaks for its language (``pt-PT`` would rather read pt-BR than English, ``en-GB`` rather en), but what
    is said of ``pt-BR`` itself goes before that.
    """
    weights: dict[str, float] = {}
    for text in accept_language.split(",", MAX_RANGES)[:MAX_RANGES]:
        found = _RANGE.fullmatch(text)
        if found is not None:
            weights.setdefault(found["tag"].lower(), float(found["weight"] or 1))
    order = list(weights)
    best, best_rank = Language.ENGLISH, (0.0, 0)
    for language in Language:
        weight, place = _weight(language, weights, order)
        if (weight, -place) > best_rank:
            best, best_rank = language, (weight, -place)
    return best


def _weight(language: Language, weights: Mapping[str, float], order: list[str]) -> tuple[float, int]:
    """What *language* weighs, and at which place it stands."""
    exact, family = language.lower(), language.split("-")[0]
    kin = [exact] if exact in weights else [tag for tag in order if tag.split("-")[0] == family]
    named = max(kin or ["*"], key=lambda tag: weights.get(tag, 0.0))
    return weights.get(named, 0.0), order.index(named) if named in weights else len(order)
