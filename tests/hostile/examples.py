"""A good example of everything that a bank takes, in a town where something has happened already.

``settled`` makes the town: two holders, accounts of each kind, money, consents, a batch, transfers that were
completed, refused and left in doubt. ``ORDERS`` then names one good body for each route that takes one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from distribank.core.protocol import ShowDecisions
from distribank.core.restoration import Lost, Part, PartFate
from distribank.store import put
from tests.hostile.town import Town, town
from tests.world import CPFS

A, B, C = "99990001", "99990002", "99990003"
MARIA, ANA, RUI = CPFS[:3]
LATER = "2040-01-01T00:00:00Z"


@dataclass(frozen=True)
class Order:
    """One good request with a body, by *who*: a CPF, ``operator``, or nobody."""

    method: str
    route: str
    body: Any
    who: str | None = MARIA

    def path(self, values: dict[str, str]) -> str:
        """The address, with *values* put in."""
        return self.route.format(**values)


@dataclass
class Scene:
    """A town in which something has happened. *values* are ids that bank A knows, by the names that paths give them."""

    town: Town
    values: dict[str, str]
    orders: list[Order]


def _legs(*legs: tuple[str, str, str]) -> list[dict[str, str]]:
    return [{"bank": bank, "account": account, "amount": amount} for bank, account, amount in legs]


@asynccontextmanager
async def settled() -> AsyncIterator[Scene]:
    """Three banks after a busy day. One transfer is in doubt at A: C coordinates it, and its commit was lost."""
    async with town(3) as made:
        at_a = await made.account(A, MARIA, "900.00")
        second = await made.account(A, MARIA, "50.00")
        await made.token(A, ANA)
        at_b, at_c = await made.account(B, MARIA, "900.00"), await made.account(C, MARIA, "900.00")
        consent = await made.consent(A, second, C)
        await made.consent(B, at_b, A)
        await made.consent(C, at_c, A)
        pay = {"debits": _legs((A, at_a, "10.00"), (B, at_b, "5.00")), "credits": _legs((C, at_c, "15.00"))}
        transfer = (await made.made(A, "/v1/transfers", pay, MARIA))["transfer_id"]
        too_much = {"debits": _legs((B, at_b, "5.00"), (C, at_c, "499.00"), (C, at_c, "499.00")), "credits": []}
        too_much["credits"] = _legs((A, at_a, "1003.00"))
        await made.made(A, "/v1/transfers", too_much, MARIA, 422)
        batch_order = {"transfers": [pay, too_much], "mode": "sequential", "on_failure": "continue"}
        batch = (await made.made(A, "/v1/transfer-batches", batch_order, MARIA))["batch_id"]
        await made.call(A, "GET", f"/v1/transfers/{transfer}/trace", None, MARIA)
        await made.call(A, "GET", "/v1/linked-accounts", None, MARIA)
        await made.call(A, "POST", "/v1/operator/audit", None, "operator")
        await made.houses[A].bank.peers.ask(B, ShowDecisions(0))  # as though A had been restored
        part = Part(B, PartFate.PREPARED, None, ())
        lost = Lost(f"{A}.{'a' * 32}.{'b' * 32}", 1, (B,), "E1", MARIA, None, 1, 1, (), (part,))
        await put(made.houses[A].bank.store, [lost])
        made.lost = lambda to, kind: (to, kind) in ((A, "commit"), (C, "inquire"), (B, "inquire"))
        pull = {"debits": _legs((A, second, "1.00")), "credits": _legs((C, at_c, "0.50"), (B, at_b, "0.50"))}
        doubtful = (await made.made(C, "/v1/transfers", pull, MARIA))["transfer_id"]
        values = {"account": at_a, "transfer_id": transfer, "batch_id": batch, "consent_id": consent}
        yield Scene(made, values, _orders(at_a, at_b, at_c, doubtful, lost.transaction, pay))


def _orders(at_a: str, at_b: str, at_c: str, doubtful: str, lost: str, pay: Any) -> list[Order]:
    company = {"legal_name": "Padaria Central Ltda", "cnpj": "12ABC34501DE35"}
    consent = {
        "account": at_a,
        "initiator_bank": B,
        "max_per_transfer": "5.00",
        "max_total": "9.00",
        "expires_at": LATER,
    }
    assignment = {
        "account": at_a,
        "direction": "credit",
        "amount": "3.00",
        "reason": "she named it",
        "transaction": "t",
    }
    settlement = {"reason": "a receipt", "legs": [{"account": at_a, "direction": "debit", "amount": "3.00"}]}
    plan = {"amount": "5.00", "to": {"bank": C, "account": at_c}, "keep": "1.00", "description": "rent"}
    plan_from = {**plan, "from": [{"bank": A, "account": at_a}, {"bank": B, "account": at_b}]}
    return [
        Order(
            "POST", "/v1/holders", {"name": "Rui", "cpf": RUI, "password": "a b c", "email": "rui@example.com"}, None
        ),
        Order("POST", "/v1/accounts", {"type": "individual"}),
        Order("POST", "/v1/accounts", {"type": "joint", "co_holders": [ANA], "approval": {"at_least": 2}}),
        Order("POST", "/v1/accounts", {"type": "joint", "co_holders": [ANA], "approval": "any"}),
        Order("POST", "/v1/accounts", {"type": "business", "company": company}),
        Order("POST", "/v1/accounts/{account}/deposits", {"amount": "1.00"}),
        Order("POST", "/v1/accounts/{account}/withdrawals", {"amount": "1.00"}),
        Order("POST", "/v1/transfers", {**pay, "description": "rent"}),
        Order("POST", "/v1/transfers/plan", {**plan_from, "keep": [{"bank": A, "account": at_a, "amount": "0.00"}]}),
        Order("POST", "/v1/transfers/plan", plan),
        Order("POST", "/v1/transfer-batches", {"transfers": [pay], "mode": "sequential", "on_failure": "stop"}),
        Order("POST", "/v1/consents", consent),
        Order(
            "POST",
            f"/v1/operator/in-doubt/{doubtful}/resolve",
            {"decision": "abort", "reason": "the other bank's disk is lost"},
            "operator",
        ),
        Order("POST", "/v1/operator/suspense/assignments", assignment, "operator"),
        Order("POST", f"/v1/operator/restoration/{lost}/settle", settlement, "operator"),
    ]
