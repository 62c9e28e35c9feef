"""Seeded campaigns over whole banks (``tests.whole_stack``): weather, crashes, hang-ups; then calm, and what must hold.

Clients use HTTP alone and retry under their idempotency key until they have an answer. What they were told, and what
statements, transfers, operators' books and the network's audit say at the end, must be one story; the rows of every
database are recounted behind it.

``python -m tests.whole_stack_campaign 0-9999`` runs seeds in as many processes as ``--jobs`` says, and shows where it
is; a failure prints the command that replays its seed with its transcript.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from distribank.core.money import format_amount, parse_amount
from distribank.core.protocol import State, Transaction
from distribank.ports import Queries
from distribank.simulation.many import end_with_parent, revision
from tests.counter_hall import OPERATOR, PASSWORD
from tests.whole_stack import FAIR, Fate, Letter, Stack, StackLoop, Wire, lay_out, run_stack
from tests.world import CPFS

STORM_S = 4.0
TOKEN_S = 86_400
PATIENCE_S = 10.0
"""How long a client that does not hang up waits for an answer."""
CALM_S = 120.0
"""How long convergence may take once the weather is fair, in virtual seconds."""
LINE_BUSY_S = 20.0
"""How long one bank's books may be out of another's reach behind a question for them that was lost."""
EXCUSED = {"bank_unreachable", "clock_ahead"}
"""What an audit may find while banks are down, or cut off."""

REACHED = (
    "killed",
    "killed at a step",
    "told to stop",
    "killed while it started",
    "request lost",
    "answer lost",
    "sent twice",
    "partitioned",
    "partitioned one way: it arrived, the answer did not",
    "503 from something in between",
    "answer cut in the middle",
    "answer flipped",
    "flipped request refused",
    "an answer that nobody waited for any more",
    "replay of a signed request: 200",
    "replay of a signed request: 401",
    "hung up",
    "token used after a restart",
    "committed",
    "aborted",
    "202",
    "key asked again after a restart",
    "transfer: bank_unreachable",
    "transfer: insufficient_funds",
    "transfer: interrupted",
    "batch",
    "cash",
    "in doubt, as an operator sees it",
    "asked again by an operator",
    "audit: ok",
    "audit: bank_unreachable",
    "audit: something in doubt",
)
"""The situations that a campaign of a hundred seeds must have reached."""


@dataclass(frozen=True)
class Ordered:
    """A transfer as its client ordered it: legs are (bank, account, signed centavos)."""

    at: str
    which: int
    legs: tuple[tuple[str, str, int], ...]

    @property
    def body(self) -> dict[str, Any]:
        def leg(bank: str, account: str, signed: int) -> dict[str, str]:
            return {"bank": bank, "account": account, "amount": format_amount(abs(signed))}

        return {
            "debits": [leg(*each) for each in self.legs if each[2] < 0],
            "credits": [leg(*each) for each in self.legs if each[2] > 0],
            "description": "rent",
        }


@dataclass
class Campaign:
    """One seed. *told* has, by key, every outcome that its client was told: (transfer, outcome)."""

    stack: Stack
    chance: Random
    tokens: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    operators: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    orders: dict[str, Ordered] = field(default_factory=dict)
    told: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    named: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cash: int = 0
    stormy: bool = False
    mending: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    def __post_init__(self) -> None:
        self.seen = self.stack.seen
        self.client = httpx.AsyncClient(transport=Wire(self.stack, "client"), timeout=PATIENCE_S)
        self.banks = list(self.stack.settings)

    # Asking -------------------------------------------------------------------------------------------------------

    async def ask(
        self, code: str, method: str, path: str, *, who: str = "", key: str = "", prefer: str = "", **content: Any
    ) -> httpx.Response | None:
        """One request; ``None`` if no answer came, or the client hung up before it."""
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        if key:
            headers["Idempotency-Key"] = key
        if prefer:
            headers["Prefer"] = prefer
        patience = PATIENCE_S
        if self.stormy and self.chance.random() < 0.2:
            patience = self.chance.random() ** 2
        try:
            async with asyncio.timeout(patience):
                url = f"http://{code}.test{path}"
                answer = await self.client.request(method, url, headers=headers, **content)
        except TimeoutError:
            self.seen["hung up"] += patience < PATIENCE_S
            return None
        except httpx.HTTPError:
            return None
        if not answer.headers.get("content-type", "").startswith(("application/json", "application/problem+json")):
            return None  # the words of something in between
        assert answer.status_code != 401, f"a token of {code} is not taken any more: {answer.text}"
        return answer

    async def must(self, code: str, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """The same in fair weather: the answer's content."""
        answer = await self.ask(code, method, path, **more)
        assert answer is not None, f"{code} did not answer {method} {path}"
        assert answer.status_code == status, f"{method} {path} at {code}: {answer.status_code} {answer.text}"
        return answer.json()

    async def pages(self, code: str, path: str, who: str) -> list[dict[str, Any]]:
        """Every item of a list."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.must(code, "GET", f"{path}?limit=7{cursor}", who=who)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    def token(self, code: str, which: int) -> str:
        text, issued_in = self.tokens[code, which]
        self.seen["token used after a restart"] += self.stack.starts[code] > issued_in
        return text

    # The opening --------------------------------------------------------------------------------------------------

    async def settle_in(self) -> None:
        """Two holders at every bank, an account or two each, consents everywhere; tokens that last."""
        for code in self.banks:
            form = {"username": "operator", "password": OPERATOR}
            self.operators[code] = (await self.must(code, "POST", "/v1/token", data=form))["access_token"]
            for which in (0, 1):
                person = {"name": f"Maria {which}", "cpf": CPFS[which], "password": PASSWORD}
                await self.must(code, "POST", "/v1/holders", 201, json=person)
                form = {"username": CPFS[which], "password": PASSWORD}
                token = (await self.must(code, "POST", "/v1/token", data=form))["access_token"]
                self.tokens[code, which] = (token, self.stack.starts[code])
            for which in (0, 1, 0):
                opened = await self.must(
                    code, "POST", "/v1/accounts", 201, who=self.token(code, which), json={"type": "individual"}
                )
                self.accounts[code].append((opened["account"], which))
                await self.pay_in(code, opened["account"], which, self.chance.choice([0, 200, 5000]))
        for code in self.banks:
            for account, which in self.accounts[code]:
                for other in self.banks:
                    if other != code:
                        wanted = {
                            "account": account,
                            "initiator_bank": other,
                            "max_per_transfer": "100.00",
                            "expires_at": "2030-12-31T23:59:59Z",
                        }
                        await self.must(code, "POST", "/v1/consents", 201, who=self.token(code, which), json=wanted)

    async def pay_in(self, code: str, account: str, which: int, money: int) -> None:
        if money:
            path, amount = f"/v1/accounts/{account}/deposits", {"amount": format_amount(money)}
            await self.must(code, "POST", path, 201, who=self.token(code, which), key=f"opening-{account}", json=amount)
            self.cash += money

    # Weather ------------------------------------------------------------------------------------------------------

    def begin_storm(self) -> None:
        """From now on letters fare as this seed draws it."""
        chance = self.chance
        bad, late = chance.choice([0.0, 0.05, 0.2, 0.5]), chance.choice([0.0, 0.05, 0.5, 3.0])
        fates = ["lost", "answer_lost", "unavailable", "cut", "twice", "flip", "flip_answer"]
        kinds = chance.sample(fates, chance.randint(1, len(fates)))

        def weather(letter: Letter) -> Fate:
            delays = {"delay": chance.random() ** 4 * late, "back": chance.random() ** 4 * late}
            if chance.random() >= bad:
                return Fate(**delays)
            kind = chance.choice(kinds)
            if letter.sender == "client" and kind.startswith("flip"):
                kind = "lost"  # TLS is between a client and its bank; what is flipped there does not arrive
            how = {"cut": chance.random(), "twice": chance.random() * 2}
            value: Any = how.get(kind, True if kind in ("lost", "answer_lost", "unavailable") else chance.random())
            return Fate(**delays, **{kind: value})

        slow = chance.choice([0.0, 0.001, 0.02, 0.2])
        self.stack.loop.hesitate = lambda: chance.random() ** 3 * slow
        self.stack.weather = weather
        self.stormy = True

    def end_storm(self) -> None:
        self.stormy = False
        self.stack.weather = lambda _letter: FAIR
        self.stack.cut.clear()
        self.stack.loop.hesitate = lambda: 0.0

    async def rage(self) -> None:
        """Faults at random moments until the storm is over; then every bank is up again."""
        over = self.stack.loop.time() + STORM_S
        faults = [self.crash, self.crash, self.restart, self.part, self.replay, self.ask_again, self.ask_again]
        async with asyncio.TaskGroup() as self.mending:
            while self.stack.loop.time() < over:
                await asyncio.sleep(self.chance.random() ** 2)
                self.crash_at_a_step(self.chance.choice(self.banks), self.chance.randint(1, 300))
                await self.chance.choice(faults)()
            self.end_storm()
            for code in self.banks:
                self.stack.lives[code].process.on_step = None
        for code in self.banks:
            if not self.stack.is_up(code):
                await self.stack.start(code)

    async def crash(self) -> None:
        code = self.chance.choice(self.banks)
        if self.stack.is_up(code):
            self.stack.kill(code)
            self.seen["killed"] += 1
        await self.come_back(code)

    def crash_at_a_step(self, code: str, steps: int) -> None:
        """Perhaps a process dies before a step of its own, be it in the middle of a request."""
        if not self.stormy or self.chance.random() < 0.5:
            return

        def die() -> None:
            self.stack.kill(code)
            self.seen["killed at a step"] += 1
            self.mending.create_task(self.come_back(code))

        process = self.stack.lives[code].process
        process.countdown, process.on_step = steps, die

    async def restart(self) -> None:
        code = self.chance.choice(self.banks)
        if self.stack.is_up(code):
            await self.stack.stop(code)
            self.seen["told to stop"] += 1
        await self.come_back(code)

    async def come_back(self, code: str) -> None:
        await asyncio.sleep(self.chance.random() ** 3 * 2)
        if self.chance.random() < 0.3 and not self.stack.is_up(code):
            starting = asyncio.ensure_future(self.stack.start(code))
            await asyncio.sleep(self.chance.random() * 0.02)
            self.seen["killed while it started"] += not starting.done()
            self.stack.kill(code)
            await starting
        if not self.stack.is_up(code):
            await self.stack.start(code)

    async def part(self) -> None:
        """The network falls apart, or some may only speak and not be heard; after a while it is whole again."""
        here = [code for code in self.banks if self.chance.random() < 0.5]
        ways = [(one, other) for one in here for other in self.banks if other not in here]
        lost = {way for one, other in ways for way in ((one, other), (other, one)) if self.chance.random() < 0.7}
        self.stack.cut |= lost
        self.stack.loop.call_later(self.chance.random() * 3, self.stack.cut.difference_update, lost)

    async def replay(self) -> None:
        """Old signed requests arrive once more, whoever has kept them."""
        for letter in self.chance.choices(self.stack.sent, k=4) if self.stack.sent else []:
            await self.stack.replay(letter)

    async def ask_again(self) -> None:
        """An operator looks at what is in doubt, and has the bank ask at once."""
        code = self.chance.choice(self.banks)
        listed = await self.ask(code, "GET", "/v1/operator/in-doubt", who=self.operators[code])
        if listed is not None and listed.status_code == 200:
            for item in listed.json()["items"]:
                self.seen["in doubt, as an operator sees it"] += 1
                path = f"/v1/operator/in-doubt/{item['transaction']}/inquire"
                done = await self.ask(code, "POST", path, who=self.operators[code])
                self.seen["asked again by an operator"] += done is not None and done.status_code < 300

    # Clients ------------------------------------------------------------------------------------------------------

    def draw_order(self) -> Ordered:
        at, which = self.chance.choice(self.banks), self.chance.choice([0, 0, 1])
        near = self.chance.random() < 0.15
        banks = [at] if near else self.banks
        mine = [(bank, n) for bank in banks for n, whose in self.accounts[bank] if whose == which]
        anyone = [(bank, n) for bank in banks for n, _ in self.accounts[bank]]
        debits = self.chance.choices(mine, k=self.chance.choice([1, 1, 2, 3]))
        payees = self.chance.choices(anyone, k=self.chance.choice([1, 1, 2]))
        amounts = [self.chance.randint(2, 300) for _ in debits]
        parts = [sum(amounts) // len(payees)] * len(payees)
        parts[0] += sum(amounts) - sum(parts)
        legs = [(*place, -amount) for place, amount in zip(debits, amounts, strict=True)]
        return Ordered(at, which, (*legs, *[(*place, part) for place, part in zip(payees, parts, strict=True)]))

    async def insist(self, code: str, path: str, which: int, key: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Ask under *key* until there is an answer that is not "ask again"; its status and content."""
        born = self.stack.starts[code]
        while True:
            prefer = self.chance.choice(["", "", "respond-async", "wait=1"])
            who = self.token(code, which)
            answer = await self.ask(code, "POST", path, who=who, key=key, prefer=prefer, json=body)
            self.seen["key asked again after a restart"] += answer is not None and self.stack.starts[code] > born
            if answer is not None:
                content = answer.json()
                again = answer.status_code == 409 or content.get("code") in ("not_ready", "busy", "outcome_unknown")
                if answer.status_code == 202:
                    self.seen["202"] += 1
                    self.hear(key, content)
                    self.crash_at_a_step(code, self.chance.randint(1, 60))
                elif not again:
                    return answer.status_code, content
            await asyncio.sleep(self.chance.uniform(0.02, 0.8))

    def hear(self, key: str, content: dict[str, Any]) -> None:
        """What a transfer's client was told of it, in passing or for good."""
        identity = content.get("transfer_id")
        if identity is not None:
            self.named[key].add(identity)
        outcome = {"completed": "committed", "committed": "committed", "aborted": "aborted"}
        if content.get("status") in outcome:
            self.told[key].add((identity, outcome[content["status"]]))

    async def transfer(self, key: str) -> None:
        await asyncio.sleep(self.chance.uniform(0, STORM_S))
        order = self.orders[key] = self.draw_order()

        async def once() -> None:
            status, content = await self.insist(order.at, "/v1/transfers", order.which, key, order.body)
            assert status in (201, 200, 422, 503), f"{key}: {status} {content}"
            if status in (200, 201):
                self.hear(key, content)
                return
            self.seen[f"transfer: {content['code']}"] += 1
            self.told[key].add((content.get("transfer_id", ""), "aborted"))

        await asyncio.gather(*(once() for _ in range(self.chance.choice([1, 1, 1, 2]))))

    async def batch(self, key: str) -> None:
        """Several transfers under one key; each is a key of its own in what is told."""
        await asyncio.sleep(self.chance.uniform(0, STORM_S))
        first = self.draw_order()
        alike = [order for order in (self.draw_order() for _ in range(12)) if order.at == first.at]
        items = [first, *[order for order in alike if order.which == first.which]]
        body = {"transfers": [item.body for item in items], "mode": self.chance.choice(["sequential", "concurrent"])}
        _, content = await self.insist(first.at, "/v1/transfer-batches", first.which, key, body)
        assert content["status"] == "completed", content
        self.seen["batch"] += 1
        for index, result in enumerate(content["results"]):
            self.orders[f"{key}/{index}"] = items[index]
            outcome = "committed" if result["status"] in ("committed", "completed") else "aborted"
            self.told[f"{key}/{index}"].add((result["transfer_id"] or "", outcome))

    async def teller(self, key: str) -> None:
        await asyncio.sleep(self.chance.uniform(0, STORM_S))
        code = self.chance.choice(self.banks)
        account, which = self.chance.choice(self.accounts[code])
        kind, amount = self.chance.choice(["deposits", "withdrawals"]), self.chance.randint(1, 400)
        path = f"/v1/accounts/{account}/{kind}"
        told = set()
        for _ in range(self.chance.choice([1, 2])):
            status, _ = await self.insist(code, path, which, key, {"amount": format_amount(amount)})
            assert status in (200, 201, 422), status
            told.add(status == 422)
        assert len(told) == 1, f"{key} was told two outcomes"
        self.seen["cash"] += 1
        if told == {False}:
            self.cash += amount if kind == "deposits" else -amount

    async def audit(self) -> None:
        """Operators audit the network all the while; whatever is missing, nothing is ever wrong."""
        while self.stormy:
            await asyncio.sleep(self.chance.random() * 2)
            code = self.chance.choice(self.banks)
            answer = await self.ask(code, "POST", "/v1/operator/audit", who=self.operators[code])
            if answer is not None and answer.status_code == 200:
                self.check_audit(answer.json())

    def check_audit(self, audit: dict[str, Any]) -> None:
        codes = {finding["code"] for finding in audit["findings"]}
        assert codes <= EXCUSED, audit["findings"]
        self.seen["audit: ok"] += audit["ok"]
        self.seen["audit: something in doubt"] += bool(audit["in_doubt"])
        for code in codes:
            self.seen[f"audit: {code}"] += 1
        if all(bank["status"] == "answered" for bank in audit["banks"]):
            sums = [parse_signed(bank["customers"]) + parse_signed(bank["cash"]) for bank in audit["banks"]]
            settled = [parse_signed(part["customers"]) for part in audit["in_doubt"] if part["settled"] == "committed"]
            assert sum(sums) + sum(settled) == 0, f"money was made, or lost, on the cut: {audit}"

    # The end ------------------------------------------------------------------------------------------------------

    async def converge(self) -> None:
        """Nothing is in doubt anywhere, as operators see it, and all banks have found each other again."""
        deadline = self.stack.loop.time() + CALM_S
        while True:
            lists = [
                await self.must(code, "GET", "/v1/operator/in-doubt", who=self.operators[code]) for code in self.banks
            ]
            views = [await self.must(code, "GET", "/v1/network") for code in self.banks]
            there = all(peer["status"] == "online" for view in views for peer in view["peers"])
            if there and not any(listed["items"] for listed in lists):
                return
            assert self.stack.loop.time() < deadline, f"still in doubt, or alone: {lists} {views}"
            await asyncio.sleep(0.25)

    async def check(self) -> None:
        """From outside: one outcome per key, each leg once, sums, books, positions, the audit; then the rows."""
        expected: Counter[tuple[str, str, str, int]] = Counter()
        for key, told in self.told.items():
            assert len(told) == 1, f"{key} was told {told}"
            ((identity, outcome),) = told
            self.seen[outcome] += 1
            assert self.named[key] <= {identity}, f"{key} stands for {self.named[key]} and {identity}"
            await self.check_transfer(key, identity, outcome)
            if outcome == "committed":
                expected.update((identity, *leg) for leg in self.orders[key].legs)
        posted, customers = await self.read_statements()
        assert posted == expected, f"not as told: {posted - expected} {expected - posted}"
        assert customers == self.cash, f"customers have {customers}, {self.cash} was paid in"
        positions: dict[tuple[str, str], int] = {}
        for code in self.banks:
            books = await self.must(code, "GET", "/v1/operator/books", who=self.operators[code])
            assert books["balanced"], books
            assert books["findings"] == [], books
            for item in (await self.must(code, "GET", "/v1/operator/positions", who=self.operators[code]))["items"]:
                positions[code, item["bank"]] = parse_signed(item["position"])
                assert parse_signed(item["reserved"]) == 0, item
        for (one, other), amount in positions.items():
            assert amount + positions.get((other, one), 0) == 0, positions
        await self.audit_at_last()
        await self.check_rows()

    async def audit_at_last(self) -> None:
        """Everything is checked, and holds. A question lost in the storm may keep its line busy for a while."""
        auditor, deadline = self.chance.choice(self.banks), self.stack.loop.time() + LINE_BUSY_S
        while True:
            audit = await self.must(auditor, "POST", "/v1/operator/audit", who=self.operators[auditor])
            self.check_audit(audit)
            if audit["ok"]:
                return
            assert self.stack.loop.time() < deadline, audit["findings"]
            await asyncio.sleep(1)

    async def check_transfer(self, key: str, identity: str, outcome: str) -> None:
        """What its bank says of it now, and that its key still says the same."""
        order = self.orders[key]
        if not identity:
            assert outcome == "aborted"
            return
        shown = await self.must(order.at, "GET", f"/v1/transfers/{identity}", who=self.token(order.at, order.which))
        assert shown["status"] == {"committed": "completed", "aborted": "aborted"}[outcome], shown
        if "/" not in key:
            who = self.token(order.at, order.which)
            again = await self.ask(order.at, "POST", "/v1/transfers", who=who, key=key, json=order.body)
            assert again is not None
            assert again.json()["transfer_id"] == identity, f"{key}: {identity} became {again.text}"
            assert again.headers["idempotency-replayed"] == "true"

    async def read_statements(self) -> tuple[Counter[tuple[str, str, str, int]], int]:
        """Every transfer's entries, (transfer, bank, account, signed centavos), and what all customers have."""
        posted: Counter[tuple[str, str, str, int]] = Counter()
        customers = 0
        for code in self.banks:
            for account, which in self.accounts[code]:
                who = self.token(code, which)
                entries = await self.pages(code, f"/v1/accounts/{account}/statement", who)
                balance = 0
                for entry in reversed(entries):
                    signed = parse_amount(entry["amount"]) * (1 if entry["direction"] == "credit" else -1)
                    balance += signed
                    assert balance == parse_signed(entry["balance_after"]) >= 0, entries
                    if entry["kind"] == "transfer":
                        posted[entry["transfer_id"], code, account, signed] += 1
                shown = await self.must(code, "GET", f"/v1/accounts/{account}", who=who)
                assert parse_signed(shown["posted_balance"]) == balance == parse_signed(shown["available_balance"])
                customers += balance
        return posted, customers

    async def check_rows(self) -> None:
        """The databases themselves: recounted, nothing unfinished, nothing held, one outcome at every bank."""
        stores = {}
        for code, life in self.stack.lives.items():
            assert life.service is not None
            stores[code] = life.service.store
        for code, store in stores.items():
            await store.flushed()
            assert (await store.recount()).findings == []
            assert await store.find(Queries.UNFINISHED) == [], code
            assert await store.find(Queries.PLACED_HOLDS) == [], code
        for key, told in self.told.items():
            ((identity, outcome),) = told
            rows = {code: await store.get(Transaction, identity) for code, store in stores.items()} if identity else {}
            states = {row.state for row in rows.values() if row is not None}
            allowed = {State.ENDED, State.COMMITTED} if outcome == "committed" else {State.ABORTED}
            assert states <= allowed, f"{key}: {rows}"


