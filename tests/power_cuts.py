"""Power cuts under the shipped store and the shipped bank: what was acknowledged is there when the power is back.

Every scene of ``tests.power_scenes`` is cut at every operation on its disk, has every one of them fail once, and is cut
at random ones::

    python -m tests.power_cuts --cuts 10000 --seed 1 --report docs/reports/power-cuts.md
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

import apsw

from distribank.store import sqlite
from tests.between_banks import virtually
from tests.disks import FragileDisk
from tests.power_scenes import FAILED, MANY, SCENES, Run, Scene
from tests.provenance import provenance

LOG_PAGES = 20
"""Pages of the write-ahead log between two checkpoints here: few, so that checkpoints are cut as well."""


@dataclass(frozen=True)
class Outcome:
    """One cut: what was being done (``None`` if the scene ended before it), operations passed, what was wrong."""

    at: str | None
    operations: int
    findings: tuple[str, ...]


def cut(
    scene: Scene,
    at: int,
    seed: int,
    place: Path,
    *,
    synchronous: str | None = None,
    lying: bool = False,
    once: bool = False,
) -> Outcome:
    """Run *scene* in an empty directory of *place*, cut after operation *at*; *seed* says what survives.

    *once*: the power stays on, but the operation after it fails, and later ones work again.
    """
    directory = place / "run"
    directory.mkdir()
    for name, content in scene.begin_with().items():
        (directory / name).write_bytes(content)
    disk = FragileDisk(f"cut {seed} {at}", at, lying=lying, once=once)
    one = Run(directory, disk, Random(seed), synchronous)  # noqa: S311 - repeatable
    try:
        with mock.patch.object(sqlite, "CHECKPOINT_PAGES", LOG_PAGES):
            virtually(scene.play(one))
    except FAILED as broken:
        one.findings.append(f"what is left cannot be used: {broken}")
    finally:
        disk.unregister()
        shutil.rmtree(directory)
    one.expect(one.stopped or not disk.failed, "the bank went on")
    return Outcome(disk.failed_at, disk.operations, tuple(one.findings))


def at_every_operation(scene: Scene, place: Path, *, once: bool = False) -> Iterator[Outcome]:
    """Cut after operation 0, 1, 2, 3 … until the scene passes."""
    at = 0
    while True:
        outcome = cut(scene, at, at, place, once=once)
        yield outcome
        if outcome.at is None:
            return
        at += 1


@contextmanager
def somewhere_fast() -> Iterator[Path]:
    """A directory in memory, where there is one: what survives is this module's business, not the machine's."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


@contextmanager
def quiet_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.power_cuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first cut; cut i has seed + i")
    parser.add_argument("--only-at-random", action="store_true", help="a part of a campaign: nothing is enumerated")
    parser.add_argument("--minutes", type=float, default=600, help="no new random cut begins after that")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with quiet_logs(), somewhere_fast() as place:
        return campaign(given, place)


@dataclass
class Tally:
    """What a campaign has done so far."""

    cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, column: str, name: str, outcome: Outcome, how: str) -> None:
        self.cuts[column, name] += 1
        self.reached[kind(outcome.at)] += column != FAILS
        self.wrong += [f"{name}, {how} ({outcome.at}): {what}" for what in outcome.findings]
        done = self.cuts.total()
        if done % 250 == 0:
            print(f"{done} runs, {len(self.wrong)} findings, {time.monotonic() - self.began:.0f} s", flush=True)


EVERY, CHANCE, FAILS = "cut at every operation", "cut at random", "every operation fails once"


