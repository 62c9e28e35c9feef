"""Idempotency keys: what a client's retry means (IETF draft *The Idempotency-Key HTTP Header Field*).

A key belongs to one holder and one route, and is written in the same atomic write as what it names. It keeps no
answer: the answer is made again from what the key names, so that a retry sees the transfer as it is now.
"""

from __future__ import annotations

from enum import StrEnum

from distribank.core.refusals import Code, Refusal
from distribank.core.values import dataclass


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """*subject* is the id of what was done under this key; *refusal* says why nothing was, where no row keeps it.

    *answered*: the client was told a transfer id before the outcome (202), so that a retry must find that transfer.
    """

    owner: str
    route: str
    key: str
    fingerprint: str
    subject: str
    created_at: int
    answered: bool = False
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class KeyName:
    """Whose key, on which route, called what, over which content."""

    owner: str
    route: str
    key: str
    fingerprint: str

    @property
    def lock(self) -> str:
        return f"key:{self.owner}\n{self.route}\n{self.key}"  # none of the three has a line end

    def names(self, subject: str, now_ms: int, refusal: Refusal | None = None) -> IdempotencyKey:
        """The row that makes *subject* what this key did, or *refusal* why it did nothing."""
        return IdempotencyKey(self.owner, self.route, self.key, self.fingerprint, subject, now_ms, refusal=refusal)


class Retry(StrEnum):
    NEW = "new"
    REPLAY = "replay"
    CONFLICT = "conflict"


def judge(known: IdempotencyKey | None, fingerprint: str, because: Refusal | None = None) -> Retry:
    """What a request with this key means. *because*: why the transaction that the key names was aborted, if it was.

    A transaction that a crash interrupted before anyone was told of it has moved nothing: the key runs anew.
    """
    if known is None:
        return Retry.NEW
    if known.fingerprint != fingerprint:
        return Retry.CONFLICT
    if because is not None and because.code is Code.INTERRUPTED and not known.answered:
        return Retry.NEW
    return Retry.REPLAY
