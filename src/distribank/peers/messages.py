"""The protocol's own messages and their answers, field by field: prepare, commit, abort, inquire.

Encoders trust their caller. Decoders raise ``InvalidField``; what they return the core may rely on.
"""

from __future__ import annotations

from typing import Any, Final

from distribank.core.money import MAX_AMOUNT
from distribank.core.protocol import (
    Abort,
    Acknowledged,
    Commit,
    Fate,
    Inquire,
    No,
    Outcome,
    Prepare,
    Refused,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import MAX_DESCRIPTION, MAX_LEGS, Counterparty, Direction, Leg
from distribank.moments import format_ms
from distribank.peers import fields as read
from distribank.peers.fields import InvalidField

MAX_NAME: Final = 1000
"""Characters of a masked name."""
MAX_DETAIL: Final = 1000
"""Characters of a refusal's sentence; longer ones are cut when they leave."""


def encode_prepare(message: Prepare) -> dict[str, Any]:
    return {
        "kind": "prepare",
        "transaction": message.transaction,
        "participants": message.participants,
        "legs": [leg_fields(leg) for leg in message.legs],
        "flow": message.flow,
        "holder_cpf": message.holder_cpf,
        "end_to_end_id": message.end_to_end_id,
        "description": message.description,
        "ordered_at": format_ms(message.ordered_at),
        "counterparties": [party_fields(party) for party in message.counterparties],
        "vote_by": format_ms(message.vote_by),
        "digest": message.digest,
    }


def decode_prepare(message: dict[str, Any]) -> Prepare | Refused:
    prepare = Prepare(
        read.matching(message, "transaction", read.TRANSACTION),
        read.codes(message, "participants", MAX_LEGS),
        read.items(message, "legs", read_leg, 1, MAX_LEGS),
        read.integer(message, "flow", -MAX_LEGS * MAX_AMOUNT, MAX_LEGS * MAX_AMOUNT),
        read.matching(message, "holder_cpf", read.CPF),
        read.matching(message, "end_to_end_id", read.END_TO_END_ID),
        read.optional_text(message, "description", MAX_DESCRIPTION),
        read.time_ms(message, "ordered_at"),
        read.items(message, "counterparties", read_party, 0, MAX_LEGS),
        read.time_ms(message, "vote_by"),
    )
    if read.matching(message, "digest", read.DIGEST) != prepare.digest:
        return Refused(Violation.DIGEST_MISMATCH, "the digest is not that of what is ordered here")
    return prepare


def encode_commit(message: Commit) -> dict[str, Any]:
    return {
        "kind": "commit",
        "transaction": message.transaction,
        "at": str(message.at),
        "legs": [leg_fields(leg) for leg in message.legs],
        "counterparties": [party_fields(party) for party in message.counterparties],
    }


def decode_commit(message: dict[str, Any]) -> Commit:
    return Commit(
        read.matching(message, "transaction", read.TRANSACTION),
        read.stamp(message, "at"),
        read.items(message, "legs", read_leg, 1, MAX_LEGS),
        read.items(message, "counterparties", read_party, 0, MAX_LEGS),
    )


def encode_abort(message: Abort) -> dict[str, Any]:
    return {"kind": "abort", "transaction": message.transaction, "reason": _reason(message.because)}


def decode_abort(message: dict[str, Any]) -> Abort:
    return Abort(read.matching(message, "transaction", read.TRANSACTION), _read_reason(message))


def encode_inquire(message: Inquire) -> dict[str, Any]:
    return {
        "kind": "inquire",
        "transaction": message.transaction,
        "vote_by": format_ms(message.vote_by),
    }


def decode_inquire(message: dict[str, Any]) -> Inquire:
    return Inquire(read.matching(message, "transaction", read.TRANSACTION), read.time_ms(message, "vote_by"))


# Answers ------------------------------------------------------------------------------------------------------------


def encode_answer(answer: Yes | No | Acknowledged | Refused | Outcome) -> dict[str, Any]:
    match answer:
        case Yes(prepared_at, names):
            return {"answer": "yes", "prepared_at": str(prepared_at), "names": [party_fields(name) for name in names]}
        case No(because):
            return {"answer": "no", "reason": _reason(because)}
        case Acknowledged(already):
            return {"answer": "already" if already else "acknowledged"}
        case Refused(code, detail):
            return {"answer": "refused", "code": code, "detail": detail[:MAX_DETAIL]}
        case Outcome(Fate.COMMITTED, at):
            return {"answer": Fate.COMMITTED, "at": str(at)}
        case Outcome(fate):
            return {"answer": fate}


def decode_yes(answer: dict[str, Any]) -> Yes:
    return Yes(read.stamp(answer, "prepared_at"), read.items(answer, "names", read_party, 0, MAX_LEGS))


def decode_no(answer: dict[str, Any]) -> No:
    return No(_read_reason(answer))


def decode_refused(answer: dict[str, Any]) -> Refused:
    """A code of a later version is taken for *invalid_message*: whatever it is, we must not send that again."""
    detail = read.text(answer, "detail", MAX_DETAIL)
    code = read.text(answer, "code", 64)
    if code not in set(Violation):
        return Refused(Violation.INVALID_MESSAGE, f"{code}: {detail}")
    return Refused(Violation(code), detail)


def decode_committed(answer: dict[str, Any]) -> Outcome:
    return Outcome(Fate.COMMITTED, read.stamp(answer, "at"))


# Parts --------------------------------------------------------------------------------------------------------------


def leg_fields(leg: Leg) -> dict[str, Any]:
    return {
        "leg": leg.number,
        "bank": leg.bank,
        "account": leg.account,
        "direction": leg.direction,
        "amount": leg.amount,
    }


def read_leg(leg: dict[str, Any]) -> Leg:
    return Leg(
        read.integer(leg, "leg", 1, MAX_LEGS),
        read.matching(leg, "bank", read.BANK),
        read.matching(leg, "account", read.ACCOUNT),
        read.word(leg, "direction", Direction),
        read.integer(leg, "amount", 1, MAX_AMOUNT),
    )


def party_fields(party: Counterparty) -> dict[str, Any]:
    return {"leg": party.leg, "bank": party.bank, "direction": party.direction, "name_masked": party.name_masked}


def read_party(party: dict[str, Any]) -> Counterparty:
    return Counterparty(
        read.integer(party, "leg", 1, MAX_LEGS),
        read.matching(party, "bank", read.BANK),
        read.word(party, "direction", Direction),
        read.optional_text(party, "name_masked", MAX_NAME),
    )


def _reason(because: Refusal) -> dict[str, Any]:
    reason: dict[str, Any] = {"code": because.code, "detail": because.detail[:MAX_DETAIL]}
    reason |= {"bank": because.bank} if because.bank is not None else {}
    reason |= {"account": because.account} if because.account is not None else {}
    reason |= {"leg": because.leg} if because.leg is not None else {}
    return reason


def _read_reason(fields: dict[str, Any]) -> Refusal:
    """A code of a later version is taken for *bank_refused*, and named in the detail."""
    reason = fields.get("reason")
    if type(reason) is not dict:
        raise InvalidField("reason is not an object")
    code, detail = read.text(reason, "code", 64), read.text(reason, "detail", MAX_DETAIL)
    known = code in set(Code)
    return Refusal(
        Code(code) if known else Code.BANK_REFUSED,
        detail if known else f"{code}: {detail}",
        read.optional(reason, "bank", read.BANK),
        read.optional(reason, "account", read.ACCOUNT),
        None if reason.get("leg") is None else read.integer(reason, "leg", 1, MAX_LEGS),
    )
