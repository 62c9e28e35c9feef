"""What a history shows to be wrong: from its lines alone, knowing nothing of banks but the contract.

Every transfer that was acknowledged is in the statements of the end, once, with all its legs; every one that was
refused is nowhere; one of which no outcome is known is there whole, or not at all. Every read of the whole network has
the total that there was at first, and can be explained: by all transfers acknowledged before it began, and some of
those under way. Every balance that was read was the account's at some moment of the read. Nothing is ever negative; in
the end nothing is held or in doubt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from distribank.torture.history import Event

CALM_SECONDS: Final = 10.0
"""How soon behind the healing, or a late prepare, nothing may be held or in doubt any more."""
UNCHECKED: Final = frozenset({"bank_unreachable", "clock_ahead"})
"""Findings of an audit that only say that it could not look everywhere."""
MOMENTS: Final = 40
"""Moments that are tried in explaining one read."""
MAX_STEPS: Final = 2_000
"""Steps at each of them; a read that takes more counts as unexplained, not as wrong."""
MAX_UNDER_WAY: Final = 300
"""Transfers under way during one read that are looked through."""


Place = tuple[str, ...]
"""What a read shows: a bank's customers, ``(bank,)``, or what one owes another, ``(bank, peer)``."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong, of a *kind*, in words."""

    kind: str
    words: str


@dataclass(slots=True)
class Transfer:
    """One transfer as its client saw it. *legs*: signed centavos by account. *kind* is that of its end."""

    op: str
    bank: str
    legs: dict[str, int]
    begun: float
    ended: float | None = None
    kind: str = "info"
    transfer_id: str | None = None
    everywhere: bool = False
    """Acknowledged as posted at every bank."""

    def effect(self) -> dict[Place, int]:
        """What it changes in a read of the whole network: customers by bank, and what one bank owes another."""
        effect: dict[Place, int] = defaultdict(int)
        for account, amount in self.legs.items():
            bank = bank_of(account)
            effect[bank,] += amount
            if bank != self.bank:
                effect[min(bank, self.bank), max(bank, self.bank)] += amount if self.bank < bank else -amount
        return {place: amount for place, amount in effect.items() if amount}


@dataclass(slots=True)
class Verdict:
    """What is wrong, and how much was looked at."""

    violations: list[Violation] = field(default_factory=list)
    transfers: Counter[str] = field(default_factory=Counter)
    """By how they ended: ``ok``, ``fail``, ``info``."""
    reads: Counter[str] = field(default_factory=Counter)
    """Of the whole network: ``explained``; ``unexplained``, where too much was under way for it, with its total
    checked; ``incomplete``; ``not answered``."""
    balances: int = 0
    entries: int = 0
    final: bool = False

    @property
    def valid(self) -> bool:
        return not self.violations


def check(events: Iterable[Event]) -> Verdict:
    """Everything that a history shows."""
    history = list(events)
    verdict = Verdict()
    transfers = transfers_of(history)
    verdict.transfers.update(transfer.kind for transfer in transfers.values())
    statements = {event["value"]["account"]: event["value"] for event in history if event["f"] == "statement"}
    verdict.entries = sum(len(statement["entries"]) for statement in statements.values())
    setup = next((event["value"] for event in history if event["f"] == "setup"), None)
    verdict.violations += _answers(history)
    if setup is None or statements.keys() != setup["accounts"].keys():
        verdict.violations.append(Violation("incomplete", "the history has no beginning, or not every statement"))
        return verdict
    accounts: dict[str, int] = setup["accounts"]
    verdict.violations += _statements(statements, accounts)
    verdict.violations += _whole(transfers, statements)
    committed = {entry[4] for statement in statements.values() for entry in statement["entries"] if entry[3]}
    verdict.violations += _reads(history, transfers, committed, accounts, verdict)
    verdict.violations += _balances(history, transfers, statements, verdict)
    verdict.violations += _end(history, verdict)
    return verdict


def bank_of(account: str) -> str:
    return account.partition("/")[0]


