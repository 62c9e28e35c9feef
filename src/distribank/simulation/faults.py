"""What befalls a simulated network. Each fault is a method; ``rage`` chooses among them until the storm is over.

To add one: write a method, name it in ``rage``, count what it reached in ``world.seen``, and add that to
``campaign.SITUATIONS``, so that a campaign that never reaches it fails.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from distribank.simulation.disks import SimulatedStore
from distribank.simulation.network import Request, Weather
from distribank.simulation.operators import Operators
from distribank.simulation.people import People
from distribank.simulation.world import Ambush, Node, World
from distribank.store.shared_memory import SharedMemoryStore


@dataclass
class Faults:
    world: World
    people: People
    operators: Operators

    def begin(self) -> None:
        """From now on the network and the disks are as bad as the circumstances have it, and clocks are skewed."""
        world, at = self.world, self.world.circumstances
        world.stormy = True
        world.network.weather = Weather(at.lost, at.twice, at.late, at.tail)
        for node in world.processes:
            if isinstance(node.store, SimulatedStore):
                node.store.slow = at.slow_disk
            node.clock.wrong = world.chance.randint(-at.skew, at.skew)

    def end(self) -> None:
        """Everything is mended: what arrives from now on arrives, what is down starts, clocks are right."""
        world = self.world
        world.stormy = False
        world.network.weather = Weather()
        world.tell("network", "every fault is mended")
        for node in world.processes:
            node.clock.wrong = 0
            node.ambush = node.process.on_step = None
            if isinstance(node.store, SimulatedStore):
                node.store.slow, node.store.fail_at = 0.0, None
            else:
                node.store.cut_off(0)
            world.loop.thaw(node.process)
            world.start(node, node.lives)

    async def rage(self) -> None:
        """Faults at random moments, one after the other, until the storm is over."""
        world, at = self.world, self.world.circumstances
        faults = [
            self.crash,
            self.crash,
            self.crash_soon,
            self.crash_soon,
            self.crash_at_a_message,
            self.crash_at_a_message,
            self.fail_disk,
            self.part,
            self.part,
            self.cut_one_way,
            self.set_clock,
            self.replay,
            self.replay,
            self.operators.ask_again,
            self.operators.trace_something,
            self.people.revoke_something,
            self.people.consent_to_something,
        ]
        if world.chance.random() < 0.2:
            faults.append(self.operators.tidy_up)
        if at.shared:
            faults += [self.freeze, self.freeze, self.cut_off, self.cut_off, self.crash_one_of_two]
        over = world.loop.time() + at.storm
        while (left := over - world.loop.time()) > 0:
            await asyncio.sleep(min(left, world.chance.random() * 2 * at.troubles))
            await world.chance.choice(faults)()

    def _somebody(self) -> str:
        return self.world.chance.choice(list(self.world.nodes))

    def _some_process(self) -> Node:
        return self.world.chance.choice(self.world.processes)

    def _one_of_two(self) -> Node:
        return self.world.chance.choice([node for node in self.world.processes if node.server is not None])

    async def crash(self) -> None:
        """A process dies between two turns of the loop."""
        self.world.crash(self._some_process(), "at some moment")

    async def crash_one_of_two(self) -> None:
        """The same, of a bank that has two."""
        self.world.crash(self._one_of_two(), "and another of its bank goes on")

    async def freeze(self) -> None:
        """A process stands still, often for longer than others wait for it, and then goes on as if nothing had been."""
        node = self._one_of_two()
        if node.up and node.process.kept is None:
            self.world.seen["frozen"] += 1
            node.freeze(self.world.chance.random() * 10)

    async def cut_off(self) -> None:
        """A process loses its connections to the database, and gets none for a while; sometimes both do."""
        chance = self.world.chance
        node, seconds = self._one_of_two(), chance.random() ** 2 * 12
        both = chance.random() < 0.2
        for each in self.world.nodes[node.code].processes:
            if (each is node or both) and each.up and isinstance(each.store, SharedMemoryStore):
                self.world.tell(each.name, f"is cut off from its database for {seconds:.1f} s")
                each.store.cut_off(seconds)

    async def crash_soon(self) -> None:
        """A bank dies some steps from now, in the middle of whatever it does then."""
        node = self._some_process()
        if node.up:
            node.crash_after(int(self.world.chance.random() ** 2 * 300) + 1, "in the middle of its work")
            self.world.seen["crash at an await"] += 1

    async def crash_at_a_message(self) -> None:
        """A bank dies some steps after the next message of a kind."""
        kind = self.world.chance.choice(["Prepare", "Commit", "Abort", "Inquire", "Snapshot"])
        self._some_process().ambush = Ambush(kind, self.world.chance.randint(1, 40))
        self.world.seen["ambush"] += 1

    async def fail_disk(self) -> None:
        """One of the next flushes of a bank fails: the bank stops, and what the disk has decides."""
        node = self._some_process()
        if isinstance(node.store, SimulatedStore):
            node.store.fail_at = node.store.flushes + self.world.chance.randint(1, 10)

    async def part(self) -> None:
        """The network falls into two halves, for a while."""
        world = self.world
        here = [code for code in world.nodes if world.chance.random() < 0.5]
        ways = [(one, other) for one in here for other in world.nodes if other not in here]
        self._cut([way for one, other in ways for way in ((one, other), (other, one))], "parted")

    async def cut_one_way(self) -> None:
        """One bank is heard and does not hear, or the other way round, for a while."""
        world, code = self.world, self._somebody()
        others = [other for other in world.nodes if other != code]
        mute = world.chance.random() < 0.5
        self._cut([(code, other) if mute else (other, code) for other in others], "cut one way")

    def _cut(self, ways: list[tuple[str, str]], what: str) -> None:
        if ways:
            world, cut = self.world, self.world.network.weather.cut
            world.seen[what] += 1
            world.tell("network", what + ": " + ", ".join(f"{one} → {other}" for one, other in ways))
            cut.update(ways)
            world.later(world.chance.random() * 5, cut.difference_update, ways)

    async def replay(self) -> None:
        """Something that was once said arrives again, however old it is."""
        world = self.world
        for old in world.chance.choices(world.history, k=5) if world.history else ():
            again = Request(old.sender, old.to, 0, old.messages, world.loop.create_future())
            world.seen["replayed"] += world.nodes[old.to].receive(again, lambda _said: None)

    async def set_clock(self) -> None:
        """A clock is set: within what the protocol believes, or in some runs beyond it."""
        world, at = self.world, self.world.circumstances
        node = self._some_process()
        node.clock.wrong = world.chance.randint(-at.skew, at.skew)
        if at.wild_clocks and world.chance.random() < 0.3:
            node.clock.wrong = world.chance.choice([-90_000, 90_000])
            world.seen["a clock beyond all bounds"] += 1
        world.tell(node.name, f"its clock is wrong by {node.clock.wrong} ms")
