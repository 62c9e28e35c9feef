"""Reading fields that another bank wrote: every type exact, every length and range bounded.

A bank may be hostile or mistaken; what it sends becomes rows, stamps and holders' statements here. Each function
takes the object and the field's name and returns a value that the core may rely on, or raises ``InvalidField``.
Unknown fields are never looked at. Nothing is converted: ``true`` is no integer and ``"1"`` no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar

from distribank.core.clock import MAX_STAMP
from distribank.core.documents import ACCOUNT_NUMBER_PATTERN, BANK_CODE_PATTERN

BANK: Final = re.compile(BANK_CODE_PATTERN)
ACCOUNT: Final = re.compile(ACCOUNT_NUMBER_PATTERN, re.ASCII)
TRANSACTION: Final = re.compile(r"[0-9A-Z]{8}\.[0-9a-f]{32}\.[0-9a-f]{32}")
"""Coordinator, incarnation of its database, then time-ordered and random: 74 characters."""
CPF: Final = re.compile(r"[0-9]{11}")
END_TO_END_ID: Final = re.compile(r"[0-9A-Za-z]{1,35}")
NAME: Final = re.compile(r"[0-9A-Za-z._-]{1,64}")
"""An id that only the bank which gave it reads."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_STAMP: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


class InvalidField(ValueError):
    """A field is missing, of another type, or out of bounds; the message names it without repeating its value."""


def matching(fields: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    """A string that *pattern* matches as a whole."""
    value = fields.get(name)
    if type(value) is not str or not pattern.fullmatch(value):
        raise InvalidField(f"{name} is not as the protocol writes it")
    return value


def optional(fields: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str | None:
    """The same, or ``None`` where the field is null or missing."""
    return None if fields.get(name) is None else matching(fields, name, pattern)


def text(fields: dict[str, Any], name: str, longest: int) -> str:
    """A string of at most *longest* characters, without NUL, which not every store can keep."""
    value = fields.get(name)
    if type(value) is not str or len(value) > longest or "\0" in value:
        raise InvalidField(f"{name} is not a text of at most {longest} characters")
    return value


def optional_text(fields: dict[str, Any], name: str, longest: int) -> str | None:
    return None if fields.get(name) is None else text(fields, name, longest)


def integer(fields: dict[str, Any], name: str, least: int, greatest: int) -> int:
    """A whole JSON number from *least* to *greatest*; never a boolean, never a float."""
    value = fields.get(name)
    if type(value) is not int or not least <= value <= greatest:
        raise InvalidField(f"{name} is not an integer from {least} to {greatest}")
    return value


def word(fields: dict[str, Any], name: str, words: type[E]) -> E:
    """One of an enum's words."""
    value = fields.get(name)
    found: E | None = _words(words).get(value) if type(value) is str else None
    if found is None:
        raise InvalidField(f"{name} is none of the words that the protocol knows there")
    return found


@cache
def _words(words: type[E]) -> dict[str, E]:
    """An enum's members by what they are called: three times quicker than the enum's own search."""
    return {word.value: word for word in words}


def stamp(fields: dict[str, Any], name: str) -> int:
    """A clock stamp, as a decimal string: JSON readers elsewhere lose digits of 64-bit numbers."""
    value = int(matching(fields, name, _STAMP))
    if value > MAX_STAMP:
        raise InvalidField(f"{name} is beyond the greatest stamp")
    return value


def time_ms(fields: dict[str, Any], name: str) -> int:
    """RFC 3339 in UTC with exactly three decimals, as milliseconds since 1970, which it may not precede: the inverse of
    ``moments.format_ms``.
    """
    try:
        moment = datetime.fromisoformat(matching(fields, name, _TIME))
    except ValueError as error:
        raise InvalidField(f"{name} is not a time in UTC with milliseconds") from error
    milliseconds = (moment - _EPOCH) // _MILLISECOND
    if milliseconds < 0:
        raise InvalidField(f"{name} lies before 1970")
    return milliseconds


def items(
    fields: dict[str, Any], name: str, read: Callable[[dict[str, Any]], T], least: int, most: int
) -> tuple[T, ...]:
    """An array of *least* to *most* objects, each as *read* makes it."""
    value = fields.get(name)
    if type(value) is not list or not least <= len(value) <= most:
        raise InvalidField(f"{name} is not an array of {least} to {most}")
    for item in value:
        if type(item) is not dict:
            raise InvalidField(f"{name} holds something other than objects")
    return tuple([read(item) for item in value])


def codes(fields: dict[str, Any], name: str, most: int) -> tuple[str, ...]:
    """One to *most* different bank codes."""
    value = fields.get(name)
    if type(value) is not list or not 1 <= len(value) <= most:
        raise InvalidField(f"{name} is not an array of 1 to {most} bank codes")
    if not all(type(code) is str and BANK.fullmatch(code) for code in value) or len(set(value)) != len(value):
        raise InvalidField(f"{name} is not an array of different bank codes")
    return tuple(value)


def strings(fields: dict[str, Any], name: str, pattern: re.Pattern[str], least: int, most: int) -> tuple[str, ...]:
    """An array of *least* to *most* strings that *pattern* matches as a whole."""
    value = fields.get(name)
    if type(value) is not list or not least <= len(value) <= most:
        raise InvalidField(f"{name} is not an array of {least} to {most}")
    if not all(type(item) is str and pattern.fullmatch(item) for item in value):
        raise InvalidField(f"{name} holds what is not as the protocol writes it")
    return tuple(value)
