"""Breakages: what a peer, a disk or a caller does wrong, as exceptions. The whole tree:

    Breakage
    ├── Unreachable          a peer did not answer; nothing is known about what it did
    ├── NotSigned            a request or an answer is not signed as it must be (distribank.peers.signatures)
    ├── StoreBreakage
    │   ├── DurabilityLost   a write may or may not be on the disk: this process must stop, the log decides
    │   ├── StoreAway        the database server cannot be reached: what became of a write is unknown, not failed
    │   ├── StoreInUse       another process has this data directory
    │   └── StoreUnusable    a newer schema, another bank's database, an unreadable file
    ├── KeyReused            an idempotency key came back with other content
    ├── KeyInProgress        an idempotency key came back while its first request runs
    ├── Busy                 too much is under way; nothing was begun
    ├── OutcomeUnknown       the bank stopped driving a transfer before it could tell its end
    └── Misconfigured        a setting, key or roster with which no bank may start

A refusal is none of these: it is a value (``distribank.core.refusals``). A bug is an assertion.
"""

from __future__ import annotations


class Breakage(Exception):
    """The root of what can break; the message says what to do next where there is something to do."""


class Unreachable(Breakage):
    """No answer from *bank* in time. The message may have arrived all the same."""

    def __init__(self, bank: str, why: str) -> None:
        super().__init__(f"{bank} did not answer: {why}")
        self.bank = bank
        self.why = why


class StoreBreakage(Breakage):
    """The store cannot do what a bank relies on."""


class DurabilityLost(StoreBreakage):
    """A flush failed. What was being written is unknown, never undone and never retried: stop and recover."""


class StoreAway(StoreBreakage):
    """The database server is out of reach. A decision that was under way is made or not: unknown, not failed."""

    def __init__(self, why: str = "the bank's database is out of reach") -> None:
        super().__init__(f"{why}; send this again in a moment, with the same idempotency key")


class StoreInUse(StoreBreakage):
    """Another process serves from this database."""


class StoreUnusable(StoreBreakage):
    """This database is not one that this program, or this bank, may open."""


class KeyReused(Breakage):
    """An idempotency key was used before with other content."""

    def __init__(self) -> None:
        super().__init__("this idempotency key was used before, with other content; use a new one")


class KeyInProgress(Breakage):
    """The first request with this idempotency key is still running; *transfer_id* is what it does, where known."""

    def __init__(self, transfer_id: str | None) -> None:
        super().__init__("the first request with this key is still running; ask again in a moment")
        self.transfer_id = transfer_id


class Busy(Breakage):
    """Too much is under way already. Nothing was begun: the same request may be sent again in a moment."""

    def __init__(self) -> None:
        super().__init__("too many transfers are under way; send this again in a moment")


class OutcomeUnknown(Breakage):
    """What became of *transfer_id* cannot be told now: unknown, not failed. The same key asks again."""

    def __init__(self, transfer_id: str) -> None:
        super().__init__("the outcome is not known yet; ask again with the same idempotency key")
        self.transfer_id = transfer_id


class Misconfigured(Breakage):
    """A bank must not start like this; the message names the setting and says what to put there."""


TELLING = (AssertionError, Breakage)
"""Exceptions whose words are this program's own. Others may quote what was sent: their class alone is logged."""
