"""The famous moments of two-phase commit, each run on real banks in virtual time and told as it happened.

What is told stands in ``docs/stories``; the test compares it to the letter. ``make stories`` writes it anew
(``DISTRIBANK_STORIES=write``).

Everybody's story is the same: Maria has 100.00 at A and at B and orders at A that 3.00 from A and 2.00 from B go to
Caio at C. A message takes 10 ms, a forced write 2 ms, and A waits 300 ms for the votes.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest

from distribank.bank import TransferResult
from distribank.bank.coordinating import Coordinating
from distribank.bank.ordering import Ordering
from distribank.breakages import Breakage, KeyInProgress
from distribank.core import coordinator, protocol
from distribank.core.heuristics import Heuristic, Verdict
from distribank.core.ledger import Book, EntryKind, Ledger
from distribank.core.protocol import Abort, Answer, Commit, Inquire, Message, Prepare, Record, RecordKind
from distribank.core.snapshot import Audit
from distribank.core.story import tell
from distribank.core.transfer import Direction
from distribank.ports import Queries
from distribank.recovery import Recovery
from distribank.simulation.loop import run
from distribank.store.memory import Disk, MemoryStore
from tests.restores import backup, put_back
from tests.world import WallClock, World, world

DOCS: Final = Path(__file__).parent.parent / "docs" / "stories"
A, B, C = "99990001", "99990002", "99990003"
LETTERS: Final = {A: "A", B: "B", C: "C"}
WIRE_S, DISK_S = 0.01, 0.002
START_MS: Final = 1_800_000_000_000

_KINDS: Final[dict[type, str]] = {protocol.ShowDecisions: "what concerns this bank since its backup?"}

Rule = Callable[[str, str, Message], Awaitable[str]]


class LoopClock(WallClock):
    """A wall clock that goes with the event loop's."""

    @property
    def now(self) -> int:
        return START_MS + round(asyncio.get_running_loop().time() * 1000)

    @now.setter
    def now(self, _start: int) -> None: ...


async def fair(_sender: str, _to: str, _message: Message) -> str:
    return "deliver"


