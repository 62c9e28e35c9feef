"""Whether one peer is there, as far as this bank can tell from what it hears and what fails.

A peer is online while well-signed words of it arrive, offline once an exchange failed with nothing heard since it
began, unknown before either. Times called *now* are the event loop's, in seconds; *wall_ms* is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from distribank.peers.roster import RosterEntry
from distribank.ports import PeerStatus, PeerView

MAX_ERROR: Final = 200
"""Characters kept of the last error's words."""


@dataclass(slots=True)
class Presence:
    """One peer's presence. It changes only by ``heard`` and ``failed``."""

    entry: RosterEntry
    since: int
    status: PeerStatus = PeerStatus.UNKNOWN
    heard_at: float = float("-inf")
    rtt_ms: float | None = None
    last_error: str | None = None

    def heard(self, now: float, wall_ms: int, rtt_ms: float | None = None) -> bool:
        """Something well-signed arrived; whether that means that the peer has come (back)."""
        self.heard_at = now
        self.last_error = None
        if rtt_ms is not None:
            self.rtt_ms = rtt_ms
        return self._become(PeerStatus.ONLINE, wall_ms)

    def failed(self, began: float, wall_ms: int, why: str) -> None:
        """An exchange that *began* then came to nothing. It says little where the peer was heard of meanwhile."""
        self.last_error = why[:MAX_ERROR]
        if self.heard_at < began or self.status is PeerStatus.UNKNOWN:
            self._become(PeerStatus.OFFLINE, wall_ms)

    def view(self) -> PeerView:
        return PeerView(
            self.entry.code, self.entry.name, self.entry.url, self.status, self.since, self.rtt_ms, self.last_error
        )

    def _become(self, status: PeerStatus, wall_ms: int) -> bool:
        if self.status is status:
            return False
        self.status, self.since = status, wall_ms
        return True
