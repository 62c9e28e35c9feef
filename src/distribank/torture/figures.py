"""What a history amounts to in figures: how much was done, second by second, and what the nemesis did meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distribank.torture.history import Event


@dataclass(frozen=True, slots=True)
class Spell:
    """One fault, from when to when, in seconds of the run."""

    kind: str
    words: str
    begun: float
    ended: float


@dataclass(slots=True)
class Figures:
    """One run. Seconds are those of the run; *committed* and *refused* count by second."""

    setup: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Until all was healed."""
    calm: float | None = None
    """Seconds from then on, until nothing was held or in doubt."""
    committed: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    asked_again: Counter[str] = field(default_factory=Counter)
    links: dict[str, int] = field(default_factory=dict)
    spells: list[Spell] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds from the first asking to the acknowledgement, of each committed transfer, sorted."""
    banks: Counter[int] = field(default_factory=Counter)
    """Committed transfers by how many banks took part."""

    def wait(self, part: float) -> float:
        """The wait that *part* (0 to 1) of the committed transfers did not exceed."""
        return self.waits[min(len(self.waits) - 1, int(part * len(self.waits)))] if self.waits else 0.0

    def quiet_rate(self) -> float:
        """Committed transfers a second while no fault was in force."""
        quiet = set(range(int(self.seconds))) - {
            second for spell in self.spells for second in range(int(spell.begun), int(spell.ended) + 1)
        }
        return sum(self.committed[second] for second in quiet) / len(quiet) if quiet else 0.0

    def of_kind(self, kind: str) -> tuple[int, float, float]:
        """How often, for how many seconds in all, and the rate of committed transfers meanwhile, with whatever else."""
        spells = [spell for spell in self.spells if spell.kind == kind]
        within = {
            second
            for spell in spells
            for second in range(int(spell.begun), max(int(spell.ended), int(spell.begun) + 1))
        }
        rate = sum(self.committed[second] for second in within) / len(within) if within else 0.0
        return len(spells), sum(spell.ended - spell.begun for spell in spells), rate

    def kinds(self) -> Sequence[str]:
        return sorted({spell.kind for spell in self.spells})


def figures(events: Iterable[Event]) -> Figures:
    """Those of a history."""
    found = Figures()
    begun: dict[str, tuple[float, int]] = {}
    faults: dict[str, float] = {}
    for event in events:
        f, kind, at, value = event["f"], event["type"], event["time"], event["value"]
        if f == "transfer" and kind == "invoke":
            parties = {account.partition("/")[0] for account, _amount in value["debits"] + value["credits"]}
            begun[event["op"]] = at, len(parties | {event["bank"]})
        elif f == "transfer" and kind == "ok":
            since, banks = begun.pop(event["op"])
            found.committed[int(at)] += 1
            found.waits.append(at - since)
            found.banks[banks] += 1
        elif f == "transfer" and kind == "fail":
            found.refused[int(at)] += 1
            found.codes[value["code"] or str(value["status"])] += 1
        elif f == "nemesis" and value["phase"] == "begin":
            faults[value["words"]] = at
        elif f == "nemesis":
            found.spells.append(Spell(value["kind"], value["words"], faults.pop(value["words"]), at))
        elif f == "setup":
            found.setup = value
        elif f == "healed":
            found.seconds = at
        elif f == "calm" and not value["left"]:
            found.calm = max(found.calm or 0.0, value["seconds"])
        elif f == "links":
            found.links = value
        elif f == "asked again in all":
            found.asked_again.update(value)
    found.waits.sort()
    return found