def parse_signed(text: str) -> int:
    """Centavos of an amount that may be nought or below it."""
    return -parse_signed(text[1:]) if text.startswith("-") else int(text.replace(".", ""))


# Running ----------------------------------------------------------------------------------------------------------


async def _campaign(loop: StackLoop, seed: int, chance: Random, directory: Path, stacks: list[Stack]) -> Stack:
    settings = lay_out(
        directory,
        chance.choice([2, 3, 3, 3, 4]),
        vote_deadline=chance.choice([0.05, 0.3, 2.0]),
        token_lifetime=TOKEN_S,
        position_limit=chance.choice([None, None, "30.00"]),
    )
    skew = {code: chance.choice([0, 0, -20_000, 20_000]) for code in settings}
    stack = Stack(loop, settings, seed, skew)
    stacks.append(stack)
    for code in settings:
        await stack.start(code)
    campaign = Campaign(stack, chance)
    await campaign.settle_in()
    campaign.begin_storm()
    async with asyncio.timeout(600), asyncio.TaskGroup() as group:
        group.create_task(campaign.rage())
        group.create_task(campaign.audit())
        for number in range(chance.randint(3, 14)):
            group.create_task(campaign.transfer(f"transfer-{number}"))
        for number in range(chance.choice([0, 0, 1])):
            group.create_task(campaign.batch(f"batch-{number}"))
        for number in range(chance.randint(0, 4)):
            group.create_task(campaign.teller(f"cash-{number}"))
    await campaign.converge()
    await campaign.check()
    for code in settings:
        await stack.stop(code)
    return stack


