"""How the protocol's words look between banks: messages, answers, and the envelope around a batch of them.

``docs/wire.md`` is the contract and names every field; a test parses each of its examples through this codec.
Encoding trusts its caller. Decoding trusts nobody: what is wrong with one message refuses that message, what is
wrong with the envelope refuses the batch, and nothing that arrives raises anything but ``InvalidBatch``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distribank import strict_json
from distribank.core.ledger import AccountType
from distribank.core.money import MAX_AMOUNT, MAX_BALANCE
from distribank.core.protocol import (
    MAX_LINKED,
    MAX_RECORDS,
    PROTOCOL_VERSION,
    Abort,
    Accounts,
    Acknowledged,
    Answer,
    Commit,
    Fate,
    Inquire,
    LinkedAccount,
    Log,
    Message,
    No,
    Outcome,
    Prepare,
    Record,
    RecordKind,
    Refused,
    ShowAccounts,
    ShowLog,
    Violation,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import MAX_DESCRIPTION, MAX_LEGS, Counterparty, Direction, Leg
from distribank.peers import fields as read
from distribank.peers.fields import InvalidField

MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of one request between banks."""
MAX_MESSAGES: Final = 1000
"""Messages that one request may carry."""
MAX_NAME: Final = 1000
"""Characters of a masked name."""
MAX_DETAIL: Final = 1000
"""Characters of a refusal's sentence; longer ones are cut when they leave."""

_WORD: Final = re.compile(r"[A-Za-z0-9 ,_-]{1,64}")
"""A record's kind and a state's name, which people read: nothing that a terminal or a page would take for its own."""

KINDS: Final = ("prepare", "commit", "abort", "inquire", "log", "accounts")
"""Every kind of message; each is also the last part of its route."""

_KIND_OF: Final[dict[type[Message], str]] = {
    Prepare: "prepare",
    Commit: "commit",
    Abort: "abort",
    Inquire: "inquire",
    ShowLog: "log",
    ShowAccounts: "accounts",
}
_dumps: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class InvalidBatch(ValueError):
    """The envelope cannot be used, whatever is in it. *code* is ``malformed_json``, ``invalid_request`` or
    ``unsupported_version``."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request carries: the sender's clock, and each message, or the answer that it deserves unread."""

    clock: int
    messages: list[Message | Refused]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one response carries: the peer's clock, and each answer, or ``None`` where it is none to that message."""

    clock: int
    answers: list[Answer | None]


def kind_of(message: Message) -> str:
    """Which kind *message* is, and so which route takes it."""
    return _KIND_OF[type(message)]


# The envelope -----------------------------------------------------------------------------------------------------


def encode_batch(clock: int, messages: Iterable[bytes]) -> bytes:
    """A request's body. *messages* come from ``encode_message``, so that one sent again is the same to the byte."""
    head = f'{{"protocol_version":{PROTOCOL_VERSION},"clock":"{clock}","messages":['
    return b"%b%b]}" % (head.encode(), b",".join(messages))


def decode_batch(kind: str, body: bytes) -> Batch:
    """What a request to the route of *kind* carries, in order; raises ``InvalidBatch``."""
    envelope, clock = _open(body)
    messages = envelope.get("messages")
    if type(messages) is not list or len(messages) > MAX_MESSAGES:
        raise InvalidBatch("invalid_request", f"messages is not an array of at most {MAX_MESSAGES}")
    return Batch(clock, [decode_message(kind, message) for message in messages])


def encode_answers(to: str, clock: int, answers: Iterable[Answer]) -> bytes:
    """A response's body, meant for bank *to* alone."""
    head = f'{{"protocol_version":{PROTOCOL_VERSION},"to":"{to}","clock":"{clock}","answers":'
    return f"{head}{_dumps([_answer(answer) for answer in answers])}}}".encode()


