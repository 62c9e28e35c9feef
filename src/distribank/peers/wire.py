"""What travels between banks: the envelope around a batch, and the table of all kinds of message and their answers.

How each looks, field by field, is told by ``messages`` (the protocol's own), ``reads`` and ``snapshots`` (what banks
look up) and ``decisions`` (what a restored bank asks for).
``docs/wire.md`` is the contract and names every field; a test parses each of its examples through this codec.
Encoding trusts its caller. Decoding trusts nobody: what is wrong with one message refuses that message, what is
wrong with the envelope refuses the batch, and nothing that arrives raises anything but ``InvalidBatch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distribank import strict_json
from distribank.core.protocol import (
    PROTOCOL_VERSION,
    Abort,
    Accounts,
    Acknowledged,
    Answer,
    ClockRead,
    Commit,
    Cut,
    Decisions,
    Fate,
    Inquire,
    Log,
    Message,
    Outcome,
    Prepare,
    Refused,
    ShowAccounts,
    ShowDecisions,
    ShowLog,
    Sides,
    Snapshot,
    Violation,
)
from distribank.peers import decisions, messages, reads, snapshots
from distribank.peers import fields as read
from distribank.peers.fields import InvalidField

MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of one request between banks."""
MAX_MESSAGES: Final = 1000
"""Messages that one request may carry."""


# The kinds --------------------------------------------------------------------------------------------------------

Fields = dict[str, Any]
AnswerDecoders = dict[str, Callable[[Fields], Answer]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of message: how it is written and read, and which answers it may get."""

    message: type[Message]
    encode: Callable[[Any], Fields]
    decode: Callable[[Fields], Message | Refused]
    answers: AnswerDecoders


_DELIVERED: Final[AnswerDecoders] = {
    "acknowledged": lambda _: Acknowledged(),
    "already": lambda _: Acknowledged(already=True),
    "refused": messages.decode_refused,
}
_TABLE: Final[dict[str, Kind]] = {
    "prepare": Kind(
        Prepare,
        messages.encode_prepare,
        messages.decode_prepare,
        {"yes": messages.decode_yes, "no": messages.decode_no, "refused": messages.decode_refused},
    ),
    "commit": Kind(Commit, messages.encode_commit, messages.decode_commit, _DELIVERED),
    "abort": Kind(Abort, messages.encode_abort, messages.decode_abort, _DELIVERED),
    "inquire": Kind(
        Inquire,
        messages.encode_inquire,
        messages.decode_inquire,
        {
            "committed": messages.decode_committed,
            "aborted": lambda _: Outcome(Fate.ABORTED),
            "undecided": lambda _: Outcome(Fate.UNDECIDED),
            "unknown": lambda _: Outcome(Fate.UNKNOWN),
            "refused": messages.decode_refused,
        },
    ),
    "log": Kind(
        ShowLog,
        reads.encode_show_log,
        reads.decode_show_log,
        {"log": reads.decode_log, "refused": messages.decode_refused},
    ),
    "accounts": Kind(
        ShowAccounts,
        reads.encode_show_accounts,
        reads.decode_show_accounts,
        {"accounts": reads.decode_accounts, "refused": messages.decode_refused},
    ),
    "snapshot": Kind(
        Snapshot,
        snapshots.encode_snapshot,
        snapshots.decode_snapshot,
        {
            "clock": snapshots.decode_clock,
            "cut": snapshots.decode_cut,
            "sides": snapshots.decode_sides,
            "refused": messages.decode_refused,
        },
    ),
    "decisions": Kind(
        ShowDecisions,
        decisions.encode_show_decisions,
        decisions.decode_show_decisions,
        {"decisions": decisions.decode_decisions, "refused": messages.decode_refused},
    ),
}
"""An answer that a kind does not name is none to it: an *acknowledged* to a prepare is no vote."""

KINDS: Final = tuple(_TABLE)
"""Every kind of message; each is also the last part of its route."""

_KIND_OF: Final = {kind.message: name for name, kind in _TABLE.items()}


def kind_of(message: Message) -> str:
    """Which kind *message* is, and so which route takes it."""
    return _KIND_OF[type(message)]


def encode_message(message: Message) -> bytes:
    """*message* as JSON."""
    return strict_json.dumps(_TABLE[kind_of(message)].encode(message))


def decode_message(kind: str, message: Any) -> Message | Refused:
    """The message of *kind* that *message* stands for, or how to answer it instead."""
    if type(message) is not dict:
        return Refused(Violation.INVALID_MESSAGE, "a message is an object")
    if message.get("kind") != kind:
        return Refused(Violation.UNKNOWN_KIND, f"this route takes messages of the kind {kind}")
    try:
        return _TABLE[kind].decode(message)
    except InvalidField as error:
        return Refused(Violation.INVALID_MESSAGE, str(error))


def decode_answer(kind: str, answer: Any) -> Answer | None:
    """The answer that *answer* stands for; ``None`` if it is none, or none to a message of *kind*."""
    if type(answer) is not dict or type(answer.get("answer")) is not str:
        return None
    decoder = _TABLE[kind].answers.get(answer["answer"])
    try:
        return decoder(answer) if decoder else None
    except InvalidField:
        return None


def _encode_answer(answer: Answer) -> Fields:
    match answer:
        case Log():
            return reads.encode_log(answer)
        case Accounts():
            return reads.encode_accounts(answer)
        case ClockRead():
            return snapshots.encode_clock(answer)
        case Cut():
            return snapshots.encode_cut(answer)
        case Sides():
            return snapshots.encode_sides(answer)
        case Decisions():
            return decisions.encode_decisions(answer)
        case _:
            return messages.encode_answer(answer)


# The envelope -----------------------------------------------------------------------------------------------------


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


def encode_batch(clock: int, texts: Iterable[bytes]) -> bytes:
    """A request's body. *texts* come from ``encode_message``, so that one sent again is the same to the byte."""
    head = f'{{"protocol_version":{PROTOCOL_VERSION},"clock":"{clock}","messages":['
    return b"%b%b]}" % (head.encode(), b",".join(texts))


def decode_batch(kind: str, body: bytes) -> Batch:
    """What a request to the route of *kind* carries, in order; raises ``InvalidBatch``."""
    envelope, clock = _open(body)
    carried = envelope.get("messages")
    if type(carried) is not list or len(carried) > MAX_MESSAGES:
        raise InvalidBatch("invalid_request", f"messages is not an array of at most {MAX_MESSAGES}")
    return Batch(clock, [decode_message(kind, message) for message in carried])


def encode_answers(to: str, clock: int, answers: Iterable[Answer]) -> bytes:
    """A response's body, meant for bank *to* alone."""
    head = f'{{"protocol_version":{PROTOCOL_VERSION},"to":"{to}","clock":"{clock}","answers":'
    return b"%b%b}" % (head.encode(), strict_json.dumps([_encode_answer(answer) for answer in answers]))


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
