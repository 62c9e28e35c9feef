"""The answers, made from the bank's rows: what a row means to a client, and how much of it this client may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, get_args

from distribank.api.answers import Json, TransferStatus
from distribank.api.times import format_ms
from distribank.bank import BatchResult, InDoubt, Linked, Shown, Suspense
from distribank.core import consents as permissions
from distribank.core.clock import wall_of
from distribank.core.consents import Consent
from distribank.core.documents import mask_cpf
from distribank.core.heuristics import AccountDamage, Damage, Heuristic, transaction_of
from distribank.core.holders import Holder
from distribank.core.ledger import (
    CASH,
    SUSPENSE,
    Account,
    AccountHolder,
    AccountType,
    ApprovalRule,
    Book,
    Entry,
    Hold,
    position_book,
)
from distribank.core.money import format_amount
from distribank.core.protocol import (
    IN_DOUBT,
    PROTOCOL_VERSION,
    LinkedAccount,
    Role,
    State,
    Transaction,
    coordinator_of,
)
from distribank.core.refusals import Code, Refusal, iso_reason
from distribank.core.suspense import Assignment, Movement, amount_of
from distribank.core.transfer import Counterparty, Direction, Leg
from distribank.ports import PeerView, Recount

STATUS: Final = {
    State.PREPARING: "pending",
    State.PREPARED: "pending",
    State.FORCED_COMMIT: "pending",
    State.FORCED_ABORT: "pending",
    State.COMMITTING: "committed",
    State.ENDED: "completed",
    State.COMMITTED: "completed",
    State.ABORTED: "aborted",
}
"""What a state is called to clients. *completed* means, at a participant, that its own part is posted."""

STATES: Final[dict[str, tuple[State, ...]]] = {
    name: tuple(state for state, status in STATUS.items() if status == name) for name in get_args(TransferStatus)
}
"""Which states a status stands for; none where approvals are not built yet."""


# Holders and accounts ---------------------------------------------------------------------------------------------


def person(holder: Holder) -> Json:
    return {
        "holder_id": holder.holder_id,
        "name": holder.name,
        "cpf_masked": mask_cpf(holder.cpf),
        "created_at": format_ms(holder.created_at),
    }


def account(row: Account, bank: str) -> Json:
    """An account, for its holders."""
    view = {
        "bank": bank,
        "account": row.number,
        "type": row.type.value,
        "status": "open" if row.closed_at is None else "closed",
        "currency": "BRL",
        "titular": {"name": row.opener.name, "cpf_masked": mask_cpf(row.opener.cpf)},
        "holders": [_account_holder(holder) for holder in row.holders],
        **balance(row),
        "opened_at": format_ms(row.opened_at),
    }
    if row.type is AccountType.JOINT:
        view["approval"] = {"at_least": row.approval} if row.rule is ApprovalRule.AT_LEAST else row.rule.value
    if row.company is not None:
        view["company"] = {"legal_name": row.company.legal_name, "cnpj": row.company.cnpj}
    if row.closed_at is not None:
        view["closed_at"] = format_ms(row.closed_at)
    return view


def balance(row: Account) -> Json:
    """The whole balance of an account."""
    return {
        "posted_balance": format_amount(row.posted),
        "available_balance": format_amount(row.available),
        "held": format_amount(row.held),
    }


def hold(row: Hold) -> Json:
    """What a transfer under way reserves on an account, or no longer does."""
    view = {
        "transfer_id": row.transaction,
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "state": row.state.value,
        "placed_at": format_ms(wall_of(row.prepared_at)),
    }
    if row.resolved_at is not None:
        view["resolved_at"] = format_ms(wall_of(row.resolved_at))
    return view


def entry(row: Entry, bank: str, transaction: Transaction | None = None) -> Json:
    """One line of a statement of this *bank*; *transaction* is the transfer that posted it, or was corrected by it.

    Its parties and its description are for accounts that stand in it: out of suspense, another one may pay or be paid.
    """
    view: Json = {
        "entry_id": f"{row.account}.{row.change}",
        "posted_at": format_ms(row.posted_at),
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "balance_after": format_amount(row.balance_after),
        "kind": row.kind.value,
    }
    transfer = transaction_of(row.operation)
    if transfer is not None:
        view["transfer_id"] = transfer
    legs = _legs(transaction) if transaction is not None else ()
    own = {leg.number for leg in legs if (leg.bank, leg.account) == (bank, row.account)}
    if transaction is not None and own:
        view["counterparties"] = _counterparties(transaction, own)
        if transaction.order is not None and transaction.order.description is not None:
            view["description"] = transaction.order.description
    return view


def consent(row: Consent, wall_ms: int) -> Json:
    view = {
        "consent_id": row.consent_id,
        "account": row.account,
        "initiator_bank": row.initiator_bank,
        "status": permissions.status_of(row, wall_ms).value,
        "max_per_transfer": format_amount(row.max_per_transfer),
        "max_total": None if row.max_total is None else format_amount(row.max_total),
        "used": format_amount(row.used),
        "expires_at": format_ms(row.expires_at),
        "created_at": format_ms(row.created_at),
    }
    if row.revoked_at is not None:
        view["revoked_at"] = format_ms(row.revoked_at)
    return view


def linked(found: Linked, names: Mapping[str, str]) -> Json:
    """Accounts at other banks, each once per consent, and the banks that did not answer. *names* has every bank's."""
    now = {bank: Shown(found.as_of, rows) for bank, rows in found.accounts.items()}
    items = [
        _linked_account(row, shown.at, bank, names.get(bank, bank), online=bank in now)
        for bank, shown in sorted({**now, **found.earlier}.items())
        for row in shown.accounts
        if row.expires_at > found.as_of
    ]
    return {"items": items, "offline": found.offline}