def decode_answers(own: str, kinds: Sequence[str], body: bytes) -> Answers:
    """The answers to messages of *kinds*, in their order; raises ``InvalidBatch``.

    An answer addressed to another bank than *own* is refused: a nonce can be copied by a third bank, which would
    otherwise collect signed answers to its own messages and play them to us.
    """
    envelope, clock = _open(body)
    if envelope.get("to") != own:
        raise InvalidBatch("invalid_request", "this answer is meant for another bank")
    answers = envelope.get("answers")
    if type(answers) is not list or len(answers) != len(kinds):
        raise InvalidBatch("invalid_request", f"not {len(kinds)} answers to {len(kinds)} messages")
    return Answers(clock, [decode_answer(kind, answer) for kind, answer in zip(kinds, answers, strict=True)])


def _open(body: bytes) -> tuple[dict[str, Any], int]:
    try:
        envelope = strict_json.loads(body)
    except strict_json.MalformedJSON as error:
        raise InvalidBatch("malformed_json", str(error)) from error
    if type(envelope) is not dict:
        raise InvalidBatch("invalid_request", "a batch is an object")
    version = envelope.get("protocol_version")
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise InvalidBatch("unsupported_version", f"this bank speaks protocol version {PROTOCOL_VERSION}")
    try:
        return envelope, read.stamp(envelope, "clock")
    except InvalidField as error:
        raise InvalidBatch("invalid_request", str(error)) from error


# Messages ---------------------------------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    """*message* as JSON."""
    return _dumps(_MESSAGE_ENCODERS[type(message)](message)).encode()


def decode_message(kind: str, message: Any) -> Message | Refused:
    """The message of *kind* that *message* stands for, or how to answer it instead."""
    if type(message) is not dict:
        return Refused(Violation.INVALID_MESSAGE, "a message is an object")
    if message.get("kind") != kind:
        return Refused(Violation.UNKNOWN_KIND, f"this route takes messages of the kind {kind}")
    try:
        return _MESSAGE_DECODERS[kind](message)
    except InvalidField as error:
        return Refused(Violation.INVALID_MESSAGE, str(error))


def _encode_prepare(message: Prepare) -> dict[str, Any]:
    return {
        "kind": "prepare",
        "transaction": message.transaction,
        "participants": message.participants,
        "legs": [_leg(leg) for leg in message.legs],
        "flow": message.flow,
        "holder_cpf": message.holder_cpf,
        "end_to_end_id": message.end_to_end_id,
        "description": message.description,
        "ordered_at": read.format_time(message.ordered_at),
        "counterparties": [_party(party) for party in message.counterparties],
        "vote_by": read.format_time(message.vote_by),
        "digest": message.digest,
    }


def _decode_prepare(message: dict[str, Any]) -> Prepare | Refused:
    prepare = Prepare(
        read.matching(message, "transaction", read.TRANSACTION),
        read.codes(message, "participants", MAX_LEGS),
        read.items(message, "legs", _read_leg, 1, MAX_LEGS),
        read.integer(message, "flow", -MAX_LEGS * MAX_AMOUNT, MAX_LEGS * MAX_AMOUNT),
        read.matching(message, "holder_cpf", read.CPF),
        read.matching(message, "end_to_end_id", read.END_TO_END_ID),
        read.optional_text(message, "description", MAX_DESCRIPTION),
        read.time_ms(message, "ordered_at"),
        read.items(message, "counterparties", _read_party, 0, MAX_LEGS),
        read.time_ms(message, "vote_by"),
    )
    if read.matching(message, "digest", read.DIGEST) != prepare.digest:
        return Refused(Violation.DIGEST_MISMATCH, "the digest is not that of what is ordered here")
    return prepare


def _encode_commit(message: Commit) -> dict[str, Any]:
    return {
        "kind": "commit",
        "transaction": message.transaction,
        "at": str(message.at),
        "legs": [_leg(leg) for leg in message.legs],
        "counterparties": [_party(party) for party in message.counterparties],
    }


def _decode_commit(message: dict[str, Any]) -> Commit:
    return Commit(
        read.matching(message, "transaction", read.TRANSACTION),
        read.stamp(message, "at"),
        read.items(message, "legs", _read_leg, 1, MAX_LEGS),
        read.items(message, "counterparties", _read_party, 0, MAX_LEGS),
    )


def _encode_abort(message: Abort) -> dict[str, Any]:
    return {"kind": "abort", "transaction": message.transaction, "reason": _reason(message.because)}


