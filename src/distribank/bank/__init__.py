"""One bank: everything it does, behind one object built from ports.

``rhythm``        load → decide → persist → send: the only place where persisting precedes sending.
``coordinating``  transfers ordered here: votes, the decision, telling everyone.
``participating`` messages from other banks.
``custody``       holders, accounts, cash, consents.
``batching``      many transfers under one key.
``reading``       statements, events, lists, what is in doubt.
``feed``, ``tasks``, ``metrics``: who watches, what runs, what is counted.

A bank has no state outside its object, so that several of them run in one process, on one virtual clock.
"""

from __future__ import annotations

from typing import Any

from distribank.bank.batching import Batching, BatchResult
from distribank.bank.coordinating import Coordinating, KeyName, TransferResult
from distribank.bank.custody import Approval, CashResult, Custody
from distribank.bank.metrics import Metrics
from distribank.bank.participating import Participating
from distribank.bank.reading import InDoubt, Reading
from distribank.bank.rhythm import Rhythm
from distribank.bank.tasks import Tasks
from distribank.ports import Chance, Clock, Peers, Store

__all__ = ["Approval", "Bank", "BatchResult", "CashResult", "InDoubt", "KeyName", "TransferResult"]


class Bank:
    """One bank on its ports. Enter it (``async with``) before it serves; leaving it stops all that it drives.

    *vote_deadline* is in seconds; *position_cap* in centavos, the most that any one peer may come to owe this bank.
    """

    def __init__(
        self,
        code: str,
        name: str,
        store: Store,
        peers: Peers,
        clock: Clock,
        chance: Chance,
        *,
        metrics: Metrics | None = None,
        vote_deadline: float = 2.0,
        position_cap: int | None = None,
    ) -> None:
        self.code = code
        self.name = name
        self.ready = False
        """Whether the log has been read; set by recovery. Until then nothing but liveness is served."""
        self.store = store
        self.peers = peers
        self.metrics = metrics or Metrics()
        self.vote_deadline = vote_deadline
        self.rhythm = Rhythm(code, store, clock, chance, self.metrics)
        self.tasks = Tasks()
        self.coordinating = Coordinating(
            self.rhythm, peers, self.tasks, vote_deadline=vote_deadline, position_cap=position_cap
        )
        self.participating = Participating(self.rhythm, self.coordinating, position_cap=position_cap)
        self.custody = Custody(self.rhythm, peers)
        self.batching = Batching(self.rhythm, self.coordinating, self.tasks)
        self.reading = Reading(self.rhythm)

    async def __aenter__(self) -> Bank:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.ready = False
        self.rhythm.feed.close()
        await self.tasks.__aexit__(*exc)
