"""Every reachable state of one transaction on the shipped machines: a coordinator and its participants.

**The network** is the set of all messages ever sent, and any of them may be delivered at any time, again and again:
that is loss, duplication, reordering and unbounded delay at once. **A disk** is a queue of writes: they become durable
one by one at some moment, and what waited for that is then said; a crash keeps as many of them as it likes, and of
what was to follow them nothing is said. **Time** is not counted: everything happens at the same stamp, and whatever
time decides (a deadline, a refusal past ``vote_by``, the wish to inquire) may happen whenever it could. A coordinator
holds one debit; every participant a debit by consent and a larger credit.

Three reductions, of which ``test_the_reductions_hide_nothing`` is the check. What a delivery adds to the messages
*without changing its receiver* is added at once: the set only grows, and nothing that is wrong with few messages is
right with more. Participants are told apart by nothing, so states that differ by their order alone are one
(``Explorer.canonical``). An answer to an inquiry is the same word whoever gives it: kept is that it was said, and
checked when it is said.

**Nothing is stuck**: from every state, *once every message ever sent is lost and nobody crashes any more*, a state can
be reached in which nothing is unfinished or held anywhere. Only what banks say again, and ask again, leads there.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from distribank.core import coordinator, participant
from distribank.core.consents import Consent
from distribank.core.coordinator import state_of
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import SUSPENSE, Account, BookEntry, Entry, Hold, HoldState, Ledger, Reservation
from distribank.core.protocol import (
    IN_DOUBT,
    UNFINISHED,
    Abort,
    Acknowledged,
    Commit,
    Fate,
    Message,
    No,
    Now,
    Outcome,
    Prepare,
    State,
    Step,
    Transaction,
    Vote,
    Yes,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Leg, legs_at
from tests.stories import (
    ANA_HERE,
    ANA_THERE,
    CAIO,
    CAIO_CPF,
    INCARNATION,
    TX,
    VOTE_BY,
    A,
    account,
    consent,
    ledger,
    leg,
    now,
    order,
)

FIRST: Final = 99990002
B: Final = str(FIRST)
PAID, RECEIVED = 50, 150
"""What each participant's accounts lose and gain by a commit, in centavos."""
NO: Final = No(Refusal(Code.LIMIT_EXCEEDED, "no"))
COMMITTED: Final = (State.COMMITTED, State.COMMITTING, State.ENDED)
NOW: Final[Now] = now()

# What was said to or by one participant, as bits: the network's part of its state.
WORDS: Final = (
    "commit",
    "abort",
    "told committed",
    "told aborted",
    "yes",
    "no",
    "acknowledged",
    "inquire",
    "forced",
)
COMMIT, ABORT, TOLD_COMMITTED, TOLD_ABORTED, YES, VOTED_NO, ACKNOWLEDGED, ASKED, FORCED = (
    1 << n for n in range(len(WORDS))
)
TO_PARTICIPANT: Final = COMMIT | ABORT | TOLD_COMMITTED | TOLD_ABORTED
FROM_PARTICIPANT: Final = YES | VOTED_NO | ACKNOWLEDGED | ASKED
CELL_BITS: Final = len(WORDS)

# What was said to anybody at all, and what faults are left.
SAID_COMMITTED, SAID_ABORTED = 1, 2
OUTCOME_SAID: Final = {
    "commit": SAID_COMMITTED,
    "committed": SAID_COMMITTED,
    "abort": SAID_ABORTED,
    "aborted": SAID_ABORTED,
}
HOLDER: Final = -1

