"""Holders: persons registered at a bank, told apart by CPF, and how many of them a debit needs."""

from __future__ import annotations

from distribank.core.values import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A person who signs in at this bank. *password_hash* is argon2id's encoded form; *created_at* in milliseconds."""

    cpf: str
    holder_id: str
    name: str
    password_hash: str
    created_at: int
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """A number drawn in order, such as account serials; *value* is the last one drawn."""

    name: str
    value: int = 0
