"""The checker of ``distribank torture`` finds what is wrong in a history: each kind of wrong, in the smallest one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distribank.torture.checker import Transfer, check, explain
from distribank.torture.history import Event

A, B, C = "99990001/00000001-9", "99990002/00000001-9", "99990003/00000001-9"
FIRST = {A: 50, B: 30, C: 20}


class Story:
    """A history in the making; what is told happens a second later each time. Entries are posted as a bank would."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.stands = dict(FIRST)
        self.entries: dict[str, list[list[Any]]] = {
            account: [[amount, amount, "deposit", None, None]] for account, amount in FIRST.items()
        }
        self.owed = {("99990001", "99990002"): 0, ("99990001", "99990003"): 0, ("99990002", "99990003"): 0}
        self.tell("info", "setup", {"accounts": FIRST})

    def tell(self, kind: str, f: str, value: Any, *, op: str = "", bank: str = "99990001", process: str = "p") -> None:
        at = float(len(self.events))
        self.events.append(
            {"time": at, "process": process, "type": kind, "f": f, "op": op, "bank": bank, "value": value}
        )

    def order(self, op: str, **legs: int) -> None:
        """A transfer is asked for at the first bank: ``order("op-1", A=-5, B=5)``."""
        accounts = {"A": A, "B": B, "C": C}
        debits = [[accounts[name], -amount] for name, amount in legs.items() if amount < 0]
        credits_ = [[accounts[name], amount] for name, amount in legs.items() if amount > 0]
        self.tell("invoke", "transfer", {"debits": debits, "credits": credits_}, op=op)

    def post(self, op: str, *, transfer: str = "", **legs: int) -> None:
        """Its entries, as the banks post them: no line of the history."""
        for name, amount in legs.items():
            account = {"A": A, "B": B, "C": C}[name]
            self.stands[account] += amount
            self.entries[account].append([amount, self.stands[account], "transfer", transfer or f"id-{op}", op])
            if name != "A":
                self.owed["99990001", account[:8]] += amount

    def told(self, op: str, kind: str = "ok") -> None:
        value = {"status": "completed" if kind == "ok" else 422, "code": "insufficient_funds"}
        self.tell(kind, "transfer", {**value, "transfer_id": f"id-{op}"}, op=op)

    def pay(self, op: str, **legs: int) -> None:
        self.order(op, **legs)
        self.post(op, **legs)
        self.told(op)

    def cut(self) -> dict[str, Any]:
        """What a read of the whole network would say now."""
        return {
            "ok": True,
            "customers": {account[:8]: amount for account, amount in self.stands.items()},
            "positions": [[bank, peer, owes] for (bank, peer), owes in self.owed.items()],
            "in_doubt": [],
            "findings": [],
        }

    def read(self, cut: dict[str, Any] | None = None, *, process: str = "reader") -> None:
        self.tell("invoke", "read", None, op="op-read", process=process)
        self.tell("ok", "read", cut or self.cut(), op="op-read", process=process)

    def balance(self, account: str, amount: int) -> None:
        self.tell("invoke", "balance", account, op="op-look")
        value = {"account": account, "posted": amount, "available": amount, "held": 0}
        self.tell("ok", "balance", value, op="op-look")

    def end(self) -> list[str]:
        """The end of the run; the kinds of what is wrong with all of it."""
        self.tell("info", "healed", None)
        self.tell("info", "calm", {"seconds": 0.5, "left": []})
        for account, entries in self.entries.items():
            posted = self.stands[account]
            value = {"account": account, "posted": posted, "available": posted, "held": 0, "entries": entries}
            self.tell("info", "statement", value)
        self.read(process="final")
        return sorted({violation.kind for violation in check(self.events).violations})


@pytest.fixture
def story() -> Story:
    told = Story()
    told.pay("op-1", A=-5, B=5)
    return told


def test_a_history_in_which_all_is_well(story: Story) -> None:
    story.pay("op-2", A=-2, B=-1, C=3)
    story.read()
    story.balance(A, 43)
    story.order("op-3", A=-5, C=5)
    story.told("op-3", "fail")
    story.order("op-4", A=-1, B=1)  # never known, and it happened
    story.post("op-4", A=-1, B=1)
    story.order("op-5", A=-1, B=1)  # never known, and it did not

    assert story.end() == []


def test_a_lost_transfer(story: Story) -> None:
    story.order("op-2", A=-5, B=5)
    story.told("op-2")
    assert "lost" in story.end()


def test_a_doubled_transfer(story: Story) -> None:
    """Run twice, under an id of its own."""
    story.pay("op-2", A=-5, B=5)
    story.post("op-2", transfer="id-again", A=-5, B=5)
    assert "doubled" in story.end()


def test_a_torn_transfer(story: Story) -> None:
    story.order("op-2", A=-5, B=5)
    story.post("op-2", A=-5)
    story.told("op-2")
    assert {"torn", "wrong total"} <= set(story.end())