Said = tuple[str, int]
"""What, and to which participant (by number), to the holder, or to all of a participant's fellows."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a bank's store holds of the transaction. *entries* are the legs posted so far, by operation."""

    transaction: Transaction | None
    accounts: tuple[Account, ...]
    holds: tuple[Hold, ...] = ()
    consent: Consent | None = None
    guess: Heuristic | None = None
    entries: frozenset[tuple[str, int]] = frozenset()
    owed: int = 0
    reserved: int = 0
    suspense: int = 0

    def with_changes(self, step: Step) -> Kept:
        """After the write of *step*."""
        kept = self
        for row in step.changes:
            if isinstance(row, Transaction):
                kept = replace(kept, transaction=row)
            elif isinstance(row, Account):
                kept = replace(kept, accounts=tuple(row if a.number == row.number else a for a in kept.accounts))
            elif isinstance(row, Hold):
                others = tuple(hold for hold in kept.holds if hold.account != row.account)
                kept = replace(kept, holds=(*others, row))
            elif isinstance(row, Consent):
                kept = replace(kept, consent=row)
            elif isinstance(row, Heuristic):
                kept = replace(kept, guess=row)
            elif isinstance(row, Reservation):
                kept = replace(kept, reserved=kept.reserved + row.amount)
            elif isinstance(row, BookEntry) and row.book == SUSPENSE:
                kept = replace(kept, suspense=kept.suspense + row.amount)
            elif isinstance(row, BookEntry):
                kept = replace(kept, owed=kept.owed + row.amount)
            elif isinstance(row, Entry):
                leg_posted = (row.operation, row.leg)
                assert leg_posted not in kept.entries, f"leg {row.leg} of {row.operation} is posted twice"
                kept = replace(kept, entries=kept.entries | {leg_posted})
        return kept.canonical()

    def canonical(self) -> Kept:
        """Without what no step looks at any more, such as why it was aborted: fewer states, the same behaviour."""
        known = self.transaction
        if known is not None and known.state is State.ABORTED:
            known = Transaction(TX, known.role, State.ABORTED, known.begun_at, because=NO.because)
        placed = tuple(
            replace(hold, placed_change=0, change=0) for hold in self.holds if hold.state is HoldState.PLACED
        )
        guess = self.guess if self.guess is not None and self.guess.truth is None else None
        accounts = tuple(replace(each, changes=0) for each in self.accounts)
        return replace(self, transaction=known, accounts=accounts, holds=placed, guess=guess)

    @property
    def ledger(self) -> Ledger:
        return ledger(*self.accounts, holds=self.holds)

    @property
    def state(self) -> State | None:
        return self.transaction.state if self.transaction else None


@dataclass(frozen=True, slots=True)
class Bank:
    """One bank: the votes in its *memory* (a coordinator's), what is *flushed*, and its queued writes in order, each
    with what may be said once it is durable."""

    memory: Transaction | None
    flushed: Kept
    queue: tuple[tuple[Kept, frozenset[Said]], ...] = ()

    @property
    def present(self) -> Kept:
        """What the next decision sees."""
        return self.queue[-1][0] if self.queue else self.flushed


Move = tuple[str, Bank, frozenset[Said]]
"""What happened in words, the bank after it, and what it says at once."""


def take(bank: Bank, step: Step, said: Iterable[Said], durably: Iterable[Said] = ()) -> tuple[Bank, frozenset[Said]]:
    """*bank* after *step*, and what it says at once; what is forced, and *durably*, waits for the flush."""
    before = bank.present
    kept = before.with_changes(step)
    later = frozenset(durably) | (frozenset(said) if step.forced else frozenset())
    at_once = frozenset() if step.forced else frozenset(said)
    queue = bank.queue
    if kept != before:
        queue = (*queue, (kept, later))
    elif queue:
        queue = (*queue[:-1], (kept, queue[-1][1] | later))
    else:
        at_once |= later
    return replace(bank, queue=queue), at_once


def flush(bank: Bank) -> Move:
    """The first of the queued writes becomes durable, and what waited for it is said."""
    (kept, said), *others = bank.queue
    return "writes to its disk", Bank(bank.memory, kept, tuple(others)), said


def crashes(bank: Bank, restarted: Callable[[Bank], tuple[Bank, frozenset[Said]]]) -> Iterator[Move]:
    """The process dies and starts again: any first part of what was queued is on the disk, and nothing of it said."""
    for number in range(len(bank.queue) + 1):
        kept = bank.queue[number - 1][0] if number else bank.flushed
        of = f", {number} of {len(bank.queue)} writes on its disk" if bank.queue else ""
        yield (f"crashes and starts again{of}", *restarted(Bank(kept.transaction, kept)))


