"""The clients of a simulated network: they order transfers, batches and cash, hang up, and ask again until they know.

Everything that anybody was told is kept in ``Told``: it is what the checkers hold the banks to.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from distribank.bank import Bank, KeyName
from distribank.breakages import Breakage, KeyReused
from distribank.core.batches import BatchItem, Mode, OnFailure
from distribank.core.holders import Holder
from distribank.core.ledger import Account, AccountType, EntryKind
from distribank.core.protocol import State, Transaction
from distribank.core.refusals import Refusal
from distribank.core.transfer import Direction, Leg
from distribank.simulation.chronicle import About
from distribank.simulation.world import Address, World

CPFS: Final = ("52998224725", "11144477735")
DECIDED: Final = {State.COMMITTING: "committed", State.ENDED: "committed", State.ABORTED: "aborted"}
YEAR_MS: Final = 365 * 86_400_000


@dataclass
class Told:
    """What clients were told. *outcomes*: by key, every (transaction, outcome); *named*: the transaction of a key.

    *cash* is what came in over all counters less what went out, in centavos; *cash_keys* the operations behind it.
    """

    outcomes: dict[str, dict[tuple[str, str], None]] = field(default_factory=lambda: defaultdict(dict))
    named: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    cash: int = 0
    attempted: int = 0
    contradictions: list[str] = field(default_factory=list)

    def hear(self, key: str, known: Transaction) -> bool:
        """The client of *key* hears of *known*; whether that is its outcome."""
        self.named[key][known.id] = None
        said = DECIDED.get(known.state)
        if said is not None:
            self.outcomes[key][known.id, said] = None
        return said is not None

    def committed(self) -> list[str]:
        """The transactions of which anybody was told that they are committed."""
        return [identity for told in self.outcomes.values() for identity, said in told if said == "committed"]


@dataclass
class People:
    """Two holders at every bank, three accounts; every other bank may draw on each."""

    world: World
    told: Told = field(default_factory=Told)
    holders: dict[tuple[str, int], Holder] = field(default_factory=dict)
    accounts: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    consents: list[tuple[str, str, int]] = field(default_factory=list)

    async def settle_in(self) -> None:
        for code, node in self.world.nodes.items():
            for which in (0, 1, 0):
                await self._open(node, which)
            for number, which in self.accounts[code]:
                for other in self.world.nodes:
                    if other != code:
                        await self._consent(node, number, other, which)

    async def _open(self, node: Address, which: int) -> None:
        money = self.world.chance.choice([0, 100, 1000])
        if (node.code, which) not in self.holders:
            holder = await node.call(lambda bank: bank.custody.register(f"Person {which}", CPFS[which], "hash", None))
            assert isinstance(holder, Holder)
            self.holders[node.code, which] = holder
        holder = self.holders[node.code, which]
        account = await node.call(lambda bank: bank.custody.open_account(holder, AccountType.INDIVIDUAL))
        assert isinstance(account, Account)
        self.accounts[node.code].append((account.number, which))
        if money:
            await self.cash_once(node.code, account.number, which, EntryKind.DEPOSIT, money, f"first {account.number}")

    async def _consent(self, node: Address, number: str, to: str, which: int) -> None:
        total, until = self.world.circumstances.consent_total, node.processes[0].clock.wall_ms() + YEAR_MS
        holder = self.holders[node.code, which]
        made = await node.call(lambda bank: bank.custody.give_consent(holder, number, to, 10**9, total, until))
        assert made is not None
        if isinstance(made, Refusal):  # the account is closed
            assert self.world.stormy
            return
        self.consents.append((node.code, made.consent_id, which))

    # What they want -----------------------------------------------------------------------------------------------

    def _order(self, at: str, which: int) -> tuple[Leg, ...]:
        """Legs that balance: out of the holder's accounts anywhere, into anyone's; accounts may stand there twice."""
        chance = self.world.chance
        banks = [at] if chance.random() < 0.15 else list(self.world.nodes)
        mine = [(bank, n) for bank in banks for n, whose in self.accounts[bank] if whose == which]
        anyone = [(bank, n) for bank in banks for n, _ in self.accounts[bank]]
        debits = chance.choices(mine, k=chance.choice([1, 1, 1, 2, 3]))
        payees = chance.choices(anyone, k=chance.choice([1, 1, 2, 3]))
        amounts = [chance.randint(1, 60) for _ in debits]
        parts = [sum(amounts) // len(payees)] * len(payees)
        parts[0] += sum(amounts) - sum(parts)
        legs = [(*place, -amount) for place, amount in zip(debits, amounts, strict=True)]
        legs += [(*place, part) for place, part in zip(payees, parts, strict=True) if part]
        return make_legs(*legs)

    async def _insist(self, node: Address, what: Callable[[Bank], Awaitable[bool]]) -> None:
        """A client that hangs up, is refused and asks again until it has its answer."""
        world = self.world

        async def once(bank: Bank) -> bool:
            return await what(bank)

        while True:
            patience = None
            if world.stormy and world.chance.random() < world.circumstances.hang_up:
                patience = world.chance.random() ** 2
            try:
                async with asyncio.timeout(patience):
                    if await node.call(once):
                        return
            except TimeoutError:
                world.seen["hung up"] += 1
            except KeyReused:
                raise
            except Breakage as breakage:
                world.seen[type(breakage).__name__] += 1
            await asyncio.sleep(world.chance.uniform(0.05, 1.0))

    async def transfer(self, key: str) -> None:
        """One transfer, sometimes asked for by several at once under the same key."""
        chance = self.world.chance
        await self._some_time()
        at, which = chance.choice(list(self.world.nodes)), chance.choice([0, 0, 1])
        legs, wait = self._order(at, which), chance.choice([0.0, 0.1, 5.0])
        holder = self.holders[at, which]
        name = KeyName(holder.holder_id, "transfers", key, repr(legs))
        self.told.attempted += 1

        async def once(bank: Bank) -> bool:
            result = await bank.ordering.order(holder, legs, None, name, wait)
            self.world.seen["202"] += result.transaction.state not in DECIDED
            self.world.tell("client", f"of {key} is told {result.transaction.state}", About(result.transaction.id))
            self._is_on_disk(at, key, result.transaction)
            return self.told.hear(key, result.transaction)

        await self._together(chance.choice([1, 1, 1, 1, 1, 3]), at, once)

    def _is_on_disk(self, at: str, key: str, told: Transaction) -> None:
        """What a client is told is durable in the moment in which it is said."""
        known = self.world.nodes[at].rows[Transaction].get(told.id)
        if told.state in DECIDED and (known is None or DECIDED.get(known.state) != DECIDED[told.state]):
            self.told.contradictions.append(f"{key} was told {told.state} of {told.id}, which is not on the disk")

    async def batch(self, key: str) -> None:
        """A batch of transfers; each item has its own outcome."""
        chance = self.world.chance
        await self._some_time()
        at, mode, on_failure = (
            chance.choice(list(self.world.nodes)),
            chance.choice(list(Mode)),
            chance.choice(list(OnFailure)),
        )
        items = [BatchItem(self._order(at, 0), None) for _ in range(chance.randint(2, 8))]
        holder = self.holders[at, 0]
        name = KeyName(holder.holder_id, "batches", key, "")
        self.told.attempted += len(items)

        async def once(bank: Bank) -> bool:
            result = await bank.batching.order(holder, items, mode, on_failure, name, chance.choice([0.0, 0.2, 5.0]))
            for index, item in enumerate(result.results):
                if isinstance(item, Transaction) and item.state in DECIDED:  # what is undecided may run under a new id
                    self.told.hear(f"{key}/{index}", item)
                elif isinstance(item, Refusal):
                    self.told.outcomes[f"{key}/{index}"]["", str(item.code)] = None
            return result.batch.finished_at is not None

        await self._together(chance.choice([1, 2]), at, once)

    async def teller(self, key: str) -> None:
        """A deposit or withdrawal, once, however often it is asked for."""
        chance = self.world.chance
        await self._some_time()
        at = chance.choice(list(self.world.nodes))
        number, which = chance.choice(self.accounts[at])
        kind = chance.choice([EntryKind.DEPOSIT, EntryKind.WITHDRAWAL])
        await self.cash_once(at, number, which, kind, chance.randint(1, 50), key)

    async def cash_once(self, at: str, number: str, which: int, kind: EntryKind, amount: int, key: str) -> None:
        told: dict[bool, None] = {}
        holder = self.holders[at, which].holder_id

        async def once(bank: Bank) -> bool:
            done = await bank.custody.cash(holder, number, kind, amount, key, "f")
            assert done is not None
            told[done.entry is not None] = None
            return True

        for _ in range(self.world.chance.choice([1, 1, 2])):
            await self._insist(self.world.nodes[at], once)
        if len(told) != 1:
            self.told.contradictions.append(f"cash operation {key} at {at} was told to be done, and not to be done")
        if True in told:
            self.told.cash += amount if kind is EntryKind.DEPOSIT else -amount

    async def run_off(self, code: str, number: str) -> None:
        """A holder takes out whatever is there, and perhaps closes the account."""
        which = next(whose for each, whose in self.accounts[code] if each == number)
        account, node = self.world.nodes[code].rows[Account][number], self.world.nodes[code]
        if account.available > 0:
            key = f"runs off with {number} at {self.world.loop.time()}"
            await self.cash_once(code, number, which, EntryKind.WITHDRAWAL, account.available, key)
        if self.world.chance.random() < 0.5:
            holder = self.holders[code, which].holder_id
            try:
                await node.call(lambda bank: bank.custody.close_account(holder, number))
            except Breakage:
                return

    async def consent_to_something(self) -> None:
        """One more consent, in the middle of the storm: whoever is not told that it stands may be drawn upon."""
        chance = self.world.chance
        code, other = chance.sample(list(self.world.nodes), k=2)
        number, which = chance.choice(self.accounts[code])
        try:
            await self._consent(self.world.nodes[code], number, other, which)
        except Breakage:
            return
        self.world.seen["consent given in the storm"] += 1

    async def revoke_something(self) -> None:
        code, consent, which = self.world.chance.choice(self.consents)
        holder = self.holders[code, which].holder_id
        try:
            await self.world.nodes[code].call(lambda bank: bank.custody.revoke_consent(holder, consent))
        except Breakage:
            return
        self.world.seen["consent revoked"] += 1

    async def _some_time(self) -> None:
        """Wait for some moment of the storm, often for one that an auditor has chosen, too."""
        world = self.world
        moment = world.chance.uniform(0, world.circumstances.storm)
        if world.chance.random() < 0.3:
            moment = world.chance.choice(world.audit_moments) + world.chance.uniform(-0.3, 0.1)
        await asyncio.sleep(max(0.0, moment - world.loop.time()))

    async def _together(self, clients: int, at: str, once: Callable[[Bank], Awaitable[bool]]) -> None:
        node = self.world.nodes[at]
        if clients == 1:
            await self._insist(node, once)
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._insist(node, once))


def make_legs(*legs: tuple[str, str, int]) -> tuple[Leg, ...]:
    """Legs from (bank, account, centavos), negative for a debit."""
    return tuple(
        Leg(i, bank, account, Direction.DEBIT if amount < 0 else Direction.CREDIT, abs(amount))
        for i, (bank, account, amount) in enumerate(legs, 1)
    )
