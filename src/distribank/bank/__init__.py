"""One bank: everything it does, behind one object built from ports.

``rhythm``        load → decide → persist → send: the only place where persisting precedes sending.
``ordering``      a holder orders a transfer: the key, what is refused at once, the answer.
``coordinating``  what was ordered here is driven: votes, the decision, telling everyone.
``participating`` messages from other banks.
``custody``       holders, accounts, cash, consents.
``assigning``     what is in suspense, and whose it is.
``showing``       what other banks may see here.
``following``     what other banks are asked to show.
``snapshots``     this bank's part in a network-wide snapshot.
``auditing``      the network-wide snapshot and its checks.
``batching``      many transfers under one key.
``restoring``     what was lost behind a backup, from what peers know; what they are told of theirs.
``reading``       statements, events, lists, what is in doubt.
``feed``, ``tasks``, ``metrics``: who watches, what runs, what is counted.

A bank has no state outside its object, so that several of them run in one process, on one virtual clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distribank.bank.assigning import Assigning, AssignmentResult, Suspense
from distribank.bank.auditing import Auditing
from distribank.bank.batching import Batching, BatchResult
from distribank.bank.coordinating import Coordinating
from distribank.bank.custody import Approval, CashResult, Custody
from distribank.bank.following import Following, Linked, Reply, Shown, Trace
from distribank.bank.metrics import Metrics
from distribank.bank.ordering import Ordering, TransferResult
from distribank.bank.participating import Participating
from distribank.bank.reading import InDoubt, Reading
from distribank.bank.restoring import Restoring
from distribank.bank.rhythm import Rhythm
from distribank.bank.snapshots import Snapshots
from distribank.bank.tasks import Tasks
from distribank.core.idempotency import KeyName
from distribank.core.protocol import FORCED, IN_DOUBT, Answer, Message, State
from distribank.ports import Chance, Clock, Peers, PeerStatus, Store, Traces

__all__ = [
    "Approval",
    "AssignmentResult",
    "Bank",
    "BatchResult",
    "CashResult",
    "InDoubt",
    "KeyName",
    "Linked",
    "Reply",
    "Shown",
    "Suspense",
    "Trace",
    "TransferResult",
]


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
        traces: Traces | None = None,
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
        self.traces = traces
        self.vote_deadline = vote_deadline
        self.rhythm = Rhythm(code, store, clock, chance, self.metrics, traces, position_cap=position_cap)
        self.tasks = Tasks()
        self.coordinating = Coordinating(self.rhythm, peers, self.tasks, vote_deadline=vote_deadline)
        self.ordering = Ordering(self.rhythm, peers, self.coordinating, vote_deadline=vote_deadline)
        self.snapshots = Snapshots(self.rhythm)
        self.restoring = Restoring(self.rhythm, peers, self.coordinating)
        self.participating = Participating(self.rhythm, self.coordinating, self.snapshots, self.restoring)
        self.custody = Custody(self.rhythm, peers)
        self.assigning = Assigning(self.rhythm)
        self.batching = Batching(self.rhythm, self.ordering, self.tasks)
        self.reading = Reading(self.rhythm)
        self.following = Following(self.rhythm, peers)
        self.auditing = Auditing(self.rhythm, peers, self.following, self.snapshots)

    async def refresh_metrics(self) -> None:
        """Bring the series that are read rather than counted up to date: doubt, peers, positions, waiting."""
        doubts = await self.reading.in_doubt()
        votes = [doubt.transaction.begun_at for doubt in doubts if doubt.transaction.state in IN_DOUBT]
        self.metrics.in_doubt.set(len(votes))
        self.metrics.forced.set(sum(doubt.transaction.state in FORCED for doubt in doubts))
        self.metrics.unacknowledged.set(sum(doubt.transaction.state is State.COMMITTING for doubt in doubts))
        self.metrics.undecided.set(sum(doubt.transaction.state is State.PREPARING for doubt in doubts))
        self.metrics.oldest_in_doubt.set((self.rhythm.wall_ms() - min(votes)) / 1000 if votes else 0)
        self.metrics.lock_wait.set(self.store.waited_seconds)
        for view in self.peers.views():
            self.metrics.peer_up.labels(view.bank).set(view.status is PeerStatus.ONLINE)
        for (peer, kind), requests in self.peers.requests.items():
            self.metrics.requests.labels(peer, kind).set(requests)
        for book in await self.reading.books():
            if book.peer is not None:
                self.metrics.position.labels(book.peer).set(book.balance)

    # What other banks meet

    @property
    def incarnation(self) -> str:
        return self.store.incarnation

    def clock_now(self) -> int:
        """The stamp that travels with what is said now."""
        return self.rhythm.stamp()

    async def receive(self, sender: str, clock: int, messages: Sequence[Message]) -> list[Answer]:
        """Decide what *sender* asks; see ``Participating.receive``."""
        return await self.participating.receive(sender, clock, messages)

    async def stop(self, seconds: float) -> None:
        """Take no new work, wake every watcher, and let what runs come to its own end for at most *seconds*."""
        self.ready = False
        self.rhythm.feed.close()
        await self.tasks.drain(seconds)

    async def __aenter__(self) -> Bank:
        await self.tasks.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.stop(0)
        await self.tasks.__aexit__(*exc)