@dataclass
class Told:
    """A network whose messages and records are written down as they happen; ``rule`` says which messages get lost."""

    net: World
    rule: Rule = fair
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    began: float = 0.0
    key: str = "rent"
    here: str = ""
    there: str = ""
    his: str = ""

    # Writing down -------------------------------------------------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        for code, letter in LETTERS.items():
            for told in (f"{code}#", code):  # a process of a bank that has two is A1, or A2
                what, who = what.replace(told, letter), who.replace(told, letter)
        now = f"{asyncio.get_running_loop().time() - self.began:8.3f}"
        self.lines.append((now, who, what))

    async def weather(self, sender: str, to: str, message: Message) -> str:
        if sender in self.down:
            await asyncio.sleep(WIRE_S)
            return "lose request"  # the dead send nothing, whatever the wire of the tests still carries for them
        fate, _, slow = (await self.rule(sender, to, message)).partition(", takes ")
        name, met = _KINDS.get(type(message), type(message).__name__.lower()), self.met_at(to)
        if fate == "lose request" or (met in self.down and not slow):
            self.say(f"{sender} → {met}", f"{name} … does not arrive")
            await asyncio.sleep(WIRE_S)
            return "lose request"
        self.say(f"{sender} → {met}", name + (f", which takes {slow} s" if slow else ""))
        await asyncio.sleep(float(slow or WIRE_S))
        return fate

    def answered(self, sender: str, to: str, message: Message, answer: Answer) -> None:
        lost = " … does not arrive" if sender in self.down else ""
        self.say(f"{to} → {sender}", f"{_words(answer)}{lost}")

    def met_at(self, code: str) -> str:
        """The process that is met at a bank's address."""
        return self.net.front.get(code, code)

    def _watch(self, code: str) -> None:
        """Write down every record of this bank's that becomes durable; its disk takes its time."""
        store = self.net.stores[code]
        disk = store.disk
        if code in self.net.servers:
            self.net.servers[code].manners.commit = lambda: DISK_S
        apply = type(disk).apply

        def noting(group: Any) -> None:
            apply(disk, group)
            for record in group.added[Record]:
                for line in tell({code: [record]}, self.participants(record.transaction), frank=True):
                    self.say(code, f"| {line.words}")

        disk.apply = noting  # type: ignore[method-assign]
        store.flush_gate = lambda: asyncio.ensure_future(asyncio.sleep(DISK_S))

    def participants(self, transaction: str) -> list[str]:
        rows = [store.disk.rows[protocol.Transaction].get(transaction) for store in self.net.stores.values()]
        return [*next((row.participants for row in rows if row is not None and row.participants), ())]

    # What happens -------------------------------------------------------------------------------------------------

    async def settle_in(self) -> None:
        self.here, self.there = await self.net.account(A, 100_00), await self.net.account(B, 100_00)
        self.his = await self.net.account(C, which=1)
        await self.net.consent(B, self.there, A)
        for code in (A, B, C):
            self._watch(code)
        self.net.weather = self.weather
        self.net.answered = _Noting(self.answered)
        self.began = asyncio.get_running_loop().time()

    def order(self, wait: float = 5) -> asyncio.Task[TransferResult | None]:
        """Maria orders, and hears what she hears."""
        at = self.met_at(A)
        self.say(f"Maria → {at}", f'transfer 3.00 from A and 2.00 from B to Caio at C, under the key "{self.key}"')
        legs = ((A, self.here, -3_00), (B, self.there, -2_00), (C, self.his, 5_00))
        return asyncio.ensure_future(self._order(at, legs, wait))

    async def pay(self, centavos: int) -> TransferResult | None:
        """Maria pays Caio out of her account at A alone."""
        at = self.met_at(A)
        self.say(f"Maria → {at}", f'transfer {_amount(centavos)} from A to Caio at C, under the key "{self.key}"')
        return await self._order(at, ((A, self.here, -centavos), (C, self.his, centavos)), 5)

    async def _order(self, at: str, legs: tuple[tuple[str, str, int], ...], wait: float) -> TransferResult | None:
        result = None
        try:
            result = await self.net.transfer(A, *legs, key=self.key, wait=wait)
        except KeyInProgress:
            self.say(f"{at} → Maria", "409: the first request under this key is still running")
            return None
        except Breakage:
            pass
        if result is None or at in self.down:
            self.say(f"{at} → Maria", "nothing: the connection broke")
            return None
        because = f", because: {result.transaction.because.detail}" if result.transaction.because else ""
        replayed = ", replayed: this key has its transfer" if result.replayed else ""
        self.say(f"{at} → Maria", f"{_status(result)}{because}{replayed}")
        return result

    async def die(self, code: str) -> None:
        self.say(code, "dies")
        self.down.add(code)
        for running in self.net.banks.values():
            running.wire.offline.add(code)
        await self.net.crash(code)

    async def return_(self, code: str, how: str = "is back, and reads its log") -> None:
        self.say(code, how)
        self.down.discard(code)
        for running in self.net.banks.values():
            running.wire.offline.discard(code)
        if code in self.net.stores:
            self._watch(code)
        running = await self.net.start(code)
        running.wire.offline |= self.down

    async def until(self, seconds: float) -> None:
        """Until so many seconds after the story's beginning."""
        await asyncio.sleep(max(0.0, self.began + seconds - asyncio.get_running_loop().time()))

    async def record(self, code: str, kind: RecordKind) -> None:
        """Until this bank has such a record, durably."""
        store = self.net.stores[code]
        while not any(key[2] is kind for key in store.disk.rows[Record]):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)

    async def again(self, sender: str, to: str, message: Message, how: str) -> None:
        """A message arrives that was not sent just now."""
        self.say(f"{sender} → {to}", f"{type(message).__name__.lower()}, {how}")
        clock = self.net.banks[sender].bank.rhythm.stamp()
        (answer,) = await self.net.banks[to].bank.participating.receive(sender, clock, [message])
        self.answered(sender, to, message, answer)

    async def the_end(self) -> None:
        """Everyone is up; nothing stays unfinished; balances; the books of all banks agree."""
        transactions = {t for store in self.net.stores.values() for t in store.disk.rows[protocol.Transaction]}
        for transaction in sorted(transactions):
            await self.net.settle(transaction)
        await asyncio.sleep(6)
        await self.balances("in the end")
        audit = await self.quiet_audit()
        assert audit.ok, audit.findings
        await self.net.check_books()

    async def quiet_audit(self) -> Audit:
        """The network's audit, without its messages in the story."""
        lines = list(self.lines)
        audit = await self.net.at(A).bank.auditing.audit()
        self.lines = lines
        return audit

    async def balances(self, when: str) -> None:
        parts = []
        for code, number, whose in ((A, self.here, "Maria"), (B, self.there, "Maria"), (C, self.his, "Caio")):
            posted, available = await self.net.balance(code, number)
            held = f" ({_amount(posted - available)} of it held)" if posted != available else ""
            parts.append(f"{whose} at {code} has {_amount(posted)}{held}")
        self.say(when, ", ".join(parts))

    def text(self) -> str:
        """Everything that was written down; what happens many times in a row stands there once."""
        width = max(len(who) for _, who, _ in self.lines)
        shown: list[str] = []
        for (who, what), group in groupby(self.lines, key=lambda line: line[1:]):
            times = [now for now, _, _ in group]
            shown += [f"{now}  {who:{width}}  {what}" for now in (times[:1] if len(times) > 2 else times)]
            if len(times) > 2:
                shown.append(f"{times[-1]}  {'':{width}}  (again and again, {len(times) - 1} times until now)")
        return "\n".join(line.rstrip() for line in shown)


