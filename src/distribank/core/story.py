"""What became of one transaction, told from the records of all its banks: line by line, and as a diagram.

A record says what a bank did and when; here it is put into words that anyone can read. Words about money, the reason of
a refusal above all, are for whoever ordered the transfer and for operators: with *frank* left out they do not appear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from distribank.core.protocol import FORCED, Record, RecordKind, State, coordinator_of
from distribank.core.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class Line:
    """One record of one bank, and the same in words."""

    bank: str
    record: Record
    words: str


_PARTICIPANTS: Final = (RecordKind.PREPARED, RecordKind.RESOLVED)
"""The records of a participant; the others are a coordinator's."""


def tell(logs: Mapping[str, Iterable[Record]], participants: Sequence[str], *, frank: bool) -> list[Line]:
    """The records of all banks in the order of their clocks, which is an order in which they can have happened.

    A bank's word counts for its own part alone: a participant that says it decided is not listened to.
    """
    lines = [
        Line(bank, record, _words(record, participants, frank=frank))
        for bank, log in logs.items()
        for record in log
        if (record.kind in _PARTICIPANTS) is (bank != coordinator_of(record.transaction))
    ]
    return sorted(lines, key=lambda line: (line.record.stamp, line.bank))


def with_reason(lines: Sequence[Line], bank: str, reason: str | None) -> list[Line]:
    """*lines*, where *bank*'s operator has settled what it had lost with *reason*: its own operator reads why."""
    if reason is None:
        return list(lines)
    return [
        replace(line, words=f"{line.words}; because: {_reason(reason)}")
        if line.bank == bank and _is_settlement(line.record)
        else line
        for line in lines
    ]


def _is_settlement(record: Record) -> bool:
    return (record.before, record.after) == (State.NOTHING, State.COMMITTING) and record.kind is RecordKind.DECIDED


def diagram(lines: Sequence[Line], names: Mapping[str, str], coordinator: str, participants: Sequence[str]) -> str:
    """A Mermaid sequence diagram of *lines*: the messages of which the records tell. *names* has every bank's name."""
    drawn = ["sequenceDiagram"]
    drawn += [f"    participant {bank} as {bank} {_plain(name)}" for bank, name in names.items()]
    refused: set[str] = set()
    for line in lines:
        if _voted_no(line.record):
            refused.add(line.bank)
        told = [bank for bank in participants if bank not in refused]
        drawn += [f"    {arrow}" for arrow in _arrows(line, coordinator, participants, told)]
    return "\n".join(drawn) + "\n"


def _words(record: Record, participants: Sequence[str], *, frank: bool) -> str:
    others = ", ".join(participants)
    reason = f": {_reason(record.detail)}" if frank and record.after == State.ABORTED else ""
    match record.kind, record.after:
        case RecordKind.BEGUN, _:
            return f"began, and asked {others} to prepare"
        case RecordKind.PREPARED, _:
            return "prepared: placed holds on its accounts and voted yes; whatever is decided, it can do"
        case RecordKind.DECIDED, State.COMMITTING if record.before == State.NOTHING:
            return f"was restored and had lost its decision; its operator settled it as committed, and told {others}"
        case RecordKind.RESOLVED, State.COMMITTED if record.before == State.NOTHING:
            return "was restored and had lost its vote; posted what the coordinator has committed"
        case RecordKind.DECIDED, State.COMMITTING:
            return f"decided commit, since every bank voted yes; posted its own entries and told {others}"
        case RecordKind.DECIDED, State.ENDED:
            return "committed at once, since all accounts are at this bank; posted every entry"
        case RecordKind.DECIDED, State.ABORTED:
            return f"decided abort, so nothing moves{reason}"
        case RecordKind.RESOLVED, State.FORCED_COMMIT:
            return "an operator forced a commit here: a guess, posted; it goes on asking for the truth"
        case RecordKind.RESOLVED, State.FORCED_ABORT:
            return "an operator forced an abort here: a guess, holds released; it goes on asking for the truth"
        case RecordKind.RESOLVED, State.COMMITTED | State.ABORTED if record.before in FORCED:
            return _truth(record)
        case RecordKind.RESOLVED, State.COMMITTED:
            return "heard of the commit, posted its entries and acknowledged"
        case RecordKind.RESOLVED, State.ABORTED if record.before == State.PREPARED:
            return "heard of the abort and released its holds; nothing moved here"
        case RecordKind.RESOLVED, State.ABORTED:
            return f"voted no, or will never vote yes; nothing is held here{reason}"
        case RecordKind.ENDED, _:
            return "ended: every bank has acknowledged"
    return f"went from {record.before} to {record.after}"


def _truth(record: Record) -> str:
    truth = "commit" if record.after == State.COMMITTED else "abort"
    if (record.before == State.FORCED_COMMIT) == (truth == "commit"):
        return f"heard that the truth is {truth}, as its operator had guessed"
    return f"heard that the truth is {truth}, not what its operator had forced; corrected it by new entries"


def _arrows(line: Line, coordinator: str, participants: Sequence[str], told: Sequence[str]) -> list[str]:
    bank = line.bank
    match line.record.kind, line.record.after:
        case RecordKind.BEGUN, _:
            return [f"{bank}->>{other}: prepare" for other in participants]
        case RecordKind.PREPARED, _:
            return [f"{bank}-->>{coordinator}: vote yes"]
        case RecordKind.DECIDED, State.COMMITTING:
            return [f"Note over {bank}: decision to commit", *[f"{bank}->>{other}: commit" for other in told]]
        case RecordKind.DECIDED, State.ENDED:
            return [f"Note over {bank}: decision to commit, all accounts are here"]
        case RecordKind.DECIDED, State.ABORTED:
            return [f"Note over {bank}: decision to abort", *[f"{bank}->>{other}: abort" for other in told]]
        case RecordKind.RESOLVED, State.FORCED_COMMIT | State.FORCED_ABORT:
            return [f"Note over {bank}: {line.record.after} by an operator"]
        case RecordKind.RESOLVED, State.COMMITTED:
            return [f"{bank}-->>{coordinator}: acknowledge"]
        case RecordKind.RESOLVED, State.ABORTED if not _voted_no(line.record):
            return [f"Note over {bank}: released"]
        case RecordKind.RESOLVED, State.ABORTED:
            return [f"{bank}-->>{coordinator}: vote no"]
        case RecordKind.ENDED, _:
            return [f"Note over {bank}: ended"]
    return []


def _voted_no(record: Record) -> bool:
    return record.kind is RecordKind.RESOLVED and record.before == State.NOTHING and record.after == State.ABORTED


_HEADING: Final = re.compile(r"^(abort|aborted|tombstone): ")
_NOT_PLAIN: Final = re.compile(r"[^\w .&'-]+")


def _reason(detail: str) -> str:
    """A record's reason without the log's own heading, on one line; it may be the words of a hostile bank."""
    shown = "".join(letter if letter.isprintable() else " " for letter in _HEADING.sub("", detail))
    return " ".join(shown.split())


def _plain(name: str) -> str:
    """A name without anything that Mermaid would take for its own."""
    return _NOT_PLAIN.sub(" ", name).strip()
