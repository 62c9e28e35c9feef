"""What happened in one simulated run, moment by moment, and how it reads.

Events are kept as they are and put into words only when somebody wants to read them: ``lines`` gives the transcript,
of everything or of some transactions. A transaction is called T1, T2, … in the order of its first appearance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distribank.core.money import format_amount
from distribank.core.protocol import (
    Abort,
    Commit,
    Cut,
    Inquire,
    Log,
    No,
    Outcome,
    Prepare,
    Record,
    Refused,
    Sides,
    Snapshot,
    Yes,
)
from distribank.core.transfer import Leg


class Event(NamedTuple):
    """At *time* (seconds), at bank *where*: *what* happened, concerning *things* (messages, records, words)."""

    time: float
    where: str
    what: str
    things: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """Names the transaction that an event is about, without saying a message again."""

    transaction: str


@dataclass
class Chronicle:
    """The events of one run, in their order."""

    events: list[Event] = field(default_factory=list)

    def add(self, time: float, where: str, what: str, *things: Any) -> None:
        self.events.append(Event(time, where, what, things))

    def lines(self, about: Collection[str] | None = None, last: int = 0) -> Iterator[str]:
        """The transcript, or its *last* events; *about* names the transactions to tell of, with what befell banks."""
        names = _Names()
        for event in self.events[-last:]:
            concerned = _transactions(event)
            if about is not None and concerned and not concerned & set(about):
                continue
            words = f"{event.time:11.6f}  {event.where:<8}  {event.what}"
            if event.things:
                words += ": " + "; ".join(names.put(thing) for thing in event.things)
            yield words
        for number, identity in enumerate(names.known, 1):
            yield f"T{number} is {identity}"

    def fingerprint(self) -> str:
        """SHA-256 of the whole transcript."""
        digest = hashlib.sha256()
        for line in self.lines():
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def _transactions(event: Event) -> set[str]:
    found = set()
    for thing in event.things:
        identity = getattr(thing, "transaction", None)
        if isinstance(identity, str):
            found.add(identity)
    return found


class _Names:
    """Short names of transactions, and everything that is said, in words."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, transaction: str) -> str:
        return f"T{self.known.setdefault(transaction, len(self.known) + 1)}"

    def put(self, thing: Any) -> str:
        match thing:
            case str():
                return thing
            case About():
                return self.of(thing.transaction)
            case Record():
                return f"{self.of(thing.transaction)} {thing.kind}: {thing.before} → {thing.after}, {thing.detail}"
            case Prepare():
                return f"prepare {self.of(thing.transaction)} ({_legs(thing.legs)})"
            case Commit():
                return f"commit {self.of(thing.transaction)} at {thing.at}"
            case Abort():
                return f"abort {self.of(thing.transaction)} ({thing.because.code})"
            case Inquire():
                return f"inquire {self.of(thing.transaction)}"
            case Snapshot():
                asked = f", sides of {', '.join(map(self.of, thing.transactions))}" if thing.transactions else ""
                return f"snapshot at {thing.at}{asked}" if thing.at is not None else "snapshot: what is your clock"
            case Sides():
                return "sides " + ", ".join(f"{self.of(each)} {side}" for each, side in thing.sides.items())
            case Cut():
                parts = f", {len(thing.parts)} in doubt, {len(thing.forced)} forced"
                return f"cut at {thing.at}: customers {thing.customers}, books {dict(thing.books)}{parts}"
            case Yes():
                return f"yes at {thing.prepared_at}"
            case No():
                return f"no ({thing.because.code}: {thing.because.detail})"
            case Refused():
                return f"refused ({thing.code})"
            case Outcome():
                return f"outcome {thing.fate}" + (f" at {thing.at}" if thing.at is not None else "")
            case Log():
                return f"log of {self.of(thing.transaction)}: {len(thing.records)} records"
        return type(thing).__name__.lower()


def _legs(legs: tuple[Leg, ...]) -> str:
    return ", ".join(f"{leg.direction} {leg.account} {format_amount(leg.amount)}" for leg in legs)