# The coordinator --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coordinator:
    """The coordinator of a transaction of *count* participants: what may happen at it."""

    count: int

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(str(FIRST + n) for n in range(self.count))

    @property
    def legs(self) -> tuple[Leg, ...]:
        each = RECEIVED - PAID
        legs = [leg(1, A, ANA_HERE, -each * self.count)]
        for n, code in enumerate(self.codes):
            legs += [leg(2 * n + 2, code, ANA_THERE, -PAID), leg(2 * n + 3, code, CAIO, RECEIVED)]
        return tuple(legs)

    def asked(self) -> Prepare:
        """The prepare as the first participant gets it: for every participant it is the same but for names."""
        (_, message), *_others = self.begun().messages
        assert isinstance(message, Prepare)
        return message

    def begun(self) -> Step:
        before = ledger(account(ANA_HERE, self.rich))
        return coordinator.begin(TX, order(self.legs), before, {}, NOW, VOTE_BY)

    @property
    def rich(self) -> int:
        return (RECEIVED - PAID) * self.count

    def first(self) -> Bank:
        empty = Kept(None, (account(ANA_HERE, self.rich),))
        step = self.begun()
        return replace(take(Bank(None, empty), step, ())[0], memory=step.transaction)

    def said(self, step: Step, asker: int) -> Iterator[Said]:
        """The messages and the answer of *step*, as far as they matter; each must be what its receiver is owed."""
        for to, message in step.messages:
            yield self._word(to, message), self.codes.index(to)
        if isinstance(step.answer, Outcome) and step.answer.fate in (Fate.COMMITTED, Fate.ABORTED):
            yield str(step.answer.fate), asker

    def _word(self, to: str, message: Message) -> str:
        if isinstance(message, Commit):
            assert message.legs == legs_at(to, self.legs), f"{to} is told to commit legs that are not its own"
            return "commit"
        assert isinstance(message, Abort), f"a coordinator says {message}"
        return "abort"

    def hears(self, bank: Bank, word: str, sender: int) -> Move:
        """The coordinator hears *word* from participant number *sender*."""
        event = coordinator.Event
        events = {"yes": event.YES, "no": event.NO, "acknowledged": event.ACKNOWLEDGE, "inquire": event.INQUIRE}
        present, code = bank.present, self.codes[sender]
        durable = present.transaction == bank.flushed.transaction
        known = present.transaction if word in ("inquire", "acknowledged") else bank.memory
        vote = Vote(code, Yes(NOW.stamp) if word == "yes" else NO) if word in ("yes", "no") else None
        situation = coordinator.Situation(known, NOW, present.ledger, vote, code)
        step = coordinator.step(state_of(known, TX, INCARNATION, durable=durable), events[word], situation)
        heard = "is asked for the outcome by" if word == "inquire" else f"hears {word} from"
        if word == "inquire":
            return (f"{heard} {{{sender}}}", *take(bank, step, self.said(step, sender)))
        return (f"{heard} {{{sender}}}", *self._after(bank, step, sender))

    def _after(self, bank: Bank, step: Step, asker: int) -> tuple[Bank, frozenset[Said]]:
        decided = step.transaction is not None and step.transaction.state in (State.COMMITTING, State.ABORTED)
        word = "abort" if step.transaction is not None and step.transaction.state is State.ABORTED else "commit"
        told = [(word, HOLDER)] if decided and step.records else []
        after, said = take(bank, step, self.said(step, asker), told)
        memory = step.transaction
        if memory is not None and memory.state is State.ABORTED:
            memory = after.present.transaction
        return replace(after, memory=memory), said

    def alone(self, bank: Bank) -> Iterator[Move]:
        """What may happen without hearing anything."""
        if bank.queue:
            yield flush(bank)
        if bank.memory is not None and bank.memory.state is State.PREPARING:
            situation = coordinator.Situation(bank.memory, NOW, bank.present.ledger)
            step = coordinator.step(State.PREPARING, coordinator.Event.DEADLINE, situation)
            yield ("waits no longer for votes", *self._after(bank, step, HOLDER))
        if bank.memory is not None and bank.memory.state is State.COMMITTING and not bank.queue:
            situation = coordinator.Situation(bank.memory, NOW, bank.present.ledger)
            step = coordinator.step(State.COMMITTING, coordinator.Event.RESTART, situation)
            yield ("tells the commit again", *self._after(bank, step, HOLDER))

    def crashed(self, bank: Bank) -> Iterator[Move]:
        yield from crashes(bank, self._restarted)

    def _restarted(self, bank: Bank) -> tuple[Bank, frozenset[Said]]:
        known = bank.flushed.transaction
        if known is None:
            return bank, frozenset()
        situation = coordinator.Situation(known, NOW, bank.flushed.ledger)
        step = coordinator.step(state_of(known, TX, INCARNATION), coordinator.Event.RESTART, situation)
        return self._after(bank, step, HOLDER)

    def wrong(self, bank: Bank, said: int) -> str | None:
        """Which promise the coordinator has broken, if any, now that *said* was said by anybody."""
        if said & SAID_COMMITTED and bank.flushed.state not in COMMITTED:
            return "a commit was spoken of, and the decision can be lost"
        if said & SAID_ABORTED and bank.present.state in COMMITTED:
            return "it was said to be aborted, and it is committed"
        (kept,), state = bank.present.accounts, bank.present.state
        is_held, posted = state is State.PREPARING, 0 if state in COMMITTED else self.rich
        if (kept.open_holds, kept.posted) == (is_held, posted):
            return None
        return f"is {state}, and its account has {kept.posted} and {kept.open_holds} holds"

    def renamed(self, bank: Bank, order: tuple[int, ...]) -> Bank:
        """*bank* where participant *order[n]* is called *n*."""
        codes, places = self.codes, {old: new for new, old in enumerate(order)}

        def row(known: Transaction | None) -> Transaction | None:
            if known is None or not known.votes:
                return known
            return replace(known, votes=tuple(replace(known.votes[o], bank=codes[n]) for n, o in enumerate(order)))

        def kept(before: Kept) -> Kept:
            return replace(before, transaction=row(before.transaction))

        queue = tuple((kept(k), frozenset((word, places.get(to, to)) for word, to in said)) for k, said in bank.queue)
        return Bank(row(bank.memory), kept(bank.flushed), queue)

    def about(self, bank: Bank, number: int) -> tuple[object, ...]:
        """All that *bank* knows of participant *number*, and of it alone."""
        rows = [bank.memory, bank.flushed.transaction, *(kept.transaction for kept, _ in bank.queue)]
        votes = [replace(row.votes[number], bank="") if row is not None and row.votes else None for row in rows]
        said = [tuple(sorted(word for word, to in said if to == number)) for _, said in bank.queue]
        return (*votes, *said)


