"""How the words of a network-wide snapshot look between banks; ``wire`` puts them in the envelope."""

from __future__ import annotations

import re
from typing import Any, Final

from distribank.core.ledger import position_book
from distribank.core.protocol import ClockRead, Cut, Part, Side, Sides, Snapshot
from distribank.core.transfer import MAX_LEGS
from distribank.peers import fields as read
from distribank.peers.fields import InvalidField

MAX_SUM: Final = 2**62
"""Centavos of any sum over a bank's books, either way."""
MAX_ASKED: Final = 1000
"""Transactions in one question."""
MAX_LISTED: Final = 10_000
"""Parts in doubt, forced parts, findings, books: of each, as many as one answer lists."""
MAX_WORDS: Final = 1000
_POSITION: Final = position_book("")
_WORDS: Final = re.compile(rf"[^\0]{{0,{MAX_WORDS}}}")


def encode_snapshot(message: Snapshot) -> dict[str, Any]:
    encoded: dict[str, Any] = {"kind": "snapshot"}
    encoded |= {"at": str(message.at)} if message.at is not None else {}
    encoded |= {"transactions": message.transactions} if message.transactions else {}
    return encoded


def decode_snapshot(message: dict[str, Any]) -> Snapshot:
    at = None if message.get("at") is None else read.stamp(message, "at")
    if message.get("transactions") is None:
        return Snapshot(at)
    if at is None:
        raise InvalidField("transactions are asked about at a stamp")
    return Snapshot(at, read.strings(message, "transactions", read.TRANSACTION, 1, MAX_ASKED))


def encode_clock(answer: ClockRead) -> dict[str, Any]:
    return {"answer": "clock", "at": str(answer.at)}


def decode_clock(answer: dict[str, Any]) -> ClockRead:
    return ClockRead(read.stamp(answer, "at"))


def encode_cut(answer: Cut) -> dict[str, Any]:
    return {
        "answer": "cut",
        "at": str(answer.at),
        "customers": answer.customers,
        "books": [{"book": name, "balance": balance} for name, balance in answer.books.items()],
        "entries": answer.entries,
        "in_doubt": [_part(part) for part in answer.parts[:MAX_LISTED]],
        "forced": answer.forced[:MAX_LISTED],
        "findings": [words[:MAX_WORDS] for words in answer.findings[:MAX_LISTED]],
    }


def decode_cut(answer: dict[str, Any]) -> Cut:
    return Cut(
        read.stamp(answer, "at"),
        read.integer(answer, "customers", -MAX_SUM, MAX_SUM),
        dict(read.items(answer, "books", _read_book, 0, MAX_LISTED)),
        read.integer(answer, "entries", 0, MAX_SUM),
        read.items(answer, "in_doubt", _read_part, 0, MAX_LISTED),
        read.strings(answer, "forced", read.TRANSACTION, 0, MAX_LISTED),
        read.strings(answer, "findings", _WORDS, 0, MAX_LISTED),
    )


def encode_sides(answer: Sides) -> dict[str, Any]:
    said = [{"transaction": transaction, "side": side} for transaction, side in answer.sides.items()]
    return {"answer": "sides", "at": str(answer.at), "sides": said}


def decode_sides(answer: dict[str, Any]) -> Sides:
    return Sides(read.stamp(answer, "at"), dict(read.items(answer, "sides", _read_side, 0, MAX_ASKED)))


def _part(part: Part) -> dict[str, Any]:
    return {
        "transaction": part.transaction,
        "banks": part.banks,
        "customers": part.customers,
        "positions": [{"bank": bank, "amount": amount} for bank, amount in part.positions.items()],
    }


def _read_part(part: dict[str, Any]) -> Part:
    return Part(
        read.matching(part, "transaction", read.TRANSACTION),
        read.codes(part, "banks", MAX_LEGS + 1),
        read.integer(part, "customers", -MAX_SUM, MAX_SUM),
        dict(read.items(part, "positions", _read_position, 0, MAX_LEGS)),
    )


def _read_position(position: dict[str, Any]) -> tuple[str, int]:
    return read.matching(position, "bank", read.BANK), read.integer(position, "amount", -MAX_SUM, MAX_SUM)


def _read_book(book: dict[str, Any]) -> tuple[str, int]:
    return read.text(book, "book", len(_POSITION) + 8), read.integer(book, "balance", -MAX_SUM, MAX_SUM)


def _read_side(said: dict[str, Any]) -> tuple[str, Side]:
    return read.matching(said, "transaction", read.TRANSACTION), read.word(said, "side", Side)
