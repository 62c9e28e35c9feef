"""The nemesis: what it does to the banks, drawn from a seed, one or several things at a time, and healed again.

Kills, pauses, partitions of every kind, of messages and, where it can be, of packets; a network that loses and repeats;
clocks that are set wrong. Every kind comes before any comes again. When it ends, everything is healed and every bank is
ready.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from distribank.network.processes import BankProcess
from distribank.torture import clocks
from distribank.torture.history import History
from distribank.torture.links import BROKEN, SILENT, Direction, Links, Weather
from distribank.torture.packets import Wires

HOLD_SECONDS: Final = (1.5, 7.0)
"""How long faults stay."""
CALM_SECONDS: Final = (2.0, 6.0)
"""How long all is well between them, and before the first."""
AT_ONCE: Final = (1, 1, 2, 2, 3)
"""How many faults at a time, each as often as it stands here."""
MAX_SKEW: Final = 25
"""Seconds that a clock may be off: two that are off in opposite directions are still less than the 60 s apart within
which banks believe one another's signatures."""
READY_SECONDS: Final = 60.0
"""How long a bank may take until it is ready: a machine that is tortured may be a busy one."""
LOOK_SECONDS: Final = 0.5
"""How often it is looked whether all banks live that should."""
AGAIN: Final = 0.3
"""How often a bank that was killed is killed again while it starts."""


