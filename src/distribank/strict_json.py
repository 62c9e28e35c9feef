"""JSON as a bank accepts it from outside, clients and other banks alike.

Stricter than the standard library where two readers could see different things in one text: duplicate keys, NaN
and infinities (``1e999`` included), lone surrogates, anything but UTF-8. Nesting is bounded so that no text can
exhaust a stack. What a text *means* is not judged here. Nothing of a refused text is repeated in the error.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]  # the former
from typing import Any, Final

MAX_DEPTH: Final = 16
"""Levels of nesting: ``[]`` has one, ``[{}]`` two."""

_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKETS: Final = bytes.maketrans(b"[{]}", b"(())")
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[{]}"'))


class MalformedJSON(ValueError):
    """This text is not JSON, or not JSON that every reader would read alike. The message says why, without quoting."""


def loads(text: bytes) -> Any:
    """The value that *text* (UTF-8, no byte order mark) stands for; raises ``MalformedJSON`` and nothing else."""
    if _depth_exceeds(text, MAX_DEPTH):
        raise MalformedJSON(f"nested deeper than {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text.decode("utf-8"))
        if _SURROGATE_ESCAPE.search(text):
            # Pairs of escapes have become one character by now; what is left of a half cannot be encoded.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedJSON:
        raise
    except UnicodeError:
        raise MalformedJSON("not UTF-8, or a lone surrogate") from None
    except json.JSONDecodeError as error:
        mistake = "Unexpected UTF-8 BOM (decode using utf-8-sig)" if text.startswith(BOM_UTF8) else error.msg
        raise MalformedJSON(f"{mistake} at character {error.pos}") from None
    except (ValueError, RecursionError):
        raise MalformedJSON("a number or a nesting beyond all bounds") from None
    return value


def dumps(value: Any) -> bytes:
    """The shortest text of *value*, in UTF-8: what ``loads`` reads back, as other banks do."""
    return "".join(_ENCODE(value, 0)).encode()


def _depth_exceeds(text: bytes, bound: int) -> bool:
    """Whether brackets nest deeper than *bound*, for text that is JSON (for other text the answer may be anything).

    Without escapes every other quotation mark ends a string, and what lies between strings is what counts. Each pass
    then removes the innermost level everywhere at once, so that the work is *bound* passes in C and not a walk over
    every value in Python.
    """
    if text.count(b"[") + text.count(b"{") <= bound:
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = text.translate(_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in brackets:  # a string with brackets in it
        brackets = b"".join(brackets.split(b'"')[::2])
    for _ in range(bound):
        if not brackets:
            return False
        brackets = brackets.replace(b"()", b"")
    return brackets.startswith(b"(")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJSON("a key stands twice in one object")
    return members


def _no_constant(_name: str) -> Any:
    raise MalformedJSON("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedJSON("a number beyond all bounds")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_constant=_no_constant,
    parse_float=_finite,
)
"""Made once: ``json.loads`` makes one for every text that it is given hooks for."""

_ENCODE: Final = c_make_encoder(None, None, encode_basestring, None, ":", ",", False, False, False)
"""Made once, too: ``json.JSONEncoder`` makes one for every text."""