# A participant ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Participant:
    """What may happen at any participant: each is the first one but for its name. *prepare* is what it is asked."""

    prepare: Prepare

    def first(self) -> Bank:
        accounts = (account(ANA_THERE, PAID), account(CAIO, 0, CAIO_CPF))
        given = consent(max_per_transfer=PAID, max_total=PAID)
        return Bank(None, Kept(None, accounts, consent=given))

    def hears(self, bank: Bank, word: str, prepare: Prepare | None = None) -> Move:
        event = participant.Event
        events = {
            "prepare": event.PREPARE,
            "commit": event.COMMIT,
            "abort": event.ABORT,
            "inquire": event.INQUIRE,
            "told committed": event.TOLD_COMMITTED,
            "told aborted": event.TOLD_ABORTED,
            "time": event.NOT_TOLD,
            "force commit": event.RESOLVE,
            "force abort": event.RESOLVE,
        }
        kept = bank.present
        verdict = Verdict(word.removeprefix("force ")) if word.startswith("force") else None
        situation = participant.Situation(
            B,
            TX,
            kept.transaction,
            NOW,
            kept.ledger,
            prepare=prepare or self.prepare,
            commit=Commit(TX, NOW.stamp, self.prepare.legs) if word == "commit" else None,
            vote_by=VOTE_BY,
            at=NOW.stamp,
            consents=(kept.consent,) if kept.consent else (),
            heuristic=kept.guess,
            verdict=verdict,
        )
        step = participant.step(events[word], situation)
        if step.alarm is not None and verdict is None and not kept.guess:
            raise AssertionError(step.alarm)
        said = {("forced", HOLDER)} if verdict else set(_words(step)) if word in _ANSWERED else set()
        return (_IN_WORDS.get(word, word), *take(bank, step, said))

    def alone(self, bank: Bank, *, may_force: bool) -> Iterator[Move]:
        """What may happen without hearing more than the prepare, which was sent at the start."""
        if bank.queue:
            yield flush(bank)
        yield self.hears(bank, "prepare")
        if bank.present.transaction is None:
            refused = self.hears(bank, "prepare", replace(self.prepare, flow=0))
            yield ("hears prepare and has a reason to refuse", *refused[1:])
        elif bank.present.state in IN_DOUBT:
            yield self.hears(bank, "time")
            if may_force and bank.present.state is State.PREPARED:
                yield self.hears(bank, "force commit")
                yield self.hears(bank, "force abort")

    def crashed(self, bank: Bank) -> Iterator[Move]:
        yield from crashes(bank, lambda after: (replace(after, memory=None), frozenset()))

    def wrong(self, bank: Bank, bits: int) -> str | None:
        """Which promise a participant has broken, if any, now that *bits* were said by it."""
        kept, flushed = bank.present, bank.flushed
        if bits & ACKNOWLEDGED and (flushed.state is not State.COMMITTED or not _is_posted(flushed)):
            return "has acknowledged, and has posted nothing durably"
        if bits & YES and flushed.state not in (*IN_DOUBT, State.COMMITTED, State.ABORTED):
            return "has promised, and its promise can be lost"
        if bits & FORCED and flushed.state in (None, State.PREPARED):
            return "has told its operator that it was forced, and that can be lost"
        is_held = kept.state is State.PREPARED
        if any(each.open_holds != is_held for each in kept.accounts) or len(kept.holds) != 2 * is_held:
            return f"is {kept.state} and has {len(kept.holds)} holds"
        if kept.reserved != (RECEIVED - PAID) * is_held:
            return f"is {kept.state}, and {kept.reserved} is reserved of its position"
        if _is_posted(kept) != (kept.state in (State.COMMITTED, State.FORCED_COMMIT)):
            return f"is {kept.state}, and its accounts have {[each.posted for each in kept.accounts]}"
        used = kept.consent.used if kept.consent else 0
        if used != (0 if kept.state in (None, State.ABORTED) else PAID):
            return f"is {kept.state}, and {used} of the consent is used"
        customers = sum(each.posted for each in kept.accounts) - PAID
        if customers + kept.owed + kept.suspense:
            return f"its books do not balance: {customers}, {kept.owed} and {kept.suspense} in suspense"
        return None