@dataclass(slots=True)
class Scene:
    """What can be broken."""

    processes: Sequence[BankProcess]
    links: Links
    history: History
    skewable: bool
    """Whether clocks can be set."""
    wires: Wires | None = None
    """Where packets can be dropped."""

    @property
    def codes(self) -> list[str]:
        return [process.bank.code for process in self.processes]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing done to the banks, in words, and how it is undone."""

    kind: str
    words: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


def kill(scene: Scene, chance: random.Random) -> Fault:
    """SIGKILL for one bank, some of them or all; started again, now and then killed once more while it starts."""
    victims = _some(scene.processes, chance, most=len(scene.processes))
    again = [process for process in victims if chance.random() < AGAIN]
    pause = chance.uniform(0.2, 1.5)

    async def begin() -> None:
        for process in victims:
            process.kill()

    async def end() -> None:
        for process in victims:
            if process.pid is None:
                process.start()
        if again:
            await asyncio.sleep(pause)
            for process in again:
                process.kill()
                process.start()
        await asyncio.gather(*(process.wait_ready(READY_SECONDS) for process in victims))

    words = f"{_names(victims)} killed" + (f", {_names(again)} again while starting" if again else "")
    return Fault("kill", words, begin, end)


def pause(scene: Scene, chance: random.Random) -> Fault:
    """SIGSTOP: banks that hang, and go on as though nothing had been."""
    victims = _some(scene.processes, chance, most=max(1, len(scene.processes) // 2))

    async def begin() -> None:
        for process in victims:
            process.freeze()

    async def end() -> None:
        for process in victims:
            process.thaw()

    return Fault("pause", f"{_names(victims)} paused", begin, end)


def cut_off(scene: Scene, chance: random.Random) -> Fault:
    """One bank reaches no other, and none reaches it."""
    return _messages(scene, chance, "cut off", _one_alone(scene, chance))


def halves(scene: Scene, chance: random.Random) -> Fault:
    """The banks fall into two parts that do not hear each other."""
    return _messages(scene, chance, "partition", _two_parts(scene, chance))


def one_way(scene: Scene, chance: random.Random) -> Fault:
    """Some banks are heard no more, yet hear the others: their requests and their answers do not arrive."""
    return _messages(scene, chance, "one-way", _some_mute(scene, chance))


def packets_cut_off(scene: Scene, chance: random.Random) -> Fault:
    """No packet between one bank and any other arrives."""
    return _packets(scene, "packets cut off", _one_alone(scene, chance))


def packets_halves(scene: Scene, chance: random.Random) -> Fault:
    """No packet between two parts of the banks arrives."""
    return _packets(scene, "packets parted", _two_parts(scene, chance))


def packets_one_way(scene: Scene, chance: random.Random) -> Fault:
    """No packet of some banks arrives at the others, whose packets arrive at them: not even what acknowledges those."""
    return _packets(scene, "packets one-way", _some_mute(scene, chance))


def rough(scene: Scene, chance: random.Random) -> Fault:
    """Between all banks: requests and answers delayed, late, repeated, lost; connections that break."""
    weather = Weather(
        lost=chance.choice([0.0, 0.02, 0.1]),
        broken=chance.choice([0.0, 0.02, 0.1]),
        delay=chance.choice([0.0, 0.05, 0.4]),
        late=chance.choice([0.02, 0.1]),
        repeated=chance.choice([0.1, 0.5]),
    )
    words = (
        f"a rough network: up to {weather.delay * 1000:.0f} ms slower, {weather.lost:.0%} lost, {weather.broken:.0%} "
        f"broken, {weather.late:.0%} late, {weather.repeated:.0%} repeated"
    )
    everywhere = [(a, b) for a in scene.codes for b in scene.codes if a != b]
    return _weather(scene, "rough network", words, everywhere, weather)


def skew(scene: Scene, chance: random.Random) -> Fault:
    """Clocks set wrong, by up to ``MAX_SKEW`` seconds, of some banks or all, while they run; then set right again."""
    victims = _some(scene.processes, chance, most=len(scene.processes))
    offs = [chance.choice([-1, 1]) * chance.randint(1, MAX_SKEW) for _process in victims]

    async def begin() -> None:
        for process, off in zip(victims, offs, strict=True):
            clocks.set_clock(process.bank, off)

    async def end() -> None:
        for process in victims:
            clocks.set_clock(process.bank, 0)

    words = ", ".join(f"{process.bank.code} {off:+d} s" for process, off in zip(victims, offs, strict=True))
    return Fault("clock", f"clocks off: {words}", begin, end)


Kind = Callable[[Scene, random.Random], Fault]
OF_PACKETS: Final[Sequence[Kind]] = (packets_cut_off, packets_halves, packets_one_way)
KINDS: Final[Sequence[Kind]] = (kill, pause, cut_off, halves, one_way, *OF_PACKETS, rough, skew)


class Nemesis:
    """Breaks and heals until told to stop. *now* says in words what it does at the moment."""

    def __init__(self, scene: Scene, chance: random.Random, say: Callable[[str], None]) -> None:
        self.now = ""
        self._scene = scene
        self._chance = chance
        self._say = say
        self._deck: list[Kind] = []

    async def rage(self, seconds: float) -> None:
        """Break and heal for about *seconds*; at the end all is healed, and all banks are ready."""
        history = self._scene.history
        until = history.now() + seconds
        await asyncio.sleep(min(seconds / 4, self._chance.uniform(*CALM_SECONDS)))
        while history.now() < until:
            await self._round(until)
            await asyncio.sleep(min(self._chance.uniform(*CALM_SECONDS), max(0.0, until - history.now())))

    async def _round(self, until: float) -> None:
        """Some faults, begun one behind the other, held, and ended in another order."""
        faults = [self._draw()(self._scene, self._chance) for _fault in range(self._chance.choice(AT_ONCE))]
        begun: list[Fault] = []
        for fault in faults:
            await fault.begin()
            begun.append(fault)
            self._tell(fault, "begin", begun)
            await asyncio.sleep(self._chance.uniform(0, 1))
        hold = self._chance.uniform(*HOLD_SECONDS)
        await asyncio.sleep(max(0.5, min(hold, until - self._scene.history.now())))
        for fault in self._chance.sample(begun, len(begun)):
            await fault.end()
            begun.remove(fault)
            self._tell(fault, "end", begun)

    def _tell(self, fault: Fault, phase: str, in_force: Sequence[Fault]) -> None:
        value = {"kind": fault.kind, "phase": phase, "words": fault.words}
        self._scene.history.add("nemesis", "info", "nemesis", value)
        self.now = "; ".join(each.words for each in in_force)
        self._say(fault.words if phase == "begin" else f"healed: {fault.words}")

    def _draw(self) -> Kind:
        if not self._deck:
            cannot = [*(() if self._scene.skewable else (skew,)), *(() if self._scene.wires else OF_PACKETS)]
            kinds = [kind for kind in KINDS if kind not in cannot]
            self._deck = self._chance.sample(kinds, len(kinds))
        return self._deck.pop()

    async def look_after(self) -> None:
        """Start banks again that ended by themselves, which no bank may: not by SIGKILL, that is. Until cancelled."""
        while True:
            for process in self._scene.processes:
                if process.exit_status not in (None, -signal.SIGKILL):
                    words = f"{process.bank.code} ended by itself with status {process.exit_status}"
                    self._scene.history.add("nemesis", "info", "died", {"words": words}, bank=process.bank.code)
                    self._say(words)
                    process.start()
            await asyncio.sleep(LOOK_SECONDS)


def _some(processes: Sequence[BankProcess], chance: random.Random, *, most: int) -> list[BankProcess]:
    """Mostly one, sometimes two, now and then as many as *most*."""
    many = min(most, chance.choice([1, 1, 1, 2, 2, most]))
    return sorted(chance.sample(list(processes), many), key=lambda process: process.bank.code)


def _names(processes: Sequence[BankProcess]) -> str:
    return ", ".join(process.bank.code for process in processes)


_Cut = tuple[str, list[Direction]]
"""A partition in words, and the directions in which nothing arrives."""


def _one_alone(scene: Scene, chance: random.Random) -> _Cut:
    alone = chance.choice(scene.codes)
    return f"{alone} cut off", _leaving(scene, [alone]) + _arriving(scene, [alone])


def _two_parts(scene: Scene, chance: random.Random) -> _Cut:
    part = _part(scene, chance)
    return f"{', '.join(part)} parted from the others", _leaving(scene, part) + _arriving(scene, part)


def _some_mute(scene: Scene, chance: random.Random) -> _Cut:
    part = _part(scene, chance)
    return f"{', '.join(part)} not heard by the others", _leaving(scene, part)


def _part(scene: Scene, chance: random.Random) -> list[str]:
    return sorted(chance.sample(scene.codes, chance.randint(1, len(scene.codes) // 2)))


def _leaving(scene: Scene, part: Sequence[str]) -> list[Direction]:
    return [(a, b) for a in part for b in scene.codes if b not in part]


def _arriving(scene: Scene, part: Sequence[str]) -> list[Direction]:
    return [(b, a) for a, b in _leaving(scene, part)]


def _messages(scene: Scene, chance: random.Random, kind: str, cut: _Cut) -> Fault:
    """Whole requests and answers are lost."""
    words, directions = cut
    weather = chance.choice([SILENT, BROKEN])
    how = "silently" if weather is SILENT else "connections break"
    return _weather(scene, kind, f"{words} ({how})", directions, weather)


def _packets(scene: Scene, kind: str, cut: _Cut) -> Fault:
    """Packets are dropped."""
    wires, (words, directions) = scene.wires, cut
    assert wires is not None, "no such fault is drawn without"

    async def begin() -> None:
        await wires.cut(directions)

    async def end() -> None:
        await wires.mend(directions)

    return Fault(kind, f"{words} (packets dropped)", begin, end)


def _weather(scene: Scene, kind: str, words: str, directions: list[Direction], weather: Weather) -> Fault:
    async def begin() -> None:
        scene.links.worsen(directions, weather)

    async def end() -> None:
        scene.links.mend(directions, weather)

    return Fault(kind, words, begin, end)