def run_seed(seed: int, shown: int = 40) -> Stack:
    """Run one seed; a failure prints what replays it, and the last *shown* lines of its transcript."""
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    stacks: list[Stack] = []
    fast = Path("/dev/shm")  # noqa: S108 - a disk in memory, where there is one: many small files that nobody keeps
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as directory, replayable(seed, stacks, shown):
        return run_stack(lambda loop: _campaign(loop, seed, chance, Path(directory), stacks), chance)


@contextmanager
def replayable(seed: int, stacks: list[Stack], shown: int) -> Iterator[None]:
    """A failure says how to see it again, and what happened last."""
    try:
        yield
    except BaseException:
        for stack in stacks:
            print("\n".join(stack.lines[-shown:]))
        print(
            f"seed {seed}, revision {revision()}, Python {platform.python_version()}; again, with the whole transcript:"
        )
        print(f"  python -m tests.whole_stack_campaign {seed} --transcript", flush=True)
        raise


def seeds_of(text: str) -> list[int]:
    """``7``, ``0-999`` or ``3,5,8``."""
    parts = [part.partition("-") for part in text.split(",")]
    return [seed for first, _, last in parts for seed in range(int(first), int(last or first) + 1)]


def _one(seed: int) -> tuple[int, Counter[str], float, str]:
    try:
        stack = run_seed(seed)
    except BaseException:
        return seed, Counter(), 0.0, traceback.format_exc()
    return seed, stack.seen, stack.loop.time(), ""