def transfers_of(history: Iterable[Event]) -> dict[str, Transfer]:
    """Every transfer that was asked for, by operation."""
    transfers: dict[str, Transfer] = {}
    for event in history:
        if event["f"] != "transfer":
            continue
        if event["type"] == "invoke":
            legs: dict[str, int] = defaultdict(int)
            for side, sign in (("debits", -1), ("credits", 1)):
                for account, amount in event["value"][side]:
                    legs[account] += sign * amount
            transfers[event["op"]] = Transfer(event["op"], event["bank"], dict(legs), event["time"])
        else:
            transfer, told = transfers[event["op"]], event["value"]
            transfer.kind, transfer.ended = event["type"], event["time"]
            transfer.transfer_id = told.get("transfer_id")
            transfer.everywhere = told.get("status") == "completed"
    return transfers


# What was answered ------------------------------------------------------------------------------------------------


def _answers(history: Iterable[Event]) -> Iterator[Violation]:
    """Answers that the contract does not know, or that change; banks that end by themselves."""
    told: dict[str, tuple[str, str | None]] = {}
    for event in history:
        value = event["value"]
        if event["f"] == "transfer" and event["type"] in ("ok", "fail"):
            told[event["op"]] = (event["type"], value.get("transfer_id"))
            if value.get("unexpected"):
                yield Violation("unexpected answer", f"{event['op']} was answered {value['status']} {value['code']}")
        elif event["f"] == "asked again":
            again = (value["type"], value.get("transfer_id"))
            if again != told[event["op"]]:
                yield Violation("another answer", f"{event['op']} was told {told[event['op']]}, then {again}")
        elif event["f"] == "died":
            yield Violation("died", value["words"])


# What is in the statements ----------------------------------------------------------------------------------------


def _statements(statements: Mapping[str, Any], accounts: Mapping[str, int]) -> Iterator[Violation]:
    """Each account's entries add up, from nothing to what it has; nothing is negative; the total is the first one."""
    for account, statement in statements.items():
        balance = paid_in = 0
        for amount, after, kind, _transfer, _op in statement["entries"]:
            balance += amount
            paid_in += amount if kind == "deposit" else 0
            if balance != after:
                yield Violation("statement", f"{account}: an entry says {after}, the entries up to it sum to {balance}")
                balance = after
            if after < 0:
                yield Violation("negative", f"{account} stood at {after}")
            if kind not in ("deposit", "transfer"):
                yield Violation("stranger", f"{account} has an entry of the kind {kind}, which nobody ordered")
        if balance != statement["posted"]:
            yield Violation("statement", f"{account}: posted is {statement['posted']}, its entries sum to {balance}")
        if paid_in != accounts[account]:
            yield Violation("stranger", f"{account} was paid in {paid_in}, not {accounts[account]}")
        if statement["held"] or statement["available"] != statement["posted"]:
            yield Violation("held", f"{account}: {statement['held']} is held at the end")
    total, due = sum(statement["posted"] for statement in statements.values()), sum(accounts.values())
    if total != due:
        yield Violation("wrong total", f"at the end all accounts have {total}, not {due}")