class _Noting(list[Any]):
    """A list that tells of each thing that is added to it."""

    def __init__(self, tell_of: Callable[..., None]) -> None:
        super().__init__()
        self._tell_of = tell_of

    def append(self, exchange: Any) -> None:
        super().append(exchange)
        self._tell_of(*exchange)


def _amount(centavos: int) -> str:
    return f"{centavos // 100}.{centavos % 100:02}"


def _status(result: TransferResult) -> str:
    return {
        "preparing": "202: pending",
        "committing": "201: committed",
        "ended": "201: completed",
        "aborted": "aborted",
    }[result.transaction.state]


def _words(answer: Answer) -> str:
    match answer:
        case protocol.Yes():
            return "yes"
        case protocol.No(because):
            return f"no: {because.detail}"
        case protocol.Acknowledged(already):
            return "acknowledged, already done" if already else "acknowledged"
        case protocol.Outcome(fate):
            return str(fate)
        case protocol.Refused(code, detail):
            return f"refused, {code}: {detail}"
        case protocol.ClockRead():
            return "what its clock says"
        case protocol.Cut():
            return "its books at that moment"
        case protocol.Decisions(decisions):
            return f"what it knows since then: transactions, {len(decisions)}"
        case protocol.Sides():
            return "whether that was posted by then"
    return type(answer).__name__.lower()


def lose(*kinds: type[Message], to: str | None = None) -> Rule:
    """These messages do not arrive, at one bank or at any."""

    async def rule(_sender: str, bank: str, message: Message) -> str:
        return "lose request" if isinstance(message, kinds) and to in (None, bank) else "deliver"

    return rule


def late(kind: type[Message], to: str, seconds: float) -> Rule:
    """This message takes so long to *to*."""

    async def rule(_sender: str, bank: str, message: Message) -> str:
        return f"deliver, takes {seconds:g}" if isinstance(message, kind) and bank == to else "deliver"

    return rule


# The stories ------------------------------------------------------------------------------------------------------


async def the_coordinator_dies_before_deciding(told: Told) -> None:
    told.rule = late(Prepare, C, 0.1)
    ordered = told.order()
    await told.until(0.05)
    await told.die(A)
    await ordered
    await told.until(1.0)
    await told.balances("meanwhile")
    told.rule = fair
    await told.return_(A)


async def the_coordinator_dies_after_deciding_before_anyone_heard(told: Told) -> None:
    told.rule = lose(Commit)
    ordered = told.order()
    await told.record(A, RecordKind.DECIDED)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(0.5)
    await told.balances("meanwhile")
    await told.return_(A)


async def the_coordinator_dies_after_telling_one_of_two(told: Told) -> None:
    told.rule = lose(Commit, to=C)
    ordered = told.order()
    await told.record(B, RecordKind.RESOLVED)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(0.5)
    await told.balances("meanwhile")
    await told.return_(A)


async def a_participant_dies_before_its_vote(told: Told) -> None:
    ordered = told.order()
    await told.until(0.011)
    await told.die(C)
    await ordered
    await told.until(1.0)
    await told.return_(C)


async def a_participant_dies_after_its_vote(told: Told) -> None:
    ordered = told.order()
    await told.record(C, RecordKind.PREPARED)
    await told.until(0.018)
    await told.die(C)
    await told.until(0.6)
    await told.return_(C, "is back, reads its log and holds what it held")
    await ordered


async def a_prepare_that_arrives_after_the_abort(told: Told) -> None:
    told.rule = late(Prepare, C, 1.0)
    await told.order()
    await told.until(1.5)


async def a_commit_and_an_abort_twice_and_out_of_order(told: Told) -> None:
    kept: dict[str, Message] = {}

    async def rule(sender: str, to: str, message: Message) -> str:
        if to == B:
            kept[type(message).__name__] = message
        return "deliver"

    told.rule = rule
    await told.order()
    commit, prepare = kept["Commit"], kept["Prepare"]
    await told.again(A, B, commit, "once more")
    await told.again(A, B, prepare, "once more, after its commit")
    assert isinstance(commit, Commit)
    told.say("Caio → C", "withdraw 5.00, and close the account")
    told.key = "rent, once more"
    await _close(told)
    await told.order()
    abort = kept["Abort"]
    assert isinstance(abort, Abort)
    await told.again(A, B, abort, "once more")
    await told.again(A, B, kept["Prepare"], "once more, after its abort")
    await told.again(A, B, Abort(commit.transaction, abort.because), "for the transfer that was committed")