def test_a_transfer_of_unknown_outcome_is_torn(story: Story) -> None:
    story.order("op-2", A=-5, B=3, C=2)
    story.post("op-2", A=-5, B=5)
    assert "torn" in story.end()


def test_a_refused_transfer_that_moved(story: Story) -> None:
    story.order("op-2", A=-5, B=5)
    story.post("op-2", A=-5, B=5)
    story.told("op-2", "fail")
    assert "refused, but moved" in story.end()


def test_money_that_nobody_ordered(story: Story) -> None:
    story.post("op-9", A=-5, B=5)
    assert "stranger" in story.end()


def wrong_total(cut: dict[str, Any]) -> None:
    cut["customers"]["99990002"] += 1


def negative(cut: dict[str, Any]) -> None:
    cut["customers"]["99990003"] -= 21
    cut["customers"]["99990001"] += 21


def finding(cut: dict[str, Any]) -> None:
    cut["ok"] = False
    cut["findings"].append(["positions_differ", "99990001", "they differ"])


@pytest.mark.parametrize(
    ("change", "kind"), [(wrong_total, "wrong total"), (negative, "negative"), (finding, "finding")]
)
def test_a_read_that_is_wrong_in_itself(story: Story, change: Callable[[dict[str, Any]], None], kind: str) -> None:
    cut = story.cut()
    change(cut)
    story.read(cut)
    assert kind in story.end()


def test_a_read_that_could_not_look_everywhere_is_not_wrong(story: Story) -> None:
    cut = story.cut()
    cut |= {"ok": False, "findings": [["bank_unreachable", "99990002", "silent"]]}
    cut["customers"]["99990002"] = None
    story.read(cut)
    assert story.end() == []


def test_a_read_without_what_was_acknowledged_before(story: Story) -> None:
    before = story.cut()
    story.pay("op-2", A=-5, B=5)
    story.read(before)
    assert story.end() == ["stale or torn read"]


def test_what_is_under_way_may_be_in_a_read_or_not(story: Story) -> None:
    before = story.cut()
    story.order("op-2", A=-5, B=5)
    story.order("op-3", A=-5, B=5)
    story.read(before)
    story.post("op-3", A=-5, B=5)
    story.read()
    story.post("op-2", A=-5, B=5)
    story.read()
    story.told("op-2")
    story.told("op-3")
    assert story.end() == []


def test_a_read_that_has_a_transfer_in_part(story: Story) -> None:
    story.order("op-2", A=-5, B=3, C=2)
    torn = story.cut()
    torn["customers"] |= {"99990001": 42, "99990002": 38}
    story.read(torn)
    story.post("op-2", A=-5, B=3, C=2)
    story.told("op-2")
    assert story.end() == ["stale or torn read"]


def test_what_was_in_doubt_and_is_settled_counts(story: Story) -> None:
    story.order("op-2", A=-5, B=5)
    cut = story.cut()
    cut["customers"]["99990001"] -= 5
    cut["in_doubt"] = [["99990002", "id-op-2", 5, "committed"]]
    story.read(cut)
    story.post("op-2", A=-5, B=5)
    story.told("op-2")
    assert story.end() == []


def test_a_balance_from_before_what_was_acknowledged(story: Story) -> None:
    story.pay("op-2", A=-5, B=5)
    story.balance(B, 35)
    assert story.end() == ["stale or torn read"]


def test_a_balance_below_nothing(story: Story) -> None:
    story.pay("op-2", A=-50, B=50)
    assert "negative" in story.end()


def test_a_statement_that_does_not_add_up(story: Story) -> None:
    story.entries[A][-1][1] += 1
    assert "statement" in story.end()


def test_what_stays_held_what_ends_by_itself_what_the_contract_does_not_know(story: Story) -> None:
    story.tell("info", "died", {"words": "99990001 ended by itself with status 1"})
    story.tell("info", "calm", {"seconds": 11.0, "left": []})
    story.order("op-2", A=-5, B=5)
    story.tell("fail", "transfer", {"status": 500, "code": "internal_error", "unexpected": True}, op="op-2")
    assert story.end() == ["died", "not calm", "unexpected answer"]


def test_another_answer_under_the_same_key(story: Story) -> None:
    story.tell("info", "asked again", {"type": "ok", "transfer_id": "id-other"}, op="op-1")
    assert story.end() == ["another answer"]


def test_a_history_without_its_end_proves_nothing(story: Story) -> None:
    assert [violation.kind for violation in check(story.events).violations] == ["incomplete"]


def test_explaining_gives_up_rather_than_be_wrong() -> None:
    under_way = [Transfer(f"op-{n}", "99990001", {A: -1, B: 1, C: 0}, 0.0) for n in range(301)]
    assert explain({("99990001",): -1}, under_way) is None
    assert explain({("99990001",): -1}, under_way[:40]) is True
    assert explain({("99990001",): -41}, under_way[:40]) is False
