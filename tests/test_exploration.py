"""Every reachable state of one transaction between three banks, on the shipped machines; an operator may force B's.

The network is the set of all messages ever sent, and any of them may be delivered at any time, again and again: that
is loss, duplication, reordering and unbounded delay at once. What a step makes true is first queued, then at some
moment flushed; a crash keeps what was flushed. Moments do not matter here: everything happens at the same stamp, and
whatever time decides (a deadline, a refusal past ``vote_by``) may happen whenever it could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from distribank.core import coordinator, participant
from distribank.core.coordinator import state_of
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import Account, Hold, HoldState, Ledger
from distribank.core.protocol import (
    IN_DOUBT,
    Abort,
    Acknowledged,
    Commit,
    Fate,
    No,
    Outcome,
    Prepare,
    State,
    Step,
    Transaction,
    Vote,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from tests.stories import ANA_HERE, ANA_THERE, INCARNATION, TX, VOTE_BY, A, B, C, account, begin, ledger, leg, now

LEGS = (leg(1, A, ANA_HERE, -300), leg(2, B, ANA_THERE, 100), leg(3, C, ANA_THERE, 200))
START = {A: 300, B: 0, C: 0}
END = {A: 0, B: 100, C: 200}
FELLOW = {B: C, C: B}
CRASHES = 3
NO = No(Refusal(Code.LIMIT_EXCEEDED, "no"))

Said = tuple[str, str, str]
"""(what, from, to): all that distinguishes one message of this transaction from another."""


@dataclass(frozen=True)
class Kept:
    """What a bank's store holds of the transaction."""

    transaction: Transaction | None
    account: Account
    hold: Hold | None = None
    guess: Heuristic | None = None

    def with_changes(self, step: Step) -> Kept:
        kept = self
        for row in step.changes:
            if isinstance(row, Transaction):
                kept = replace(kept, transaction=row)
            elif isinstance(row, Account):
                kept = replace(kept, account=row)
            elif isinstance(row, Hold):
                kept = replace(kept, hold=row)
            elif isinstance(row, Heuristic):
                kept = replace(kept, guess=row)
        return kept.canonical()

    def canonical(self) -> Kept:
        """Without what no step looks at any more, such as why it was aborted: fewer worlds, the same behaviour."""
        known, hold = self.transaction, self.hold
        if known is not None and known.state is State.ABORTED:
            known = Transaction(TX, known.role, State.ABORTED, known.begun_at, because=NO.because)
        hold = hold if hold is not None and hold.state is HoldState.PLACED else None
        guess = self.guess if self.guess is not None and self.guess.truth is None else None
        return Kept(known, replace(self.account, changes=0), hold, guess)

    @property
    def ledger(self) -> Ledger:
        return ledger(self.account, holds=[self.hold] if self.hold else [])


@dataclass(frozen=True)
class Bank:
    """One bank: what it knows in *memory* (votes), what is *queued* in its store, what is *flushed*, and what it may
    say once that is durable."""

    code: str
    memory: Transaction | None
    queued: Kept
    flushed: Kept
    unsaid: frozenset[Said] = frozenset()


def take(bank: Bank, step: Step, said: set[Said]) -> tuple[Bank, frozenset[Said]]:
    """*bank* after *step*, and what it says at once; what is forced waits for the flush."""
    queued = bank.queued.with_changes(step)
    is_aborted = step.transaction is not None and step.transaction.state is State.ABORTED
    after = replace(bank, memory=queued.transaction if is_aborted else step.transaction, queued=queued)
    if step.forced and queued != bank.flushed:
        return replace(after, unsaid=bank.unsaid | said), frozenset()
    return after, frozenset(said)


