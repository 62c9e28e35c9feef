"""This bank as the auditor: the network-wide snapshot in two rounds, and what is wrong with it.

First every bank is asked for its clock: the cut lies at the greatest answer, so that it holds every transfer that any
bank had acknowledged before. Then every bank is asked for its books at that stamp, and the banks of what is in doubt
on which side of it they are. A bank that does not answer in time is a finding, and keeps nobody waiting for longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Final, TypeVar

from distribank.bank.following import Following
from distribank.bank.rhythm import Rhythm
from distribank.bank.snapshots import Snapshots
from distribank.core import snapshot
from distribank.core.clock import too_far_ahead
from distribank.core.protocol import ClockRead, Cut, Part, Side, Sides, Snapshot
from distribank.core.snapshot import Audit, Doubt, Finding, FindingCode
from distribank.ports import Peers

ANSWER_S: Final = 2.0
"""How long all banks together have for what they know at once: their clocks, sides of a cut."""
BOOKS_S: Final = 15.0
"""The same for their books, which each adds up anew."""
MAX_ASKED: Final = 1000
"""Transactions that one question names."""

A = TypeVar("A", ClockRead, Cut, Sides)


class Auditing:
    """The questions of one auditor."""

    def __init__(self, rhythm: Rhythm, peers: Peers, following: Following, snapshots: Snapshots) -> None:
        self._rhythm = rhythm
        self._peers = peers
        self._following = following
        self._own = snapshots

    async def audit(self) -> Audit:
        """The five checks over the whole roster, at one moment that is as late as any bank's clock is now."""
        at, clocks, found = await self._moment()
        said = await self._ask(dict.fromkeys(clocks, Snapshot(at)), Cut, BOOKS_S)
        found += [
            Finding(FindingCode.BANK_UNREACHABLE, "it did not say what its books are", bank)
            for bank in clocks
            if said[bank] is None
        ]
        cuts = {bank: said.get(bank) for bank in self._banks()}
        doubts, contradictions, silent = await self._settle(at, cuts)
        found += [
            Finding(FindingCode.BANK_UNREACHABLE, "it did not say what it knows of others' doubts", b) for b in silent
        ]
        heard = {bank: None if bank in silent else cut for bank, cut in cuts.items()}
        done = snapshot.examine(at, heard, [d for d in doubts if d.bank not in silent], found + contradictions)
        self._rhythm.metrics.audited(len(done.findings), self._rhythm.wall_ms())
        return done

    async def _moment(self) -> tuple[int, list[str], list[Finding]]:
        """The greatest clock of all banks, the banks that told theirs, and what is wrong with the others."""
        told: dict[str, int] = {}
        found: list[Finding] = []
        for bank, read in (await self._ask(dict.fromkeys(self._banks(), Snapshot()), ClockRead, ANSWER_S)).items():
            if read is None:
                found.append(Finding(FindingCode.BANK_UNREACHABLE, "it did not say what its clock is", bank))
            elif too_far_ahead(read.at, self._rhythm.wall_ms()):
                found.append(Finding(FindingCode.CLOCK_AHEAD, "its clock lies more than 60 s ahead", bank))
            else:
                told[bank] = read.at
        return max(told.values(), default=self._rhythm.stamp()), list(told), found

    async def _settle(self, at: int, cuts: Mapping[str, Cut | None]) -> tuple[list[Doubt], list[Finding], list[str]]:
        """What the other banks know of every part in doubt, and which banks were asked and gave no answer.

        A silent bank may have posted, in the cut that it gave, what nobody else knows the outcome of: its cut cannot
        be held against those of the banks in doubt.
        """
        parts = [(bank, part) for bank, cut in cuts.items() if cut for part in cut.parts]
        asked: dict[str, dict[str, None]] = {}
        for bank, part in parts:
            for other in part.banks:
                if other in cuts and other != bank:
                    asked.setdefault(other, {})[part.transaction] = None
        known: dict[str, dict[str, Side]] = {}
        silent: list[str] = []
        for start in range(0, max(map(len, asked.values()), default=0), MAX_ASKED):
            questions = {
                bank: Snapshot(at, page)
                for bank, ids in asked.items()
                if bank not in silent and (page := tuple(islice(ids, start, start + MAX_ASKED)))
            }
            for bank, said in (await self._ask(questions, Sides, ANSWER_S)).items():
                if said is None:
                    silent.append(bank)
                else:
                    known.setdefault(bank, {}).update(said.sides)
        doubts: list[Doubt] = []
        found: list[Finding] = []
        for bank, part in parts:
            doubt, contradictions = snapshot.settle(bank, part, _said_of(part, bank, known))
            doubts.append(doubt)
            found += contradictions
        return doubts, found, [bank for bank in silent if cuts[bank] is not None]

    def _banks(self) -> list[str]:
        return sorted([self._rhythm.code, *(peer.bank for peer in self._peers.views())])

    async def _ask(self, questions: Mapping[str, Snapshot], kind: type[A], patience: float) -> dict[str, A | None]:
        """Every bank's answer of that *kind*, this one's own among them; ``None`` where there is none."""
        own = self._rhythm.code
        others = {bank: question for bank, question in questions.items() if bank != own}
        theirs, ours = await asyncio.gather(
            self._following.ask_all(others, patience), self._answer_own(questions.get(own))
        )
        said: dict[str, object] = {**theirs, own: ours}
        return {bank: _of(said[bank], kind, question) for bank, question in questions.items()}

    async def _answer_own(self, question: Snapshot | None) -> object:
        return None if question is None else await self._own.answer(question)


def _of(answer: object, kind: type[A], question: Snapshot) -> A | None:
    """An *answer* of the *kind* that answers *question*, or ``None``."""
    if not isinstance(answer, kind) or (question.at is not None and answer.at != question.at):
        return None
    return answer


def _said_of(part: Part, bank: str, known: Mapping[str, Mapping[str, Side]]) -> dict[str, Side]:
    """What each other bank that takes part says of it."""
    return {
        other: known[other].get(part.transaction, Side.IN_DOUBT)
        for other in part.banks
        if other != bank and other in known
    }
