"""Token buckets: how often a key may do something before it must wait.

A bucket starts full, is charged one token an attempt, and refills with time. Time is injected, and the table is
bounded: the bucket longest untouched goes first, so that a flood of new keys costs memory only up to the bound.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

MAX_BUCKETS: Final = 50_000
"""Keys remembered per throttle."""


class Throttle:
    """Buckets of *burst* tokens that refill at *per_second*; *now* is monotonic, in seconds."""

    def __init__(
        self, burst: int, per_second: float, now: Callable[[], float], *, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self.burst = burst
        self._per_second = per_second
        self._now = now
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, key: Hashable) -> float:
        """Seconds until *key* has a token again; 0 if it has one now. Charges nothing."""
        return max(0.0, (1.0 - self._tokens(key)) / self._per_second)

    def charge(self, key: Hashable) -> None:
        """Take one token, which must be there."""
        tokens = self._tokens(key)
        assert tokens >= 1.0, "charge() follows a wait() of 0"
        self._keep(key, tokens - 1.0)

    def refund(self, key: Hashable) -> None:
        """Give back a token that was charged for something that turned out well."""
        tokens = min(float(self.burst), self._tokens(key) + 1.0)
        if tokens >= self.burst:
            self._buckets.pop(key, None)
        else:
            self._keep(key, tokens)

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, key: Hashable) -> float:
        kept = self._buckets.get(key)
        if kept is None:
            return float(self.burst)
        tokens, since = kept
        return min(float(self.burst), tokens + (self._now() - since) * self._per_second)

    def _keep(self, key: Hashable, tokens: float) -> None:
        self._buckets[key] = (tokens, self._now())
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which is one subscriber's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
