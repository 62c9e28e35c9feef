"""The protocol's words: messages, answers, records, and what a bank knows of one transaction.

Two-phase commit with presumed abort (Mohan, Lindsay and Obermarck, 1986), between equals. What each side does
with each message stands in ``coordinator`` and ``participant``; how a message looks on the wire in
``distribank.peers.wire`` and ``docs/wire.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]  # the former
from typing import Final

from distribank.core.clock import CLOCK_BOUND_MS
from distribank.core.consents import Consent, ConsentUse
from distribank.core.heuristics import Heuristic
from distribank.core.ledger import AccountType, LedgerRow
from distribank.core.refusals import Refusal
from distribank.core.restoration import PartFate, Supplied
from distribank.core.transfer import Counterparty, Leg, Order
from distribank.core.values import dataclass

PROTOCOL_VERSION: Final = 1
MAX_VOTE_DEADLINE_MS: Final = 120_000
MAX_RECORDS: Final = 64
"""Records of one transaction that one bank shows another; the protocol writes four at most."""
MAX_LINKED: Final = 50
"""Consents that one answer about a person's accounts names; a thousand such answers fit in one response."""
MAX_DECISIONS: Final = 200
"""Transactions of which one answer tells a restored bank."""
MAX_VOTE_BY_AHEAD_MS: Final = MAX_VOTE_DEADLINE_MS + 2 * CLOCK_BOUND_MS
"""How far ahead of a participant's clock ``vote_by`` may lie: the longest deadline, its bound, one bound of skew."""


class Role(StrEnum):
    COORDINATOR = "coordinator"
    PARTICIPANT = "participant"


class State(StrEnum):
    """Where one transaction stands at one bank. The last four are never stored: they follow from what is."""

    PREPARING = "preparing"
    COMMITTING = "committing"
    ENDED = "ended"
    PREPARED = "prepared"
    FORCED_COMMIT = "forced commit"
    FORCED_ABORT = "forced abort"
    """An operator has forced this participant's part: a guess, until the outcome is known here."""
    COMMITTED = "committed"
    ABORTED = "aborted"
    """Decided or resolved as aborted, by either role; with no order, the tombstone of something never prepared."""
    DECIDING = "deciding"
    """The coordinator's commit decision is written but not yet durable: the flush is under way."""
    RESTORED = "restored"
    """``Begun`` in another incarnation of the coordinator's database, found after a restore: the votes are lost."""
    NOTHING = "nothing known"
    FOREIGN = "no record, other incarnation"


FORCED: Final = (State.FORCED_COMMIT, State.FORCED_ABORT)
IN_DOUBT: Final = (State.PREPARED, *FORCED)
"""Voted yes here, and the outcome is not known: it is inquired about."""

UNFINISHED: Final = (State.PREPARING, State.COMMITTING, *IN_DOUBT)
"""What recovery looks for in the log, through an index."""


class RecordKind(StrEnum):
    """The lines of the log."""

    BEGUN = "Begun"
    DECIDED = "Decided"
    ENDED = "Ended"
    PREPARED = "Prepared"
    RESOLVED = "Resolved"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a bank's log: at *stamp*, this transaction went from one state to another, because of *detail*."""

    transaction: str
    stamp: int
    kind: RecordKind
    before: str
    after: str
    detail: str


@dataclass(frozen=True, slots=True)
class Voted:
    """One participant's part as its coordinator knows it: its vote and when it acknowledged (milliseconds)."""

    bank: str
    yes: bool | None = None
    prepared_at: int | None = None
    acknowledged_at: int | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a bank knows of one transaction; its durable form is one row, written together with the records.

    *order* is ``None`` for a tombstone. *prepared_at* and *commit_at* are stamps; *begun_at*, *decided_at*,
    *completed_at* and *vote_by* milliseconds since 1970. *votes* is the coordinator's, *consents* and *digest* a
    participant's. *because* says why it was aborted. *subjects* are the accounts here, and the ordering holder's id
    at the coordinator, in whose lists of transfers it stands.
    """

    id: str
    role: Role
    state: State
    begun_at: int
    participants: tuple[str, ...] = ()
    order: Order | None = None
    vote_by: int = 0
    digest: str = ""
    prepared_at: int | None = None
    commit_at: int | None = None
    decided_at: int | None = None
    completed_at: int | None = None
    because: Refusal | None = None
    votes: tuple[Voted, ...] = ()
    consents: tuple[ConsentUse, ...] = ()
    counterparties: tuple[Counterparty, ...] = ()
    subjects: tuple[str, ...] = ()

    @property
    def coordinator(self) -> str:
        return coordinator_of(self.id)

    @property
    def incarnation(self) -> str:
        """The coordinator's database that began this transaction."""
        return incarnation_of(self.id)

    @property
    def banks(self) -> tuple[str, ...]:
        return (self.coordinator, *self.participants)


