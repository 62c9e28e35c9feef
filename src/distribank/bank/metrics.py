"""The series that an operator looks at; ``GET /metrics`` prints them for Prometheus."""

from __future__ import annotations

from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class OnePhase(dict[str, Histogram]):
    """One phase's times by peer. A peer's series is looked up once, not with every observation."""

    def __init__(self, times: Histogram, phase: str) -> None:
        super().__init__()
        self._times = times
        self._phase = phase

    def __missing__(self, peer: str) -> Histogram:
        series = self[peer] = self._times.labels(self._phase, peer)
        return series


class Metrics:
    """One bank's registry: nothing is global, so that several banks fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.transfers = Counter(
            "distribank_transfers", "Transfers ordered at this bank, by outcome", ["outcome"], registry=self.registry
        )
        self.committed, self.aborted = self.transfers.labels("committed"), self.transfers.labels("aborted")
        self.in_doubt = Gauge(
            "distribank_in_doubt", "Transactions voted yes whose outcome is unknown here", registry=self.registry
        )
        self.forced = Gauge(
            "distribank_forced", "Outcomes forced by the operator whose truth is unknown here", registry=self.registry
        )
        self.unacknowledged = Gauge(
            "distribank_unacknowledged_commits", "Commits that some bank has yet to acknowledge", registry=self.registry
        )
        self.undecided = Gauge(
            "distribank_undecided", "Transactions of this coordinator not decided in time", registry=self.registry
        )
        self.oldest_in_doubt = Gauge(
            "distribank_oldest_in_doubt_seconds", "Age of the oldest vote without an outcome", registry=self.registry
        )
        self.phase = Histogram(
            "distribank_phase_seconds",
            "From asking the peer to its answer, by phase; a peer that does not answer is not in it",
            ["phase", "peer"],
            registry=self.registry,
        )
        self.voted, self.acknowledged = OnePhase(self.phase, "vote"), OnePhase(self.phase, "acknowledge")
        self.flush = Histogram(
            "distribank_flush_seconds",
            "Time of one durable write",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
            registry=self.registry,
        )
        self.flush_batch = Histogram(
            "distribank_flush_batch_size",
            "Atomic writes that shared one flush",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.lock_wait = Gauge(
            "distribank_lock_wait_seconds", "Time spent waiting for an account's turn, in all", registry=self.registry
        )
        self.peer_up = Gauge(
            "distribank_peer_up", "1 if the peer is online, 0 if it is not", ["peer"], registry=self.registry
        )
        self.requests = Gauge(
            "distribank_interbank_requests",
            "Requests sent to the peer, by kind of message; several messages may share one",
            ["peer", "kind"],
            registry=self.registry,
        )
        self.position = Gauge(
            "distribank_position_centavos",
            "What this bank owes the peer; negative if it is owed",
            ["peer"],
            registry=self.registry,
        )
        self.alarms = Counter(
            "distribank_alarms", "Breakages of the protocol that were noticed", registry=self.registry
        )
        self.audit_ok = Gauge(
            "distribank_audit_ok",
            "1 if the last audit that this bank made found nothing wrong, 0 if it did; NaN before the first",
            registry=self.registry,
        )
        self.audit_findings = Gauge(
            "distribank_audit_findings",
            "What the last audit that this bank made found wrong or unchecked; NaN before the first",
            registry=self.registry,
        )
        self.audit_ok.set(nan)
        self.audit_findings.set(nan)
        self.audited_at = Gauge(
            "distribank_audit_timestamp_seconds",
            "When this bank made its last audit, since 1970; 0 before the first",
            registry=self.registry,
        )

    def flushed(self, seconds: float, writes: int) -> None:
        """Called by the store after each flush."""
        self.flush.observe(seconds)
        self.flush_batch.observe(writes)

    def audited(self, findings: int, wall_ms: int) -> None:
        """The audit that ended at *wall_ms* had so many *findings*."""
        self.audit_ok.set(not findings)
        self.audit_findings.set(findings)
        self.audited_at.set(wall_ms / 1000)