def _decode_abort(message: dict[str, Any]) -> Abort:
    return Abort(read.matching(message, "transaction", read.TRANSACTION), _read_reason(message))


def _encode_inquire(message: Inquire) -> dict[str, Any]:
    return {
        "kind": "inquire",
        "transaction": message.transaction,
        "vote_by": read.format_time(message.vote_by),
    }


def _decode_inquire(message: dict[str, Any]) -> Inquire:
    return Inquire(read.matching(message, "transaction", read.TRANSACTION), read.time_ms(message, "vote_by"))


def _encode_show_log(message: ShowLog) -> dict[str, Any]:
    return {"kind": "log", "transaction": message.transaction}


def _decode_show_log(message: dict[str, Any]) -> ShowLog:
    return ShowLog(read.matching(message, "transaction", read.TRANSACTION))


def _encode_show_accounts(message: ShowAccounts) -> dict[str, Any]:
    return {"kind": "accounts", "holder_cpf": message.holder_cpf}


def _decode_show_accounts(message: dict[str, Any]) -> ShowAccounts:
    return ShowAccounts(read.matching(message, "holder_cpf", read.CPF))


_MESSAGE_ENCODERS: Final[dict[type[Message], Callable[[Any], dict[str, Any]]]] = {
    Prepare: _encode_prepare,
    Commit: _encode_commit,
    Abort: _encode_abort,
    Inquire: _encode_inquire,
    ShowLog: _encode_show_log,
    ShowAccounts: _encode_show_accounts,
}
_MESSAGE_DECODERS: Final[dict[str, Callable[[dict[str, Any]], Message | Refused]]] = {
    "prepare": _decode_prepare,
    "commit": _decode_commit,
    "abort": _decode_abort,
    "inquire": _decode_inquire,
    "log": _decode_show_log,
    "accounts": _decode_show_accounts,
}


# Answers ----------------------------------------------------------------------------------------------------------


def _answer(answer: Answer) -> dict[str, Any]:
    match answer:
        case Yes(prepared_at, names):
            return {"answer": "yes", "prepared_at": str(prepared_at), "names": [_party(name) for name in names]}
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
        case Log(transaction, records):
            return {"answer": "log", "transaction": transaction, "records": [_record(record) for record in records]}
        case Accounts(accounts):
            return {"answer": "accounts", "accounts": [_linked(account) for account in accounts]}


def decode_answer(kind: str, answer: Any) -> Answer | None:
    """The answer that *answer* stands for; ``None`` if it is none, or none to a message of *kind*."""
    if type(answer) is not dict or type(answer.get("answer")) is not str:
        return None
    decoder = _ANSWER_DECODERS[kind].get(answer["answer"])
    try:
        return decoder(answer) if decoder else None
    except InvalidField:
        return None


def _read_yes(answer: dict[str, Any]) -> Yes:
    return Yes(read.stamp(answer, "prepared_at"), read.items(answer, "names", _read_party, 0, MAX_LEGS))


def _read_no(answer: dict[str, Any]) -> No:
    return No(_read_reason(answer))


def _read_refused(answer: dict[str, Any]) -> Refused:
    """A code of a later version is taken for *invalid_message*: whatever it is, we must not send that again."""
    detail = read.text(answer, "detail", MAX_DETAIL)
    code = read.text(answer, "code", 64)
    if code not in set(Violation):
        return Refused(Violation.INVALID_MESSAGE, f"{code}: {detail}")
    return Refused(Violation(code), detail)


def _read_committed(answer: dict[str, Any]) -> Outcome:
    return Outcome(Fate.COMMITTED, read.stamp(answer, "at"))


def _read_log(answer: dict[str, Any]) -> Log:
    transaction = read.matching(answer, "transaction", read.TRANSACTION)
    known = {kind.value for kind in RecordKind}
    records = read.items(answer, "records", _read_record, 0, MAX_RECORDS)
    # A later version may keep records of kinds that this one has no word for: they are left out.
    return Log(
        transaction,
        tuple(
            Record(transaction, stamp, RecordKind(kind), before, after, detail)
            for stamp, kind, before, after, detail in records
            if kind in known
        ),
    )


