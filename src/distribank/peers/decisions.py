"""What a bank that was restored from a backup asks its peers for, and what they tell, field by field.

Encoders trust their caller. Decoders raise ``InvalidField``. What a peer tells is its own word, and no more is made
sure of here than that it can be read: ``core.resupplying`` says what is believed.
"""

from __future__ import annotations

from typing import Any

from distribank.core.protocol import MAX_DECISIONS, Decision, Decisions, ShowDecisions
from distribank.core.restoration import PartFate
from distribank.core.transfer import MAX_DESCRIPTION, MAX_LEGS
from distribank.moments import format_ms
from distribank.peers import fields as read
from distribank.peers.fields import InvalidField
from distribank.peers.messages import leg_fields, party_fields, read_leg, read_party


def encode_show_decisions(message: ShowDecisions) -> dict[str, Any]:
    asked: dict[str, Any] = {"kind": "decisions", "since": format_ms(message.since)}
    if message.after is not None:
        asked["after"] = _place(message.after)
    return asked


def decode_show_decisions(message: dict[str, Any]) -> ShowDecisions:
    return ShowDecisions(read.time_ms(message, "since"), _read_place(message, "after"))


def encode_decisions(answer: Decisions) -> dict[str, Any]:
    told = [_decision(decision) for decision in answer.decisions]
    stopped_at = None if answer.stopped_at is None else _place(answer.stopped_at)
    return {"answer": "decisions", "decisions": told, "stopped_at": stopped_at}


def decode_decisions(answer: dict[str, Any]) -> Decisions:
    decisions = read.items(answer, "decisions", _read_decision, 0, MAX_DECISIONS)
    return Decisions(decisions, _read_place(answer, "stopped_at"))


def _place(place: tuple[int, str]) -> dict[str, Any]:
    begun_at, transaction = place
    return {"begun_at": format_ms(begun_at), "transaction": transaction}


def _read_place(fields: dict[str, Any], name: str) -> tuple[int, str] | None:
    place = fields.get(name)
    if place is None:
        return None
    if type(place) is not dict:
        raise InvalidField(f"{name} is not an object")
    return read.time_ms(place, "begun_at"), read.matching(place, "transaction", read.TRANSACTION)


def _decision(decision: Decision) -> dict[str, Any]:
    """A tombstone knows nothing of what was ordered, and says nothing of it."""
    told: dict[str, Any] = {
        "transaction": decision.transaction,
        "begun_at": format_ms(decision.begun_at),
        "state": decision.fate,
    }
    told |= {"at": str(decision.at)} if decision.at is not None else {}
    if not decision.legs:
        return told
    return {
        **told,
        "participants": decision.participants,
        "legs": [leg_fields(leg) for leg in decision.legs],
        "holder_cpf": decision.holder_cpf or None,
        "end_to_end_id": decision.end_to_end_id,
        "description": decision.description,
        "ordered_at": format_ms(decision.ordered_at),
        "vote_by": format_ms(decision.vote_by),
        "counterparties": [party_fields(party) for party in decision.counterparties],
    }


def _read_decision(told: dict[str, Any]) -> Decision:
    transaction, begun_at = read.matching(told, "transaction", read.TRANSACTION), read.time_ms(told, "begun_at")
    fate = read.word(told, "state", PartFate)
    at = read.stamp(told, "at") if told.get("at") is not None else None
    if told.get("legs") is None:
        return Decision(transaction, begun_at, fate, at, (), (), "", "", None, begun_at, begun_at, ())
    return Decision(
        transaction,
        begun_at,
        fate,
        at,
        read.codes(told, "participants", MAX_LEGS),
        read.items(told, "legs", read_leg, 1, MAX_LEGS),
        read.optional(told, "holder_cpf", read.CPF) or "",
        read.matching(told, "end_to_end_id", read.END_TO_END_ID),
        read.optional_text(told, "description", MAX_DESCRIPTION),
        read.time_ms(told, "ordered_at"),
        read.time_ms(told, "vote_by"),
        read.items(told, "counterparties", read_party, 0, MAX_LEGS),
    )