def coordinator_of(transaction: str) -> str:
    """The bank that coordinates *transaction*: the first part of its id."""
    return transaction.partition(".")[0]


def incarnation_of(transaction: str) -> str:
    """The incarnation of the database in which *transaction* began: the second part of its id, if it has one."""
    return transaction.partition(".")[2].partition(".")[0]


_canonical: Final = c_make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, True)
"""As ``json.JSONEncoder(separators=(",", ":"))`` writes, which makes such an encoder for each text."""


# Messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """The coordinator asks for a vote on all legs at a bank. *flow* is what the coordinator comes to owe that bank."""

    transaction: str
    participants: tuple[str, ...]
    legs: tuple[Leg, ...]
    flow: int
    holder_cpf: str
    end_to_end_id: str
    description: str | None
    ordered_at: int
    counterparties: tuple[Counterparty, ...]
    vote_by: int
    _digest: str = field(default="", init=False, repr=False, compare=False)
    """Once somebody has asked for it: a participant does so twice."""

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the canonical JSON of everything that is ordered here."""
        if not self._digest:
            object.__setattr__(self, "_digest", self._digested())
        return self._digest

    def _digested(self) -> str:
        content = [
            self.transaction,
            list(self.participants),
            [[leg.number, leg.bank, leg.account, leg.direction, leg.amount] for leg in self.legs],
            self.flow,
            self.holder_cpf,
            self.end_to_end_id,
            self.description,
            self.ordered_at,
            [[c.leg, c.bank, c.direction, c.name_masked] for c in self.counterparties],
            self.vote_by,
        ]
        return hashlib.sha256("".join(_canonical(content, 0)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Commit:
    """The decision, once durable: post these legs, stamped *at*."""

    transaction: str
    at: int
    legs: tuple[Leg, ...]
    counterparties: tuple[Counterparty, ...] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    transaction: str
    because: Refusal


@dataclass(frozen=True, slots=True)
class Inquire:
    """An in-doubt participant asks for the outcome. *vote_by* as in its prepare."""

    transaction: str
    vote_by: int


@dataclass(frozen=True, slots=True)
class ShowLog:
    """A bank that takes part asks what the log says of a transaction. It changes nothing."""

    transaction: str


@dataclass(frozen=True, slots=True)
class ShowAccounts:
    """A bank asks on which accounts this person lets it order debits. It changes nothing."""

    holder_cpf: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A bank that audits the network asks for this bank's clock or, *at* a stamp, for its books as they were by then.

    With *transactions* it asks only on which side of *at* each of them lies.
    """

    at: int | None = None
    transactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShowDecisions:
    """A bank restored from a backup asks for what concerns it among what began here at *since* (milliseconds) or later.

    *after* is the place at which the answer before had stopped. It changes nothing.
    """

    since: int
    after: tuple[int, str] | None = None


Message = Prepare | Commit | Abort | Inquire | ShowLog | ShowAccounts | Snapshot | ShowDecisions


# Answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Yes:
    """A promise: whatever the decision, this bank can carry it out. *names* tells the masked name behind each leg."""

    prepared_at: int
    names: tuple[Counterparty, ...] = ()


