"""Who may act at this bank, and what is remembered of what they asked for, as rows in SQL.

Responsible for the sentences that write and read persons, companies, consents, idempotency keys, batches and counters,
and for their columns. All six kinds are replaced whole, whatever has changed in them. Money stands in
``rows_ledger``. Nothing here judges a permission or decides when to write.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from distribank.core.batches import Batch, Mode, OnFailure
from distribank.core.consents import Consent
from distribank.core.holders import Counter, Holder
from distribank.core.idempotency import IdempotencyKey
from distribank.core.ledger import Company
from distribank.store.columns import Columns, items_json, items_of, refusal_json, refusal_of

# Persons and companies --------------------------------------------------------------------------------------------

PUT_PERSON: Final = """
    INSERT INTO holder (cpf, holder_id, name, password_hash, created_at, email) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (cpf) DO UPDATE SET
        holder_id = excluded.holder_id, name = excluded.name, password_hash = excluded.password_hash,
        created_at = excluded.created_at, email = excluded.email
"""
PERSON: Final = "SELECT cpf, holder_id, name, password_hash, created_at, email FROM holder"
PUT_COMPANY: Final = """
    INSERT INTO company (cnpj, legal_name, account) VALUES (?, ?, ?)
    ON CONFLICT (cnpj) DO UPDATE SET legal_name = excluded.legal_name, account = excluded.account
"""
COMPANY: Final = "SELECT cnpj, legal_name, account FROM company"

person_columns: Final[Callable[[Holder], Columns]] = attrgetter(
    "cpf", "holder_id", "name", "password_hash", "created_at", "email"
)
company_columns: Final[Callable[[Company], Columns]] = attrgetter("cnpj", "legal_name", "account")


def person_of(columns: Columns) -> Holder:
    return Holder(*columns)


def company_of(columns: Columns) -> Company:
    return Company(*columns)


# Consents ---------------------------------------------------------------------------------------------------------

PUT_CONSENT: Final = """
    INSERT INTO consent (consent_id, account, holder_id, holder_cpf, initiator_bank, max_per_transfer, max_total,
                         expires_at, created_at, used, revoked_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (consent_id) DO UPDATE SET
        account = excluded.account, holder_id = excluded.holder_id, holder_cpf = excluded.holder_cpf,
        initiator_bank = excluded.initiator_bank, max_per_transfer = excluded.max_per_transfer,
        max_total = excluded.max_total, expires_at = excluded.expires_at, created_at = excluded.created_at,
        used = excluded.used, revoked_at = excluded.revoked_at
"""
CONSENT: Final = """
    SELECT consent_id, account, holder_id, holder_cpf, initiator_bank, max_per_transfer, max_total,
           expires_at, created_at, used, revoked_at
      FROM consent
"""

consent_columns: Final[Callable[[Consent], Columns]] = attrgetter(
    "consent_id",
    "account",
    "holder_id",
    "holder_cpf",
    "initiator_bank",
    "max_per_transfer",
    "max_total",
    "expires_at",
    "created_at",
    "used",
    "revoked_at",
)


def consent_of(columns: Columns) -> Consent:
    return Consent(*columns)


# Clients' retries -------------------------------------------------------------------------------------------------

PUT_KEY: Final = """
    INSERT INTO idempotency_key (owner, route, key, fingerprint, subject, created_at, answered, refusal)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (owner, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, subject = excluded.subject, created_at = excluded.created_at,
        answered = excluded.answered, refusal = excluded.refusal
"""
KEY: Final = "SELECT owner, route, key, fingerprint, subject, created_at, answered, refusal FROM idempotency_key"


def key_columns(key: IdempotencyKey) -> Columns:
    return (
        key.owner,
        key.route,
        key.key,
        key.fingerprint,
        key.subject,
        key.created_at,
        int(key.answered),
        refusal_json(key.refusal),
    )


def key_of(columns: Columns) -> IdempotencyKey:
    owner, route, key, fingerprint, subject, created_at, answered, refusal = columns
    return IdempotencyKey(owner, route, key, fingerprint, subject, created_at, bool(answered), refusal_of(refusal))


# Batches ----------------------------------------------------------------------------------------------------------

PUT_BATCH: Final = """
    INSERT INTO batch (batch_id, holder_id, mode, on_failure, items, created_at, finished_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (batch_id) DO UPDATE SET
        holder_id = excluded.holder_id, mode = excluded.mode, on_failure = excluded.on_failure,
        items = excluded.items, created_at = excluded.created_at, finished_at = excluded.finished_at
"""
BATCH: Final = "SELECT batch_id, holder_id, mode, on_failure, items, created_at, finished_at FROM batch"


def batch_columns(batch: Batch) -> Columns:
    return (
        batch.batch_id,
        batch.holder_id,
        batch.mode,
        batch.on_failure,
        items_json(batch.items),
        batch.created_at,
        batch.finished_at,
    )


def batch_of(columns: Columns) -> Batch:
    batch_id, holder_id, mode, on_failure, items, created_at, finished_at = columns
    return Batch(batch_id, holder_id, Mode(mode), OnFailure(on_failure), items_of(items), created_at, finished_at)


# Counters ---------------------------------------------------------------------------------------------------------

PUT_COUNTER: Final = """
    INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
COUNTER: Final = "SELECT name, value FROM counter"

counter_columns: Final[Callable[[Counter], Columns]] = attrgetter("name", "value")


def counter_of(columns: Columns) -> Counter:
    return Counter(*columns)