def _read_accounts(answer: dict[str, Any]) -> Accounts:
    return Accounts(read.items(answer, "accounts", _read_linked, 0, MAX_LINKED))


_DELIVERED: Final[dict[str, Callable[[dict[str, Any]], Answer]]] = {
    "acknowledged": lambda _: Acknowledged(),
    "already": lambda _: Acknowledged(already=True),
    "refused": _read_refused,
}
_ANSWER_DECODERS: Final[dict[str, dict[str, Callable[[dict[str, Any]], Answer]]]] = {
    "prepare": {"yes": _read_yes, "no": _read_no, "refused": _read_refused},
    "commit": _DELIVERED,
    "abort": _DELIVERED,
    "inquire": {
        "committed": _read_committed,
        "aborted": lambda _: Outcome(Fate.ABORTED),
        "undecided": lambda _: Outcome(Fate.UNDECIDED),
        "unknown": lambda _: Outcome(Fate.UNKNOWN),
        "refused": _read_refused,
    },
    "log": {"log": _read_log, "refused": _read_refused},
    "accounts": {"accounts": _read_accounts, "refused": _read_refused},
}
"""Which answers each kind of message may get: an *acknowledged* to a prepare is no vote."""


# Parts ------------------------------------------------------------------------------------------------------------


def _leg(leg: Leg) -> dict[str, Any]:
    return {
        "leg": leg.number,
        "bank": leg.bank,
        "account": leg.account,
        "direction": leg.direction,
        "amount": leg.amount,
    }


def _read_leg(leg: dict[str, Any]) -> Leg:
    return Leg(
        read.integer(leg, "leg", 1, MAX_LEGS),
        read.matching(leg, "bank", read.BANK),
        read.matching(leg, "account", read.ACCOUNT),
        read.word(leg, "direction", Direction),
        read.integer(leg, "amount", 1, MAX_AMOUNT),
    )


def _party(party: Counterparty) -> dict[str, Any]:
    return {"leg": party.leg, "bank": party.bank, "direction": party.direction, "name_masked": party.name_masked}


def _read_party(party: dict[str, Any]) -> Counterparty:
    return Counterparty(
        read.integer(party, "leg", 1, MAX_LEGS),
        read.matching(party, "bank", read.BANK),
        read.word(party, "direction", Direction),
        read.optional_text(party, "name_masked", MAX_NAME),
    )


def _record(record: Record) -> dict[str, Any]:
    return {
        "stamp": str(record.stamp),
        "record": record.kind,
        "from": record.before,
        "to": record.after,
        "detail": record.detail[:MAX_DETAIL],
    }


def _read_record(record: dict[str, Any]) -> tuple[int, str, str, str, str]:
    return (
        read.stamp(record, "stamp"),
        read.matching(record, "record", _WORD),
        read.matching(record, "from", _WORD),
        read.matching(record, "to", _WORD),
        read.text(record, "detail", MAX_DETAIL),
    )


def _linked(linked: LinkedAccount) -> dict[str, Any]:
    return {
        "account": linked.account,
        "type": linked.type,
        "posted_balance": linked.posted,
        "available_balance": linked.available,
        "consent_id": linked.consent_id,
        "max_per_transfer": linked.max_per_transfer,
        "max_total": linked.max_total,
        "used": linked.used,
        "expires_at": read.format_time(linked.expires_at),
    }


def _read_linked(linked: dict[str, Any]) -> LinkedAccount:
    return LinkedAccount(
        read.matching(linked, "account", read.ACCOUNT),
        read.word(linked, "type", AccountType),
        read.integer(linked, "posted_balance", 0, MAX_BALANCE),
        read.integer(linked, "available_balance", 0, MAX_BALANCE),
        read.matching(linked, "consent_id", read.NAME),
        read.integer(linked, "max_per_transfer", 1, MAX_AMOUNT),
        None if linked.get("max_total") is None else read.integer(linked, "max_total", 1, MAX_AMOUNT),
        read.integer(linked, "used", 0, MAX_BALANCE),
        read.time_ms(linked, "expires_at"),
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
