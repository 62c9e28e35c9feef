"""What must hold once everything is quiet, read from the rows on all disks and from what clients and auditors heard.

Each check raises ``Violation`` with the number of its invariant. Parts that an operator forced are guesses: their
entries, the correction's and what is in suspense must come to the truth together.

To add one: write a method that reads rows, name it in ``all``, and see it fail on a bank that breaks its rule.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from distribank.core.consents import Consent
from distribank.core.heuristics import Heuristic
from distribank.core.ledger import BookEntry, Entry
from distribank.core.protocol import Transaction
from distribank.core.snapshot import Audit
from distribank.simulation.landing import Violation, nets, signed
from distribank.simulation.people import Told

Rows = Mapping[type, Mapping[Any, Any]]

EXCUSED = {"bank_unreachable", "clock_ahead", "forced"}
"""Findings of an audit that say what could not be checked."""
EXCUSED_BY_FORCE = {"positions_differ", "money_differs"}


class Verdict:
    """All checks over *disks*, the durable rows by bank."""

    def __init__(self, disks: Mapping[str, Rows], told: Told, audits: list[tuple[Audit, list[str]]]) -> None:
        self.disks = disks
        self.told = told
        self.audits = audits
        self.seen: Counter[str] = Counter()
        self.known: dict[str, dict[str, Transaction]] = defaultdict(dict)
        self.entries: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self.postings: dict[tuple[str, str], list[BookEntry]] = defaultdict(list)
        for code, rows in disks.items():
            for known in rows[Transaction].values():
                self.known[known.id][code] = known
            for entry in rows[Entry].values():
                self.entries[code, entry.operation].append(entry)
            for posting in rows[BookEntry].values():
                self.postings[code, posting.operation].append(posting)
        self.outcome = {identity: self._outcome(identity, at) for identity, at in self.known.items()}

    def all(self) -> None:
        """Every check."""
        self.one_outcome_everywhere()
        self.legs_are_posted_as_ordered()
        self.clients_were_told_the_truth()
        self.keys_stand_for_one_transaction()
        self.operations_sum_to_zero()
        self.money_is_what_cash_made()
        self.nothing_was_spent_before_it_came()
        self.consents_are_used_by_what_was_committed()
        for audit, acknowledged in self.audits:
            self.audit_is_a_moment(audit)
            self.audit_holds_what_was_acknowledged(audit, acknowledged)
            self.audit_money(audit)

    def _outcome(self, identity: str, at: Mapping[str, Transaction]) -> str:
        """What the coordinator's row says, which is the truth; what it does not know was aborted."""
        first = at.get(identity[:8])
        return "committed" if first is not None and first.state in ("committing", "ended") else "aborted"

    def one_outcome_everywhere(self) -> None:
        """I3, I9: every participant has the coordinator's outcome, with its stamp, later than what was promised."""
        for identity, at in self.known.items():
            outcome, first = self.outcome[identity], at.get(identity[:8])
            self.seen[outcome] += 1
            for code, known in at.items():
                if known.because is not None:
                    self.seen["interrupted"] += known.because.code == "interrupted"
                    self.seen["promised never to vote"] += "promised" in known.because.detail
                if code != identity[:8] and known.state != outcome:
                    raise Violation(f"I3: {identity} is {outcome}, and {known.state} at {code}")
            if outcome == "committed":
                assert first is not None
                assert first.commit_at is not None
                for bank in first.participants:
                    if bank not in at:
                        raise Violation(f"I3: {identity} is committed, and {bank} does not know it")
                    promised = at[bank].prepared_at
                    if at[bank].commit_at != first.commit_at:
                        raise Violation(f"I3: {identity} is committed at different stamps: {at}")
                    if promised is None or promised > first.commit_at:
                        raise Violation(f"I9: {identity} is committed at {first.commit_at}, prepared at {promised}")

    def legs_are_posted_as_ordered(self) -> None:
        """I3, I4, I5: each leg of what is committed is posted once, and nothing of what is not."""
        ordered: Counter[tuple[str, str, int]] = Counter()
        for identity, at in self.known.items():
            first = at.get(identity[:8])
            if self.outcome[identity] != "committed" or first is None or first.order is None:
                continue
            for leg in first.order.legs:
                if identity not in self.disks[leg.bank][Heuristic]:
                    ordered[leg.bank, identity, leg.number] += 1
                    self._posted_as_ordered(identity, leg, first.commit_at)
        posted = Counter(
            (code, entry.operation, entry.leg)
            for (code, operation), entries in self.entries.items()
            for entry in entries
            if entry.kind == "transfer" and operation not in self.disks[code][Heuristic]
        )
        if posted != ordered:
            raise Violation(f"I3: posted, and not ordered or not once: {posted - ordered}; missing: {ordered - posted}")
        for code, rows in self.disks.items():
            for guess in rows[Heuristic].values():
                self._guess_came_to_the_truth(code, guess)

    def _posted_as_ordered(self, identity: str, leg: Any, at: int | None) -> None:
        for entry in self.entries[leg.bank, identity]:
            if entry.leg == leg.number:
                if (entry.account, entry.amount, entry.direction) != (leg.account, leg.amount, leg.direction):
                    raise Violation(f"I5: {leg} of {identity} is posted as {entry}")
                if entry.stamp != at:
                    raise Violation(f"I9: {leg} of {identity} is posted at {entry.stamp}, committed at {at}")

    def _guess_came_to_the_truth(self, code: str, guess: Heuristic) -> None:
        """What the guess and its correction posted, with what is in suspense, is what the truth would have posted."""
        identity, correction = guess.transaction, guess.transaction + ".correction"
        truth = "commit" if self.outcome.get(identity) == "committed" else "abort"
        self.seen[f"forced {guess.decision}, truth {truth}"] += 1
        if guess.truth != truth or guess.matched is not (guess.decision == truth):
            raise Violation(
                f"I3: what was forced at {code} knows the truth as {guess.truth}; it is {truth}: {identity}"
            )
        known = self.known[identity][code]
        assert known.order is not None
        wanted = Counter(nets(known.order.legs)) if truth == "commit" else Counter()
        posted: Counter[str] = Counter()
        for entry in (*self.entries[code, identity], *self.entries[code, correction]):
            posted[entry.account] += signed(entry)
        missing = {each: wanted[each] - posted[each] for each in {**wanted, **posted} if wanted[each] != posted[each]}
        suspense = sum(p.amount for p in self.postings[code, correction] if p.book == "suspense")
        if sum(missing.values()) != suspense:
            raise Violation(f"I4: {identity}, forced at {code}, misses {missing}, and {suspense} are in suspense")
        if guess.matched and missing:
            raise Violation(f"I4: {identity}, forced at {code}, was guessed right and misses {missing}")
        self.seen["suspense owes"] += suspense > 0
        self.seen["suspense is owed"] += suspense < 0

    def clients_were_told_the_truth(self) -> None:
        """I4: told committed, it is; told aborted, it is not; and everyone was told the same."""
        for contradiction in self.told.contradictions:
            raise Violation(f"I4: {contradiction}")
        for key, told in self.told.outcomes.items():
            if len(told) > 1:
                raise Violation(f"I4: {key} was told {list(told)}")
            for identity, said in told:
                if identity and self.outcome.get(identity) != said:
                    raise Violation(f"I4: {key} was told that {identity} is {said}; it is {self.outcome.get(identity)}")

    def keys_stand_for_one_transaction(self) -> None:
        """I11: the same idempotency key is the same transaction."""
        for key, named in self.told.named.items():
            if len(named) > 1:
                raise Violation(f"I11: {key} stands for {list(named)}")

    def operations_sum_to_zero(self) -> None:
        """I6: over all banks, and with each bank's books at every bank."""
        total: Counter[str] = Counter()
        for (code, operation), entries in list(self.entries.items()):
            change = sum(map(signed, entries))
            books = sum(posting.amount for posting in self.postings[code, operation])
            if change + books:
                raise Violation(f"I6: {operation} changes accounts by {change} and books by {books} at {code}")
            if entries and entries[0].kind in ("transfer", "correction"):
                total[operation.removesuffix(".correction")] += change
        for (_, operation), postings in self.postings.items():
            total[operation.removesuffix(".correction")] += sum(p.amount for p in postings if p.book == "suspense")
        for operation, change in total.items():
            if change:
                raise Violation(f"I6: {operation} changes the network's money by {change}")

    def money_is_what_cash_made(self) -> None:
        """I1, at the end: all balances, with what is in suspense, are the cash that clients paid in less paid out."""
        posted = sum(signed(entry) for entries in self.entries.values() for entry in entries)
        suspense = sum(p.amount for postings in self.postings.values() for p in postings if p.book == "suspense")
        if posted + suspense != self.told.cash:
            raise Violation(f"I1: {posted} on accounts and {suspense} in suspense, of {self.told.cash} paid in")

    def nothing_was_spent_before_it_came(self) -> None:
        """I9: in the order of their stamps, no account's entries ever sum to less than nothing."""
        for code, rows in self.disks.items():
            by_account: dict[str, Counter[int]] = defaultdict(Counter)
            for entry in rows[Entry].values():
                by_account[entry.account][entry.stamp] += signed(entry)
            for account, sums in by_account.items():
                total = 0
                for stamp in sorted(sums):
                    total += sums[stamp]
                    if total < 0:
                        raise Violation(f"I9: {account} at {code} had {total} at {stamp}: spent before it came")

    def consents_are_used_by_what_was_committed(self) -> None:
        """I7, of consents: what is used up of each is what was committed on it."""
        used: Counter[str] = Counter()
        for identity, at in self.known.items():
            for known in at.values():
                if self.outcome[identity] == "committed":
                    used.update({use.consent_id: use.amount for use in known.consents})
        for code, rows in self.disks.items():
            for consent in rows[Consent].values():
                if consent.used != used[consent.consent_id]:
                    raise Violation(f"I7: {consent} at {code}, of which {used[consent.consent_id]} were committed")

    # Audits -------------------------------------------------------------------------------------------------------

    def audit_is_a_moment(self, audit: Audit) -> None:
        """I1: each bank's sum is, to the centavo, what its entries of the end say of that stamp, and none is wrong."""
        self.seen["audit"] += 1
        self.seen["audit: all holds"] += audit.ok
        excused = set(EXCUSED)
        if any(cut is not None and cut.forced for cut in audit.cuts.values()):
            excused |= EXCUSED_BY_FORCE
            self.seen["audit: forced"] += 1
        wrong = [finding for finding in audit.findings if finding.code not in excused]
        if wrong:
            raise Violation(f"I1: an audit at {audit.at} found {wrong}")
        for finding in audit.findings:
            self.seen[f"audit: {finding.code}"] += 1
        for code, cut in audit.cuts.items():
            if cut is None:
                continue
            later = {doubt.part.transaction: doubt for doubt in audit.doubts if doubt.bank == code}
            entries = [e for e in self.disks[code][Entry].values() if e.stamp <= audit.at]
            counted = sum(signed(entry) for entry in entries if entry.operation not in later)
            if counted != cut.customers:
                raise Violation(f"I1: {code} says {cut.customers} at {audit.at}; its entries then sum to {counted}")
            for transaction, doubt in later.items():
                self.seen[f"audit: in doubt, {doubt.side}"] += 1
                if transaction in self.disks[code][Heuristic]:
                    continue  # what it posted is stamped when it was forced
                moved = [signed(entry) for entry in entries if entry.operation == transaction]
                if doubt.side != "in_doubt" and bool(moved) is not (doubt.side == "on"):
                    raise Violation(f"I1: {doubt} at {audit.at} came to {moved}")
                if moved and sum(moved) != doubt.part.customers:
                    raise Violation(f"I1: {doubt} at {audit.at} moved {moved}")

    def audit_money(self, audit: Audit) -> None:
        """I1: over all banks, what the audit added up is the cash that had been paid in by then."""
        if None in audit.cuts.values() or any(doubt.side == "in_doubt" for doubt in audit.doubts):
            return
        cuts = [cut for cut in audit.cuts.values() if cut is not None]
        if any(cut.forced for cut in cuts):
            return
        self.seen["audit: everything added up"] += 1
        said = sum(cut.customers + cut.books.get("suspense", 0) for cut in cuts)
        said += sum(doubt.part.customers for doubt in audit.doubts if doubt.side == "on")
        cash = sum(
            signed(entry)
            for rows in self.disks.values()
            for entry in rows[Entry].values()
            if entry.kind in ("deposit", "withdrawal") and entry.stamp <= audit.at
        )
        if said != cash:
            raise Violation(f"I1: at {audit.at} there were {said} of {cash} paid in by then")

    def audit_holds_what_was_acknowledged(self, audit: Audit, acknowledged: list[str]) -> None:
        """I12: whatever a client had been told is committed when the audit began lies before its moment."""
        for identity in acknowledged:
            if audit.cuts[identity[:8]] is None:
                continue  # its coordinator did not say what its clock is
            at = self.known[identity][identity[:8]].commit_at
            if at is None or at > audit.at:
                raise Violation(f"I12: {identity}, committed at {at}, was acknowledged before an audit at {audit.at}")