async def _close(told: Told) -> None:
    holder = await told.net.person(C, 1)
    await told.net.cash(C, told.his, 5_00, 1, EntryKind.WITHDRAWAL)
    await told.net.banks[C].bank.custody.close_account(holder.holder_id, told.his)


async def a_vote_that_arrives_after_the_deadline(told: Told) -> None:
    told.net.stores[C].flush_gate = lambda: asyncio.ensure_future(asyncio.sleep(0.5))
    told.say(C, "has a slow disk: 500 ms for a forced write")
    await told.order()
    await told.until(2.0)


async def a_participant_asks_another_that_knows(told: Told) -> None:
    told.rule = lose(Commit, to=C)
    ordered = told.order()
    await told.record(B, RecordKind.RESOLVED)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(3.0)
    await told.balances("meanwhile")
    await told.until(5.0)
    await told.return_(A)


async def all_are_in_doubt_until_the_coordinator_returns(told: Told) -> None:
    told.rule = lose(Commit)
    ordered = told.order()
    await told.record(A, RecordKind.DECIDED)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(4.0)
    await told.balances("meanwhile")
    await told.return_(A)


async def a_bank_that_promises_never_to_vote_settles_it(told: Told) -> None:
    told.rule = lose(Prepare, to=C)
    ordered = told.order()
    await told.until(0.05)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(3.0)
    await told.balances("meanwhile")
    await told.return_(A)


async def a_guess_that_was_wrong_and_its_correction(told: Told) -> None:
    told.rule = lose(Commit, Inquire)
    ordered = told.order(wait=0.5)
    await told.record(A, RecordKind.DECIDED)
    await told.die(A)
    await ordered
    await told.until(2.0)
    (transaction,) = (t for t in told.net.stores[B].disk.rows[protocol.Transaction])
    await told.net.banks[B].bank.participating.force(transaction, Verdict.ABORT, "Maria needs her money")
    await told.balances("meanwhile")
    told.say("Maria → B", "withdraw 99.00")
    await told.net.cash(B, told.there, 99_00, kind=EntryKind.WITHDRAWAL)
    told.rule = fair
    await told.until(3.0)
    await told.return_(A)
    await told.net.settle(transaction)
    guess = await told.net.stores[B].get(Heuristic, transaction)
    assert guess is not None
    book = await told.net.stores[B].get(Book, "suspense")
    assert book is not None
    said = f"suspense stands at -{_amount(-book.balance)}: B paid that for Maria, and nobody's account has it yet"
    told.say(B, said)
    await told.balances("then")
    told.say("operator of B", "Maria has paid in 10.00; she pays what she owes out of it")
    await told.net.cash(B, told.there, 10_00)
    await told.net.banks[B].bank.assigning.assign(
        Direction.DEBIT, -book.balance, told.there, "she has come back", transaction, "k", "f"
    )


async def a_bank_restored_from_a_backup(told: Told) -> None:
    told.rule = lose(Commit, to=B)
    ordered = told.order(wait=0)
    await told.record(A, RecordKind.BEGUN)
    rows = copy.deepcopy(told.net.stores[A].disk.rows)
    legs, last_stamp = set(told.net.stores[A].disk.legs), told.net.stores[A].disk.last_stamp
    told.say(A, "its database is copied: a backup")
    await told.record(C, RecordKind.RESOLVED)
    await told.die(A)
    await ordered
    await told.until(0.9)
    backup = Disk("b" * 32, told.net.clock.wall_ms(), last_stamp, rows, legs)
    told.net.stores[A] = MemoryStore(disk=backup, on_flush=lambda _seconds, _writes: told.net.changed.set())
    told.rule = fair
    await told.return_(A, "its disk is lost; it is back on the backup, under a new incarnation")


async def a_snapshot_in_the_middle_of_a_commit(told: Told) -> None:
    told.rule = lose(Commit, Inquire)
    ordered = told.order(wait=0.2)
    await ordered
    await told.balances("meanwhile")
    audit = await told.net.banks[C].bank.auditing.audit()
    for doubt in audit.doubts:
        said = f"{_signed(doubt.part.customers)} for its customers is in doubt there; A says that it is {doubt.side}"
        told.say(f"audit: {doubt.bank}", f"{said} the cut")
    counted = sum(cut.customers for cut in audit.cuts.values() if cut)
    settled = sum(doubt.part.customers for doubt in audit.doubts if doubt.side is protocol.Side.ON)
    told.say("audit", f"posted by the cut {_amount(counted)}, settled by others {_signed(settled)}: 200.00, all of it")
    assert (audit.ok, counted + settled) == (True, 200_00)
    told.rule = fair