def words(bank: str, step: Step, asker: str) -> set[Said]:
    """The messages and the answer of *step*, as far as they matter."""
    kinds = {Prepare: "prepare", Commit: "commit", Abort: "abort"}
    said = {(kinds[type(m)], bank, to) for to, m in step.messages if type(m) in kinds}
    answer = step.answer
    if isinstance(answer, Yes | No):
        said.add(("yes" if isinstance(answer, Yes) else "no", bank, asker))
    elif isinstance(answer, Outcome):
        said |= {(str(answer.fate), bank, asker)} if answer.fate in (Fate.COMMITTED, Fate.ABORTED) else set()
    elif isinstance(answer, Acknowledged):
        said.add(("acknowledged", bank, asker))
    return said


def coordinate(bank: Bank, what: str, sender: str) -> Iterator[tuple[Bank, frozenset[Said]]]:
    """The coordinator hears *what* from *sender*."""
    event = coordinator.Event
    events = {"yes": event.YES, "no": event.NO, "acknowledged": event.ACKNOWLEDGE, "inquire": event.INQUIRE}
    durable = bank.queued.transaction == bank.flushed.transaction
    known = bank.queued.transaction if what in ("inquire", "acknowledged") else bank.memory
    vote = Vote(sender, Yes(now().stamp) if what == "yes" else NO) if what in ("yes", "no") else None
    situation = coordinator.Situation(known, now(), bank.queued.ledger, vote, sender)
    step = coordinator.step(state_of(known, TX, INCARNATION, durable=durable), events[what], situation)
    if what == "inquire":
        step = replace(step, transaction=bank.memory)
    yield take(bank, step, words(A, step, sender))


def participate(bank: Bank, what: str, sender: str) -> Iterator[tuple[Bank, frozenset[Said]]]:
    """A participant hears *what* from *sender*; it may refuse a prepare for reasons of its own."""
    event, known = participant.Event, bank.queued.transaction
    events = {
        "prepare": event.PREPARE,
        "commit": event.COMMIT,
        "abort": event.ABORT,
        "inquire": event.INQUIRE,
        Fate.COMMITTED: event.TOLD_COMMITTED,
        Fate.ABORTED: event.TOLD_ABORTED,
        "time": event.NOT_TOLD,
        "force": event.RESOLVE,
    }
    asked = dict(begin(LEGS, START_LEDGER).messages)[bank.code]
    assert isinstance(asked, Prepare)
    situation = participant.Situation(
        bank.code,
        TX,
        known,
        now(),
        bank.queued.ledger,
        prepare=asked,
        commit=Commit(TX, now().stamp, asked.legs) if what == "commit" else None,
        vote_by=VOTE_BY,
        at=now().stamp,
        heuristic=bank.queued.guess,
        verdict=Verdict(sender) if what == "force" else None,
    )
    step = participant.step(events[what], situation)
    answered = what in ("prepare", "commit", "inquire")  # nobody waits for the answer to an abort
    if what == "force":
        yield take(bank, step, {("forced", bank.code, "")})
    else:
        yield take(bank, step, words(bank.code, step, sender) if answered else set())
    if what == "prepare" and known is None:
        step = participant.step(event.PREPARE, replace(situation, prepare=replace(asked, flow=0)))
        yield take(bank, step, words(bank.code, step, sender))


def alone(bank: Bank) -> Iterator[tuple[Bank, frozenset[Said]]]:
    """What may happen at a bank without hearing anything: a flush, the deadline, the wish to ask, an operator."""
    if bank.queued != bank.flushed or bank.unsaid:
        yield replace(bank, flushed=bank.queued, unsaid=frozenset()), bank.unsaid
    if bank.code == A:
        if bank.memory is not None and bank.memory.state is State.PREPARING:
            situation = coordinator.Situation(bank.memory, now(), bank.queued.ledger)
            step = coordinator.step(State.PREPARING, coordinator.Event.DEADLINE, situation)
            yield take(bank, step, words(A, step, ""))
    elif bank.queued.transaction is not None and bank.queued.transaction.state in IN_DOUBT:
        yield bank, frozenset({("inquire", bank.code, A), ("inquire", bank.code, FELLOW[bank.code])})
        yield from participate(bank, "time", "")
        if bank.code == B and bank.queued.transaction.state is State.PREPARED:
            for verdict in Verdict:
                yield from participate(bank, "force", verdict)


