"""A holder orders a transfer: the key, what can be refused at once, the first step, and the answer.

Check, hold and the record of it are one moment, under the locks of everything that the order names here. From then on
the transaction is driven (``coordinating``); this only waits for it, and a client who stops waiting changes nothing.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from distribank.bank.coordinating import Coordinating, Drive
from distribank.bank.rhythm import Moment, Rhythm, account_locks, ledger_of, positions_of
from distribank.breakages import Busy, KeyInProgress, KeyReused, OutcomeUnknown
from distribank.core import coordinator
from distribank.core.clock import CLOCK_BOUND_MS
from distribank.core.holders import Holder
from distribank.core.idempotency import IdempotencyKey, KeyName, Retry, judge
from distribank.core.ledger import Ledger, check_approval, position_book, position_room
from distribank.core.protocol import State, Step, Transaction
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg, Order, banks_of, legs_at, net_flow
from distribank.ports import Peers, PeerStatus

MAX_UNDER_WAY: Final = 10_000
"""Transfers that this bank drives at a time before it takes no more: memory stays bounded."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A transfer as it stands when its holder is answered; *replayed* if an earlier request had ordered it."""

    transaction: Transaction
    replayed: bool = False


class Ordering:
    """Where holders' transfers begin. *vote_deadline* is in seconds."""

    def __init__(self, rhythm: Rhythm, peers: Peers, coordinating: Coordinating, *, vote_deadline: float) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers
        self._coordinating = coordinating
        self._vote_deadline = vote_deadline

    async def order(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName, wait: float
    ) -> TransferResult:
        """Order a transfer and wait for its end, at most *wait* seconds (and a second more once it is committed).

        The legs have passed ``check_legs``. Raises ``Busy``, ``KeyReused``, ``KeyInProgress`` and
        ``OutcomeUnknown``. Cancelled, the transfer goes on. What is returned survives a crash: decided, or begun and
        durably found again under its key; it is what a decision of this order's own has seen, and not only read.
        """
        if self._coordinating.under_way >= MAX_UNDER_WAY:
            raise Busy
        known, drive, replayed = await self._begin(holder, legs, description, key)
        if drive is not None and await self._answerable(drive, wait):
            if _is_interrupted(drive.transaction):
                await self._promise_to_find(known, key)
            return TransferResult(drive.transaction)
        if known.state is State.PREPARING or _is_interrupted(known):
            known = await self._promise_to_find(known, key)
        await self._store.flushed()
        return TransferResult(known, replayed)

    async def order_and_finish(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName
    ) -> Transaction:
        """The same for an item of a batch: returns once it is decided and acknowledged, or handed to recovery."""
        known, drive, _ = await self._begin(holder, legs, description, key)
        if drive is None:
            await self._store.flushed()
            return known
        await asyncio.shield(drive.finished)
        return drive.transaction

    async def refusal_of(self, holder: Holder, legs: tuple[Leg, ...]) -> Refusal | None:
        """Why this bank itself would refuse this order now; nothing is held, and other banks have not been asked."""
        own, flows = legs_at(self._rhythm.code, legs), self._flows(legs)
        ledger = await ledger_of(self._store, dict.fromkeys(leg.account for leg in own))
        positions = await positions_of(self._store, flows)
        refusal = self._refuse_at_once(holder, legs, ledger)
        return refusal or coordinator.check(own, ledger, flows, positions, self._rhythm.most_owed)

    async def drawable(self, banks: Iterable[str]) -> dict[str, int]:
        """The most, in centavos, that each of *banks* may still come to owe this one, where there is such a limit."""
        if self._rhythm.position_cap is None:
            return {}
        positions = await positions_of(self._store, dict.fromkeys(banks, -1))
        return {bank: position_room(positions[position_book(bank)], self._rhythm.most_owed) for bank in banks}

    async def _begin(
        self, holder: Holder, legs: tuple[Leg, ...], description: str | None, key: KeyName
    ) -> tuple[Transaction, Drive | None, bool]:
        """Find what the key did before, or begin; check, hold and the record of it are one moment."""
        own = legs_at(self._rhythm.code, legs)
        accounts, flows = dict.fromkeys(leg.account for leg in own), self._flows(legs)
        identity, end_to_end = self._rhythm.transaction_id(), self._rhythm.end_to_end_id()
        order = Order(end_to_end, holder.cpf, holder.holder_id, description, self._rhythm.wall_ms(), legs)

        async def begin(moment: Moment) -> Step:
            earlier = await self._earlier(moment, key, identity)
            if earlier is not None:
                return Step(earlier)
            ledger = await moment.ledger(accounts)
            now = moment.now()
            step = coordinator.begin(
                identity,
                order,
                ledger,
                await moment.positions(flows),
                now,
                now.wall_ms + round(self._vote_deadline * 1000) + CLOCK_BOUND_MS,
                cap=self._rhythm.most_owed,
                refusal=self._refuse_at_once(holder, legs, ledger),
            )
            assert step.transaction is not None
            begun = step.transaction.state is State.PREPARING
            moment.persist(step, key.names(identity, now.wall_ms), lazy=begun)
            return step

        drives: list[Drive] = []

        def drive(step: Step) -> None:
            known = step.transaction
            assert known is not None
            if known.id == identity and known.state is State.PREPARING:
                drives.append(self._coordinating.drive(known))
            elif known.id == identity:
                self._coordinating.count(known)

        names = [key.lock, *account_locks(accounts), *self._rhythm.position_locks(flows)]
        step = await self._rhythm.decide(names, begin, drive)
        known = step.transaction
        assert known is not None
        return known, drives[0] if drives else None, known.id != identity

    async def _earlier(self, moment: Moment, key: KeyName, identity: str) -> Transaction | None:
        """The transaction that this key stands for, if its client may hear of it now.

        It is *identity*, which is about to begin, where this is run again: what it wrote had landed unheard of.
        """
        named = await moment.get(IdempotencyKey, key.owner, key.route, key.key)
        if named is None:
            return None
        known = await moment.get(Transaction, named.subject)
        verdict = judge(named, key.fingerprint, known.because if known else None)
        if verdict is Retry.CONFLICT:
            raise KeyReused
        assert known is not None, f"key names {named.subject}, which is not in the store"
        if verdict is Retry.NEW and known.id != identity:  # an id is used once, whatever became of it
            return None
        if known.id != identity and not named.answered and self._is_under_way(known):
            raise KeyInProgress(known.id)
        return known

    def _is_under_way(self, known: Transaction) -> bool:
        """Whether *known* is being driven and not decided, here or by another process of this bank."""
        drive = self._coordinating.live(known.id)
        if drive is not None:
            return not drive.decided.done()
        return self._store.shared and known.state is State.PREPARING and known.incarnation == self._store.incarnation

    def _refuse_at_once(self, holder: Holder, legs: tuple[Leg, ...], ledger: Ledger) -> Refusal | None:
        """What needs no other bank's word: unknown banks, others' accounts, missing approvals, banks that are away."""
        for leg in legs:
            if leg.bank != self._rhythm.code and self._peers.view(leg.bank) is None:
                return Refusal(Code.UNKNOWN_BANK, "no such bank in this network", leg.bank, leg.account, leg.number)
        for leg in legs:
            account = ledger.accounts.get(leg.account) if leg.bank == self._rhythm.code else None
            if account is None or leg.direction is Direction.CREDIT:
                continue
            if not account.is_held_by(holder.cpf):
                return Refusal(Code.NOT_A_HOLDER, "you do not hold this account", leg.bank, leg.account, leg.number)
            refusal = check_approval(account)
            if refusal is not None:
                return replace(refusal, bank=leg.bank, leg=leg.number)
        return self._refuse_absent_banks(legs)

    def _refuse_absent_banks(self, legs: tuple[Leg, ...]) -> Refusal | None:
        for bank in dict.fromkeys(leg.bank for leg in legs):
            view = self._peers.view(bank)
            if view is not None and view.status is PeerStatus.OFFLINE:
                return Refusal(
                    Code.BANK_UNREACHABLE, f"{bank} is offline; nothing moved, try again later with a new key", bank
                )
        return None

    def _flows(self, legs: tuple[Leg, ...]) -> dict[str, int]:
        """What this bank would come to owe each other by *legs*."""
        return {bank: net_flow(legs_at(bank, legs)) for bank in banks_of(legs) if bank != self._rhythm.code}

    async def _answerable(self, drive: Drive, wait: float) -> bool:
        """Wait for the decision, and a little for the acknowledgements; whether there is a decision."""
        await _done_within(drive.answerable, wait)
        if not drive.decided.done():
            return False
        drive.decided.result()
        if not drive.answerable.done():  # decided in the last moment of that wait
            await asyncio.shield(drive.answerable)
        return True

    async def _promise_to_find(self, known: Transaction, key: KeyName) -> Transaction:
        """A 202 is a promise: once this is durable the key finds this transfer, crash or not. As it then stands.

        So is the word that it was interrupted, by another process of this bank. Raises ``OutcomeUnknown`` where
        somebody has asked again before, and the key has run anew.
        """

        async def promise(moment: Moment) -> Transaction | None:
            named = await moment.get(IdempotencyKey, key.owner, key.route, key.key)
            if named is not None and named.subject == known.id and not named.answered:
                moment.write([replace(named, answered=True)])
            return await moment.get(Transaction, known.id) if named is None or named.subject == known.id else None

        promised = await self._rhythm.decide([key.lock], promise)
        if promised is None:
            raise OutcomeUnknown(known.id)
        return promised


def _is_interrupted(known: Transaction) -> bool:
    return known.because is not None and known.because.code is Code.INTERRUPTED


async def _done_within(future: Future[None], seconds: float) -> bool:
    """Wait for *future*, which is not this waiter's alone, for at most *seconds*; whether it is done."""
    if not future.done():
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        timer = loop.call_later(seconds, _wake, woken)
        wake = partial(_wake, woken)
        future.add_done_callback(wake)
        try:
            await woken
        finally:
            timer.cancel()
            future.remove_done_callback(wake)
    return future.done()


def _wake(sleeper: Future[None], _: object = None) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
