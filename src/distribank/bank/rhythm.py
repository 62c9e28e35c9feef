"""The rhythm that every event follows: load → decide → persist → send.

This is the only place where a decision meets the store: a ``Moment`` has what it names to itself, loads, decides with
nothing awaited, and writes once; whatever becomes true to say is held back until the write is durable.
It also keeps the bank's clock and makes its ids.
"""

from __future__ import annotations

import logging
import string
import time
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol, TypeVar

from distribank.bank.feed import Feed
from distribank.bank.metrics import Metrics
from distribank.breakages import KeyReused
from distribank.core import clock as hlc
from distribank.core.idempotency import IdempotencyKey, KeyName, Retry, judge
from distribank.core.ledger import Account, Book, Hold, Ledger, position_book
from distribank.core.money import MAX_BALANCE
from distribank.core.protocol import Now, Record, Step
from distribank.ports import Chance, Clock, Row, Store, Traces, Unit

log = logging.getLogger("distribank.bank")

T = TypeVar("T")

_ALPHANUMERIC: Final = string.ascii_letters + string.digits
_UUID7_VERSION: Final = 0x7 << 76
_UUID7_VARIANT: Final = 0b10 << 62


class Rhythm:
    """One bank's store, clock and ids, and the order in which they are used.

    *position_cap* is in centavos, the most that any one peer may come to owe this bank.
    """

    def __init__(
        self,
        code: str,
        store: Store,
        clock: Clock,
        chance: Chance,
        metrics: Metrics,
        traces: Traces | None = None,
        *,
        position_cap: int | None = None,
    ) -> None:
        self.code = code
        self.position_cap = position_cap
        self.store = store
        self.metrics = metrics
        self.traces = traces
        self.feed = Feed()
        self._clock = clock
        self._chance = chance
        self._last_stamp = store.last_stamp

    # Names of what is touched

    @property
    def most_owed(self) -> int:
        """Centavos that any one peer may come to owe this bank."""
        return MAX_BALANCE if self.position_cap is None else self.position_cap

    def position_locks(self, banks: Iterable[str]) -> list[str]:
        """Where there is a cap, the positions with *banks* are locked like accounts; without one nobody looks at them.

        Whatever writes to them names them, then: two processes would else wait for each other in a circle.
        """
        return [] if self.position_cap is None else [book_lock(position_book(bank)) for bank in banks]

    def locks_of(self, transaction: str, accounts: Iterable[str], banks: Iterable[str]) -> list[str]:
        """All that deciding *transaction* touches here: it, these accounts, and the position with each of *banks*."""
        return [transaction_lock(transaction), *account_locks(accounts), *self.position_locks(banks)]

    # Time and ids

    def wall_ms(self) -> int:
        """Milliseconds since 1970 by this bank's own wall clock."""
        return self._clock.wall_ms()

    def now(self, floor: int = 0) -> Now:
        """The moment of one decision: its stamp is later than *floor* and all that this process has said or heard."""
        wall = self._clock.wall_ms()
        self._last_stamp = hlc.tick(max(self._last_stamp, floor), wall)
        return Now(wall, self._last_stamp)

    def stamp(self) -> int:
        """The stamp that travels with a message: nothing said so far is later."""
        return self._last_stamp

    def hear(self, stamp: int) -> None:
        """Merge a peer's clock, unless it is too far ahead to be believed."""
        if not hlc.too_far_ahead(stamp, self._clock.wall_ms()):
            self._last_stamp = hlc.merge(self._last_stamp, stamp)

    def merge_commit(self, stamp: int) -> None:
        """Merge a commit timestamp, always: it is bounded by the transaction's ``vote_by``."""
        self._last_stamp = hlc.merge(self._last_stamp, stamp)

    def unique(self) -> str:
        """A new time-ordered random id (UUID version 7, RFC 9562), as 32 hexadecimal characters."""
        wall = self._clock.wall_ms() << 80
        high, low = self._chance.getrandbits(12) << 64, self._chance.getrandbits(62)
        return f"{wall | _UUID7_VERSION | high | _UUID7_VARIANT | low:032x}"

    def transaction_id(self) -> str:
        """A new transaction id: this bank, this database, and what never comes again."""
        return f"{self.code}.{self.store.incarnation}.{self.unique()}"

    def end_to_end_id(self) -> str:
        """A new end-to-end id: ``E``, the bank, the minute in UTC, eleven random letters and digits."""
        bits = self._chance.getrandbits(11 * 16)
        tail = "".join([_ALPHANUMERIC[(bits >> at & 0xFFFF) % len(_ALPHANUMERIC)] for at in range(0, 11 * 16, 16)])
        return f"E{self.code}{_in_words(self._clock.wall_ms() // 60_000)}{tail}"

    def jitter(self) -> float:
        """A random number from 0.5 to 1.0 by which a delay is multiplied, so that many do not come at once."""
        return 0.5 + self._chance.random() / 2

    # Decide

    async def decide(
        self, names: Iterable[str], body: Callable[[Moment], Awaitable[T]], then: Callable[[T], None] | None = None
    ) -> T:
        """One moment of deciding, with exclusive access to *names*: see ``ports.Store.decide``.

        *body* may be run again, and so does nothing but through its moment; what has to follow from its result, though
        whoever waits for it has gone, is for *then*. What it persisted is seen by the next decision. Nobody outside may
        hear of it before ``store.flushed()`` has returned.
        """
        moment: Moment | None = None

        async def run(unit: Unit) -> T:
            nonlocal moment
            moment = Moment(self, unit)
            return await body(moment)

        def follow(result: T) -> None:
            assert moment is not None, "nothing was decided"
            for what, transaction in moment.alarms:
                self.alarm(what, transaction)
            if self.traces is not None:
                for records, durable, began_ns in moment.recorded:
                    self.traces.recorded(records, durable, began_ns)
            if then is not None:
                then(result)

        return await self.store.decide(names, run, follow)

    def alarm(self, what: str, transaction: str) -> None:
        """An operator must hear of this: the protocol was broken, or a promise was lost."""
        log.error("%s %s: ALARM: %s", self.code, transaction, _one_line(what))
        self.metrics.alarms.inc()


