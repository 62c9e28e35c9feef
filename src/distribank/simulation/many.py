"""Many seeds: over several processes, with sums, a record that can be gone on with, and what a failure prints.

Ranges of seeds go to the processes; their order says nothing, for a seed depends on nothing but its number. Only the
Python version matters besides: what is ready in one turn may differ between two of them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Final

from distribank.simulation.campaign import SITUATIONS, Failed, simulate
from distribank.simulation.chronicle import Chronicle

AT_ONCE: Final = 20
"""Seeds that one process runs before it says what came of them."""
ENOUGH: Final = 1000
"""So many seeds have to reach every situation."""


@dataclass
class Sums:
    """What came of a number of seeds. *cpu* and *virtual* are in seconds; *failed* maps seeds to why, in words."""

    seeds: int = 0
    transfers: int = 0
    snapshots: int = 0
    virtual: float = 0.0
    cpu: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, other: Sums) -> None:
        self.seeds += other.seeds
        self.transfers += other.transfers
        self.snapshots += other.snapshots
        self.virtual += other.virtual
        self.cpu += other.cpu
        self.failed |= other.failed
        self.seen += other.seen

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        figures = {"seeds": self.seeds, "transfers": self.transfers, "snapshots": self.snapshots}
        times = {"virtual": round(self.virtual, 1), "cpu": round(self.cpu, 1)}
        return {**figures, **times, "failed": self.failed, "seen": dict(sorted(self.seen.items()))}

    def never(self) -> list[str]:
        """The situations that were not reached, where there were enough seeds to expect them."""
        return sorted(what for what in SITUATIONS if not self.seen[what]) if self.seeds >= ENOUGH else []


def run_range(seeds: range) -> Sums:
    """Run these seeds here, one after the other."""
    sums = Sums()
    for seed in seeds:
        sums.seeds += 1
        try:
            ran, _ = simulate(seed)
        except Failed as failed:
            sums.failed[seed] = f"{type(failed.why).__name__}: {failed.why}"
            continue
        sums.add(Sums(0, ran.attempted, ran.snapshots, ran.virtual, ran.real, seen=ran.seen))
    return sums


def run_many(seeds: range, jobs: int) -> Iterator[Sums]:
    """Run these seeds in so many processes; sums of some of them, as they come. Ends early behind a failure."""
    parts = [seeds[start : start + AT_ONCE] for start in range(0, len(seeds), AT_ONCE)]
    if jobs == 1 or len(parts) == 1:
        for part in parts:
            sums = run_range(part)
            yield sums
            if sums.failed:
                return
        return
    parts.reverse()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        running: set[Future[Sums]] = set()
        stop = False
        while running or (parts and not stop):
            while parts and len(running) < 2 * jobs and not stop:
                running.add(pool.submit(run_range, parts.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                sums = future.result()
                stop = stop or bool(sums.failed)
                yield sums


def end_with_parent() -> None:
    """From now on this process ends when the one does that started it, however that ends."""
    parent = parent_process()
    assert parent is not None, "only a process that another one started has a parent here"

    def wait_for_it() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait_for_it, daemon=True).start()


# The record -------------------------------------------------------------------------------------------------------


class Record:
    """A file with a line of JSON for each range of seeds that was run: what stands there need not be run again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def missing(self, seeds: range, size: int = 1000) -> list[range]:
        """The parts of *seeds*, *size* at a time, that no line covers."""
        done = {line["first"] for line in self.lines() if line["seeds"] == size and not line["failed"]}
        parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        return [part for part in parts if part[0] not in done]

    def append(self, seeds: range, sums: Sums, wall: float) -> None:
        line = {"first": seeds[0], **sums.as_json(), "wall": round(wall, 1), **where()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def total(self) -> Sums:
        """All lines together."""
        total = Sums()
        for line in self.lines():
            kept = {name: line[name] for name in ("seeds", "transfers", "snapshots", "virtual", "cpu")}
            total.add(Sums(**kept, failed=line["failed"], seen=Counter(line["seen"])))
        return total


def where() -> dict[str, str]:
    """What a seed's course depends on besides its number."""
    hash_seed = os.environ.get("PYTHONHASHSEED", "random")
    return {"revision": revision(), "python": platform.python_version(), "hash_seed": hash_seed}


def revision() -> str:
    """The git revision of this code, with ``+`` if it was changed since; ``unknown`` outside a clone."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", str(here.parent)) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(here: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607


# A failure --------------------------------------------------------------------------------------------------------


def story(seed: int) -> str:
    """Run *seed* again and tell what failed, where, how to see it again, and what became of what is concerned."""
    try:
        simulate(seed)
    except Failed as failed:
        return "\n".join(_told(failed))
    return f"Seed {seed} holds in this process."


def _told(failed: Failed) -> Iterator[str]:
    at = where()
    words = f"{type(failed.why).__name__}: {failed.why}"
    yield f"Seed {failed.seed} does not hold: {words}"
    yield f"revision {at['revision']}, Python {at['python']}, PYTHONHASHSEED={at['hash_seed']}"
    yield f"replay:  {replay(failed.seed)}"
    yield ""
    about = set(re.findall(r"\d{8}\.[0-9a-f]{32}\.[0-9a-f]{32}", words))
    if about:
        yield f"What was said and written of {len(about)} transactions, and what befell the banks:"
        yield from failed.chronicle.lines(about)
    else:
        yield "How it ended:"
        yield from failed.chronicle.lines(last=100)


def replay(seed: int) -> str:
    """The command that shows *seed* again."""
    return f"PYTHONHASHSEED=0 {Path(sys.executable).name} -m distribank simulate --seed {seed} --transcript {seed}.txt"


def transcript(seed: int) -> tuple[Chronicle, Failed | None]:
    """Everything that happens in *seed*, and how it failed, if it did."""
    try:
        return simulate(seed)[1], None
    except Failed as failed:
        return failed.chronicle, failed


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