async def what_a_restored_bank_had_decided_is_settled_by_people(told: Told) -> None:
    taken = await backup(told.net, A)
    told.say(A, "its database is copied: a backup, which knows nothing of what follows")
    ordered = await told.order()
    assert ordered is not None
    await told.record(A, RecordKind.ENDED)
    await told.die(A)
    await told.until(2.0)
    put_back(told.net, A, taken, taken_at=told.net.clock.wall_ms() - 2000)
    await told.return_(A, "its disk is lost; it is back on the backup, and asks before it serves")
    restoring = told.net.banks[A].bank.restoring
    (listed,) = await restoring.listed(10)
    for part in listed.lost.parts:
        told.say(f"list at {A}", f"lost, {part.fate} at {part.bank}; {_signed(part.flow)} owed to it, not in the books")
    for finding in (await told.quiet_audit()).findings:
        told.say("audit", f"{finding.code}: {finding.detail}")
    told.say(f"operator of {A}", "Maria's receipt says that 3.00 of it came from her account here: debit it")
    await restoring.settle(listed.lost.transaction, "her receipt", [(told.here, Direction.DEBIT, 3_00)])
    await told.net.settle(listed.lost.transaction)


def _signed(centavos: int) -> str:
    return f"{'-' if centavos < 0 else '+'}{_amount(abs(centavos))}"


async def a_key_asked_again_across_a_crash(told: Told) -> None:
    told.rule = lose(Commit)
    ordered = told.order()
    await told.record(A, RecordKind.DECIDED)
    await told.die(A)
    await ordered
    told.rule = fair
    await told.until(0.5)
    await told.return_(A)
    first = await told.order()
    await told.until(2.0)
    again = await told.order()
    assert first is not None
    assert again is not None
    assert first.transaction.id == again.transaction.id


# Two processes of one bank

A1, A2 = f"{A}#1", f"{A}#2"


def reach(told: Told, name: str) -> None:
    """From now on whoever asks this bank meets that process of it."""
    told.net.front[name.partition("#")[0]] = name


async def an_inquiry_reaches_the_other_process_of_a_bank(told: Told) -> None:
    told.rule = late(Prepare, C, 0.15)
    ordered = told.order()
    await told.record(B, RecordKind.PREPARED)
    await told.until(0.05)
    reach(told, A2)
    (transaction,) = told.net.stores[B].disk.rows[protocol.Transaction]
    told.say("operator of B", "asks at once what became of it")
    await told.net.banks[B].recovery.inquire_now(transaction)
    await told.balances("meanwhile")
    reach(told, A1)
    await ordered


async def a_process_starts_while_another_drives_a_transfer(told: Told) -> None:
    await told.die(A2)
    told.rule = lose(Prepare)
    ordered = told.order()
    await told.until(0.1)
    await told.return_(A2, "starts, and reads the log that both share")
    await told.balances("meanwhile")
    reach(told, A2)
    await told.die(A1)
    await ordered
    told.rule = fair
    await told.until(3.0)
    await told.balances("3 s later")
    await told.until(6.0)
    await told.balances("then")


async def a_key_asked_again_at_the_other_process_of_a_bank(told: Told) -> None:
    told.rule = late(Prepare, C, 0.15)
    ordered = told.order()
    await told.until(0.05)
    reach(told, A2)
    assert await told.order() is None
    await told.balances("meanwhile")
    first = await ordered
    again = await told.order()
    assert first is not None
    assert again is not None
    assert (first.transaction.id, again.replayed) == (again.transaction.id, True)


async def what_one_process_holds_the_other_cannot_spend(told: Told) -> None:
    told.rule = late(Prepare, C, 0.15)
    ordered = told.order()
    await told.until(0.05)
    reach(told, A2)
    await told.balances("meanwhile")
    told.key = "all of it"
    await told.pay(98_00)
    await ordered
    told.rule, told.key = fair, "what is left"
    await told.pay(97_00)


@dataclass(frozen=True)
class Story:
    """One file: its title, and what happens and what one should see in it, in words; which banks are two processes."""

    tell: Callable[[Told], Awaitable[None]]
    title: str
    about: str
    shared: tuple[str, ...] = ()


