"""What this bank asks others to show: where a transaction stands, and what a person has elsewhere.

A bank that does not answer within ``PATIENCE_S`` is named as one that did not; nothing waits longer for it. Nothing
here changes anything, here or elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from distribank.bank.rhythm import Rhythm
from distribank.bank.showing import Showing
from distribank.breakages import Unreachable
from distribank.core.protocol import (
    Accounts,
    Answer,
    LinkedAccount,
    Log,
    Message,
    Record,
    ShowAccounts,
    ShowLog,
    Snapshot,
    Transaction,
)
from distribank.ports import Peers

PATIENCE_S: Final = 2.0
"""How long the banks asked have, all of them together."""

MAX_REMEMBERED: Final = 10_000
"""Answers about what a person has at one bank that are remembered, the latest of them; until this bank stops."""


class Reply(StrEnum):
    """How a bank took a question."""

    ANSWERED = "answered"
    OFFLINE = "offline"
    """It could not be reached, or is known to be away."""
    SILENT = "silent"
    """It did not answer in time, or with something that is no answer to the question."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One transaction at all its banks, this one first; *replies* has every bank, *logs* those that answered."""

    transaction: Transaction
    logs: dict[str, tuple[Record, ...]]
    replies: dict[str, Reply]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one bank said that a person lets this one draw on, and when, in milliseconds since 1970."""

    at: int
    accounts: tuple[LinkedAccount, ...]


@dataclass(frozen=True, slots=True)
class Linked:
    """What a person lets this bank draw on, by bank.

    *offline* are the banks of which that is not known now; of those, *earlier* has what they said before, as far as
    it is remembered: it may have been revoked or used up since.
    """

    accounts: dict[str, tuple[LinkedAccount, ...]]
    offline: list[str]
    as_of: int
    earlier: dict[str, Shown]


class Following:
    """The questions of one bank to its peers."""

    def __init__(self, rhythm: Rhythm, peers: Peers) -> None:
        self._rhythm = rhythm
        self._peers = peers
        self._showing = Showing(rhythm)
        self._shown: OrderedDict[tuple[str, str], Shown] = OrderedDict()
        self._under_way: dict[tuple[str, Message], asyncio.Future[Answer]] = {}

    async def trace(self, known: Transaction) -> Trace:
        """Every bank's records of *known*, a transaction of this bank, asked for at one moment."""
        await self._rhythm.store.flushed()
        own = await self._showing.log(known.coordinator, known.id)
        others = [bank for bank in known.banks if bank != self._rhythm.code]
        replies, logs = {self._rhythm.code: Reply.ANSWERED}, {self._rhythm.code: own.records}
        for bank, said in (await self.ask_all({bank: ShowLog(known.id) for bank in others})).items():
            if isinstance(said, Log) and said.transaction == known.id:
                logs[bank], replies[bank] = said.records, Reply.ANSWERED
            else:
                replies[bank] = said if isinstance(said, Reply) else Reply.SILENT
        return Trace(known, logs, replies)

    async def linked(self, holder_cpf: str, banks: Collection[str] | None = None) -> Linked:
        """The accounts at every other bank, or at those of *banks*, on which this person consents to this bank."""
        peers = sorted(peer.bank for peer in self._peers.views() if banks is None or peer.bank in banks)
        said = await self.ask_all({bank: ShowAccounts(holder_cpf) for bank in peers})
        accounts = {bank: answer.accounts for bank, answer in said.items() if isinstance(answer, Accounts)}
        offline, now = [bank for bank in peers if bank not in accounts], self._rhythm.wall_ms()
        self._remember(holder_cpf, {bank: Shown(now, found) for bank, found in accounts.items()})
        earlier = {bank: shown for bank in offline if (shown := self._shown.get((bank, holder_cpf))) is not None}
        return Linked(accounts, offline, now, earlier)

    def _remember(self, holder_cpf: str, shown: Mapping[str, Shown]) -> None:
        for bank, said in shown.items():
            self._shown.pop((bank, holder_cpf), None)
            if said.accounts:
                self._shown[bank, holder_cpf] = said
        while len(self._shown) > MAX_REMEMBERED:
            self._shown.popitem(last=False)

    async def ask_all(
        self, questions: Mapping[str, Message], patience: float = PATIENCE_S
    ) -> dict[str, Answer | Reply]:
        """Ask every bank at once; each one's answer or, after *patience* seconds at the latest, why there is none."""
        asked = {bank: self._ask(bank, message) for bank, message in questions.items()}
        if asked:
            _, silent = await asyncio.wait(asked.values(), timeout=patience)
            for future in silent:
                future.cancel()
        return {bank: _said(future) for bank, future in asked.items()}

    def _ask(self, bank: str, question: Message) -> asyncio.Future[Answer]:
        """Ask, or wait with whoever has just asked the same: insisting here is not felt elsewhere.

        A clock is read anew for each snapshot, which must not begin before it is asked for.
        """
        if isinstance(question, Snapshot):
            return self._peers.ask(bank, question)
        under_way = self._under_way.get((bank, question))
        if under_way is not None:
            return under_way
        future = self._under_way[bank, question] = self._peers.ask(bank, question)
        future.add_done_callback(lambda _: self._under_way.pop((bank, question)))
        return future


def _said(future: asyncio.Future[Answer]) -> Answer | Reply:
    if future.cancelled():
        return Reply.SILENT
    try:
        return future.result()
    except Unreachable:
        return Reply.OFFLINE
