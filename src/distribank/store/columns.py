"""What one column holds of what has no table of its own: legs, votes, names and refusals, as JSON and back.

Shared by the modules that turn rows into columns: ``rows_ledger``, ``rows_transfers``, ``rows_registry``. What is
written here is read back equal, type for type; nobody else writes such a column, so nothing is checked on the way back.
What a transaction gathers is NULL while there is none of it; legs and items are written even if there are none, for a
transfer whose legs are NULL has no order.
"""

from __future__ import annotations

import json
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]  # the former
from typing import Any, Final, Protocol

from distribank.core.batches import BatchItem
from distribank.core.consents import ConsentUse
from distribank.core.heuristics import AccountDamage, Damage
from distribank.core.protocol import Voted
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Counterparty, Direction, Leg

Columns = tuple[Any, ...]
"""One row as an engine takes it and gives it: its values in the order of the sentence that names them."""

Writes = tuple[str, list[Columns]]
"""A sentence, and the columns of each row that it writes."""


class Known(Protocol):
    """Rows of one kind that are durable, by key, as far as they are at hand."""

    def get(self, key: Any, /) -> Any: ...


_encode: Final = c_make_encoder(None, None, encode_basestring, None, ":", ",", False, False, True)
loads: Final = json.loads


def dumps(value: Any) -> str:
    """*value* as ``json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))`` writes it.

    That makes a new encoder in C for every text, and a transfer has fourteen of them; one is enough: 0.4 µs, not 1.0.
    """
    return "".join(_encode(value, 0))


# What is ordered --------------------------------------------------------------------------------------------------


def legs_json(legs: tuple[Leg, ...]) -> str:
    return dumps(_leg_lists(legs))


def legs_of(text: str) -> tuple[Leg, ...]:
    return _legs_of_lists(loads(text))


def items_json(items: tuple[BatchItem, ...]) -> str:
    return dumps([(_leg_lists(item.legs), item.description) for item in items])


def items_of(text: str) -> tuple[BatchItem, ...]:
    return tuple(BatchItem(_legs_of_lists(legs), description) for legs, description in loads(text))


def _leg_lists(legs: tuple[Leg, ...]) -> list[Columns]:
    return [(leg.number, leg.bank, leg.account, leg.direction, leg.amount) for leg in legs]


def _legs_of_lists(legs: list[list[Any]]) -> tuple[Leg, ...]:
    return tuple(Leg(number, bank, account, Direction(word), amount) for number, bank, account, word, amount in legs)


# What a transaction gathers ---------------------------------------------------------------------------------------


def words_json(words: tuple[str, ...]) -> str | None:
    return dumps(words) if words else None


def words_of(text: str | None) -> tuple[str, ...]:
    return tuple(loads(text)) if text else ()


def votes_json(votes: tuple[Voted, ...]) -> str | None:
    return dumps([(v.bank, v.yes, v.prepared_at, v.acknowledged_at) for v in votes]) if votes else None


def votes_of(text: str | None) -> tuple[Voted, ...]:
    return tuple(Voted(*vote) for vote in loads(text)) if text else ()


def uses_json(uses: tuple[ConsentUse, ...]) -> str | None:
    return dumps([(use.consent_id, use.amount) for use in uses]) if uses else None


def uses_of(text: str | None) -> tuple[ConsentUse, ...]:
    return tuple(ConsentUse(*use) for use in loads(text)) if text else ()


def parties_json(parties: tuple[Counterparty, ...]) -> str | None:
    return dumps([(p.leg, p.bank, p.direction, p.name_masked) for p in parties]) if parties else None


def parties_of(text: str | None) -> tuple[Counterparty, ...]:
    if not text:
        return ()
    return tuple(Counterparty(leg, bank, Direction(word), name_masked) for leg, bank, word, name_masked in loads(text))


# Why not ----------------------------------------------------------------------------------------------------------


def refusal_json(refusal: Refusal | None) -> str | None:
    if refusal is None:
        return None
    return dumps((refusal.code, refusal.detail, refusal.bank, refusal.account, refusal.leg))


def refusal_of(text: str | None) -> Refusal | None:
    if text is None:
        return None
    code, *rest = loads(text)
    return Refusal(Code(code), *rest)


# What a wrong guess cost ------------------------------------------------------------------------------------------


def damage_json(damage: Damage | None) -> str | None:
    if damage is None:
        return None
    accounts = [(a.account, a.direction, a.wanted, a.corrected) for a in damage.accounts]
    return dumps((accounts, damage.bank, damage.position, damage.suspense))


def damage_of(text: str | None) -> Damage | None:
    if text is None:
        return None
    accounts, *rest = loads(text)
    found = (
        AccountDamage(account, Direction(word), wanted, corrected) for account, word, wanted, corrected in accounts
    )
    return Damage(tuple(found), *rest)