def _linked_account(row: LinkedAccount, at: int, bank: str, name: str, *, online: bool) -> Json:
    balances = {"posted_balance": format_amount(row.posted), "available_balance": format_amount(row.available)}
    return {
        "bank": bank,
        "bank_name": name,
        "account": row.account,
        "type": row.type.value,
        "status": "online" if online else "offline",
        "as_of": format_ms(at),
        **(balances if online else {}),
        "consent_id": row.consent_id,
        "max_per_transfer": format_amount(row.max_per_transfer),
        "max_total": None if row.max_total is None else format_amount(row.max_total),
        "used": format_amount(row.used),
        "expires_at": format_ms(row.expires_at),
    }


def _account_holder(holder: AccountHolder) -> Json:
    return {"name": holder.name, "cpf_masked": mask_cpf(holder.cpf), "role": holder.role.value}


# Transfers --------------------------------------------------------------------------------------------------------


def transfer(row: Transaction, bank: str, viewer: Holder, accounts: Collection[str]) -> Json:
    """A transfer for *viewer*, who holds *accounts* here: legs that do not concern them are shown as counterparties.

    Whoever ordered it is concerned by all of it. A participant knows the legs at its own bank only.
    """
    order = row.order
    assert order is not None, "a tombstone is nobody's transfer"
    ordered = order.holder_cpf == viewer.cpf
    shown = [leg for leg in order.legs if ordered or (leg.bank == bank and leg.account in accounts)]
    receiving = any(leg.direction is Direction.CREDIT for leg in shown) and not (
        ordered and row.role is Role.COORDINATOR
    )
    because = row.because if row.because is None or ordered else _for_others(row.because, bank, accounts)
    view: Json = {
        "transfer_id": row.id,
        "end_to_end_id": order.end_to_end_id,
        "status": STATUS[row.state],
        "in_doubt": row.state in IN_DOUBT,
        "iso20022": _iso20022(row.state, receiving, because),
        "coordinator": row.coordinator,
        "debits": [_leg(leg) for leg in shown if leg.direction is Direction.DEBIT],
        "credits": [_leg(leg) for leg in shown if leg.direction is Direction.CREDIT],
        "participants": _participants(row, bank),
        "created_at": format_ms(row.begun_at),
    }
    numbers = {leg.number for leg in shown}
    if any(party.leg not in numbers for party in row.counterparties):
        view["counterparties"] = _counterparties(row, numbers)
    if order.description is not None:
        view["description"] = order.description
    if because is not None:
        view["reason"] = reason(because)
    if row.decided_at is not None:
        view["decided_at"] = format_ms(row.decided_at)
    if row.completed_at is not None and row.state is not State.ABORTED:
        view["completed_at"] = format_ms(row.completed_at)
    return view


def reason(because: Refusal) -> Json:
    """Why nothing moved, with the bank and the account concerned where there is one."""
    members = {"code": because.code.value, "detail": because.detail, "bank": because.bank, "account": because.account}
    return {name: value for name, value in members.items() if value is not None}


