"""What a bank looks up at another, field by field: its log of a transaction, a person's accounts. Changes nothing.

Encoders trust their caller. Decoders raise ``InvalidField``; what they return the core may rely on.
"""

from __future__ import annotations

import re
from typing import Any, Final

from distribank.core.ledger import AccountType
from distribank.core.money import MAX_AMOUNT, MAX_BALANCE
from distribank.core.protocol import (
    MAX_LINKED,
    MAX_RECORDS,
    Accounts,
    LinkedAccount,
    Log,
    Record,
    RecordKind,
    ShowAccounts,
    ShowLog,
)
from distribank.moments import format_ms
from distribank.peers import fields as read
from distribank.peers.messages import MAX_DETAIL

_WORD: Final = re.compile(r"[A-Za-z0-9 ,_-]{1,64}")
"""A record's kind and a state's name, which people read: nothing that a terminal or a page would take for its own."""


# A transaction's log ------------------------------------------------------------------------------------------------


def encode_show_log(message: ShowLog) -> dict[str, Any]:
    return {"kind": "log", "transaction": message.transaction}


def decode_show_log(message: dict[str, Any]) -> ShowLog:
    return ShowLog(read.matching(message, "transaction", read.TRANSACTION))


def encode_log(log: Log) -> dict[str, Any]:
    records = [_record(record) for record in log.records]
    return {"answer": "log", "transaction": log.transaction, "records": records}


def decode_log(answer: dict[str, Any]) -> Log:
    transaction = read.matching(answer, "transaction", read.TRANSACTION)
    known = {kind.value for kind in RecordKind}
    records = read.items(answer, "records", _read_record, 0, MAX_RECORDS)
    # A later version may keep records of kinds that this one has no word for: they are left out.
    return Log(
        transaction,
        tuple(
            Record(transaction, stamp, RecordKind(kind), before, after, detail)
            for stamp, kind, before, after, detail in records
            if kind in known
        ),
    )


def _record(record: Record) -> dict[str, Any]:
    return {
        "stamp": str(record.stamp),
        "record": record.kind,
        "from": record.before,
        "to": record.after,
        "detail": record.detail[:MAX_DETAIL],
    }


def _read_record(record: dict[str, Any]) -> tuple[int, str, str, str, str]:
    return (
        read.stamp(record, "stamp"),
        read.matching(record, "record", _WORD),
        read.matching(record, "from", _WORD),
        read.matching(record, "to", _WORD),
        read.text(record, "detail", MAX_DETAIL),
    )


# A person's accounts ------------------------------------------------------------------------------------------------


def encode_show_accounts(message: ShowAccounts) -> dict[str, Any]:
    return {"kind": "accounts", "holder_cpf": message.holder_cpf}


def decode_show_accounts(message: dict[str, Any]) -> ShowAccounts:
    return ShowAccounts(read.matching(message, "holder_cpf", read.CPF))


def encode_accounts(answer: Accounts) -> dict[str, Any]:
    return {"answer": "accounts", "accounts": [_linked(account) for account in answer.accounts]}


def decode_accounts(answer: dict[str, Any]) -> Accounts:
    return Accounts(read.items(answer, "accounts", _read_linked, 0, MAX_LINKED))


def _linked(linked: LinkedAccount) -> dict[str, Any]:
    return {
        "account": linked.account,
        "type": linked.type,
        "posted_balance": linked.posted,
        "available_balance": linked.available,
        "consent_id": linked.consent_id,
        "max_per_transfer": linked.max_per_transfer,
        "max_total": linked.max_total,
        "used": linked.used,
        "expires_at": format_ms(linked.expires_at),
    }


def _read_linked(linked: dict[str, Any]) -> LinkedAccount:
    return LinkedAccount(
        read.matching(linked, "account", read.ACCOUNT),
        read.word(linked, "type", AccountType),
        read.integer(linked, "posted_balance", 0, MAX_BALANCE),
        read.integer(linked, "available_balance", 0, MAX_BALANCE),
        read.matching(linked, "consent_id", read.NAME),
        read.integer(linked, "max_per_transfer", 1, MAX_AMOUNT),
        None if linked.get("max_total") is None else read.integer(linked, "max_total", 1, MAX_AMOUNT),
        read.integer(linked, "used", 0, MAX_BALANCE),
        read.time_ms(linked, "expires_at"),
    )