def _whole(transfers: Mapping[str, Transfer], statements: Mapping[str, Any]) -> Iterator[Violation]:
    """Each transfer's entries are its legs, once, or none, as it ended."""
    found: dict[str, dict[str, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
    for account, statement in statements.items():
        for amount, _after, _kind, transfer_id, op in statement["entries"]:
            if transfer_id is not None:
                found[op or ""][transfer_id].append((account, amount))
    for op in found.keys() - transfers.keys():
        yield Violation("stranger", f"{', '.join(found[op])} is in the statements; nobody ordered it")
    for op, transfer in transfers.items():
        posted = found.get(op, {})
        entries = sorted(entry for group in posted.values() for entry in group)
        legs = sorted(transfer.legs.items())
        words = f"{op} ({', '.join(posted) or transfer.transfer_id or 'no id'})"
        if not entries and transfer.kind == "ok":
            yield Violation("lost", f"{words} was acknowledged, and is in no statement")
        elif entries and transfer.kind == "fail":
            yield Violation("refused, but moved", f"{words} was refused, and is in the statements: {entries}")
        elif entries and entries != legs:
            kind = "doubled" if Counter(entries) > Counter(legs) else "torn"
            yield Violation(kind, f"{words}: ordered {legs}, in the statements {entries}")
        elif transfer.kind == "ok" and transfer.transfer_id not in posted:
            yield Violation("another id", f"{words} was acknowledged as {transfer.transfer_id}")


# What was read ----------------------------------------------------------------------------------------------------


def _reads(
    history: Iterable[Event],
    transfers: Mapping[str, Transfer],
    committed: set[str],
    accounts: Mapping[str, int],
    verdict: Verdict,
) -> Iterator[Violation]:
    """Reads of the whole network, in the order of the history, with what was acknowledged and under way at each."""
    due = sum(accounts.values())
    sums: dict[Place, int] = defaultdict(int)
    for account, amount in accounts.items():
        sums[bank_of(account),] += amount
    under_way: dict[str, Transfer] = {}
    begun: list[Transfer] = []
    open_reads: dict[str, tuple[dict[Place, int], list[Transfer], int]] = {}
    for event in history:
        f, kind = event["f"], event["type"]
        if f == "transfer" and event["op"] in committed:
            transfer = transfers[event["op"]]
            if kind == "invoke":
                under_way[transfer.op] = transfer
                begun.append(transfer)
            elif kind == "ok":
                del under_way[transfer.op]
                for place, amount in transfer.effect().items():
                    sums[place] += amount
        elif f == "read" and kind == "invoke":
            open_reads[event["op"]] = (dict(sums), list(under_way.values()), len(begun))
        elif f == "read":
            before, then_under_way, first = open_reads.pop(event["op"])
            if kind != "ok":
                verdict.reads["not answered"] += 1
                continue
            wrong, explained = _read(event, due, before, then_under_way + begun[first:])
            verdict.reads[explained] += 1
            yield from wrong


def _read(
    event: Event, due: int, before: Mapping[Place, int], under_way: Sequence[Transfer]
) -> tuple[list[Violation], str]:
    """One read: what is wrong with it, and how far it could be looked at."""
    value, words = event["value"], f"the read {event['op']} at {event['bank']}"
    wrong = [
        Violation("finding", f"{words} found {code} {bank or ''}: {detail}")
        for code, bank, detail in value["findings"]
        if code not in UNCHECKED
    ]
    customers = dict(value["customers"])
    if any(amount is None for amount in customers.values()) or not value["ok"]:
        return wrong, "incomplete"
    for bank, _transaction, amount, settled in value["in_doubt"]:
        customers[bank] += amount if settled == "committed" else 0
    wrong += [
        Violation("negative", f"{words}: {bank} has {amount}") for bank, amount in customers.items() if amount < 0
    ]
    total = sum(customers.values())
    if total != due:
        return [*wrong, Violation("wrong total", f"{words} has {total}, not {due}: {customers}")], "explained"
    seen: dict[Place, int] = {(bank,): amount for bank, amount in customers.items()}
    if not value["in_doubt"]:  # else the positions are not those of the cut
        seen |= {(bank, peer): owes for bank, peer, owes in value["positions"]}
    rest = {place: amount - before.get(place, 0) for place, amount in seen.items()}
    found = explain(rest, under_way)
    if found is None:
        return wrong, "unexplained"
    if not found:
        missing = "something acknowledged before it is missing, or something is in it in part"
        wrong.append(Violation("stale or torn read", f"{words}: {missing}; unexplained: {rest}"))
    return wrong, "explained"


def explain(rest: Mapping[Place, int], under_way: Sequence[Transfer]) -> bool | None:
    """Whether some of *under_way* add up to *rest*, in every place of it; ``None`` if that takes too long to say.

    What ended first is likelier to be within: so it is tried with those that ended by one moment after another, and
    each time what ended near that moment is doubted first.
    """
    if not any(rest.values()):
        return True
    if len(under_way) > MAX_UNDER_WAY:
        return None
    candidates = sorted(under_way, key=lambda transfer: transfer.ended or float("inf"))
    effects = [{p: a for p, a in transfer.effect().items() if p in rest} for transfer in candidates]
    for moment in range(0, len(effects) + 1, max(1, len(effects) // MOMENTS)):
        order = sorted(range(len(effects)), key=lambda place: -abs(place - moment))
        found = _search(rest, [(effects[place], place < moment) for place in order])
        if found is not None:
            return found
    return None


def _search(rest: Mapping[Place, int], choices: Sequence[tuple[Mapping[Place, int], bool]]) -> bool | None:
    """The same, for effects with whether each is tried within first; the last ones are doubted first."""
    most = [dict.fromkeys(rest, 0)]
    least = [dict.fromkeys(rest, 0)]
    for effect, _likely in reversed(choices):  # what those from here on could still take from a place, or add to it
        most.append({place: sum_ + max(0, effect.get(place, 0)) for place, sum_ in most[-1].items()})
        least.append({place: sum_ + min(0, effect.get(place, 0)) for place, sum_ in least[-1].items()})
    waiting = [(0, dict(rest))]
    for _step in range(MAX_STEPS):
        if not waiting:
            return False
        at, left = waiting.pop()
        lowest, highest = least[len(choices) - at], most[len(choices) - at]
        if any(not lowest[place] <= amount <= highest[place] for place, amount in left.items()):
            continue
        if not any(left.values()):
            return True
        effect, likely = choices[at]
        without = (at + 1, left)
        within = (at + 1, {place: amount - effect.get(place, 0) for place, amount in left.items()})
        waiting += [without, within] if likely else [within, without]
    return None


def _balances(
    history: Iterable[Event], transfers: Mapping[str, Transfer], statements: Mapping[str, Any], verdict: Verdict
) -> Iterator[Violation]:
    """Each balance that was read was the account's between the last transfer acknowledged before, and the end of the
    read.
    """
    place: dict[tuple[str, str], int] = {
        (account, entry[4]): index
        for account, statement in statements.items()
        for index, entry in enumerate(statement["entries"], 1)
        if entry[3]
    }
    known = dict.fromkeys(statements, 1)  # the deposit is there
    reading: dict[str, int] = {}
    for event in history:
        if event["f"] == "transfer" and event["type"] == "ok":
            transfer = transfers[event["op"]]
            for account in transfer.legs:
                if transfer.everywhere or bank_of(account) == transfer.bank:
                    known[account] = max(known[account], place.get((account, transfer.op), 0))
        elif event["f"] == "balance" and event["type"] == "invoke":
            reading[event["op"]] = known[event["value"]]
        elif event["f"] == "balance" and event["type"] == "ok":
            verdict.balances += 1
            yield from _balance(event, reading.pop(event["op"]), transfers, statements)


def _balance(
    event: Event, known: int, transfers: Mapping[str, Transfer], statements: Mapping[str, Any]
) -> Iterator[Violation]:
    value = event["value"]
    words = f"the read {event['op']} of {value['account']}"
    if value["posted"] < 0 or value["available"] < 0 or value["posted"] - value["held"] != value["available"]:
        yield Violation("negative", f"{words}: posted {value['posted']}, available {value['available']}")
    entries = statements[value["account"]]["entries"]
    possible = {entries[known - 1][1]} if known <= len(entries) else set()
    for entry in entries[known:]:
        transfer = transfers.get(entry[4])
        if transfer is None or transfer.begun > event["time"]:
            break
        possible.add(entry[1])
    if value["posted"] not in possible:
        yield Violation("stale or torn read", f"{words} says {value['posted']}; it had {sorted(possible)} by then")


# The end ----------------------------------------------------------------------------------------------------------


def _end(history: Sequence[Event], verdict: Verdict) -> Iterator[Violation]:
    """Once all is healed nothing stays held or in doubt, and the last audit finds that everything holds."""
    calms = [event["value"] for event in history if event["f"] == "calm"]
    if not calms or any(calm["left"] or calm["seconds"] > CALM_SECONDS for calm in calms):
        yield Violation("not calm", f"{CALM_SECONDS:.0f} s behind the healing, or a late prepare: {calms}")
    last = [event for event in history if event["f"] == "read" and event["process"] == "final"]
    verdict.final = bool(last) and last[-1]["type"] == "ok" and last[-1]["value"]["ok"]
    if not verdict.final:
        yield Violation("last audit", f"it does not say that all is well: {last[-1]['value'] if last else 'none'}")