STORIES: Final = [
    Story(
        the_coordinator_dies_before_deciding,
        "The coordinator dies before it has decided",
        "A dies while C's prepare is still on its way; C votes yes and nobody hears it. B and C hold what they "
        "promised, for after a yes no time releases a hold. A returns, finds no decision in its log, and *no "
        "decision* means *aborted*: that is what presumed abort presumes. Maria, who was told nothing, may ask "
        "again under her key.",
    ),
    Story(
        the_coordinator_dies_after_deciding_before_anyone_heard,
        "The coordinator dies after it has decided, before anyone heard",
        "The decision is on A's disk and nowhere else. Nobody knows of it, and yet it stands: at its return A "
        "reads it and sends the commit until every bank has acknowledged. A commit that cannot be delivered is "
        "delivered again, never turned into an abort.",
    ),
    Story(
        the_coordinator_dies_after_telling_one_of_two,
        "The coordinator dies after it has told one of two",
        "B has posted, C has not heard. This is the moment at which a careless protocol makes or loses money; here"
        " C still has its promise on disk, and A, when it returns, sends the commit to whoever has not "
        "acknowledged. B is told again as well if its acknowledgement was not durable, and does nothing twice.",
    ),
    Story(
        a_participant_dies_before_its_vote,
        "A participant dies before its vote",
        "C dies with its vote on the way to the disk, so it never said yes. A asks until its deadline and decides "
        "abort; an abort is told once, and needs no acknowledgement. When C returns there is nothing in its log to"
        " finish: what was not forced was not promised.",
    ),
    Story(
        a_participant_dies_after_its_vote,
        "A participant dies after its vote",
        "C's yes has left, so its promise and its hold are on its disk. A commits without asking whether C is "
        "there, and Maria is answered after at most a second more. C comes back holding what it held, is sent the "
        "commit, and posts.",
    ),
    Story(
        a_prepare_that_arrives_after_the_abort,
        "A prepare that arrives after its abort",
        "C's prepare is stuck in the network for a second; A's deadline passes, it decides abort, and the abort "
        "overtakes the prepare. C has never heard of the transfer, and leaves a tombstone. Without it, C would "
        "vote yes to a transfer that nobody will ever decide again, and hold money for ever.",
    ),
    Story(
        a_commit_and_an_abort_twice_and_out_of_order,
        "Commit and abort, twice and out of order",
        "Every message may arrive again, late, and in any order. What is done is acknowledged and not done again; "
        "a prepare behind its own commit gets the same yes; an abort for what was committed is ignored. The "
        "entries are posted once.",
    ),
    Story(
        a_vote_that_arrives_after_the_deadline,
        "A vote that arrives after the deadline",
        "C's disk is slow: its yes leaves when A has given up, and C itself has heard of the abort. The decision "
        "is final, and a late yes changes nothing. Had the abort been lost, C would hold what it promised, and "
        "ask.",
    ),
    Story(
        a_participant_asks_another_that_knows,
        "A participant asks another that knows",
        "A has told B and died; C is in doubt. A is known to be down, so C asks B, which took part and has "
        "committed: that is evidence enough, for no bank commits unless all voted yes. C finishes while A is still"
        " down.",
    ),
    Story(
        all_are_in_doubt_until_the_coordinator_returns,
        "All are in doubt until the coordinator returns",
        "Both have voted, and the only bank that knows the outcome is dead. They ask each other; both say "
        "*undecided*; nobody guesses. This is the price of two-phase commit, and it is paid in waiting and never "
        "in money: the holds stay, an operator sees why, and A's return ends it.",
    ),
    Story(
        a_bank_that_promises_never_to_vote_settles_it,
        "A bank that promises never to vote settles it",
        "B has voted, A is dead, and C never got its prepare. Asked by B, C finds nothing in its log, and its log "
        "reaches back far enough to be sure that it never voted. It promises, durably, that it never will: so "
        "nobody can ever have decided commit, and B may release its hold while A is still down.",
    ),
    Story(
        a_guess_that_was_wrong_and_its_correction,
        "A guess that was wrong, and its correction",
        "All wait for A. B's operator forces an abort, and Maria takes her money out. To other banks B goes on "
        "saying *undecided*, so that the guess does not spread. The truth was commit: one write corrects it by new"
        " entries, as far as Maria's balance covers it, and what it does not cover stands in the book *suspense* "
        "until the operator assigns it. Nothing that was posted is ever edited.",
    ),
    Story(
        a_bank_restored_from_a_backup,
        "A bank that is restored from a backup",
        "A's disk dies after the decision; the backup knows only that the transfer was begun. Under its new "
        "incarnation A must not presume abort, for it may have forgotten a commit. It asks those who took part: C "
        "has committed, so that was the decision, and A carries it out with the timestamp that C was told.",
    ),
    Story(
        a_snapshot_in_the_middle_of_a_commit,
        "A snapshot in the middle of a commit",
        "A has posted its part; the commits to B and C are lost, and at that moment C's auditor asks for the books"
        " of the whole network. What is in doubt at B and C is listed with its amounts and counted as the "
        "coordinator knows it. No bank stopped, and not a centavo is missing.",
    ),
    Story(
        a_key_asked_again_across_a_crash,
        "A key that is asked again across a crash",
        "Maria's connection breaks, and she does not know whether she has paid. She asks again under the same key:"
        " the key was forced together with the decision, so A finds the transfer that it decided before it died, "
        "and says so instead of paying twice.",
    ),
    Story(
        what_a_restored_bank_had_decided_is_settled_by_people,
        "What a restored bank had decided is settled by people",
        "A's disk dies when all is done, and the backup is older than the transfer. B and C know what A had decided "
        "and what it came to owe them; whose money at A it was, nobody but A's customers can know. A asks its peers "
        "before it serves, and lists the transfer; until it is settled the audit names exactly what is missing. The "
        "operator settles it by Maria's receipt: at the commit timestamp that B and C tell, and from then on it is a "
        "commit like any other.",
    ),
]