def campaign(given: argparse.Namespace, place: Path) -> int:
    """Every operation of every scene cut once and failed once, random cuts over all of them, the controls."""
    tally, first = Tally(), given.seed
    made = 0
    lengths = {name: cut(scene, MANY, 0, place).operations for name, scene in SCENES.items()}
    for name, scene in [] if given.only_at_random else SCENES.items():
        for once, column in ((False, EVERY), (True, FAILS)):
            for at, outcome in enumerate(at_every_operation(scene, place, once=once)):
                tally.add(column, name, outcome, f"{column}, after operation {at}")
    for seed in range(first, first + given.cuts):
        if time.monotonic() - tally.began > given.minutes * 60:
            break
        made += 1
        chance = Random(f"{seed} which")  # noqa: S311
        name = chance.choice(list(SCENES))
        at = chance.randrange(lengths[name])
        tally.add(CHANCE, name, cut(SCENES[name], at, seed, place), f"seed {seed}, after operation {at}")
    controls = {how: control(place, **settings) for how, settings in CONTROLS.items()}
    told = in_words(tally, lengths, controls, f"random ones: {made}, seeds {first} to {first + made - 1}")
    print("\n".join([told, "", *tally.wrong]))
    if given.report is not None:
        given.report.write_text(REPORT.format(told=told, wrong="\n".join(tally.wrong) or "Nothing was found."))
    return 1 if tally.wrong or not all(controls.values()) else 0


def in_words(tally: Tally, lengths: dict[str, int], controls: dict[str, int], chosen: str) -> str:
    """What was done and found, as tables."""
    made = tally.cuts.total() - sum(n for (column, _), n in tally.cuts.items() if column == FAILS)
    columns = (EVERY, CHANCE, FAILS)
    seconds = time.monotonic() - tally.began
    versions = f"{provenance()}, SQLite {apsw.sqlite_lib_version()}"
    return "\n".join(
        [
            f"{made} power cuts ({chosen})",
            f"and {tally.cuts.total() - made} runs in which one operation fails, {seconds:.0f} s in all,",
            f"on {versions}. Findings: **{len(tally.wrong)}**.",
            "",
            f"| scene | operations on the disk | {' | '.join(columns)} |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {lengths[name]} | {' | '.join(str(tally.cuts[column, name]) for column in columns)} |"
                for name in SCENES
            ),
            "",
            "| the cut came during | cuts |",
            "|---|---|",
            *(f"| {what} | {n} |" for what, n in sorted(tally.reached.items()) if n),
            "",
            "| control: has to be noticed | cuts that found something wrong |",
            "|---|---|",
            *(f"| {how} | {n} of {CONTROL_CUTS} |" for how, n in controls.items()),
        ]
    )


CONTROL_CUTS = 100
CONTROLS: dict[str, dict[str, str | bool]] = {
    "`synchronous=NORMAL`": {"synchronous": "NORMAL"},
    "a disk that lies about its syncs": {"lying": True},
}


def control(place: Path, **settings: str | bool) -> int:
    """How many of some cuts at random operations of deposits find something wrong, the disk or SQLite not waiting."""
    found = 0
    for seed in range(CONTROL_CUTS):
        at = Random(seed).randrange(130)  # noqa: S311
        found += bool(cut(SCENES["deposits"], at, seed, place, **settings).findings)  # type: ignore[arg-type]
    return found


def kind(at: str | None) -> str:
    """What was being done, whichever bank's file it was."""
    if at is None:
        return "nothing: the scene was over"
    what, _, file = at.partition(" ")
    which = "the write-ahead log" if file.endswith("-wal") else "the rollback journal"
    return f"{what} of {'the database itself' if file.endswith('.db') else which}"


REPORT = """# Power cuts under the shipped store

`make powercuts`: the shipped store, and two shipped banks on it, over a VFS of SQLite that loses at the cut a random
half of all 512-byte sectors written since the last sync of each file. After the cut the same code starts on what is
left. Looked for: whatever was acknowledged is there, each file passes SQLite's own checks, books agree with entries and
between banks, every transfer has one end at both banks and the one that was told, nothing stays held, no key does a
second thing. Where one operation fails and later ones work again, the bank must also have stopped.

{told}

{wrong}
"""


if __name__ == "__main__":
    sys.exit(main())
