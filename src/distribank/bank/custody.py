"""Holders, accounts, cash and consents: what a bank does for its own holders without any other bank.

Each operation is one decision under the locks of what it names and one atomic write, durable before it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from distribank.bank.rhythm import Moment, Rhythm, account_locks, book_lock
from distribank.core import ledger as books
from distribank.core.consents import Consent
from distribank.core.documents import account_number
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey, KeyName
from distribank.core.ledger import (
    CASH,
    Account,
    AccountHolder,
    AccountType,
    ApprovalRule,
    Book,
    BookEntry,
    Company,
    Entry,
    EntryKind,
    HolderRole,
)
from distribank.core.refusals import Code, Refusal
from distribank.core.transfer import Direction, Leg
from distribank.ports import Peers, Queries

Approval = Literal["any", "all"] | int
"""How the holders of a joint account approve a debit; a number means at least so many."""

MAX_CO_HOLDERS: Final = 15
MAX_CONSENTS: Final = 1000
"""Consents ever given on one account: each debit from elsewhere looks at all of them."""


@dataclass(frozen=True, slots=True)
class CashResult:
    """A deposit or withdrawal: its entry, or why it was refused."""

    entry: Entry | None
    refusal: Refusal | None
    replayed: bool = False


class Custody:
    """The part of a bank that keeps its holders' accounts."""

    def __init__(self, rhythm: Rhythm, peers: Peers) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store
        self._peers = peers

    # Holders

    async def register(self, name: str, cpf: str, password_hash: str, email: str | None) -> Holder | Refusal:
        """A new holder, durably; refused if this CPF is registered here."""
        new = Holder(cpf, self._rhythm.unique(), name, password_hash, self._rhythm.wall_ms(), email)

        async def add(moment: Moment) -> Holder | Refusal:
            known = await moment.get(Holder, cpf)
            if known is not None and known.holder_id != new.holder_id:
                return Refusal(Code.HOLDER_EXISTS, "this CPF is registered at this bank")
            moment.write([new])
            return new

        result = await self._rhythm.decide([f"holder:{cpf}"], add)
        await self._store.flushed()
        return result

    async def holder_by_cpf(self, cpf: str) -> Holder | None:
        return await self._store.get(Holder, cpf)

    async def holder_by_id(self, holder_id: str) -> Holder | None:
        found = await self._store.find(Queries.HOLDER_BY_ID, holder_id)
        return found[0] if found else None

    # Accounts

    async def open_account(
        self,
        holder: Holder,
        type: AccountType,  # noqa: A002 - the contract's own word
        co_holders: Sequence[str] = (),
        approval: Approval = "any",
        company: tuple[str, str] | None = None,
    ) -> Account | Refusal:
        """A new account, durably. *co_holders* are CPFs registered here; *company* is (legal name, CNPJ)."""
        people = await self._people(holder, type, co_holders)
        if isinstance(people, Refusal):
            return people
        rule, needed = _approval(approval, len(people))
        if not 1 <= needed <= len(people):
            return Refusal(Code.INVALID_APPROVAL, f"between 1 and {len(people)} holders can approve a debit")
        names = ["counter:account", *([f"company:{company[1]}"] if company else [])]
        opened_at = self._rhythm.wall_ms()
        tried: list[Account] = []

        async def open_it(moment: Moment) -> Account | Refusal:
            for account in tried:  # where this is run again: what it wrote may have landed unheard of
                landed = await moment.get(Account, account.number)
                if landed is not None and (landed.holders, landed.opened_at) == (people, opened_at):
                    return landed
            if company is not None and await moment.get(Company, company[1]) is not None:
                return Refusal(Code.COMPANY_EXISTS, "this company has an account at this bank")
            counter = await moment.get(Counter, "account") or Counter("account")
            counter = replace(counter, value=counter.value + 1)
            number = account_number(counter.value)
            business = Company(company[1], company[0], number) if company else None
            account = Account(number, type, people, needed, opened_at, business, rule=rule)
            moment.write([counter, account, *([business] if business else [])])
            tried.append(account)
            return account

        opened = await self._rhythm.decide(names, open_it)
        await self._store.flushed()
        return opened

    async def accounts_of(self, holder_id: str, limit: int, after: tuple[str, ...] = ()) -> list[Account]:
        """The accounts that this holder holds, by number."""
        return await self._store.find(Queries.ACCOUNTS_OF_HOLDER, holder_id, limit=limit, after=after)

    async def account_for(self, holder_id: str, number: str) -> Account | None:
        """The account as it is durably known, if this holder holds it; for anyone else it does not exist."""
        account = await self._store.get(Account, number)
        await self._store.flushed()
        return account if account is not None and account.belongs_to(holder_id) else None

    async def close_account(self, holder_id: str, number: str) -> Account | Refusal | None:
        """Close an account that is empty and on which nothing is held, pending credits included."""

        async def close(moment: Moment) -> Account | Refusal | None:
            account = await moment.get(Account, number)
            if account is None or not account.belongs_to(holder_id):
                return None
            if account.opener.holder_id != holder_id:
                return Refusal(Code.NOT_A_HOLDER, "only the titular closes an account", account=number)
            closed = books.close(account, self._rhythm.wall_ms())
            if isinstance(closed, Account):
                moment.write([closed])
            return closed

        result = await self._rhythm.decide(account_locks([number]), close)
        await self._store.flushed()
        return result

    # Cash

    async def cash(
        self, holder_id: str, number: str, kind: EntryKind, amount: int, key: str, fingerprint: str
    ) -> CashResult | None:
        """Pay *amount* centavos in or out at this bank, once per key; ``None`` if this is not the holder's account."""
        name = KeyName(holder_id, kind, key, f"{number} {fingerprint}")
        operation = f"cash.{self._rhythm.unique()}"

        async def pay(moment: Moment) -> CashResult | IdempotencyKey | None:
            account = await moment.get(Account, number)
            if account is None or not account.belongs_to(holder_id):
                return None
            known = await moment.done_under(name)
            return known or await self._new_cash(moment, name, account, kind, amount, operation)

        result = await self._rhythm.decide([name.lock, *account_locks([number]), book_lock(CASH)], pay)
        await self._store.flushed()
        return await self._earlier_cash(result, number) if isinstance(result, IdempotencyKey) else result

    async def _earlier_cash(self, known: IdempotencyKey, number: str) -> CashResult:
        """What was done, or refused, under a key that is durable."""
        if known.refusal is not None:
            return CashResult(None, known.refusal, replayed=True)
        change = int(known.subject)
        (entry,) = await self._store.find(Queries.ENTRIES_SINCE, number, limit=1, after=(change - 1,))
        return CashResult(entry, None, replayed=True)

    async def _new_cash(
        self, moment: Moment, name: KeyName, account: Account, kind: EntryKind, amount: int, operation: str
    ) -> CashResult:
        direction = Direction.CREDIT if kind is EntryKind.DEPOSIT else Direction.DEBIT
        leg = Leg(1, self._rhythm.code, account.number, direction, amount)
        ledger = books.Ledger({account.number: account}, {})
        cash = await moment.get(Book, CASH) or Book(CASH)
        unapproved = books.check_approval(account) if direction is Direction.DEBIT else None
        refusal = unapproved or books.check(ledger, [leg]) or books.check_cash(cash, -leg.signed)
        now = moment.now()
        if refusal is not None:
            moment.write([name.names("", now.wall_ms, refusal)])
            return CashResult(None, refusal)
        rows = books.post(ledger, [leg], operation, kind, now.stamp, now.wall_ms)
        entry = next(row for row in rows if isinstance(row, Entry))
        book = BookEntry(operation, CASH, -leg.signed, now.stamp)
        moment.write([*rows, book, name.names(str(entry.change), now.wall_ms)])
        return CashResult(entry, None)

    # Consents

    async def give_consent(
        self,
        holder: Holder,
        number: str,
        initiator_bank: str,
        max_per_transfer: int,
        max_total: int | None,
        expires_at: int,
    ) -> Consent | Refusal | None:
        """Let *initiator_bank* order debits on this account for this holder; ``None`` if it is not theirs."""
        now, consent_id = self._rhythm.wall_ms(), self._rhythm.unique()

        async def give(moment: Moment) -> Consent | Refusal | None:
            account = await moment.get(Account, number)
            if account is None or not account.is_held_by(holder.cpf):
                return None
            landed = await moment.get(Consent, consent_id)
            if landed is not None:  # this is run again: it has landed unheard of, and may have been used since
                return landed
            if self._peers.view(initiator_bank) is None:
                return Refusal(Code.UNKNOWN_BANK, "no such other bank in this network", initiator_bank)
            if account.closed_at is not None:
                return Refusal(Code.ACCOUNT_CLOSED, "this account is closed", account=number)
            refusal = books.check_approval(account)
            if refusal is not None:
                return refusal
            if len(await moment.find(Queries.CONSENTS_ON_ACCOUNT, number, limit=MAX_CONSENTS)) == MAX_CONSENTS:
                return Refusal(Code.LIMIT_EXCEEDED, f"at most {MAX_CONSENTS} consents on one account", account=number)
            consent = Consent(
                consent_id,
                number,
                holder.holder_id,
                holder.cpf,
                initiator_bank,
                max_per_transfer,
                max_total,
                expires_at,
                now,
            )
            moment.write([consent])
            return consent

        given = await self._rhythm.decide(account_locks([number]), give)
        await self._store.flushed()
        return given

    async def consents_of(self, holder_id: str, limit: int, after: tuple[int | str, ...] = ()) -> list[Consent]:
        """The consents that this holder has given, newest first."""
        return await self._store.find(Queries.CONSENTS_OF_HOLDER, holder_id, limit=limit, after=after)

    async def revoke_consent(self, holder_id: str, consent_id: str) -> Consent | None:
        """Revoke at once; what is already voted on stands. ``None`` if this holder gave no such consent."""
        found = await self._store.get(Consent, consent_id)
        if found is None or found.holder_id != holder_id:
            return None

        async def revoke(moment: Moment) -> Consent:
            consent = await moment.get(Consent, consent_id)
            assert consent is not None, f"consent {consent_id} vanished"
            if consent.revoked_at is None:
                consent = replace(consent, revoked_at=self._rhythm.wall_ms())
                moment.write([consent])
            return consent

        revoked = await self._rhythm.decide(account_locks([found.account]), revoke)
        await self._store.flushed()
        return revoked

    async def _people(
        self, holder: Holder, type_: AccountType, co_holders: Sequence[str]
    ) -> tuple[AccountHolder, ...] | Refusal:
        """The holders of a new account, its opener first; each of them is registered here, and nobody twice."""
        role = HolderRole.ADMINISTRATOR if type_ is AccountType.BUSINESS else HolderRole.TITULAR
        people = [AccountHolder(holder.holder_id, holder.cpf, holder.name, role)]
        if len({holder.cpf, *co_holders}) != 1 + len(co_holders):
            return Refusal(Code.DUPLICATE_HOLDER, "a CPF stands once among the holders of an account")
        for cpf in co_holders:
            other = await self._store.get(Holder, cpf)
            if other is None:
                return Refusal(Code.HOLDER_NOT_FOUND, "a co-holder must be registered at this bank first")
            people.append(AccountHolder(other.holder_id, other.cpf, other.name, HolderRole.CO_HOLDER))
        return tuple(people)


def _approval(approval: Approval, holders: int) -> tuple[ApprovalRule, int]:
    """The rule as it is shown, and how many holders it asks for."""
    if approval == "any":
        return ApprovalRule.ANY, 1
    if approval == "all":
        return ApprovalRule.ALL, holders
    return ApprovalRule.AT_LEAST, int(approval)