class Moment:
    """One moment of deciding: what it loads, when it is, and what it makes true. Made anew each time it is run.

    *get* and *find* are the unit's.
    """

    __slots__ = ("_rhythm", "_unit", "alarms", "find", "get", "recorded", "settled")

    def __init__(self, rhythm: Rhythm, unit: Unit) -> None:
        self._rhythm = rhythm
        self._unit = unit
        self.get = unit.get
        self.find = unit.find
        self.settled = unit.settled
        self.alarms: list[tuple[str, str]] = []
        self.recorded: tuple[tuple[tuple[Record, ...], Future[None] | None, int], ...] = ()
        """What is to be traced, once this is decided: this moment may have to be lived again."""

    # Load

    def now(self) -> Now:
        """When this is decided: later than all that this bank has said or heard, and than what is decided over."""
        return self._rhythm.now(self._unit.floor)

    async def ledger(self, accounts: Iterable[str], transaction: str = "") -> Ledger:
        """The accounts named that exist here, and *transaction*'s holds on them."""
        return await ledger_of(self._unit, accounts, transaction)

    async def positions(self, flows: Mapping[str, int]) -> dict[str, Book]:
        """The positions with the peers that would come to owe this bank more (those with a negative flow)."""
        return await positions_of(self._unit, flows)

    async def done_under(self, name: KeyName) -> IdempotencyKey | None:
        """What this key did, or was refused, before; ``None`` if nothing. Raises ``KeyReused`` for other content."""
        known = await self._unit.get(IdempotencyKey, name.owner, name.route, name.key)
        if judge(known, name.fingerprint) is Retry.CONFLICT:
            raise KeyReused
        return known

    # Persist

    def persist(self, step: Step, *also: Row, lazy: bool = False) -> None:
        """Write everything that *step* makes true, and *also*; raise its alarm once that is so."""
        rhythm = self._rhythm
        if log.isEnabledFor(logging.DEBUG):  # asked once: with every transfer it would cost a tenth of it
            for record in step.records:
                told = {"from": record.before, "to": record.after, "because": _one_line(record.detail)}
                words = "{from} → {to}, because {because}".format_map(told)
                log.debug("%s %s: %s", rhythm.code, record.transaction, words, extra=told)
        if step.alarm is not None:
            self.alarm(step.alarm, step.transaction.id if step.transaction else "")
        rows = (*step.changes, *step.records, *also)
        if rows:
            durable = self.write(rows, lazy=lazy)
            if rhythm.traces is not None:
                self.recorded += ((step.records, None if lazy else durable, time.time_ns()),)

    def write(self, rows: Iterable[Row], *, lazy: bool = False) -> Future[None]:
        """Write *rows*, and tell whoever watches their accounts once they are durable."""
        rows = tuple(rows)
        durable = self._unit.write(rows, lazy=lazy)
        feed = self._rhythm.feed
        watched = feed.watched(row.number for row in rows if isinstance(row, Account))
        if watched:
            durable.add_done_callback(lambda _: feed.wake(watched))
        return durable

    def alarm(self, what: str, transaction: str) -> None:
        """Once this is decided, an operator must hear of it."""
        self.alarms.append((what, transaction))


class Reader(Protocol):
    """A unit, or the store outside of one."""

    async def get(self, kind: type[T], *key: str) -> T | None: ...


async def ledger_of(reader: Reader, accounts: Iterable[str], transaction: str = "") -> Ledger:
    """The accounts named that exist here, and *transaction*'s holds on them."""
    found: dict[str, Account] = {}
    holds: dict[str, Hold] = {}
    for number in accounts:
        if number in found:
            continue
        account = await reader.get(Account, number)
        if account is None:
            continue
        found[number] = account
        if transaction and account.open_holds:
            hold = await reader.get(Hold, number, transaction)
            if hold is not None:
                holds[number] = hold
    return Ledger(found, holds)


async def positions_of(reader: Reader, flows: Mapping[str, int]) -> dict[str, Book]:
    """The positions with the peers that would come to owe this bank more (those with a negative flow)."""
    names = [position_book(bank) for bank, flow in flows.items() if flow < 0]
    return {name: await reader.get(Book, name) or Book(name) for name in names}


@lru_cache(maxsize=2)
def _in_words(minute: int) -> str:
    """A minute since 1970 as ``YYYYMMDDhhmm``."""
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y%m%d%H%M")


def account_locks(numbers: Iterable[str]) -> list[str]:
    """The lock names of accounts."""
    return [f"account:{number}" for number in numbers]


def book_lock(book: str) -> str:
    return f"book:{book}"


def transaction_lock(transaction: str) -> str:
    return f"transaction:{transaction}"


def _one_line(words: str) -> str:
    """*words* as the log may have them: what a peer said must not look like a line of ours."""
    return words if words.isprintable() else words.encode("unicode_escape").decode()