def batch(result: BatchResult, bank: str, viewer: Holder) -> Json:
    """A batch with its results so far, for the holder who ordered it."""
    row = result.batch
    view = {
        "batch_id": row.batch_id,
        "status": "running" if row.finished_at is None else "completed",
        "mode": row.mode.value,
        "on_failure": row.on_failure.value,
        "created_at": format_ms(row.created_at),
        "results": [
            {"index": index, **_item(item, bank, viewer, running=row.finished_at is None)}
            for index, item in enumerate(result.results)
        ],
    }
    if row.finished_at is not None:
        view["completed_at"] = format_ms(row.finished_at)
    return view


def _item(item: Transaction | Refusal | None, bank: str, viewer: Holder, *, running: bool) -> Json:
    if isinstance(item, Transaction):
        return transfer(item, bank, viewer, ())
    if item is None:
        return {"transfer_id": None, "status": "pending" if running else "cancelled"}
    status = "cancelled" if item.code is Code.NOT_RUN else "aborted"
    return {"transfer_id": None, "status": status, "reason": reason(item)}


def _iso20022(state: State, receiving: bool, because: Refusal | None) -> Json:
    """The same in ISO 20022's words: settled, credited to the receiver, pending, rejected."""
    if because is not None:
        return {"status": "RJCT", "reason": iso_reason(because.code)}
    if STATUS[state] == "pending":
        return {"status": "PDNG"}
    if STATUS[state] == "aborted":
        return {"status": "RJCT", "reason": "ED05"}
    return {"status": "ACCC" if receiving and STATUS[state] == "completed" else "ACSC"}


def _for_others(because: Refusal, bank: str, accounts: Collection[str]) -> Refusal:
    """What a party who did not give the order may hear: of another party's money, only that it was refused."""
    theirs = because.bank == bank and because.account in accounts
    return because if theirs else because.for_others()


def _participants(row: Transaction, bank: str) -> list[Json]:
    """Each participant's vote and acknowledgement; a participant knows its own only."""
    if row.role is Role.COORDINATOR:
        votes = {vote.bank: (vote.yes, vote.acknowledged_at) for vote in row.votes}
    else:
        own = None if row.prepared_at is None and row.state is not State.ABORTED else row.prepared_at is not None
        votes = {bank: (own, row.completed_at if row.state is State.COMMITTED else None)}
    views = []
    for participant in row.participants:
        yes, acknowledged_at = votes.get(participant, (None, None))
        views.append(
            {
                "bank": participant,
                "vote": None if yes is None else "yes" if yes else "no",
                "acknowledged_at": None if acknowledged_at is None else format_ms(acknowledged_at),
            }
        )
    return views


def _counterparties(row: Transaction, own: Collection[int]) -> list[Json]:
    """The parties whose legs are not among *own*, each once."""
    parties: dict[tuple[str, str | None, str], Counterparty] = {
        (party.bank, party.name_masked, party.direction): party for party in row.counterparties if party.leg not in own
    }
    return [
        {"bank": party.bank, "name_masked": party.name_masked, "direction": party.direction.value}
        for party in parties.values()
    ]


def _legs(row: Transaction) -> tuple[Leg, ...]:
    return row.order.legs if row.order is not None else ()


def _leg(leg: Leg) -> Json:
    return {"bank": leg.bank, "account": leg.account, "amount": format_amount(leg.amount)}


# The network and the operator -------------------------------------------------------------------------------------


def network(bank: str, name: str, peers: list[PeerView]) -> Json:
    return {"bank": bank, "name": name, "protocol_version": PROTOCOL_VERSION, "peers": [_peer(view) for view in peers]}


def _peer(view: PeerView) -> Json:
    return {
        "bank": view.bank,
        "name": view.name,
        "url": view.url,
        "status": view.status.value,
        "since": format_ms(view.since),
        "rtt_ms": None if view.rtt_ms is None else round(view.rtt_ms, 1),
        "last_error": view.last_error,
    }