_ANSWERED: Final = ("prepare", "commit", "inquire")  # nobody waits for the answer to an abort
_IN_WORDS: Final = {
    "prepare": "hears prepare",
    "commit": "hears commit",
    "abort": "hears abort",
    "inquire": "is asked for the outcome by another participant",
    "told committed": "hears, having asked, that it is committed",
    "told aborted": "hears, having asked, that it is aborted",
    "time": "has asked for the outcome, and time passes",
    "force commit": "is forced to commit by its operator",
    "force abort": "is forced to abort by its operator",
}


def _words(step: Step) -> Iterator[Said]:
    answer = step.answer
    if isinstance(answer, Yes | No):
        yield "yes" if isinstance(answer, Yes) else "no", HOLDER
    elif isinstance(answer, Outcome) and answer.fate in (Fate.COMMITTED, Fate.ABORTED):
        yield str(answer.fate), HOLDER
    elif isinstance(answer, Acknowledged):
        yield "acknowledged", HOLDER


def _is_posted(kept: Kept) -> bool:
    payer, payee = (each.posted for each in kept.accounts)
    assert (payer, payee) in ((PAID, 0), (0, RECEIVED)), f"half of the legs are posted: {kept.accounts}"
    return payee > 0


# All of it --------------------------------------------------------------------------------------------------------


class Numbered(dict[Any, int]):
    """Numbers for things, and the things by number: comparing states is then comparing a few integers."""

    def __init__(self) -> None:
        self.things: list[Any] = []

    def __missing__(self, thing: Any) -> int:
        self[thing] = number = len(self.things)
        self.things.append(thing)
        return number


World = tuple[int, ...]
"""The coordinator by number, then faults left and what was said to anybody, then one cell for each participant: its
number and, in the lowest ``CELL_BITS``, what was said to it and by it."""


@dataclass(frozen=True)
class Explored:
    """What was found: *wrong* names a broken promise, or a state from which nothing ends, and *story* leads there."""

    participants: int
    crashes: int
    forced: int
    worlds: int
    transitions: int
    seconds: float
    met: frozenset[State | None] = frozenset()
    wrong: str | None = None
    story: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        figures = (
            f"{self.participants} participants, {self.crashes} crashes, {self.forced} forced: "
            f"{self.worlds:,} states, {self.transitions:,} transitions, {self.seconds:.1f} s"
        )
        if self.wrong is None:
            return f"{figures}: no promise broken, and all can end from each of them, every message lost"
        steps = [f"  {number}. {line}" for number, line in enumerate(self.story, 1)]
        return "\n".join([f"{figures}: {self.wrong}", *steps])


class _Wrong(Exception):
    pass


