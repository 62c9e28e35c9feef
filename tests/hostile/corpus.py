"""Bodies that no honest client sends, made by rules from good ones.

``spoilt`` makes, from one good JSON value, every text that is not JSON as a bank reads it, and every value that is not
what was described: each leaf exchanged for each of ``NEVER`` and, where that is no text, of ``NO_TEXT``; each member
left out, doubled, or joined by another. Each carries ``CANARY`` wherever there is room for a secret.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any, Final

CANARY: Final = "c4nary-5ecret"
"""What must never come back."""

RAW: Final = "@@raw@@"
"""Marks, in a value, the place of what ``json.dumps`` would not write."""

NEVER: Final[list[Any]] = [
    True,
    0,
    -1,
    1.5,
    150,
    2**63,
    2**64,
    -(2**63) - 1,
    [],
    {},
    [CANARY],
    {"a": CANARY},
    [[[[CANARY]]]],
    "\x00",
    f"{CANARY}\x00",
    f"{CANARY}\n",
    f"\u202e{CANARY}",
    f"\u2066{CANARY}",
    f"\u2028{CANARY}",
    "x" * 5_000,
]
"""What no leaf of any order may be."""

NO_TEXT: Final[list[Any]] = [
    "",
    " ",
    CANARY,
    "１２３.００",
    "٣.٠٠",
    "1.00 ",
    "-1.00",
    "+1.00",
    "1e3",
    "1,00",
    "0x10",
    "NaN",
    "Infinity",
    "99999999999999.00",
    "１２３４５６７８-9",
    "00000001-9\x00",
    "00000001-9/../00000003-5",
    "' OR 1=1 --",
    "99990002 ",
    "９９９９０００２",
    "2040-13-01T00:00:00Z",
    "2040-01-01",
    "2040-01-01T00:00:00",
    "9999-12-31T23:59:59-23:59",
    "0000-01-01T00:00:00Z",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "\U0001f600",
]
"""What no leaf may be that is not for people to read."""

TEXTS: Final = {"name", "legal_name", "password", "description", "reason", "transaction", "email"}
"""Leaves that may hold almost any text."""

OPTIONAL: Final = {"email", "description", "max_total", "bank", "account", "transaction", "on_failure"}
"""Leaves that may be null, somewhere."""

RAW_LEAVES: Final = (
    "NaN",
    "-NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" + "0" * 400,
    "1" * 5_000,
    "-0",
    "-0.0",
    "01",
    "+1",
    ".5",
    "1.",
    "0x1F",
    "1_000",
    "undefined",
    "nil",
    "True",
    "'x'",
    r'"\ud800"',
    r'"\udfff\ud800"',
    r'"\x41"',
    r'"\u00"',
    '"\t"',
    '"unended',
    "[" * 10_000 + "]" * 10_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    "[" * 50_000,
    "/* c */ 1",
)
"""What stands where a leaf should, as it is written; ``-0`` is JSON, and no leaf of any order."""


def spoilt(good: Any) -> Iterator[bytes]:
    """Every bad body that the rules make of *good*."""
    yield from _broken_texts(json.dumps(good).encode())
    yield from _other_values(good)
    for path, leaf in leaves(good):
        for raw in RAW_LEAVES:
            yield _with(good, path, RAW).replace(f'"{RAW}"'.encode(), raw.encode())
        for value in _wrong_for(path, leaf):
            yield _with(good, path, value)
    for path, members in objects(good):
        yield from _spoilt_members(good, path, members)


def _broken_texts(text: bytes) -> Iterator[bytes]:
    yield from (b"", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf" + text, b"\xef\xbb\xbf", text + b"\x00", b"\x00" + text)
    yield from (text.decode().encode(name) for name in ("utf-16", "utf-16-le", "utf-32", "cp037"))
    yield from (text[: len(text) * part // 10] for part in range(1, 10))
    yield from (text + tail for tail in (b"x", b"{}", b",", b"]", b"}", text, b"\x1a", CANARY.encode(), b" //", b";"))
    yield from (text.replace(b'"', b"'"), text.replace(b":", b"="), text[:-1] + b",}", b"(" + text + b")")
    yield from (
        text.replace(b": ", b":\x0b", 1),
        text.replace(b": ", b":\xc2\xa0", 1),
        text.replace(b'"', b"\xe2\x80\x9c", 1),
    )
    yield from (
        gzip.compress(text),
        b"\x80\x04\x95" + text,
        b"<?xml version='1.0'?><a>&lol;</a>",
        b"a=b&c=d",
        b"--x\r\n",
    )
    for sequence in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xfe\xff"):  # no UTF-8
        yield text.replace(b'"', b'"' + sequence, 1)


def _other_values(good: Any) -> Iterator[bytes]:
    for value in (None, True, 0, "", CANARY, [], [good], [good, good], {"order": good}, json.dumps(good), {}):
        yield json.dumps(value).encode()


def _wrong_for(path: tuple[Any, ...], leaf: Any) -> Iterator[Any]:
    name = next(part for part in reversed(path) if isinstance(part, str))
    yield from (value for value in NEVER if not (isinstance(leaf, int) and value in (150,)) and _is_wrong(name, value))
    if name not in TEXTS:
        yield from NO_TEXT
    if name not in OPTIONAL:
        yield None


def _is_wrong(name: str, value: Any) -> bool:
    """A password is anybody's own affair, within its length; how much stays may be said for each account."""
    return not (name == "password" and isinstance(value, str) and len(value) <= 1024) and not (
        name == "keep" and value == []
    )


def _spoilt_members(good: Any, path: tuple[Any, ...], members: dict[str, Any]) -> Iterator[bytes]:
    for name in members:
        if name not in (*OPTIONAL, "approval", "keep", "from"):
            yield _with(good, path, {key: value for key, value in members.items() if key != name})
        twice = json.dumps(members)[:-1] + f", {json.dumps(name)}: {json.dumps(members[name])}}}"
        yield _with(good, path, RAW).replace(f'"{RAW}"'.encode(), twice.encode())
        for other in (name.upper(), f"{name} ", f"{name}\x00", f"{name}[]", f"{name}.{name}"):
            yield _with(good, path, {**members, other: CANARY})
    for extra in ("", "__proto__", "$ref", "id", "role", "holder_id", "bank_code", "scope", "x" * 5_000, "é"):
        yield _with(good, path, {**members, extra: CANARY})


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in *value* that holds neither an object nor an array, and what it holds."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    else:
        yield path, value


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Every place in *value* that holds an object, and that object."""
    if isinstance(value, dict):
        yield path, value
    for name, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from objects(member, (*path, name))


def _with(good: Any, path: tuple[Any, ...], value: Any) -> bytes:
    """*good* with *value* at *path*, as JSON."""
    if not path:
        return json.dumps(value).encode()
    changed = copy.deepcopy(good)
    at = changed
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return json.dumps(changed).encode()