def crash(bank: Bank) -> tuple[Bank, frozenset[Said]]:
    """The process dies and starts again: only what was flushed is left, and meets the restart event."""
    known = bank.flushed.transaction
    after = replace(bank, memory=known, queued=bank.flushed, unsaid=frozenset())
    if bank.code != A or known is None:
        return after, frozenset()
    situation = coordinator.Situation(known, now(), after.queued.ledger)
    step = coordinator.step(state_of(known, TX, INCARNATION), coordinator.Event.RESTART, situation)
    return take(after, step, words(A, step, ""))


def wrong(bank: Bank, said: frozenset[Said]) -> str | None:
    """Which promise *bank* has broken, if any, now that *said* has been said."""
    flushed = bank.flushed.transaction.state if bank.flushed.transaction else None
    posted = flushed is State.COMMITTED and bank.flushed.account.posted == END[bank.code]
    if ("acknowledged", bank.code, A) in said and not posted:
        return f"{bank.code} has acknowledged, and has posted nothing durably"
    if ("yes", bank.code, A) in said and flushed not in (*IN_DOUBT, State.COMMITTED, State.ABORTED):
        return f"{bank.code} has promised, and its promise can be lost"
    if ("forced", bank.code, "") in said and flushed in (None, State.PREPARED):
        return f"{bank.code} has told its operator that it was forced, and that can be lost"
    state, kept = state_in(bank), bank.queued.account
    expected = END if state in COMMITTED or state is State.FORCED_COMMIT else START
    if kept.open_holds != (state in (State.PREPARING, State.PREPARED)) or kept.posted != expected[bank.code]:
        return f"{bank.code} is {state} and its account is {kept}"
    return None


COMMITTED = {State.COMMITTED, State.COMMITTING, State.ENDED}


def state_in(bank: Bank) -> State | None:
    return bank.queued.transaction.state if bank.queued.transaction else None


START_LEDGER = ledger(account(ANA_HERE, START[A]))


def first_banks() -> tuple[list[Bank], set[Said]]:
    step = begin(LEGS, START_LEDGER)
    empty = Kept(None, START_LEDGER.accounts[ANA_HERE])
    at_a = Bank(A, step.transaction, empty.with_changes(step), empty)
    others = [Bank(code, None, kept := Kept(None, account(ANA_THERE, START[code])), kept) for code in (B, C)]
    return [at_a, *others], words(A, step, "")


class Numbered(dict[Any, int]):
    """Numbers for things, and the things by number: comparing worlds is then comparing a few integers."""

    def __init__(self) -> None:
        self.things: list[Any] = []

    def __missing__(self, thing: Any) -> int:
        self[thing] = number = len(self.things)
        self.things.append(thing)
        return number