class Explorer:
    """One exploration. *reduced* as the module says; without it every state is walked as it is."""

    def __init__(self, count: int, crash_budget: int, forced: int, *, reduced: bool = True) -> None:
        self.reduced = reduced
        self.coordinator = Coordinator(count)
        self.participant = Participant(self.coordinator.asked())
        self.count, self.crash_budget, self.forced = count, crash_budget, forced
        self.worlds: dict[World, int] = {}
        self.banks = Numbered()
        self.abouts = Numbered()
        # Each local step is computed once, whatever goes on elsewhere.
        self.coordinator_moves = cache(self._coordinator_moves)
        self.coordinator_adds = cache(self._coordinator_adds)
        self.participant_moves = cache(self._participant_moves)
        self.participant_adds = cache(self._participant_adds)
        self.parts = cache(self._parts)
        self.renamed = cache(self._renamed)
        self.broken = cache(self._broken)
        self.is_quiet = cache(self._is_quiet)
        self.outcome = cache(lambda number: self.banks.things[number].present.state)

    # A world's second number: crashes left, forced parts left, what was said.

    def first(self) -> World:
        left = self.crash_budget << 4 | self.forced << 2
        one = self.banks[self.participant.first()] << CELL_BITS
        return (self.banks[self.coordinator.first()], left, *[one] * self.count)

    # Local steps, each with what it adds: (words, number after, bits per participant or for all fellows, said, costs)

    def _coordinator_moves(
        self, number: int, words: tuple[int, ...], may_crash: bool
    ) -> list[tuple[str, int, tuple[int, ...], int, int]]:
        bank, found = self.banks.things[number], []
        found += [(move, 0) for move in self.coordinator.alone(bank)]
        for sender, bits in enumerate(words):
            for word, bit in (("yes", YES), ("no", VOTED_NO), ("acknowledged", ACKNOWLEDGED), ("inquire", ASKED)):
                if bits & bit:
                    found.append((self.coordinator.hears(bank, word, sender), 0))
        if may_crash:
            found += [(move, 1 << 4) for move in self.coordinator.crashed(bank)]
        moves = []
        told = {"commit": COMMIT, "abort": ABORT, "committed": TOLD_COMMITTED, "aborted": TOLD_ABORTED}
        for (line, after, said), cost in found:
            bits = [0] * self.count
            outcome = 0
            for word, to in said:
                outcome |= OUTCOME_SAID[word]
                if to != HOLDER:
                    bits[to] |= told[word]
            moves.append((line, self.banks[after], tuple(bits), outcome, cost))
        return moves

    def _participant_moves(
        self, cell: int, is_asked: bool, may_crash: bool, may_force: bool
    ) -> list[tuple[str, int, int, int, int]]:
        """As above: the cell after it, then what all fellows who have asked are told, what was said, and the cost."""
        number, bits = cell >> CELL_BITS, cell & (1 << CELL_BITS) - 1
        bank = self.banks.things[number]
        found = [(m, (1 << 2) if "forced to" in m[0] else 0) for m in self.participant.alone(bank, may_force=may_force)]
        found += [(self.participant.hears(bank, WORDS[n]), 0) for n in range(4) if bits >> n & 1]
        if is_asked:
            found.append((self.participant.hears(bank, "inquire"), 0))
        if may_crash:
            found += [(move, 1 << 4) for move in self.participant.crashed(bank)]
        moves = []
        own = {"yes": YES, "no": VOTED_NO, "acknowledged": ACKNOWLEDGED, "forced": FORCED}
        told = {"committed": TOLD_COMMITTED, "aborted": TOLD_ABORTED}
        for (line, after, said), cost in found:
            new, fellows, outcome = bits, 0, 0
            for word, _ in said:
                new |= own.get(word, 0)
                fellows |= told.get(word, 0)
                outcome |= OUTCOME_SAID.get(word, 0)
            if after.present.state in IN_DOUBT:
                new |= ASKED
            moves.append((line, self.banks[after] << CELL_BITS | new, fellows, outcome, cost))
        return moves

    def _coordinator_adds(self, number: int, words: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """What the coordinator can say without changing: bits for each participant, and what was said."""
        added, outcome = [0] * self.count, 0
        for _, after, bits, said, cost in self.coordinator_moves(number, words, False):
            if after == number and not cost:
                added, outcome = [a | b for a, b in zip(added, bits, strict=True)], outcome | said
        return tuple(added), outcome

    def _participant_adds(self, cell: int, is_asked: bool) -> tuple[int, int, int]:
        """What a participant can say without changing: its cell after it, what its fellows are told, what was said."""
        added, told, outcome = cell, 0, 0
        for _, after, fellows, said, cost in self.participant_moves(cell, is_asked, False, False):
            if after >> CELL_BITS == cell >> CELL_BITS and not cost:
                added, told, outcome = added | after, told | fellows, outcome | said
        return added, told, outcome

    # From world to world

    def moves(self, world: World) -> Iterator[tuple[int, str, int, int, list[int], int]]:
        """(who, words, coordinator, left, cells, cost) of each step from *world*, not yet closed nor in order."""
        number, left, *cells = world
        may_crash, may_force = left >> 4 > 0, left >> 2 & 3 > 0
        words = tuple([cell & FROM_PARTICIPANT for cell in cells])
        for line, after, bits, said, cost in self.coordinator_moves(number, words, may_crash):
            if after != number or cost or not self.reduced:
                then = [c | b for c, b in zip(cells, bits, strict=True)]
                yield 0, line, after, (left - cost) | said, then, cost
        asking = sum(cell & ASKED for cell in cells)
        parts, before = self.parts(number), None
        for n, cell in enumerate(cells):
            if (cell, parts[n]) == before and self.reduced:
                continue  # told apart from the one before by nothing
            before = cell, parts[n]
            is_asked = asking > cell & ASKED
            for line, after, fellows, said, cost in self.participant_moves(cell, is_asked, may_crash, may_force):
                if after >> CELL_BITS != cell >> CELL_BITS or cost or not self.reduced:
                    then = [c | fellows if c & ASKED else c for c in cells] if fellows else cells.copy()
                    then[n] = after
                    yield n + 1, line, number, (left - cost) | said, then, cost

    def kept(self, world: World) -> World:
        """The state that stands for *world* in this exploration."""
        return self.canonical(self.closed(world)) if self.reduced else world

    def closed(self, world: World) -> World:
        """With all that can be said without anybody changing."""
        number, left, *cells = world
        while True:
            before = cells
            bits, said = self.coordinator_adds(number, tuple([cell & FROM_PARTICIPANT for cell in cells]))
            left |= said
            cells = [c | b for c, b in zip(cells, bits, strict=True)]
            asking = sum(cell & ASKED for cell in cells)
            for n in range(self.count):
                after, fellows, said = self.participant_adds(cells[n], asking > cells[n] & ASKED)
                left |= said
                if fellows:
                    cells = [c | fellows if c & ASKED and m != n else c for m, c in enumerate(cells)]
                cells[n] |= after
            if before == cells:
                return (number, left, *cells)

    def canonical(self, world: World) -> World:
        """The one of all that differ from *world* by the order of participants alone."""
        number, left, *cells = world
        parts = self.parts(number)
        order = tuple(sorted(range(self.count), key=lambda n: (cells[n], parts[n])))
        if all(n == place for place, n in enumerate(order)):
            return world
        return (self.renamed(number, order), left, *(cells[n] for n in order))

    def _parts(self, number: int) -> tuple[int, ...]:
        bank = self.banks.things[number]
        return tuple(self.abouts[self.coordinator.about(bank, n)] for n in range(self.count))

    def _renamed(self, number: int, order: tuple[int, ...]) -> int:
        return self.banks[self.coordinator.renamed(self.banks.things[number], order)]

    # What must hold

    def _broken(self, who: int, number: int, said: int) -> str | None:
        bank = self.banks.things[number]
        return self.coordinator.wrong(bank, said) if who == 0 else self.participant.wrong(bank, said)

    def wrong(self, world: World) -> str | None:
        number, left, *cells = world
        why = self.broken(0, number, left & 3)
        if why is not None:
            return f"the coordinator: {why}"
        states = {self.outcome(number)}
        for cell in cells:
            why = self.broken(1, cell >> CELL_BITS, cell & (YES | ACKNOWLEDGED | FORCED))
            if why is not None:
                return f"a participant {why}"
            states.add(self.outcome(cell >> CELL_BITS))
        if State.ABORTED in states and not states.isdisjoint(COMMITTED):
            return f"one bank has committed while another has aborted: {', '.join(sorted(map(str, states)))}"
        return None

    def _is_quiet(self, number: int) -> bool:
        bank = self.banks.things[number]
        return (
            not bank.queue and bank.flushed.state not in UNFINISHED and bank.memory in (None, bank.flushed.transaction)
        )

    def is_quiescent(self, world: World) -> bool:
        """Nothing is unfinished anywhere, on any disk; nor held, for ``wrong`` ties holds to what is unfinished."""
        number, _, *cells = world
        return self.is_quiet(number) and all(self.is_quiet(cell >> CELL_BITS) for cell in cells)

    # The walk

    def walk(self) -> Explored:
        """Breadth first, so that the first thing wrong is found by a shortest way."""
        started = time.perf_counter()
        worlds, list_of, parents = self.worlds, [], array("I")
        at = transitions = 0

        def found(world: World, parent: int) -> None:
            if world not in worlds:
                worlds[world] = len(list_of)
                list_of.append(world)
                parents.append(parent)
                why = self.wrong(world)
                if why is not None:
                    raise _Wrong(why)

        def explored(why: str | None = None, story: Iterable[str] = ()) -> Explored:
            met = frozenset(bank.present.state for bank in self.banks.things)
            seconds = time.perf_counter() - started
            budgets = (self.count, self.crash_budget, self.forced)
            return Explored(*budgets, len(list_of), transitions, seconds, met, why, tuple(story))

        try:
            found(self.kept(self.first()), 0)
            while at < len(list_of):
                moves = self.moves(list_of[at])
                reached = dict.fromkeys(self.kept((number, left, *cells)) for *_, number, left, cells, _ in moves)
                transitions += len(reached)
                for world in reached:
                    found(world, at)
                at += 1
        except _Wrong as wrong:
            return explored(str(wrong), self._story(self._path(list_of, parents, len(list_of) - 1)))
        except AssertionError as refused:
            return explored(f"next, {refused}", self._story(self._path(list_of, parents, at)))
        stuck = self._stuck(list_of)
        if stuck is not None:
            why = "if all messages are lost now, this can never end"
            return explored(why, self._story(self._path(list_of, parents, stuck)))
        return explored()

    def _stuck(self, reached: list[World]) -> int | None:
        """A world from which, all messages being lost and without a further fault, nothing quiescent can be reached."""
        silent: dict[World, int] = {}  # in which of the worlds that were reached every message was lost
        for number, world in enumerate(reached):
            silent.setdefault(self._after_silence(world), number)
        numbers = {world: number for number, world in enumerate(silent)}
        worlds, steps, starts = list(silent), array("I"), array("Q")
        ends = bytearray()
        for world in worlds:  # it grows meanwhile
            starts.append(len(steps))
            ends.append(self.is_quiescent(world))
            if not ends[-1]:
                for *_, number, left, cells, _ in self.moves(world):
                    after = self._without_counts(self.kept((number, left, *cells)))
                    if after not in numbers:
                        numbers[after] = len(worlds)
                        worlds.append(after)
                    steps.append(numbers[after])
        starts.append(len(steps))
        left_open = [number for number in range(len(worlds) - 1, -1, -1) if not ends[number]]
        while left_open:
            still = []
            for number in left_open:
                if any(ends[after] for after in steps[starts[number] : starts[number + 1]]):
                    ends[number] = 1
                else:
                    still.append(number)
            if len(still) == len(left_open):
                return min((silent[worlds[n]] for n in still if worlds[n] in silent), default=0)
            left_open = still
        return None

    def _after_silence(self, world: World) -> World:
        number, _, *cells = world
        return self._without_counts(self.kept((number, 0, *(cell >> CELL_BITS << CELL_BITS for cell in cells))))

    @staticmethod
    def _without_counts(world: World) -> World:
        """*world* without the faults that are left and what was said to whom: neither leads anywhere."""
        return (world[0], 0, *world[2:])

    @staticmethod
    def _path(worlds: list[World], parents: array[int], number: int) -> list[World]:
        path = [worlds[number]]
        while number:
            number = parents[number]
            path.append(worlds[number])
        return path[::-1]

    def _story(self, path: list[World]) -> Iterator[str]:
        """The way in words. Along it no participant changes its name, so it is walked anew beside the canonical one."""
        here = self.closed(self.first())
        for target in path[1:]:
            for who, line, number, left, cells, _ in self.moves(here):
                after = self.closed((number, left, *cells))
                if self.canonical(after) == target:
                    yield f"{self._name(who)} {self._named(line)}{self._news(here, after)}"
                    here = after
                    break

    def _name(self, who: int) -> str:
        return "A" if who == 0 else chr(ord("A") + who)

    def _named(self, line: str) -> str:
        return line.format(*(self._name(n + 1) for n in range(self.count)))

    def _news(self, before: World, after: World) -> str:
        """What was said by it."""
        news = []
        for n, (old, new) in enumerate(zip(before[2:], after[2:], strict=True), 1):
            for bit, word in enumerate(WORDS):
                if (new & ~old) >> bit & 1:
                    to = f"to {self._name(n)}" if 1 << bit & TO_PARTICIPANT else f"by {self._name(n)}"
                    news.append(f"{word} {to}")
        return f" [said: {', '.join(news)}]" if news else ""


def explore(participants: int = 2, crashes: int = 2, forced: int = 0) -> Explored:
    """Walk all reachable states of one transaction with so many crashes in all, and so many parts forced."""
    return Explorer(participants, crashes, forced).walk()
