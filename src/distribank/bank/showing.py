"""What this bank shows another that asks: a transaction's records, and the accounts that it may draw on.

Whoever asks is known to be a bank of the roster. It sees the records of transactions in which it takes part, and what
holders have consented to it in particular; anything else looks as though it did not exist. Nothing here changes
anything, and whoever sends these answers waits until all that they rest on is durable.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from distribank.bank.rhythm import Rhythm
from distribank.core import consents as permissions
from distribank.core.consents import Consent, ConsentStatus
from distribank.core.coordinator import aborted_because
from distribank.core.holders import Holder
from distribank.core.ledger import Account
from distribank.core.protocol import MAX_LINKED, MAX_RECORDS, Accounts, LinkedAccount, Log, Role, State, Transaction
from distribank.ports import Queries

MAX_LOOKED_AT: Final = 1000
"""Consents of one person that are looked at, newest first."""


class Showing:
    """The answers to questions about what is known here."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._store = rhythm.store

    async def log(self, sender: str, transaction: str) -> Log:
        """The durable records of *transaction*, for a bank that takes part in it; to any other it is unknown.

        Whoever asks waits for the disk before: what is queued, a lazy record too, happened before the question.
        """
        known = await self._store.get(Transaction, transaction)
        if known is None or sender not in known.banks:
            return Log(transaction, ())
        records = await self._store.find(Queries.RECORDS_OF, transaction, limit=MAX_RECORDS)
        if known.role is Role.COORDINATOR and known.because is not None and sender != self._rhythm.code:
            heard = aborted_because(known.because.heard_at(sender))  # of money at a third bank it learns nothing
            records = [replace(line, detail=heard) if line.after == State.ABORTED else line for line in records]
        return Log(transaction, tuple(records))

    async def accounts(self, sender: str, holder_cpf: str) -> Accounts:
        """The open accounts on which this person's consents to bank *sender* are active now."""
        holder = await self._store.get(Holder, holder_cpf)
        if holder is None:
            return Accounts(())
        given = await self._store.find(Queries.CONSENTS_OF_HOLDER, holder.holder_id, limit=MAX_LOOKED_AT)
        found: list[LinkedAccount] = []
        for durable in given:
            if durable.initiator_bank != sender or len(found) == MAX_LINKED:
                continue
            linked = await self._linked(durable.consent_id, holder_cpf)
            if linked is not None:
                found.append(linked)
        return Accounts(tuple(found))

    async def _linked(self, consent_id: str, holder_cpf: str) -> LinkedAccount | None:
        consent = await self._store.get(Consent, consent_id)
        assert consent is not None, f"consent {consent_id} vanished"
        account = await self._store.get(Account, consent.account)
        assert account is not None, f"account {consent.account} vanished"
        if permissions.status_of(consent, self._rhythm.wall_ms()) is not ConsentStatus.ACTIVE:
            return None
        if account.closed_at is not None or not account.is_held_by(holder_cpf):
            return None
        return LinkedAccount(
            account.number,
            account.type,
            account.posted,
            account.available,
            consent.consent_id,
            consent.max_per_transfer,
            consent.max_total,
            consent.used,
            consent.expires_at,
        )