OF_TWO_PROCESSES: Final = [
    Story(
        an_inquiry_reaches_the_other_process_of_a_bank,
        "An inquiry reaches the other process of a bank",
        "A runs as two processes, A1 and A2, over one database. A1 collects votes when B, which has voted, asks, and "
        "meets A2, which has never heard of the transfer: but `began` is in the database, forced before the first "
        "prepare left, so A2 says *undecided*. Had it looked into its own memory only, *no record* would have meant "
        "*aborted*: B would have released what C's yes then commits.",
        (A,),
    ),
    Story(
        a_process_starts_while_another_drives_a_transfer,
        "A process starts while another drives a transfer",
        "Nothing that has begun is decided when A2 starts and reads the log. In a log of its own that would mean "
        "*aborted*; here A1 lives and drives it, and A2 leaves it alone. Then A1 dies. Its hold stays until nothing "
        "has been heard of it for four seconds; A2 buries it, so that it could not write even if it woke up again, "
        "takes over what it drove, aborts it, tells everyone and gives Maria her money back.",
        (A,),
    ),
    Story(
        a_key_asked_again_at_the_other_process_of_a_bank,
        "A key that is asked again at the other process of a bank",
        "Maria is impatient and asks again under the same key; her request goes to A2 while A1 still waits for C. The "
        "key is in the database with the transfer that it stands for, so A2 begins nothing: it says that the first "
        "request is still running, and later, asked once more, tells of the same transfer. She pays once.",
        (A,),
    ),
    Story(
        what_one_process_holds_the_other_cannot_spend,
        "What one process holds the other cannot spend",
        "While A1 waits for C, 3.00 of Maria's 100.00 are held. A2 has not been told, and need not be: the hold is a "
        "row of the database, written with `began`, and checked by whoever decides over the account. 98.00 are "
        "refused; when the first transfer is done, 97.00 are what is left.",
        (A,),
    ),
]

NUMBERED: Final = [*enumerate(STORIES, 1), *enumerate(OF_TWO_PROCESSES, 17)]


INDEX: Final = """\
# Bad moments

Two-phase commit is easy to describe and hard to get right: what matters is who dies when, and what arrives late. Each
page here is one such moment, run on three real banks (the code that ships, over a store and a network of the tests) in
virtual time, and written down as it happened by a test that compares every letter with the page
(`tests/test_stories.py`; `make stories` writes them anew). [The protocol](../protocol.md) says why it is so; [Break
it](../break-it.md) does some of it to banks of your own.

It is always the same transfer: Maria has 100.00 at A and at B, and orders at A, which coordinates, that 3.00 from A and
2.00 from B go to Caio at C. A message takes 10 ms and a forced write 2 ms; A waits 300 ms for the votes. In the last
four A runs as two processes, A1 and A2, over one database that both share.

How to read a line: the first column is the time in seconds; `A → B` is a message, and `B → A` below it the answer; `A`
alone is something that happens there, and with a `|` a record that has just become durable, in the words of
`distribank trace`. A yes and a decision are forced before anyone hears of them, so their records stand above their
messages. What may be lost without harm (that a transfer began, that it ended, that an abort was heard) is not forced:
it is on the disk up to a second later, or together with the next forced write.
"""


def file_of(number: int, story: Story) -> str:
    return f"{number:02}-{story.title.lower().replace(',', '').replace(' ', '-')}.md"