def in_doubt(doubt: InDoubt) -> Json:
    """An unfinished transaction with everything that an operator needs to settle it."""
    row = doubt.transaction
    since = row.begun_at
    if row.state in IN_DOUBT and row.prepared_at is not None:
        since = wall_of(row.prepared_at)
    elif row.decided_at is not None:
        since = row.decided_at
    return {
        "transaction": row.id,
        "transfer_id": row.id,
        "role": row.role.value,
        "status": STATUS[row.state],
        "in_doubt": row.state in IN_DOUBT,
        "since": format_ms(since),
        "coordinator": row.coordinator,
        "participants": list(row.participants),
        "accounts": [
            {
                "bank": leg.bank,
                "account": leg.account,
                "direction": leg.direction.value,
                "amount": format_amount(leg.amount),
            }
            for leg in _legs(row)
        ],
        "why": doubt.why,
        "asked": [{"bank": bank, "said": said} for bank, said in sorted(doubt.asked.items())],
    }


def heuristic(row: Heuristic) -> Json:
    """What an operator forced here, and what came of it."""
    return {
        "transaction": row.transaction,
        "transfer_id": row.transaction,
        "coordinator": coordinator_of(row.transaction),
        "decision": row.decision.value,
        "reason": row.reason,
        "decided_at": format_ms(row.decided_at),
        "truth": None if row.truth is None else row.truth.value,
        "truth_at": None if row.truth_at is None else format_ms(row.truth_at),
        "matched": row.matched,
        "damage": None if row.damage is None else _damage(row.damage),
    }


def _damage(damage: Damage) -> Json:
    return {
        "accounts": [_account_damage(account) for account in damage.accounts],
        "position": {"bank": damage.bank, "amount": format_amount(damage.position)},
        "suspense": format_amount(damage.suspense),
    }


def _account_damage(account: AccountDamage) -> Json:
    return {
        "account": account.account,
        "direction": account.direction.value,
        "wanted": format_amount(account.wanted),
        "corrected": format_amount(account.corrected),
        "to_suspense": format_amount(account.to_suspense),
    }


def assignment(row: Assignment) -> Json:
    """What an operator has taken out of suspense, and where it went."""
    return {
        "assignment_id": row.assignment_id,
        "assigned_at": format_ms(row.assigned_at),
        "account": row.account,
        "entry_id": None if row.account is None else f"{row.account}.{row.change}",
        "direction": row.direction.value,
        "amount": format_amount(row.amount),
        "reason": row.reason,
        "transaction": row.transaction,
        "transfer_id": row.transaction,
    }


def movement(row: Movement) -> Json:
    """What was left in suspense, or taken out of it."""
    shared = {"transaction": row.transaction, "transfer_id": row.transaction, "amount": format_amount(amount_of(row))}
    if isinstance(row, Assignment):
        at = format_ms(row.assigned_at)
        return {"at": at, "kind": "assignment", **shared, "wanted_by": None, "assignment": assignment(row)}
    assert row.damage is not None, f"the guess at {row.transaction} left nothing in suspense"
    assert row.truth_at is not None
    wanted_by = [_account_damage(account) for account in row.damage.accounts if account.to_suspense]
    return {
        "at": format_ms(row.truth_at),
        "kind": "correction",
        **shared,
        "wanted_by": wanted_by,
        "assignment": None,
    }


def suspense(found: Suspense, page: Json) -> Json:
    """The book and one *page* of what moved it."""
    return {
        "balance": format_amount(found.open.balance),
        "owing": format_amount(found.open.owing),
        "owed": format_amount(found.open.owed),
        **page,
    }


def positions(books: list[Book], peers: Iterable[str]) -> Json:
    """What this bank owes each of its *peers*, and is owed; and any other bank with which there is a position."""
    kept = {book.peer: book for book in books if book.peer is not None}
    everyone = {peer: Book(position_book(peer)) for peer in peers} | kept
    return {
        "items": [
            {
                "bank": peer,
                "position": format_amount(book.balance),
                "owing": format_amount(max(book.balance, 0)),
                "owed": format_amount(max(-book.balance, 0)),
                "reserved": format_amount(book.reserved),
            }
            for peer, book in sorted(everyone.items())
        ]
    }


def recount(counted: Recount) -> Json:
    """All that is posted, added up anew."""
    books = {CASH: 0, SUSPENSE: 0, **counted.books}
    return {
        "balanced": not counted.findings and counted.customers + sum(books.values()) == 0,
        "customers": format_amount(counted.customers),
        "books": {name: format_amount(amount) for name, amount in sorted(books.items())},
        "entries": counted.entries,
        "holds": counted.holds,
        "findings": counted.findings,
    }