@dataclass(frozen=True, slots=True)
class No:
    because: Refusal


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The message did what it asks for here, or had done so before (*already*)."""

    already: bool = False


class Violation(StrEnum):
    """Why a message was refused as such: its sender, not a holder, is at fault, or this bank lost what it promised."""

    UNKNOWN_TRANSACTION = "unknown_transaction"
    DIGEST_MISMATCH = "digest_mismatch"
    ALREADY_ABORTED = "already_aborted"
    NOT_YOUR_TRANSACTION = "not_your_transaction"
    LOG_TOO_YOUNG = "log_too_young"
    CLOCK_AHEAD = "clock_ahead"
    STAMP_PAST_VOTE_BY = "stamp_past_vote_by"
    INVALID_MESSAGE = "invalid_message"
    UNKNOWN_KIND = "unknown_kind"


@dataclass(frozen=True, slots=True)
class Refused:
    code: Violation
    detail: str


class Fate(StrEnum):
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNDECIDED = "undecided"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an inquiry is told; *at* is the commit timestamp where it is committed."""

    fate: Fate
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """The durable records of one transaction at a bank, by stamp; none where it is unknown to whoever asks."""

    transaction: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class LinkedAccount:
    """An open account and one active consent on it. Balances in centavos; *expires_at* in milliseconds."""

    account: str
    type: AccountType
    posted: int
    available: int
    consent_id: str
    max_per_transfer: int
    max_total: int | None
    used: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a person lets the asking bank draw on, newest consent first."""

    accounts: tuple[LinkedAccount, ...]


@dataclass(frozen=True, slots=True)
class ClockRead:
    """What a bank's clock says: nothing that it has said or acknowledged is later."""

    at: int


class Side(StrEnum):
    """Where a snapshot leaves one transaction: on the cut, not on it, or in doubt there, too."""

    ON = "on"
    OFF = "off"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Part:
    """One transaction that is in doubt at a bank, among *banks*: what would move there if it were on the cut.

    In centavos: *customers* by how much their accounts would change in all, *positions* what the bank would come to
    owe each peer.
    """

    transaction: str
    banks: tuple[str, ...]
    customers: int
    positions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An answer as it was signed: its *body*, and the headers that a verifier needs."""

    body: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """One bank's books, added up from the entries stamped at or before *at*, in centavos; *books* by name.

    *parts* are in doubt there, *forced* those of which an operator had guessed the outcome; *findings* say in words
    what the bank itself found wrong. *evidence* is another bank's signature over all of it.
    """

    at: int
    customers: int
    books: Mapping[str, int]
    entries: int
    parts: tuple[Part, ...] = ()
    forced: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """On which side of *at* each transaction asked about lies."""

    at: int
    sides: Mapping[str, Side]


@dataclass(frozen=True, slots=True)
class Decision:
    """One transaction as the bank that was asked knows it, which coordinates it, or takes part in what the asker did.

    *legs* are the asker's where it takes part, else those of the bank that was asked, none for a tombstone. *at* is the
    commit timestamp. What else was in the prepare stands here as it stood there.
    """

    transaction: str
    begun_at: int
    fate: PartFate
    at: int | None
    participants: tuple[str, ...]
    legs: tuple[Leg, ...]
    holder_cpf: str
    end_to_end_id: str
    description: str | None
    ordered_at: int
    vote_by: int
    counterparties: tuple[Counterparty, ...]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What concerns the asker, by ``(begun_at, transaction)``.

    *stopped_at* is the place, as such a pair, from which there is more to look at; ``None`` where this is the end.
    """

    decisions: tuple[Decision, ...]
    stopped_at: tuple[int, str] | None = None


Answer = Yes | No | Acknowledged | Refused | Outcome | Log | Accounts | ClockRead | Cut | Sides | Decisions


# One decision's result --------------------------------------------------------------------------------------------


Change = LedgerRow | Transaction | Consent | Heuristic | Supplied


@dataclass(frozen=True, slots=True)
class Step:
    """What one event comes to: first durable, in one write (*records*, *changes*), then said (*answer*, *messages*).

    *transaction* is the new state (also among the changes where it must be kept). *alarm* names a breakage that an
    operator must hear of. *forced* says that *answer* and *messages* must wait until the write is durable.
    """

    transaction: Transaction | None
    records: tuple[Record, ...] = ()
    changes: tuple[Change, ...] = ()
    messages: tuple[tuple[str, Message], ...] = ()
    answer: Answer | None = None
    forced: bool = False
    alarm: str | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a decision: the wall clock in milliseconds, and a stamp just ticked."""

    wall_ms: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote as an event: which bank, and what it said."""

    bank: str
    answer: Yes | No