def told_of(number: int, story: Story) -> str:
    """The whole file."""

    async def main() -> str:
        async with world(3, clock=LoopClock(), shared=story.shared) as net:
            told = Told(net)
            await told.settle_in()
            await story.tell(told)
            await told.the_end()
            return told.text()

    return f"# {number}. {story.title}\n\n{_folded(story.about)}\n\n```text\n{run(main())}\n```\n"


def _folded(text: str) -> str:
    """Paragraphs of at most 120 characters a line."""
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > 118:
            lines.append(line.strip())
            line = ""
        line += f"{word} "
    return "\n".join([*lines, line.strip()])


def checked(path: Path, text: str) -> None:
    """*text* is what the file says; or, where it is asked for, what it says from now on."""
    if os.environ.get("DISTRIBANK_STORIES") == "write":
        path.write_text(text)
    with suppress(FileNotFoundError):
        assert path.read_text() == text, "`make stories` writes it anew"
        return
    raise AssertionError(f"{path.name} is not there; `make stories` writes it")


def index() -> str:
    """The page that lists them."""
    rows = [
        f"| [{number:02}]({file_of(number, story)}) | {story.title} | {story.about.partition('. ')[0]} |"
        for number, story in NUMBERED
    ]
    return "\n".join([INDEX, "| | when | what happens |", "|---|---|---|", *rows, ""])


def _id(value: Any) -> str:
    return value.title if isinstance(value, Story) else str(value)


@pytest.mark.parametrize(("number", "story"), NUMBERED, ids=_id)
def test_a_story_is_told_as_it_happens(number: int, story: Story) -> None:
    checked(DOCS / file_of(number, story), told_of(number, story))


def test_the_index_lists_every_story_and_no_file_is_left_over() -> None:
    checked(DOCS / "README.md", index())
    files = {file_of(number, story) for number, story in NUMBERED}
    assert {path.name for path in DOCS.iterdir()} == {"README.md", *files}


# What would break them --------------------------------------------------------------------------------------------


def an_inquiry_is_answered_from_memory(patch: pytest.MonkeyPatch) -> None:
    """A process that does not drive a transaction knows nothing of it."""

    async def inquired(self: Coordinating, sender: str, inquiry: Inquire) -> Answer:
        if self.drives(inquiry.transaction):
            return await really(self, sender, inquiry)
        return protocol.Outcome(protocol.Fate.ABORTED)

    really = Coordinating.inquired
    patch.setattr(Coordinating, "inquired", inquired)


def a_start_takes_all_that_is_unfinished(patch: pytest.MonkeyPatch) -> None:
    """A process that starts does not ask whether somebody drives what it finds."""

    async def claim(self: Recovery) -> int:
        if self._bank.ready:
            return await really(self)
        found = await self._bank.store.find(Queries.UNFINISHED)
        for known in found:
            await self._restart(known)
        return len(found)

    really = Recovery._claim
    patch.setattr(Recovery, "_claim", claim)


def a_key_is_known_where_it_was_used(patch: pytest.MonkeyPatch) -> None:
    """Keys are in the memory of the process that they came to."""

    async def earlier(self: Ordering, moment: Any, key: Any, identity: str) -> Any:
        known = await really(self, moment, key, identity) if key.key in seen.setdefault(id(self), set()) else None
        seen[id(self)].add(key.key)
        return known

    seen: dict[int, set[str]] = {}
    really = Ordering._earlier
    patch.setattr(Ordering, "_earlier", earlier)


def what_is_held_counts_for_nothing(patch: pytest.MonkeyPatch) -> None:
    """The ledger over which a transfer begins has no holds: they are in the memory of whoever placed them."""

    def begin(identity: str, order: Any, ledger: Ledger, *of: Any, **more: Any) -> Any:
        free = {number: replace(account, held=0) for number, account in ledger.accounts.items()}
        return really(identity, order, replace(ledger, accounts=free), *of, **more)

    really = coordinator.begin
    patch.setattr(coordinator, "begin", begin)


BUGS: Final = [
    an_inquiry_is_answered_from_memory,
    a_start_takes_all_that_is_unfinished,
    a_key_is_known_where_it_was_used,
    what_is_held_counts_for_nothing,
]
"""In the order of the stories that each of them breaks, and no other."""


@pytest.mark.parametrize("which", range(len(BUGS)), ids=lambda which: BUGS[which].__name__)
def test_each_story_of_two_processes_is_broken_by_a_bug_of_its_own(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[which](monkeypatch)
    broken = []
    for number, story in enumerate(OF_TWO_PROCESSES, 17):
        try:
            holds = told_of(number, story) == (DOCS / file_of(number, story)).read_text()
        except (AssertionError, TimeoutError, ExceptionGroup):
            holds = False
        if not holds:
            broken.append(number)
    assert broken == [17 + which]