def explore() -> tuple[int, set[State | None], str | None]:
    """Walk all reachable worlds: how many there are, which states were met in them, and what was wrong with one.

    A world is (bank, bank, bank, what was said as bits, crashes left), all by number.
    """
    banks, messages = Numbered(), Numbered()

    def bits(said: Iterable[Said]) -> int:
        return sum(1 << messages[each] for each in sorted(said))

    def numbered(thens: Iterable[tuple[Bank, frozenset[Said]]]) -> list[tuple[int, int]]:
        return [(banks[after], bits(said)) for after, said in thens]

    @cache
    def moves(number: int) -> list[tuple[int, int]]:
        return numbered(alone(banks.things[number]))

    @cache
    def crashes(number: int) -> list[tuple[int, int]]:
        return numbered([crash(banks.things[number])])

    @cache
    def hears(number: int, message: int) -> list[tuple[int, int]]:
        what, sender, to = messages.things[message]
        bank = banks.things[number]
        hear = coordinate if to == A else participate
        return numbered(hear(bank, what, sender)) if to == bank.code else []

    @cache
    def broken(number: int, said: int) -> str | None:
        return wrong(banks.things[number], frozenset(m for n, m in enumerate(messages.things) if said >> n & 1))

    @cache
    def nexts(number: int, said: int, crashes_left: int) -> list[tuple[int, int, int]]:
        heard = [then for n in range(said.bit_length()) if said >> n & 1 for then in hears(number, n)]
        quiet = {(after, said | new, crashes_left) for after, new in (*moves(number), *heard)}
        loud = {(after, said | new, crashes_left - 1) for after, new in crashes(number)} if crashes_left else set()
        return sorted(quiet | loud)

    start, said = first_banks()
    first = (*(banks[bank] for bank in start), bits(said), CRASHES)
    seen, todo = {first}, [first]
    while todo:
        a, b, c, heard, left = todo.pop()
        states = {state_in(banks.things[bank]) for bank in (a, b, c)}
        whys = [broken(bank, heard) for bank in (a, b, c)]
        if State.ABORTED in states and states & COMMITTED:
            whys.append(f"one has committed while another has aborted: {states}")
        if any(whys):
            return len(seen), set(), next(why for why in whys if why)
        reached = [(x, b, c, new, n) for x, new, n in nexts(a, heard, left)]
        reached += [(a, x, c, new, n) for x, new, n in nexts(b, heard, left)]
        reached += [(a, b, x, new, n) for x, new, n in nexts(c, heard, left)]
        for world in reached:
            if world not in seen:
                seen.add(world)
                todo.append(world)
    return len(seen), {state_in(bank) for bank in banks.things}, None


def test_no_order_of_messages_flushes_and_crashes_breaks_a_promise() -> None:
    worlds, met, why = explore()
    assert why is None
    assert met == {None, State.PREPARING, State.ABORTED, *IN_DOUBT, *COMMITTED}
    assert worlds > 1000


def unforced(handler: Callable[[Any], Step]) -> Callable[[Any], Step]:
    return lambda situation: replace(handler(situation), forced=False)


@pytest.mark.parametrize(
    ("machine", "cell", "bug"),
    [
        (coordinator, (State.PREPARING, coordinator.Event.INQUIRE), coordinator._say_aborted),
        (coordinator, (State.PREPARING, coordinator.Event.YES), unforced(coordinator._count_yes)),
        (coordinator, (State.DECIDING, coordinator.Event.INQUIRE), coordinator._say_committed),
        (coordinator, (State.COMMITTING, coordinator.Event.RESTART), coordinator._presume_abort),
        (participant, (State.PREPARED, participant.Event.NOT_TOLD), participant._release),
        (participant, (State.NOTHING, participant.Event.PREPARE), unforced(participant._vote)),
        (participant, (State.NOTHING, participant.Event.INQUIRE), unforced(participant._promise_never_to_vote)),
        (participant, (State.PREPARED, participant.Event.PREPARE), unforced(participant._same_vote)),
        (participant, (State.PREPARED, participant.Event.COMMIT), unforced(participant._post)),
        (participant, (State.COMMITTED, participant.Event.COMMIT), unforced(participant._acknowledge_again)),
        (participant, (State.PREPARED, participant.Event.INQUIRE), participant._say_aborted),
        (participant, (State.PREPARED, participant.Event.RESOLVE), unforced(participant._force)),
        (participant, (State.FORCED_ABORT, participant.Event.INQUIRE), participant._say_aborted),
        (participant, (State.FORCED_ABORT, participant.Event.COMMIT), unforced(participant._learn_commit)),
        (participant, (State.FORCED_ABORT, participant.Event.TOLD_COMMITTED), participant._learn_abort),
        (participant, (State.FORCED_COMMIT, participant.Event.COMMIT), participant._acknowledge_again),
        (participant, (State.FORCED_COMMIT, participant.Event.ABORT), participant._learn_commit),
    ],
)
def test_a_seeded_bug_is_found(monkeypatch: pytest.MonkeyPatch, machine: Any, cell: Any, bug: Any) -> None:
    monkeypatch.setitem(machine.TABLE, cell, bug)
    try:
        why = explore()[2]
    except AssertionError as bug_found:
        why = str(bug_found)
    assert why is not None