def main(arguments: list[str]) -> int:
    """The exit status: 0 if no seed failed."""
    parser = argparse.ArgumentParser(description="whole banks under faults, in virtual time")
    parser.add_argument("seeds", type=seeds_of)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further seed after that long")
    parser.add_argument("--transcript", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.transcript:
        for seed in asked.seeds:
            stack = run_seed(seed, shown=1_000_000)
            print("\n".join(stack.lines))
            print(f"seed {seed}: {stack.digest.hexdigest()}")
        return 0
    seen: Counter[str] = Counter()
    began, done, virtual, failed = time.monotonic(), 0, 0.0, []
    # Interrupted, it says what was reached by then.
    with multiprocessing.get_context("spawn").Pool(asked.jobs, end_with_parent) as pool, suppress(KeyboardInterrupt):
        for seed, reached, simulated, failure in pool.imap_unordered(_one, asked.seeds, chunksize=1):
            done, virtual = done + 1, virtual + simulated
            seen += reached
            if failure:
                failed.append(seed)
                print(f"\nseed {seed} failed:\n{failure}", flush=True)
            if done % 10 == 0 or failure:
                spent = time.monotonic() - began
                print(f"\r{done} of {len(asked.seeds)} seeds, {len(failed)} failed, {spent:.0f} s", end="", flush=True)
            if time.monotonic() - began > asked.seconds:
                pool.terminate()
                break
    spent = time.monotonic() - began
    print(f"\nrevision {revision()}, Python {platform.python_version()}, {asked.jobs} processes")
    print(f"{done} seeds, {len(failed)} failed, {spent:.0f} s, {virtual:.0f} s of virtual time")
    for situation, count in sorted(seen.items()):
        print(f"{count:10}  {situation}")
    never = [situation for situation in REACHED if not seen[situation]] if done >= 100 else []
    if never:
        print(f"never reached: {never}")
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
